"""Writes samples, plots and reports: MIDI, audio, MusicXML, PNG, HTML and tables."""
