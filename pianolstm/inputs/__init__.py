"""Reads data sets from files, folders of MIDI files, the network and music21, as packed rolls."""
