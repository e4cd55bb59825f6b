"""Parts of a piece: melody and chords, the voices of a chorale, and what is estimated."""

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.parts import all_notes, complete, generated_notes, split_parts, whole_roll
from pianolstm.piece import Metre, Note, Piece
from pianolstm.tonality import Key


def pitches(notes: list[Note]) -> list[int]:
    return [note.pitch for note in notes]


def test_the_notes_of_a_roll_are_its_held_pitches_by_time() -> None:
    piece = Piece(roll_from({60}, {60, 64}, {64}, {60}), 0.5)
    assert generated_notes(piece, velocity=33) == [
        (0, 1, 60, 33), (0.5, 1.5, 64, 33), (1.5, 2, 60, 33)
    ]  # fmt: skip
    given = Note(0.25, 0.3, 90, 7)
    assert given in all_notes(Piece(piece.roll, 0.5, given=(given,)))


def test_the_whole_roll_has_given_notes_in_a_frame_at_least() -> None:
    given = (Note(0.1, 0.2, 72), Note(2.0, 3.0, 60), Note(0, 1, 12))
    piece = Piece(roll_from({60}, {62}), 0.5, given=given)
    expected = roll_from({60, 72}, {62}, set(), set(), {60}, {60})
    np.testing.assert_array_equal(whole_roll(piece), expected)


def test_the_melody_is_what_is_highest_as_long_as_it_sounds() -> None:
    notes = [Note(0, 2, 60), Note(0, 2, 64), Note(0, 1, 76), Note(1, 2, 72), Note(1.5, 3, 55)]
    melody, chords = split_parts(notes, four_voices=False)
    assert (melody.name, chords.name) == ("Melody", "Chords")
    assert pitches(melody.notes) == [76, 72]
    assert sorted(pitches(chords.notes)) == [55, 60, 64]


def test_no_notes_are_empty_parts() -> None:
    assert [part.notes for part in split_parts([], four_voices=False)] == [[], []]
    assert [part.notes for part in split_parts([], four_voices=True)] == [[], [], [], []]


@pytest.mark.parametrize("octave", [-12, 0, 12])
def test_the_voices_of_a_chorale_follow_their_lines_at_any_pitch(octave: int) -> None:
    lines = [[72, 74, 76, 74], [67, 67, 67, 65], [64, 62, 60, 62], [48, 47, 48, 50]]
    notes = [Note(t, t + 1, pitch + octave) for line in lines for t, pitch in enumerate(line)]
    del notes[6]  # the alto rests on the third beat
    parts = split_parts(notes, four_voices=True)
    assert [part.name for part in parts] == ["Soprano", "Alto", "Tenor", "Bass"]
    lines[1].pop(2)
    assert [[p - octave for p in pitches(part.notes)] for part in parts] == lines


def test_a_pitch_that_another_voice_takes_over_is_parted() -> None:
    # The roll joins the alto's G and the G that the soprano sings next.
    roll = roll_from({48, 60, 67, 72}, {48, 60, 64, 67}, {48, 60, 64, 67})
    soprano, alto, *_ = split_parts(generated_notes(Piece(roll, 1.0)), four_voices=True)
    assert pitches(soprano.notes) == [72, 67]
    assert pitches(alto.notes) == [67, 64]
    assert (alto.notes[0].end, soprano.notes[1].start) == (1, 1)


def test_the_voices_hold_every_frame_of_the_roll_once() -> None:
    roll = np.random.default_rng(3).random((64, 88)) < 0.06
    parts = split_parts(generated_notes(Piece(roll, 1.0)), four_voices=True)
    cells = [
        (t, n.pitch - 21) for p in parts for n in p.notes for t in range(int(n.start), int(n.end))
    ]
    assert len(cells) == len(set(cells)) == roll.sum()
    assert all(roll[cell] for cell in cells)


def test_metre_and_key_are_estimated_only_where_they_are_missing() -> None:
    scale = roll_from(*[{pitch} for pitch in (62, 64, 66, 67, 69, 71, 73, 74)] * 2)
    assert complete(Piece(scale, 0.5)).key == Key(2, False)
    assert complete(Piece(scale, 0.5)).metre is not None
    known = Piece(scale, 0.5, metre=Metre(7, 8, 0.5), key=Key(3, True))
    assert complete(known).key == Key(3, True)
    assert complete(known).metre == Metre(7, 8, 0.5)
    assert complete(Piece(roll_from(set(), set()), 0.5)).key is None
