"""Formats are recognised by content, and give the same rolls."""

import gzip
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import Splits, assert_same, mat_bytes, refusal, steps_of, write_pickle
from pianolstm.inputs.formats import read
from pianolstm.rolls import PITCHES, SPLITS, fingerprint, write_npz

PLAIN = {split: [[(60, 64), (62,), ()]] for split in SPLITS}


@pytest.mark.parametrize("suffix", [".mat", ".npz", ".pickle", ".mid", ""])
def test_the_format_is_recognised_by_content_under_any_name(
    tmp_path: Path, tiny_splits: Splits, tiny_mat: bytes, tiny_pickle: bytes, suffix: str
) -> None:
    write_npz(tmp_path / f"n{suffix}", tiny_splits)
    (tmp_path / f"m{suffix}").write_bytes(tiny_mat)
    (tmp_path / f"p{suffix}").write_bytes(tiny_pickle)
    for name in "nmp":
        splits, remarks = read(tmp_path / (name + suffix), 0.5)
        assert_same(splits, tiny_splits)
        assert remarks == []


@settings(max_examples=20)
@given(
    lengths=st.lists(st.lists(st.integers(2, 30), min_size=1, max_size=5), min_size=3, max_size=3),
    seed=st.integers(0, 1000),
)
def test_any_rolls_survive_every_format(
    tmp_path: Path, lengths: list[list[int]], seed: int
) -> None:
    generator = np.random.default_rng(seed)
    splits = {
        split: [generator.random((length, PITCHES)) < 0.3 for length in lengths_of_split]
        for split, lengths_of_split in zip(SPLITS, lengths, strict=True)
    }
    write_npz(tmp_path / "n", splits)
    (tmp_path / "m").write_bytes(mat_bytes(splits))
    write_pickle(tmp_path / "p", {split: list(map(steps_of, splits[split])) for split in SPLITS})
    for name in "nmp":
        assert_same(read(tmp_path / name, 0.5)[0], splits)


@pytest.mark.parametrize("empty", [[], [[]], [[(60,)]], [[], [(60,)]]])
def test_a_split_without_a_piece_of_two_frames_is_refused(tmp_path: Path, empty: Any) -> None:
    message = refusal(write_pickle(tmp_path / "a.pickle", {**PLAIN, "valid": empty}))
    assert "no pieces for valid" in message


def test_pieces_shorter_than_two_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    content = {**PLAIN, "train": [[(60,)], [(60,), (62,)], [], [(), ()]]}
    path = write_pickle(tmp_path / "a.pickle", content)
    splits, remarks = read(path, 0.5)
    assert [steps_of(roll) for roll in splits["train"]] == [[[60], [62]], [[], []]]
    assert remarks == [f"{path}: 2 pieces of train left out: shorter than two frames"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        (b"", "not a pickle"),
        (b"train: 60 64 67\n", "not a pickle"),
        (bytes(range(256)), "not a pickle"),
        (gzip.compress(pickle.dumps(PLAIN), mtime=0), "unpack it first"),
        (b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 90, "save it with -v7"),
        (b"\x89HDF\r\n\x1a\n" + b"\x00" * 100, "save the arrays as .npz"),
        (b"PK\x03\x04 no archive", "not a .zip"),
        (b"MATLAB 5.0 no matrices", "not a .mat file"),
        (b"MThd and so on", "give its folder"),
        (b"X:1\nK:C\nCDEF|\n", "a single score is not a data set; give its folder"),
        (b"\x80\x04 no pickle", "a damaged or incomplete pickle"),
        (None, "no such file or folder"),
    ],
)
def test_other_files_are_refused_with_the_reason(
    tmp_path: Path, content: bytes | None, words: str
) -> None:
    path = tmp_path / "a.pickle"
    if content is not None:
        path.write_bytes(content)
    assert words in refusal(path)


# ---- the real sets -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("names", "pieces", "frames", "lowest", "highest", "most"),
    [
        (
            ("Nottingham.mat", "Nottingham.pickle"),
            (694, 173, 170),
            (176_561, 45_513, 44_463),
            31,
            93,
            9,
        ),
        (
            ("JSB_Chorales.mat", "JSB Chorales.pickle"),
            (229, 76, 77),
            (13_807, 4_602, 4_725),
            43,
            96,
            4,
        ),
        (("MuseData.mat",), (524, 135, 124), (245_202, 82_755, 64_339), 21, 105, 15),
        (("Piano_midi.mat",), (87, 12, 25), (75_911, 8_540, 19_036), 21, 108, 12),
    ],
    ids=["nottingham", "jsb", "musedata", "piano_midi"],
)
def test_the_benchmark_is_read_whole_from_every_file(
    data_dir: Path,
    names: tuple[str, ...],
    pieces: tuple[int, ...],
    frames: tuple[int, ...],
    lowest: int,
    highest: int,
    most: int,
) -> None:
    if missing := [name for name in names if not (data_dir / name).is_file()]:
        pytest.skip(f"PIANO_DATA_DIR has no {', '.join(missing)}")
    fingerprints = set()
    for name in names:
        splits, _ = read(data_dir / name, 0.5)
        assert tuple(len(splits[split]) for split in SPLITS) == pieces
        assert tuple(int(splits[split].lengths.sum()) for split in SPLITS) == frames
        sounding = np.flatnonzero(sum(splits[split].pitch_counts() for split in SPLITS)) + 21
        assert (sounding.min(), sounding.max()) == (lowest, highest)
        assert max(roll.sum(axis=1).max() for split in SPLITS for roll in splits[split]) == most
        fingerprints.add(fingerprint(splits))
    assert len(fingerprints) == 1
