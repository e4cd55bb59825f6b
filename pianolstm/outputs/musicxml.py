"""Rolls as MusicXML, for notation programs; written by music21 (Cuthbert and Ariza 2010)."""

from pathlib import Path
from typing import Any

import numpy as np

from pianolstm.rolls import LOWEST_PITCH
from pianolstm.tonality import estimate_key

_MIDDLE_C = 60 - LOWEST_PITCH  # column; the upper staff holds middle C and all higher pitches
_MIN_CHANGES = 16  # of the lowest note; fewer say nothing about the meter
_MIN_RATIO = 1.2  # 3/4 is chosen only if it fits better than 4/4 by this factor


def write_musicxml(
    path: Path, roll: np.ndarray, frame_beats: float, bpm: float, title: str
) -> None:
    """Write a roll as MusicXML: two staves, divided at middle C, with key, meter and tempo.

    A note held over several frames is one note, tied where other notes of its staff change.

    Args:
        path: the file to write.
        roll: (T, 88) bool.
        frame_beats: length of a frame in beats; a beat is a quarter note.
        bpm: tempo in beats per minute.
        title: title of the score.
    """
    from music21 import clef, key, layout, metadata, meter, stream, tempo  # seconds to import

    tonality, score = estimate_key(roll), stream.Score()
    score.metadata = metadata.Metadata(title=title, composer="PianoLSTM")
    staves = []
    for name, columns in (("upper", slice(_MIDDLE_C, None)), ("lower", slice(None, _MIDDLE_C))):
        staff = stream.PartStaff(id=name)
        staff.append(clef.TrebleClef() if name == "upper" else clef.BassClef())
        if tonality is not None:
            tonic = str(tonality).rstrip("m").replace("b", "-")  # music21 writes a flat as "-"
            staff.append(key.Key(tonic, "minor" if tonality.minor else "major"))
        staff.append(meter.TimeSignature(f"{estimate_beats_per_bar(roll, frame_beats)}/4"))
        if name == "upper":
            staff.append(tempo.MetronomeMark(number=bpm))
        staff_roll = np.zeros_like(roll)
        staff_roll[:, columns] = roll[:, columns]
        _append_notes(staff, staff_roll, frame_beats)
        staves.append(staff)
        score.insert(0, staff)
    score.insert(0, layout.StaffGroup(staves, symbol="brace", barTogether=True))
    score.write("musicxml", fp=str(path))


def _append_notes(staff: Any, roll: np.ndarray, frame_beats: float) -> None:
    """Append a note, a chord or a rest to a music21 staff for each run of equal frames."""
    from music21 import chord, note, tie

    starts = [0, *(np.flatnonzero((roll[1:] != roll[:-1]).any(axis=1)) + 1).tolist()]
    for start, end in zip(starts, [*starts[1:], len(roll)], strict=True):
        length = (end - start) * frame_beats
        columns = np.flatnonzero(roll[start]).tolist()
        if not columns:
            staff.append(note.Rest(quarterLength=length))
            continue
        notes = []
        for column in columns:
            element = note.Note(column + LOWEST_PITCH, quarterLength=length)
            before = start > 0 and roll[start - 1, column]
            after = end < len(roll) and roll[end, column]
            if before or after:
                kind = "continue" if before and after else "stop" if before else "start"
                element.tie = tie.Tie(kind)
            notes.append(element)
        staff.append(notes[0] if len(notes) == 1 else chord.Chord(notes, quarterLength=length))


def estimate_beats_per_bar(roll: np.ndarray, frame_beats: float) -> int:
    """Return 3 or 4, the number of beats after which the lowest note tends to change.

    For both bar lengths, and every offset of the first bar line, it compares how many changes of
    the lowest note fall on a bar line with the number expected by chance.

    Args:
        roll: (T, 88) bool.
        frame_beats: length of a frame in beats.

    Returns:
        Beats per bar; 4 if there are fewer than 16 changes or 3 is not clearly better.
    """
    lowest = np.where(roll.any(axis=1), roll.argmax(axis=1), -1)
    changes = np.flatnonzero(lowest[1:] != lowest[:-1]) + 1

    def fit(beats: int) -> float:
        frames = max(1, round(beats / frame_beats))
        return float(np.bincount(changes % frames, minlength=1).max()) * frames

    return 3 if len(changes) >= _MIN_CHANGES and fit(3) > _MIN_RATIO * fit(4) else 4
