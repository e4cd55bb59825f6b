"""Rolls as MusicXML, to be opened as scores; written by music21 (Cuthbert and Ariza 2010)."""

from pathlib import Path
from typing import Any

import numpy as np

from keys import find_key
from settings import LOWEST

MIDDLE_C = 60 - LOWEST  # the column that the upper staff starts from
METRES = {3: "3/4", 4: "4/4"}  # by beats
CHANGES = 16  # of the lowest note; fewer tell nothing of the metre
CLEARLY = 1.2  # three beats must fit better than four by this factor


def write_score(path: Path, roll: np.ndarray, frame_beats: float, bpm: float, title: str) -> None:
    """Write a roll, (T, 88) bool, as MusicXML: two staves, divided at middle C.

    A key held over frames is one note, tied where the notes beside it change.
    """
    from music21 import clef, key, layout, metadata, meter, stream, tempo  # seconds to import

    found, score = find_key(roll), stream.Score()
    score.metadata = metadata.Metadata(title=title, composer="PianoLSTM")
    staves = []
    for name, keys in (("upper", slice(MIDDLE_C, None)), ("lower", slice(None, MIDDLE_C))):
        staff = stream.PartStaff(id=name)
        staff.append(clef.TrebleClef() if name == "upper" else clef.BassClef())
        if found is not None:
            tonic = str(found).rstrip("m").replace("b", "-")
            staff.append(key.Key(tonic, "minor" if found.minor else "major"))
        staff.append(meter.TimeSignature(METRES[beats_per_bar(roll, frame_beats)]))
        if name == "upper":
            staff.append(tempo.MetronomeMark(number=bpm))
        masked = np.zeros_like(roll)
        masked[:, keys] = roll[:, keys]
        add_notes(staff, masked, frame_beats)
        staves.append(staff)
        score.insert(0, staff)
    score.insert(0, layout.StaffGroup(staves, symbol="brace", barTogether=True))
    score.write("musicxml", fp=str(path))


def add_notes(staff: Any, roll: np.ndarray, frame_beats: float) -> None:
    """Append a chord or a rest to a staff for every stretch of equal frames, held notes tied."""
    from music21 import chord, note, tie

    starts = [0, *(np.flatnonzero((roll[1:] != roll[:-1]).any(axis=1)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(roll)], strict=True):
        length = (end - start) * frame_beats
        sounding = np.flatnonzero(roll[start])
        if not len(sounding):
            staff.append(note.Rest(quarterLength=length))
            continue
        notes = []
        for k in sounding.tolist():
            made = note.Note(k + LOWEST, quarterLength=length)
            before = start > 0 and roll[start - 1, k]
            after = end < len(roll) and roll[end, k]
            if before or after:
                kind = "continue" if before and after else "stop" if before else "start"
                made.tie = tie.Tie(kind)
            notes.append(made)
        staff.append(notes[0] if len(notes) == 1 else chord.Chord(notes, quarterLength=length))


def beats_per_bar(roll: np.ndarray, frame_beats: float) -> int:
    """Return 3 or 4: bars of how many beats the lowest note changes with; 4 where nothing tells.

    For either, and for each place of the first bar line, how many times more often than by chance
    do the changes fall on a bar line?
    """
    lowest = np.where(roll.any(axis=1), roll.argmax(axis=1), -1)
    changes = np.flatnonzero(lowest[1:] != lowest[:-1]) + 1

    def lift(beats: int) -> float:
        frames = max(1, round(beats / frame_beats))
        return float(np.bincount(changes % frames, minlength=1).max()) * frames

    return 3 if len(changes) >= CHANGES and lift(3) > CLEARLY * lift(4) else 4
