"""MusicXML: parsed again it is the roll, with ties, key, meter, tempo and title."""

from pathlib import Path

import music21
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import roll_from
from pianolstm.outputs.musicxml import estimate_beats_per_bar, write_musicxml


def parse(path: Path, frames: int, frame_beats: float) -> np.ndarray:
    """Return the roll of a MusicXML file as music21 reads it."""
    roll = np.zeros((frames, 88), dtype=bool)
    for element in music21.converter.parse(path).flatten().notes:
        start = round(float(element.offset) / frame_beats)
        end = round(float(element.offset + element.quarterLength) / frame_beats)
        for pitch in element.pitches:
            roll[start:end, pitch.midi - 21] = True
    return roll


@settings(max_examples=12)
@given(
    st.lists(st.sets(st.integers(21, 108), max_size=5), min_size=1, max_size=24),
    st.sampled_from([0.25, 0.5, 1.0]),
)
def test_the_file_holds_the_roll(tmp_path: Path, notes: list[set[int]], frame_beats: float) -> None:
    roll, path = roll_from(*notes), tmp_path / "sample.musicxml"
    write_musicxml(path, roll, frame_beats, 100.0, "a title")
    np.testing.assert_array_equal(parse(path, len(roll), frame_beats), roll)


def test_a_held_note_is_tied_where_other_notes_change(tmp_path: Path) -> None:
    path = tmp_path / "sample.musicxml"
    write_musicxml(path, roll_from({60, 64}, {60, 65}, {60}, {62}), 0.5, 100.0, "t")
    upper = music21.converter.parse(path).parts[0]
    ties = [
        [note.tie.type if note.tie else None for note in chord.notes if note.pitch.midi == 60]
        for chord in upper.flatten().notes
        if isinstance(chord, music21.chord.Chord)
    ]
    assert ties == [["start"], ["continue"]]


def test_the_score_has_two_staves_a_key_a_meter_a_tempo_and_a_title(tmp_path: Path) -> None:
    path = tmp_path / "sample.musicxml"
    scale = [{note} for note in (67, 69, 71, 72, 74, 76, 78, 79)]
    write_musicxml(path, roll_from(*scale, {43, 67, 71, 74}), 0.5, 90.0, "In G")
    score = music21.converter.parse(path)
    assert len(score.parts) == 2
    for part in score.parts:
        assert part.flatten().getElementsByClass("KeySignature")[0].sharps == 1
        assert part.flatten().getElementsByClass("TimeSignature")[0].ratioString == "4/4"
    assert [mark.number for mark in score.flatten().getElementsByClass("MetronomeMark")] == [90]
    assert score.metadata.bestTitle == "In G"


@pytest.mark.parametrize("frame_beats", [0.5, 1.0])
@pytest.mark.parametrize("pickup", [0, 1])
@pytest.mark.parametrize("beats", [3, 4])
def test_bars_have_the_length_at_which_the_bass_changes(
    beats: int, pickup: int, frame_beats: float
) -> None:
    bar, generator = round(beats / frame_beats), np.random.default_rng(beats)
    notes: list[set[int]] = [{72}] * pickup
    for bass in [36, 41, 43, 38, 45, 40, 36, 43] * 3:
        # The bass on the first beat, chords on the others, and a melody that ignores the bars.
        beat = round(1 / frame_beats)
        accompaniment = [{bass}] * beat + [{bass + 12, bass + 16}] * (bar - beat)
        notes += [chord | {int(generator.integers(70, 80))} for chord in accompaniment]
    assert estimate_beats_per_bar(roll_from(*notes), frame_beats) == beats


@pytest.mark.parametrize("roll", [roll_from(), roll_from(*[{60}] * 90), roll_from({60}, {62})])
def test_bars_have_four_beats_if_the_bass_hardly_changes(roll: np.ndarray) -> None:
    assert estimate_beats_per_bar(roll, 0.5) == 4
