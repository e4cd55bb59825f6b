"""The .mat format."""

from pathlib import Path

import numpy as np
import pytest

from helpers import Splits, assert_same, mat_bytes, refusal
from pianolstm.inputs.frames import to_splits
from pianolstm.inputs.mat import load_mat


def write(path: Path, content: bytes) -> Path:
    path.write_bytes(content)
    return path


@pytest.mark.parametrize("dtype", ["uint8", "bool", "float64", "int16"])
@pytest.mark.parametrize("compressed", [True, False])
def test_mat_files_are_read_cell_for_cell(
    tmp_path: Path, tiny_splits: Splits, dtype: str, compressed: bool
) -> None:
    content = mat_bytes(tiny_splits, dtype, do_compression=compressed)
    path = write(tmp_path / "a.mat", content)
    assert_same(to_splits(load_mat(path), path)[0], tiny_splits)


def test_a_missing_split_is_named(tmp_path: Path, tiny_splits: Splits) -> None:
    del tiny_splits["valid"]
    assert "validdata" in refusal(write(tmp_path / "a.mat", mat_bytes(tiny_splits)))


@pytest.mark.parametrize("wrong", [np.ones((3, 87)), np.ones((3, 88, 2))])
def test_cells_that_are_not_rolls_are_refused(
    tmp_path: Path, tiny_splits: Splits, wrong: np.ndarray
) -> None:
    refusal(write(tmp_path / "a.mat", mat_bytes({**tiny_splits, "test": [wrong]})))


@pytest.mark.parametrize("compressed", [True, False])
def test_a_truncated_mat_file_is_refused(
    tmp_path: Path, tiny_splits: Splits, compressed: bool
) -> None:
    whole = mat_bytes(tiny_splits, do_compression=compressed)
    for size in range(10, len(whole), len(whole) // 30):
        refusal(write(tmp_path / "a.mat", whole[:size]))


def test_a_damaged_compressed_mat_file_is_refused(tmp_path: Path, tiny_splits: Splits) -> None:
    damaged = bytearray(mat_bytes(tiny_splits, do_compression=True))
    damaged[-20] ^= 0xFF
    refusal(write(tmp_path / "a.mat", bytes(damaged)))
