"""The Bach chorales of music21: parsed once, each setting once, split by the hash of its name."""

import functools
import tempfile
from pathlib import Path

import numpy as np
import pytest

from helpers import assert_same, names_in, steps_of
from pianolstm.files import InputError
from pianolstm.inputs import datasets
from pianolstm.inputs.datasets import Corpus, load_chorales, score_to_roll
from pianolstm.inputs.midi_folder import assign_split
from pianolstm.rolls import SPLITS

# ---- the set -------------------------------------------------------------------------------------


def load(folder: Path) -> Corpus:
    return load_chorales(folder, folder.parent / "cache")


def test_chorales_are_parsed_once(tmp_path: Path, few_chorales: list[int]) -> None:
    first = load(tmp_path / "data")
    assert names_in(tmp_path / "data") == ["chorales.npz"]
    again = load(tmp_path / "data")
    assert len(few_chorales) == 1
    assert_same(again.splits, first.splits)
    assert again.fingerprint == first.fingerprint
    assert (first.name, first.frame_beats, first.remarks) == ("chorales", 0.5, ())
    assert (again.name, again.frame_beats, again.remarks) == ("chorales", 0.5, ())


def test_a_folder_that_cannot_be_written_is_a_remark(
    tmp_path: Path, few_chorales: list[int]
) -> None:
    (tmp_path / "file").write_text("in the way")
    corpus = load(tmp_path / "file" / "data")
    (remark,) = corpus.remarks
    assert "not saved for the next run" in remark
    assert "\n" not in remark
    assert load(tmp_path / "file" / "data").fingerprint == corpus.fingerprint
    assert len(few_chorales) == 2


def test_a_damaged_file_is_refused_by_its_name(tmp_path: Path, few_chorales: list[int]) -> None:
    load(tmp_path)
    whole = (tmp_path / "chorales.npz").read_bytes()
    (tmp_path / "chorales.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"chorales\.npz"):
        load(tmp_path)


def chord(*columns: int, frames: int = 3) -> np.ndarray:
    roll = np.zeros((frames, 88), dtype=bool)
    roll[:, columns] = True
    return roll


def test_chorales_that_are_transpositions_of_each_other_are_kept_once() -> None:
    names = [f"bach/bwv{number}.mxl" for number in range(9)]
    rolls = [
        chord(30, 34, 37),  # kept
        chord(32, 36, 39),  # the same, a tone up
        chord(30, 34, 37),  # the same again
        chord(0, 4, 7),  # the same, at the lowest pitch
        chord(80, 84, 87),  # and at the highest
        chord(30, 33, 37),  # kept: minor
        chord(30, 34, 37, frames=4),  # kept: longer
        chord(30, 34),  # kept: fewer voices
        chord(),  # kept: silence
    ]
    splits = datasets._split_chorales(zip(names, rolls, strict=True))
    kept = [0, 5, 6, 7, 8]
    assert sum(len(splits[split]) for split in SPLITS) == len(kept)
    for number in kept:
        split = splits[assign_split(names[number])]
        assert any(np.array_equal(roll, rolls[number]) for roll in split)


# ---- music21 -------------------------------------------------------------------------------------


def test_two_chorales_of_the_corpus_have_these_pitches(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # music21 caches parsed scores in the system's temporary folder.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from music21 import environment
    from music21.corpus import chorales

    monkeypatch.setattr(environment.envSingleton(), "defaultRootTempDir", tmp_path)
    monkeypatch.setattr(chorales, "Iterator", functools.partial(chorales.Iterator, 1, 2))
    (first, aus_meines_herzens_grunde), (second, ich_dank_dir) = datasets._parse_chorales()
    assert (first, second) == ("bach/bwv269.mxl", "bach/bwv347.mxl")
    # The first eight eighth notes, copied by hand from the scores: bass, tenor, alto, soprano.
    assert steps_of(aus_meines_herzens_grunde)[:8] == [
        [43, 59, 62, 67],  # G2 B3 D4 G4: a G major chord
        [43, 59, 62, 67],
        [55, 59, 62, 67],  # the bass leaps an octave
        [55, 59, 62, 67],
        [52, 60, 64, 67],  # E3 C4 E4 G4
        [52, 59, 64, 67],  # the tenor moves on, C4 B3
        [54, 57, 62, 74],  # F#3 A3 D4 D5
        [54, 57, 62, 74],
    ]
    assert steps_of(ich_dank_dir)[:8] == [
        [57, 61, 64, 69],  # A3 C#4 E4 A4: an A major chord
        [56, 61, 64, 69],
        [54, 61, 66, 69],
        [54, 61, 66, 69],
        [49, 61, 64, 69],
        [49, 59, 64, 69],
        [50, 57, 66, 69],
        [50, 56, 66, 69],
    ]
    assert all(1 <= len(step) <= 4 for step in steps_of(aus_meines_herzens_grunde))


def test_notes_of_a_score_are_rounded_to_the_nearest_eighth_half_up() -> None:
    from music21 import chord, note, stream

    score = stream.Score()
    upper, lower = stream.Part(), stream.Part()
    upper.insert(0.0, note.Note("C4", quarterLength=0.75))  # to 1.5 frames: rounded to 2
    upper.insert(0.75, note.Note("D4", quarterLength=0.25))  # from 1.5 to 2: left out
    upper.insert(1.0, note.Note("E4", quarterLength=1.0))
    upper.insert(2.0, note.Rest(quarterLength=0.5))
    upper.insert(2.5, chord.Chord(["G4", "B4"], quarterLength=0.5))
    lower.insert(0.0, note.Note("A0", quarterLength=3.0))
    lower.insert(1.0, note.Note("C8").getGrace())  # an ornament without duration
    score.insert(0, upper)
    score.insert(0, lower)
    roll = score_to_roll(score)
    assert roll.dtype == bool
    assert steps_of(roll) == [
        [21, 60],
        [21, 60],
        [21, 64],
        [21, 64],
        [21],
        [21, 67, 71],
    ]
