"""Metre: time signature and upbeat, of music made for it and of the MIDI files of Nottingham."""

from collections import Counter
from pathlib import Path

import numpy as np
import pretty_midi
import pytest

from pianolstm.metre import estimate_metre
from pianolstm.piece import Metre

Notes = list[tuple[float, float, int]]
RHYTHMS = {  # of two bars of melody, in beats
    "4/4": [1, 0.5, 0.5, 1, 0.5, 0.5, 1.5, 0.5, 1, 1],
    "3/4": [1, 0.5, 0.5, 1, 2, 1],
    "6/8": [1, 0.5, 1, 0.5, 0.5, 0.5, 0.5, 1.5],
    "9/8": [1, 0.5, 1, 0.5, 1, 0.5, 0.5, 0.5, 0.5, 1, 0.5, 1.5],
}


def tune(metre: str, upbeat: float = 0.0, bars: int = 16, *, chords: bool = True) -> Notes:
    """Return a melody of this metre over a chord in each bar."""
    numerator, denominator = map(int, metre.split("/"))
    size = numerator * 4 / denominator
    notes: Notes = [(0.0, upbeat, 74)] if upbeat else []
    generator = np.random.default_rng(numerator)
    time = upbeat
    for length in RHYTHMS[metre] * (bars // 2):
        notes.append((time, time + length, int(generator.integers(70, 85))))
        time += length
    for bar in range(bars * chords):
        start, root = upbeat + bar * size, [48, 53, 55, 45][bar % 4]
        notes += [(start, start + size, root + step) for step in (0, 4, 7)]
    return notes


@pytest.mark.parametrize("chords", [True, False])
@pytest.mark.parametrize("metre", ["4/4", "3/4", "6/8"])
def test_the_time_signature_is_found_with_and_without_chords(metre: str, chords: bool) -> None:
    assert str(estimate_metre(tune(metre, chords=chords))) == metre


@pytest.mark.parametrize("upbeat", [0.0, 0.5, 1.0])
@pytest.mark.parametrize("metre", ["4/4", "3/4", "6/8", "9/8"])
def test_the_upbeat_is_found(metre: str, upbeat: float) -> None:
    found = estimate_metre(tune(metre, upbeat))
    assert (str(found), found.upbeat) == (metre, upbeat)


@pytest.mark.parametrize("upbeat", [0.0, 0.5, 1.0])
def test_with_a_known_time_signature_the_upbeat_is_found(upbeat: float) -> None:
    notes = tune("3/4", upbeat)
    assert estimate_metre(notes, (3, 4)) == Metre(3, 4, upbeat)
    assert str(estimate_metre(notes, (12, 8))) == "12/8"
    assert str(estimate_metre(notes, (5, 4))) == "5/4"


def test_a_piece_that_starts_between_the_eighth_notes_has_its_bars_there() -> None:
    notes = [(start + 0.25, end + 0.25, pitch) for start, end, pitch in tune("4/4")]
    assert estimate_metre(notes) == Metre(4, 4, 0.25)


def test_few_notes_are_in_common_time_or_the_known_one() -> None:
    few = [(float(i), i + 1.0, 60) for i in range(7)]
    assert estimate_metre(few) == estimate_metre([]) == Metre(4, 4)
    assert estimate_metre(few, (6, 8)) == Metre(6, 8)


def test_a_chorale_of_quarter_notes_has_its_cadences_on_strong_beats() -> None:
    notes: Notes = []
    for start in range(0, 64, 8):  # phrases of an upbeat, six quarter notes and a held chord
        for beat in range(7):
            length = 2.0 if beat == 6 else 1.0
            time = float(start + beat)
            notes += [(time, time + length, pitch + beat % 3) for pitch in (72, 65, 60, 48)]
    assert estimate_metre(notes, chorale=True) == Metre(4, 4, 2.0)


def beats(midi: pretty_midi.PrettyMIDI, seconds: float) -> float:
    return float(midi.time_to_tick(seconds) / midi.resolution)


@pytest.mark.filterwarnings("ignore:Tempo, Key or Time signature:RuntimeWarning")
def test_most_tunes_of_nottingham_have_their_own_metre_and_upbeat(data_dir: Path) -> None:
    files = sorted((data_dir / "nottingham-midi" / "test").glob("*.mid"))
    if not files:
        pytest.skip("PIANO_DATA_DIR has no nottingham-midi/test")
    right: Counter[str] = Counter()
    for path in files:
        midi = pretty_midi.PrettyMIDI(str(path))
        parts = [
            [(beats(midi, note.start), beats(midi, note.end), note.pitch) for note in track.notes]
            for track in midi.instruments
        ]
        found = estimate_metre([note for part in parts for note in part])
        signature = midi.time_signature_changes[0]
        true = Metre(signature.numerator, signature.denominator)
        right["metre"] += str(found) == str(true)
        chords = [note[0] for part in parts[1:] for note in part]  # none begins in an upbeat
        right["upbeat"] += bool(chords) and abs(min(chords) % true.bar_beats - found.upbeat) < 0.05
        right["6/8 as 3/4"] += str(true) == "6/8" and str(found) == "3/4"
    assert len(files) == 170
    assert right["metre"] >= 0.93 * 170
    assert right["upbeat"] >= 0.88 * 170
    assert right["6/8 as 3/4"] <= 3
