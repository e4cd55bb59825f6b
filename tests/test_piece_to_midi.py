"""A piece as MIDI: tracks, signatures, given notes to the tick, and the roll read back."""

from pathlib import Path

import mido
import numpy as np
import pretty_midi
import pytest

from helpers import roll_from
from pianolstm.midi import piece_to_midi, read_midi
from pianolstm.piece import Metre, Note, Piece
from pianolstm.tonality import Key

EMPTY = np.zeros((0, 88), dtype=bool)


def written(piece: Piece, folder: Path, velocity: int = 80, program: int = 0) -> Path:
    path = folder / "piece.mid"
    piece_to_midi(piece, velocity, program).write(str(path))
    return path


@pytest.mark.parametrize("four_voices", [False, True])
@pytest.mark.parametrize("frame_beats", [0.25, 1 / 3, 0.5, 1.0])
def test_the_roll_is_read_back_cell_for_cell(
    tmp_path: Path, frame_beats: float, four_voices: bool
) -> None:
    roll = np.random.default_rng(1).random((60, 88)) < 0.06
    roll[-5:] = False  # silence at the end is kept
    piece = Piece(roll, frame_beats, bpm=97.3, four_voices=four_voices)
    read, _ = read_midi(written(piece, tmp_path), frame_beats)
    np.testing.assert_array_equal(read, roll)


def test_each_part_has_a_track_with_its_name_instrument_and_velocity(tmp_path: Path) -> None:
    piece = Piece(roll_from({48, 52, 72}, {48, 52, 74}), 0.5)
    midi = pretty_midi.PrettyMIDI(str(written(piece, tmp_path, 33, 40)))
    tracks = [(t.name, t.program, [n.pitch for n in t.notes]) for t in midi.instruments]
    assert tracks == [("Melody", 40, [72, 74]), ("Chords", 40, [48, 52])]
    assert {note.velocity for track in midi.instruments for note in track.notes} == {33}
    chorale = Piece(roll_from({48, 60, 67, 76}), 1.0, four_voices=True)
    midi = pretty_midi.PrettyMIDI(str(written(chorale, tmp_path)))
    assert [t.name for t in midi.instruments] == ["Soprano", "Alto", "Tenor", "Bass"]


def test_tempo_time_and_key_signature_are_those_of_the_piece(tmp_path: Path) -> None:
    piece = Piece(roll_from({60}), 0.5, bpm=90.0, metre=Metre(6, 8), key=Key(9, True))
    midi = pretty_midi.PrettyMIDI(str(written(piece, tmp_path)))
    assert midi.get_tempo_changes()[1].tolist() == pytest.approx([90], rel=1e-5)
    (signature,) = midi.time_signature_changes
    assert (signature.numerator, signature.denominator, signature.time) == (6, 8, 0)
    (key,) = midi.key_signature_changes
    assert pretty_midi.key_number_to_key_name(key.key_number) == "A minor"


@pytest.mark.parametrize(
    ("metre", "first", "beat"),
    [
        (Metre(6, 8, 0.5), (1, 8), 0.5),
        (Metre(4, 4, 1.0), (1, 4), 1),
        (Metre(3, 4, 2.5), (5, 8), 2.5),
    ],
)
def test_an_upbeat_is_a_bar_of_its_own(
    tmp_path: Path, metre: Metre, first: tuple[int, int], beat: float
) -> None:
    path = written(Piece(roll_from({60}), 0.5, metre=metre, bpm=60.0), tmp_path)
    signatures = pretty_midi.PrettyMIDI(str(path)).time_signature_changes
    assert [(s.numerator, s.denominator) for s in signatures] == [
        first, (metre.numerator, metre.denominator)
    ]  # fmt: skip
    assert signatures[1].time == pytest.approx(beat)


@pytest.mark.parametrize("divisor", [4, 3, 5, 7, 32])
def test_given_notes_are_written_to_the_tick_on_a_track_of_their_own(
    tmp_path: Path, divisor: int
) -> None:
    notes = [(i / divisor, (i + 1) / divisor, 60 + i % 2, 20 + i) for i in range(20)]
    piece = Piece(roll_from({60}, {60}), 0.5, given=tuple(Note(*note) for note in notes))
    file = mido.MidiFile(written(piece, tmp_path))
    (track,) = [t for t in file.tracks if t.name == "Given"]
    time, ons, offs = 0, [], []
    for message in track:
        time += message.time
        if message.type in ("note_on", "note_off"):
            is_on = message.type == "note_on" and message.velocity > 0
            beats = time / file.ticks_per_beat
            (ons if is_on else offs).append((beats, message.note, message.velocity))
    assert [on[1:] for on in ons] == [note[2:] for note in notes]
    assert [on[0] for on in ons] == pytest.approx([note[0] for note in notes], abs=1e-9)
    assert [off[0] for off in offs] == pytest.approx([note[1] for note in notes], abs=1e-9)


def test_given_notes_of_one_pitch_that_overlap_have_tracks_of_their_own(tmp_path: Path) -> None:
    piece = Piece(EMPTY, 0.5, bpm=60.0, given=(Note(0, 4, 60), Note(1, 2, 60), Note(4, 5, 60)))
    midi = pretty_midi.PrettyMIDI(str(written(piece, tmp_path)))
    found = {t.name: [(n.start, n.end) for n in t.notes] for t in midi.instruments}
    assert found == {
        "Given": [pytest.approx((0, 4)), pytest.approx((4, 5))],
        "Given 2": [pytest.approx((1, 2))],
    }
