"""`.npy` and `.npz` files are read, arrays of objects too, and no code of a file is ever run."""

import io
import os
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import Splits, assert_same, names_in, refusal, steps_of
from pianolstm.inputs import arrays
from pianolstm.inputs.formats import read
from pianolstm.rolls import SPLITS


def of_objects(items: list[Any]) -> np.ndarray:
    array = np.empty(len(items), dtype=object)
    for i, item in enumerate(items):
        array[i] = item
    return array


def npz(path: Path, **content: Any) -> Path:
    with path.open("wb") as file:
        np.savez_compressed(file, **content)
    return path


class Hostile:
    """An object whose unpickling makes a folder."""

    def __init__(self, path: str) -> None:
        self.path = path

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (self.path,)


def test_four_voices_with_nan_for_rests_are_read(tmp_path: Path) -> None:
    voices = of_objects([np.array([[72.0, 67.0, 64.0, np.nan]] * 4)])
    path = npz(tmp_path / "a.npz", **dict.fromkeys(SPLITS, voices))
    splits, remarks = read(path, 0.5)
    assert [steps_of(splits[split][0]) for split in SPLITS] == [[[64, 67, 72]] * 4] * 3
    assert remarks == []


def test_pieces_of_different_lengths_are_read(tmp_path: Path, tiny_splits: Splits) -> None:
    content = {split: of_objects(rolls) for split, rolls in tiny_splits.items()}
    content["val"] = content.pop("valid")
    assert_same(read(npz(tmp_path / "a", **content), 0.5)[0], tiny_splits)


def test_ragged_frames_in_an_array_of_two_dimensions_are_read(tmp_path: Path) -> None:
    pieces = np.empty((2, 3), dtype=object)
    for i in np.ndindex(2, 3):
        pieces[i] = [60 + i[0], 70][: 1 + i[1] % 2]
    splits, _ = read(npz(tmp_path / "a", train=pieces, val=pieces, test=pieces), 0.5)
    assert steps_of(splits["train"][1]) == [[61], [61, 70], [61]]


@pytest.mark.parametrize("order", ["C", "F"])
def test_pieces_of_one_length_are_read(tmp_path: Path, order: Any) -> None:
    pieces = np.random.default_rng(1).random((4, 5, 88)) < 0.1
    path = npz(tmp_path / "a", **{s: np.asarray(pieces * 90, order=order) for s in SPLITS})
    assert_same(read(path, 0.5)[0], {split: list(pieces) for split in SPLITS})


def test_a_dict_saved_as_npy_is_read(tmp_path: Path, tiny_pieces: Any, tiny_splits: Splits) -> None:
    np.save(tmp_path / "a.npy", tiny_pieces, allow_pickle=True)
    assert_same(read(tmp_path / "a.npy", 0.5)[0], tiny_splits)


def test_a_list_of_pieces_saved_as_npy_is_dealt_out(tmp_path: Path) -> None:
    pieces = np.random.default_rng(1).random((9, 5, 88)) < 0.1
    np.save(tmp_path / "a.npy", pieces)
    splits, _ = read(tmp_path / "a.npy", 0.5)
    assert sum(map(len, splits.values())) == 9


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_an_object_array_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, suffix: str
) -> None:
    monkeypatch.chdir(tmp_path)
    pieces = of_objects([Hostile("marker")])
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, pieces, allow_pickle=True)
    else:
        npz(path, **dict.fromkeys(SPLITS, pieces))
    assert "mkdir, which is not allowed, as reading it could run code" in refusal(path)
    assert names_in(tmp_path) == [path.name]


@pytest.mark.parametrize("suffix", [".npy", ".npz"])
def test_a_truncated_file_is_refused(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"a{suffix}"
    if suffix == ".npy":
        np.save(path, np.ones((3, 4, 88)))
    else:
        npz(path, **dict.fromkeys(SPLITS, np.ones((3, 4, 88))))
    whole = path.read_bytes()
    for size in range(6, len(whole), len(whole) // 20):
        path.write_bytes(whole[:size])
        assert "damaged or incomplete" in refusal(path)


@pytest.mark.parametrize("array", [np.array(["C4"] * 3), np.ones((3, 88), complex)])
def test_an_array_of_something_else_is_refused(tmp_path: Path, array: np.ndarray) -> None:
    refusal(npz(tmp_path / "a", **dict.fromkeys(SPLITS, array)))


def test_a_header_that_promises_too_much_is_refused(tmp_path: Path) -> None:
    file = io.BytesIO()
    np.lib.format.write_array_header_1_0(
        file, {"descr": "<f8", "fortran_order": False, "shape": (2**40, 88)}
    )
    (tmp_path / "a.npy").write_bytes(file.getvalue() + bytes(800))
    assert "damaged or incomplete" in refusal(tmp_path / "a.npy")


def test_what_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(arrays, "MAX_BYTES", 2**20)
    path = npz(tmp_path / "a", train=np.zeros((2**14, 88)))
    with zipfile.ZipFile(path) as archive:
        assert archive.infolist()[0].compress_size < 2**20
    assert "unpacks to more than 1 MB" in refusal(path)
