"""Metrics of pieces and of data sets: numbers only, no files and no plots."""
