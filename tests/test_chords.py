"""Chord symbols, progressions with repeats, and sampling over them."""

import itertools
from pathlib import Path

import numpy as np
import pytest
import torch

import generate
from generate import sample, sample_rolls
from helpers import call, roll_from, steps_of
from helpers_sampling import HEADS, sampling_model
from pianolstm.chords import (
    NO_CHORD,
    QUALITIES,
    candidates,
    in_chord_share,
    joint_log_probs,
    over_chords,
    parse_chord,
    parse_progression,
)
from pianolstm.files import InputError
from pianolstm.rolls import PITCHES
from pianolstm.runtime import make_generators
from pianolstm.tonality import Key

ROOTS = [letter + sign for letter in "CDEFGAB" for sign in ("", "#", "b")]

# ---- symbols -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("symbol", "classes", "bass"),
    [
        ("C", {0, 4, 7}, 0),
        ("Am", {9, 0, 4}, 9),
        ("F#m", {6, 9, 1}, 6),
        ("Bb7", {10, 2, 5, 8}, 10),
        ("G7", {7, 11, 2, 5}, 7),
        ("Cmaj7", {0, 4, 7, 11}, 0),
        ("Dm7b5", {2, 5, 8, 0}, 2),
        ("Bdim", {11, 2, 5}, 11),
        ("E+", {4, 8, 0}, 4),
        ("Gsus4", {7, 0, 2}, 7),
        ("C/E", {0, 4, 7}, 4),
        ("D/C", {2, 6, 9, 0}, 0),
        ("Am7/G", {9, 0, 4, 7}, 7),
        ("Cb", {11, 3, 6}, 11),
        ("N.C.", set(), 0),
    ],
)
def test_a_symbol_is_its_pitch_classes_and_its_bass(
    symbol: str, classes: set[int], bass: int
) -> None:
    chord = parse_chord(symbol)
    assert (set(chord.classes), chord.bass) == (classes, bass)


@pytest.mark.parametrize("word", ["H7", "c", "C//E", "C/", "Cmaj13#11", "/E", "7", "Am7/H", "C E"])
def test_a_word_that_is_no_chord_is_named_with_examples(word: str) -> None:
    with pytest.raises(ValueError, match=r"is no chord; write for example C, F#m, G7") as refused:
        parse_chord(word)
    assert repr(word) in str(refused.value)


def test_every_symbol_can_be_voiced_with_its_bass_lowest_and_its_own_notes_alone() -> None:
    names = [name for names in QUALITIES.values() for name in names.split("|")]
    assert len(names) == len(set(names))
    for root, quality, bass in itertools.product(("C", "F#", "B"), names, ("", "/C", "/Eb")):
        chord = parse_chord(root + quality + bass)
        accompaniments, fits = candidates(chord)
        assert len(accompaniments) and fits.any(dim=1).all()
        for accompaniment in accompaniments:
            pitches = [int(column) + 21 for column in accompaniment.nonzero()]
            assert pitches[0] % 12 == chord.bass
            assert {pitch % 12 for pitch in pitches} <= chord.classes


def test_a_chord_and_its_melody_have_every_note_but_the_fifth_of_a_fuller_chord() -> None:
    for symbol, needed in (("C", {0, 4, 7}), ("G7", {7, 11, 5}), ("C5", {0, 7})):
        accompaniments, fits = candidates(parse_chord(symbol))
        for accompaniment, melodies in zip(accompaniments, fits, strict=True):
            below = {(int(column) + 21) % 12 for column in accompaniment.nonzero()}
            highest = int(accompaniment.nonzero()[-1])
            for melody in melodies.nonzero()[:, 0].tolist():
                assert melody == 0 or melody - 1 > highest
                assert needed <= below | ({(melody + 20) % 12} if melody else set())


# ---- progressions --------------------------------------------------------------------------------


def roots(text: str, bar_beats: float = 4.0, frame_beats: float = 1.0) -> list[int]:
    """Return the root of each frame."""
    return [chord.root for chord in parse_progression(text, bar_beats, frame_beats).chords]


@pytest.mark.parametrize(
    ("text", "bar_beats", "expected"),
    [
        ("C | Am F | G7 | C", 4, [0] * 4 + [9, 9, 5, 5] + [7] * 4 + [0] * 4),
        ("| C | F |", 3, [0] * 3 + [5] * 3),
        ("C F G", 3, [0, 5, 7]),
        ("C / G", 3, [0, 0, 7]),
        ("C . . F", 4, [0, 0, 0, 5]),
        ("C | / F", 4, [0] * 6 + [5] * 2),
        ("C G | % | F", 2, [0, 7, 0, 7, 5, 5]),
        ("C\nF\n\nG |", 2, [0, 0, 5, 5, 7, 7]),
        ("C || F ||", 1, [0, 5]),
        ("C F G", 6 / 2, [0, 5, 7]),
        ("|: C | F :| G", 1, [0, 5, 0, 5, 7]),
        ("C | F :| G", 1, [0, 5, 0, 5, 7]),
        ("C |: F :|: G :| D", 1, [0, 5, 5, 7, 7, 2]),
        ("|: C |1 F :|2 G | D", 1, [0, 5, 0, 7, 2]),
        ("|: C |[1 F :|[2 G |: A :|", 1, [0, 5, 0, 7, 9, 9]),
        ("|: C |1. F :|2. G :|3. D ||", 1, [0, 5, 0, 7, 0, 2]),
    ],
)
def test_bars_share_their_time_and_repeats_are_played_as_written(
    text: str, bar_beats: float, expected: list[int]
) -> None:
    assert roots(text, bar_beats) == expected


def test_a_repeat_sign_repeats_the_frames_and_a_written_out_repeat_does_not() -> None:
    signs = parse_progression("|: C | F :| G", 2, 1.0)
    assert signs.repeats == (-1, -1, -1, -1, 0, 1, 2, 3, -1, -1)
    assert set(parse_progression("C | F | C | F | G", 2, 1.0).repeats) == {-1}


@pytest.mark.parametrize(
    ("text", "bar_beats", "frames", "off_grid"),
    [("C F", 3, [0, 0, 0, 5, 5, 5], 0), ("C F", 2.5, [0, 0, 0, 5, 5], 1)],
)
def test_changes_between_frames_move_to_the_nearest_and_are_counted(
    text: str, bar_beats: float, frames: list[int], off_grid: int
) -> None:
    progression = parse_progression(text, bar_beats, 0.5)
    assert [chord.root for chord in progression.chords] == frames
    assert progression.off_grid == off_grid


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "there are no chords"),
        (" | | ", "there are no chords"),
        ("% | C", "'%' repeats"),
        ("C | H | G", "'H' is no chord"),
        ("C : G", "':' stands beside a bar line"),
        ("C | C D E F G", "bar 2 has 5 chords"),
    ],
)
def test_a_text_that_is_no_progression_is_refused(text: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_progression(text, 4, 1.0)


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("C | Am F | G7 | C", Key(0, False)),
        ("Am | Dm | E7 | Am", Key(9, True)),
        ("Dm7 G7 | Cmaj7 | Dm7 G7 | Cmaj7", Key(0, False)),
        ("Eb | Cm Ab | Bb7 | Eb", Key(3, False)),
        ("Em | C | G | D | Em | B7 | Em", Key(4, True)),
        ("N.C.", None),
    ],
)
def test_the_key_of_a_progression(text: str, key: Key | None) -> None:
    assert parse_progression(text, 4, 1.0).key() == key


# ---- sampling ------------------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", HEADS.values(), ids=HEADS)
@torch.no_grad()
def test_the_probability_of_every_allowed_frame_is_the_heads(sizes: dict[str, int]) -> None:
    model = sampling_model(**sizes)
    allowed = candidates(parse_chord("G7/B"))
    frames = torch.zeros(1, 3, PITCHES)
    frames[0, 1] = allowed.accompaniments[0]  # which followed silence, and is allowed
    vectors, _ = model(frames)
    found = joint_log_probs(vectors[0, -1], model.head, allowed).exp()
    for row, column in allowed.fits.nonzero().tolist():
        frame = torch.cat([torch.zeros(1), allowed.accompaniments[row]])
        frame[column] = 1
        exact = (-model.head.nll(vectors[0, -1:], frame[None, 1:])).exp()
        # A frame that is left out has a millionth of the probability together with all such.
        assert abs(float(found[row, column] - exact)) <= 2e-6 * float(found.sum())
    assert (found[~allowed.fits] == 0).all()


@pytest.mark.parametrize("sizes", HEADS.values(), ids=HEADS)
def test_the_notes_below_the_melody_are_the_chord(sizes: dict[str, int]) -> None:
    progression = parse_progression("C | Am F | N.C. | G7/B", 4, 0.5)
    model = sampling_model(**sizes)
    rolls = sample_rolls(
        model, len(progression.chords), make_generators(1, 2), over_chords(progression, model.head)
    )
    for roll in rolls:
        for pitches, chord in zip(steps_of(roll), progression.chords, strict=True):
            if chord == NO_CHORD:
                assert len(pitches) <= 1
                continue
            assert pitches[0] % 12 == chord.bass
            assert {pitch % 12 for pitch in pitches[:-1]} <= chord.classes
            assert chord.classes - chord.optional <= {pitch % 12 for pitch in pitches}


def test_a_repeated_section_is_the_same_music_and_its_first_pass_is_new() -> None:
    progression = parse_progression("|: C | F :| G", 4, 0.5)
    model = sampling_model()
    sampler = over_chords(progression, model.head)
    for seed in (1, 2):  # the sampler can be used again
        rolls = sample_rolls(model, 40, make_generators(seed, 2), sampler)
        assert all(np.array_equal(roll[:16], roll[16:32]) for roll in rolls)
        assert not np.array_equal(rolls[0][:16], rolls[1][:16])


def test_a_piece_over_chords_is_the_same_alone_and_among_others() -> None:
    progression = parse_progression("C | F G", 4, 0.5)
    model = sampling_model()
    sampler = over_chords(progression, model.head)
    together = sample_rolls(model, 16, make_generators(1, 3), sampler)
    alone = sample_rolls(model, 16, make_generators(1, 3)[1:2], sampler)
    assert np.array_equal(together[1], alone[0])


@pytest.mark.parametrize("metre", ["3/4", "6/8", "4/4"])
def test_chords_are_played_in_their_own_key_and_metre(metre: str) -> None:
    [piece] = sample(sampling_model(), 1, chords="D | A7 | D", metre=metre)
    assert str(piece.metre) == metre
    assert str(piece.key) == "D"
    bar = len(piece.roll) // 3
    assert bar == {"3/4": 6, "6/8": 6, "4/4": 8}[metre]
    assert {pitches[0] % 12 for pitches in steps_of(piece.roll)[:bar]} == {2}
    assert {pitches[0] % 12 for pitches in steps_of(piece.roll)[bar : 2 * bar]} == {9}


def test_a_wanted_key_transposes_the_chords() -> None:
    [piece] = sample(sampling_model(), 1, chords="D | A7 | D", key="F")
    assert [steps_of(piece.roll)[t][0] % 12 for t in (0, 8, 16)] == [5, 0, 5]


def test_the_chords_may_be_in_a_file(tmp_path: Path) -> None:
    path = tmp_path / "my chords.txt"
    path.write_text("C | Am F\nG7 | C\n", encoding="utf-8")
    model = sampling_model()
    [from_file], [given] = (
        sample(model, 1, chords=chords) for chords in (str(path), "C | Am F | G7 | C")
    )
    assert np.array_equal(from_file.roll, given.roll)


@pytest.mark.parametrize(
    ("words", "message"),
    [
        (["--chords=C | H7"], "--chords: 'H7' is no chord"),
        (["--chords=none.txt"], "--chords none.txt: no such file"),
        (["--chords=C", "--metre=x"], "--metre"),
        (["--chords=C", "--primer_notes=C4"], "--primer_notes, --chords: give only one of them"),
    ],
)
def test_a_wrong_call_gives_one_line(
    words: list[str],
    message: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(generate, *words) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1
    assert not list(tmp_path.iterdir())


def test_a_file_that_is_no_text_is_named(tmp_path: Path) -> None:
    path = tmp_path / "chords.txt"
    path.write_bytes(b"\xff\xfe\x00C")
    with pytest.raises(InputError, match=r"chords.txt: not a readable text"):
        sample(sampling_model(), 1, chords=str(path))


# ---- how much of a melody belongs to the chord ---------------------------------------------------


def test_the_share_of_melody_frames_in_the_chord_worked_out_by_hand() -> None:
    chord = {48, 52, 55}
    roll = roll_from(chord | {72}, chord | {74}, chord | {67}, {72}, chord, set(), {48, 52, 76})
    assert in_chord_share([roll]) == 2 / 3  # C and G of C, D and G
    assert np.isnan(in_chord_share([roll_from({60})]))
