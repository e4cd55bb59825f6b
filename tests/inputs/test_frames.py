"""Lists and arrays of every layout that papers use give the rolls they mean."""

import json
import pickle
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.sparse

from helpers import Splits, assert_same, refusal, steps_of, write_pickle
from pianolstm.inputs.formats import read
from pianolstm.rolls import LOWEST_PITCH, PITCHES, SPLITS

CHORD = [60, 64, 67]


def write_json(path: Path, content: Any) -> Path:
    path.write_text(json.dumps(content))
    return path


def in_all(piece: Any) -> dict[str, list[Any]]:
    """Return three splits of this one piece."""
    return {split: [piece] for split in SPLITS}


def steps(path: Path) -> list[list[int]]:
    """Return the MIDI numbers of each frame of the first training piece."""
    return steps_of(read(path, 0.5)[0]["train"][0])


# ---- pitches -------------------------------------------------------------------------------------


@pytest.mark.parametrize("write", [write_pickle, write_json])
@pytest.mark.parametrize(
    "frame",
    [
        [60.0, 64.0, 67.0],
        [67, 60, 64, -1],
        [-1, 67.0, 64.0, 60.0],
        [60, 64, 67, float("nan")],
        [60, None, 64, 67],
        [60, 60, 64, 67, 64],
    ],
)
def test_rests_and_whole_floats_are_read(tmp_path: Path, write: Any, frame: list[Any]) -> None:
    path = write(tmp_path / "a", in_all([frame, [62, 65], [], frame]))
    assert steps(path) == [CHORD, [62, 65], [], CHORD]
    assert read(path, 0.5)[1] == []


@pytest.mark.parametrize("dtype", ["int8", "int64", "float32", "float64"])
def test_four_voices_are_read_from_an_array(tmp_path: Path, dtype: str) -> None:
    voices = np.array([[67, 64, 60, -1], [65, 62, -1, -1], [-1, -1, -1, -1]], dtype)
    assert steps(write_pickle(tmp_path / "a", in_all(voices))) == [CHORD, [62, 65], []]


@pytest.mark.parametrize("frames", [PITCHES, 128])
def test_as_many_frames_of_voices_as_there_are_pitches_are_no_matrix(
    tmp_path: Path, frames: int
) -> None:
    voices = np.tile([67, 64, 60, -1], (frames, 1))
    assert steps(write_pickle(tmp_path / "a", in_all(voices))) == [CHORD] * frames


def test_pitches_from_0_are_recognised_and_said(tmp_path: Path) -> None:
    content = {**in_all([[39, 43], [46]]), "test": [[[0, 87], [39]]]}
    path = write_pickle(tmp_path / "a", content)
    splits, remarks = read(path, 0.5)
    assert steps_of(splits["train"][0]) == [[60, 64], [67]]
    assert steps_of(splits["test"][0]) == [[21, 108], [60]]
    (remark,) = remarks
    assert remark.startswith(f"{path}: its pitches, 0 to 87, are counted from 0")


def test_rests_do_not_decide_where_pitches_start(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a", in_all([[60, -1], [float("nan"), 64]]))
    assert steps(path) == [[60], [64]]
    path = write_pickle(tmp_path / "b", in_all([[15, -1], [39, -1]]))
    assert steps(path) == [[36], [60]]


def test_zeros_that_pad_a_frame_are_rests(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a", in_all([[60, 64, 67, 0], [60, 64, 0, 0]]))
    assert steps(path) == [CHORD, [60, 64]]
    (remark,) = read(path, 0.5)[1]
    assert "0 is read as a rest" in remark


@pytest.mark.parametrize(
    ("piece", "words"),
    [
        ([[60.5], [62]], "60.5 is not the number of a pitch"),
        ([[float("inf")], [62]], "MIDI numbers 60 to inf"),
        ([[-2], [62]], "MIDI numbers -2 to 62"),
        ([[5], [100]], "MIDI numbers 5 to 100; the range of a piano is 21 to 108"),
        ([[60], [109]], "MIDI numbers 60 to 109"),
        ([["C4"], ["D4"]], "something else than numbers"),
        ([[True], [False]], "True and False"),
        ([[True, 60], [62]], "something else than numbers"),
        ([60, 62], "a piece a list of frames"),
        (np.zeros((3, 87)), "88 or 128 columns"),
        (np.zeros((3, 88, 2)), "3 x 88 x 2"),
        (None, "a split must be a list of pieces"),
    ],
)
def test_what_no_layout_fits_is_refused_in_plain_words(
    tmp_path: Path, piece: Any, words: str
) -> None:
    content = {**in_all([[60], [60]]), "valid": [piece]}
    assert words in refusal(write_pickle(tmp_path / "a", content))


# ---- cells ---------------------------------------------------------------------------------------


def velocities(roll: np.ndarray) -> np.ndarray:
    return np.where(roll, 1 + np.arange(PITCHES), 0)


def as_midi(roll: np.ndarray) -> np.ndarray:
    """Return the roll with a column for each MIDI number, (T, 128)."""
    return np.pad(roll, ((0, 0), (LOWEST_PITCH, 128 - LOWEST_PITCH - PITCHES)))


LAYOUTS = {
    "T x 88": lambda roll: roll,
    "88 x T": lambda roll: roll.T,
    "T x 128": as_midi,
    "128 x T": lambda roll: as_midi(roll).T,
    "velocities": lambda roll: velocities(roll).astype("uint8"),
    "velocities from 0 to 1": lambda roll: velocities(roll).T / 127,
    "coo": lambda roll: scipy.sparse.coo_matrix(velocities(roll)),
    "csr": lambda roll: scipy.sparse.csr_matrix(roll),
    "csc": lambda roll: scipy.sparse.csc_array(as_midi(roll).astype("float32")),
    "transposed csr": lambda roll: scipy.sparse.csr_array(velocities(roll).T),
    "nested lists": lambda roll: velocities(roll).tolist(),
    "nested lists of True and False": lambda roll: as_midi(roll).tolist(),
}


@pytest.mark.parametrize("layout", LAYOUTS.values(), ids=LAYOUTS)
def test_matrices_of_every_layout_are_read(
    tmp_path: Path, tiny_splits: Splits, layout: Any
) -> None:
    content = {split: [layout(roll) for roll in rolls] for split, rolls in tiny_splits.items()}
    splits, remarks = read(write_pickle(tmp_path / "a", content), 0.5)
    assert_same(splits, tiny_splits)
    assert remarks == []


def test_a_matrix_in_json_is_read(tmp_path: Path, tiny_splits: Splits) -> None:
    content = {s: [velocities(roll).T.tolist() for roll in tiny_splits[s]] for s in SPLITS}
    assert_same(read(write_json(tmp_path / "a", content), 0.5)[0], tiny_splits)


def test_duplicate_entries_of_a_sparse_matrix_sound_once(tmp_path: Path) -> None:
    cells = scipy.sparse.coo_matrix(([1, 1, 1], ([0, 0, 1], [39, 39, 43])), shape=(3, 88))
    assert steps(write_pickle(tmp_path / "a", in_all(cells))) == [[60], [64], []]


def test_notes_outside_the_piano_are_counted(tmp_path: Path) -> None:
    cells = np.zeros((6, 128))
    cells[:, 60] = cells[:2, 20] = cells[3:, 20] = cells[1:3, 109] = 80
    path = write_pickle(tmp_path / "a", {**in_all(cells), "test": [cells[:2]]})
    splits, remarks = read(path, 0.5)
    assert steps_of(splits["train"][0]) == [[60]] * 6
    assert remarks == [f"{path}: left out: 8 notes outside the 88 pitches"]


@pytest.mark.parametrize("cell", [-1.0, float("nan")])
def test_a_cell_is_neither_negative_nor_nan(tmp_path: Path, cell: float) -> None:
    refused = write_pickle(tmp_path / "a", in_all(np.full((3, PITCHES), cell)))
    assert "a cell is negative or NaN" in refusal(refused)


# ---- splits --------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["val", "validation"])
@pytest.mark.parametrize("write", [write_pickle, write_json])
def test_valid_may_have_its_other_names(
    tmp_path: Path, tiny_pieces: Any, tiny_splits: Splits, name: str, write: Any
) -> None:
    content = {name if key == "valid" else key: tiny_pieces[key] for key in SPLITS}
    assert_same(read(write(tmp_path / "a", content), 0.5)[0], tiny_splits)


def test_two_names_for_one_split_are_refused(tmp_path: Path, tiny_pieces: Any) -> None:
    content = {**tiny_pieces, "val": tiny_pieces["test"]}
    assert "both 'valid' and 'val'" in refusal(write_pickle(tmp_path / "a", content))


def test_a_missing_split_is_named(tmp_path: Path, tiny_pieces: Any) -> None:
    del tiny_pieces["test"]
    assert "has no 'test'" in refusal(write_pickle(tmp_path / "a", tiny_pieces))


def test_other_entries_are_left_out_and_named(
    tmp_path: Path, tiny_pieces: Any, tiny_splits: Splits
) -> None:
    path = write_pickle(tmp_path / "a", {**tiny_pieces, "train_mean": np.zeros(88)})
    splits, remarks = read(path, 0.5)
    assert_same(splits, tiny_splits)
    assert remarks == [f"{path}: left out, as they are none of the three splits: train_mean"]


def test_padded_sequences_with_lengths_are_cut(tmp_path: Path, tiny_splits: Splits) -> None:
    content = {}
    for split, rolls in tiny_splits.items():
        longest = max(map(len, rolls))
        padded = [np.pad(roll, ((0, longest - len(roll)), (0, 0))) for roll in rolls]
        lengths = np.array([len(roll) for roll in rolls])
        content[split] = {"sequences": np.array(padded), "sequence_lengths": lengths}
    assert_same(read(write_pickle(tmp_path / "a", content), 0.5)[0], tiny_splits)


def test_a_list_without_splits_is_dealt_out_by_content(tmp_path: Path) -> None:
    pieces = [[[60 + i], [60], [72 - i]] for i in range(1, 11)]
    splits, remarks = read(write_json(tmp_path / "a", [*pieces, pieces[3]]), 0.5)
    assert sum(map(len, splits.values())) == 11
    assert all(len(splits[split]) for split in SPLITS)
    places = [s for s in SPLITS for roll in splits[s] if steps_of(roll) == pieces[3]]
    assert len(places) == 2
    assert len(set(places)) == 1  # copies share a split
    assert "dealt out by content" in remarks[0]


def test_fewer_than_three_pieces_without_splits_are_refused(tmp_path: Path) -> None:
    path = write_json(tmp_path / "a", [[[60], [62]], [[61], [63]]])
    assert "1 different pieces; 3 are needed" in refusal(path)


# ---- JSON ----------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("text", "words"),
    [
        ('{"train": [[[60]],\n[[62]}', "damaged JSON, at line 2"),
        ('{"train": "\udcff"}', "damaged JSON"),
        ("[" * 100_000, "damaged JSON"),
        ("{}", "has no 'train'"),
        ("[]", "0 different pieces"),
    ],
)
def test_other_json_is_refused(tmp_path: Path, text: str, words: str) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(text.encode("utf-8", "surrogateescape"))
    assert words in refusal(path)


def test_a_byte_order_mark_does_no_harm(tmp_path: Path) -> None:
    path = tmp_path / "a.json"
    path.write_bytes(b"\xef\xbb\xbf" + json.dumps(in_all([[60], [62]])).encode())
    assert steps(path) == [[60], [62]]


def test_a_sparse_matrix_too_large_for_ram_is_refused(tmp_path: Path) -> None:
    cells = scipy.sparse.csr_matrix((2**30, 88), dtype="uint8")
    small = pickle.dumps(in_all(scipy.sparse.csr_matrix((3, 88), dtype="uint8")))
    assert pickle.loads(small)  # noqa: S301  (our own)
    cells.indptr = cells.indptr[:2]
    assert "too large" in refusal(write_pickle(tmp_path / "a", in_all(cells)))
