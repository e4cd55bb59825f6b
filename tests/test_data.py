"""From a corpus to chunks: the right data, each piece in one batch, each frame read once."""

import itertools
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

import data
from data import (
    RollDataset,
    batches,
    bucket_by_length,
    chunks,
    collate,
    load,
    load_if_present,
    load_path,
    random_transpose,
    shard,
    training_data,
)
from helpers import Splits, assert_same, data_settings, mat_bytes, names_in, random_frames
from helpers_midi import line, write_midi
from helpers_train import batch_of
from pianolstm.checkpoint import write_run_settings
from pianolstm.files import InputError
from pianolstm.inputs.datasets import NAMED_SETS, NamedSet
from pianolstm.rolls import PITCHES, SPLITS, fingerprint, write_npz
from settings import DataSettings

# ---- a corpus ------------------------------------------------------------------------------------


def test_a_named_set_is_read_from_its_folder_without_a_download(
    tmp_path: Path, tiny_set: NamedSet, tiny_splits: Splits, tiny_mat: bytes
) -> None:
    (tmp_path / tiny_set.file).write_bytes(tiny_mat)
    corpus = load(data_settings(tmp_path), named=True)
    assert_same(corpus.splits, tiny_splits)
    assert (corpus.name, corpus.fingerprint) == ("nottingham", tiny_set.fingerprint)
    assert corpus.frame_beats == 0.75  # the set's own, not the flag's
    assert (corpus.published, corpus.remarks) == ((("a paper", 3.5),), ())
    assert names_in(tmp_path) == [tiny_set.file]


@pytest.mark.parametrize("named", [True, False])
def test_a_file_under_the_name_of_a_set_is_refused_if_damaged_or_of_other_frames(
    tmp_path: Path, tiny_set: NamedSet, tiny_mat: bytes, other_splits: Splits, named: bool
) -> None:
    path = tmp_path / tiny_set.file
    path.write_bytes(mat_bytes(other_splits))
    with pytest.raises(InputError, match=r"Tiny_Set\.mat: not the frames of nottingham"):
        load(data_settings(tmp_path), named=named)
    path.write_bytes(tiny_mat[: len(tiny_mat) // 2])
    with pytest.raises(InputError, match=r"Tiny_Set\.mat"):
        load(data_settings(tmp_path), named=named)


def test_a_set_that_can_not_be_downloaded_is_replaced_by_chorales_unless_the_user_named_it(
    tmp_path: Path,
    tiny_set: NamedSet,
    few_chorales: list[int],
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    def fail(*_: Any) -> Path:
        raise InputError("no network")

    monkeypatch.setattr(data, "download", fail)
    with pytest.raises(InputError, match="--dataset nottingham: no network"):
        load(data_settings(tmp_path), named=True)
    assert few_chorales == []
    corpus = load(data_settings(tmp_path), named=False)
    assert corpus.name == "chorales"
    notice = capsys.readouterr().err
    assert "nottingham: no network" in notice
    assert f"save {tiny_set.url} in {tmp_path}/" in notice


def test_own_data_override_the_named_set(
    tmp_path: Path, tiny_set: NamedSet, tiny_mat: bytes, other_splits: Splits
) -> None:
    (tmp_path / tiny_set.file).write_bytes(tiny_mat)
    own = tmp_path / "My Tunes, 2nd.mat"
    own.write_bytes(mat_bytes(other_splits))
    corpus = load(data_settings(tmp_path, data=str(own), frame_beats=0.25), named=True)
    assert_same(corpus.splits, other_splits)
    assert (corpus.name, corpus.frame_beats) == ("my-tunes-2nd", 0.25)
    assert (corpus.fingerprint, corpus.published) == (fingerprint(other_splits), ())


def test_a_benchmark_set_is_recognised_by_its_frames_under_any_name(
    tmp_path: Path, tiny_set: NamedSet, tiny_pickle: bytes
) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(tiny_pickle)
    corpus = load_path(path, 0.5)
    assert (corpus.name, corpus.frame_beats) == ("nottingham", 0.75)
    assert corpus.published == (("a paper", 3.5),)


@pytest.mark.parametrize(
    ("file", "name"),
    [
        ("a b.mat", "a-b"),
        ("ÜBUNG.pickle", "übung"),
        ("---.npz", "data"),
        ("x" * 90, "x" * 40),
        (".hidden", "hidden"),
        ("Nottingham.mat", "nottingham-data"),
        ("chorales.npz", "chorales-data"),
    ],
)
def test_own_data_have_a_name_that_can_be_a_folder_and_is_that_of_no_named_set(
    tmp_path: Path, other_splits: Splits, file: str, name: str
) -> None:
    write_npz(tmp_path / file, other_splits)
    assert load_path(tmp_path / file, 0.5).name == name


def test_the_current_folder_gives_own_data_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other_splits: Splits
) -> None:
    (tmp_path / "Sunday").mkdir()
    monkeypatch.chdir(tmp_path / "Sunday")
    monkeypatch.setattr(data.formats, "read", lambda *_: (other_splits, ["a remark"]))
    corpus = load_path(Path(), 0.5)
    assert (corpus.name, corpus.remarks) == ("sunday", ("a remark",))


def test_data_that_would_need_a_download_or_are_damaged_are_not_present(
    tmp_path: Path, tiny_set: NamedSet, tiny_mat: bytes, few_chorales: list[int]
) -> None:
    path = tmp_path / tiny_set.file
    in_file = data_settings(tmp_path, data=str(path))
    for settings in (data_settings(tmp_path), in_file, data_settings(tmp_path, dataset="chorales")):
        assert load_if_present(settings) is None
    assert names_in(tmp_path) == few_chorales == []
    path.write_bytes(b"damaged")
    assert load_if_present(data_settings(tmp_path)) is load_if_present(in_file) is None
    path.write_bytes(tiny_mat)
    for settings in (data_settings(tmp_path), in_file):
        corpus = load_if_present(settings)
        assert corpus is not None
        assert corpus.fingerprint == tiny_set.fingerprint


def test_the_data_of_a_model_are_those_of_its_run_unless_flags_name_others(tmp_path: Path) -> None:
    weights, metadata = tmp_path / "model.safetensors", {"dataset": "jsb", "frame_beats": 1.0}
    alone = training_data(weights, metadata, {"data_dir": "here"})
    assert alone == DataSettings(dataset="jsb", data_dir="here", frame_beats=1.0)
    run = {"data": {"data": "/music", "frame_beats": 0.25}}
    write_run_settings(tmp_path, run, {})
    of_run = training_data(weights, metadata, {})
    assert (of_run.data, of_run.frame_beats) == ("/music", 0.25)
    named = training_data(weights, metadata, {"dataset": "nottingham"})
    assert (named.data, named.dataset, named.frame_beats) == (None, "nottingham", 1.0)


def test_the_data_of_a_model_without_its_run_must_be_named(tmp_path: Path) -> None:
    metadata = {"dataset": "my-tunes", "frame_beats": 1.0}
    with pytest.raises(InputError, match="trained on my-tunes; name its folder with --data"):
        training_data(tmp_path / "model.safetensors", metadata, {})


def write_five(folder: Path) -> Path:
    """Write five MIDI files of four beats at 60 beats per minute; return their folder."""
    sixty = (0, b"\xff\x51\x03\x0f\x42\x40")
    for index in range(5):
        write_midi(folder / f"{index}.mid", [sixty, *line([60, 62, 64 + index, 71])])
    return folder


def test_frames_of_seconds_are_recorded_and_as_long_as_at_120_beats_a_minute(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    music = str(write_five(tmp_path / "music"))
    corpus = load(DataSettings(data=music, frame_seconds=0.125, sustain=True), named=True)
    assert corpus.frame_beats == 0.25
    assert corpus.reading == {"frame_seconds": 0.125, "sustain": True}
    assert len(corpus.splits["train"][0]) == 32  # four seconds
    beats = load(DataSettings(data=music, frame_beats=0.25), named=True)
    assert (beats.frame_beats, beats.reading) == (0.25, {})
    assert len(beats.splits["train"][0]) == 16


def test_the_data_of_a_model_are_read_as_in_training_unless_flags_say_otherwise(
    tmp_path: Path,
) -> None:
    metadata = {"dataset": "mine", "frame_beats": 0.25, "frame_seconds": 0.125, "min_frames": 1}
    weights, given = tmp_path / "model.safetensors", {"data": "music"}
    assert training_data(weights, metadata, given) == DataSettings(
        data="music", frame_beats=0.25, frame_seconds=0.125, min_frames=1
    )
    changed = training_data(weights, metadata, given | {"frame_beats": 1.0})
    assert (changed.frame_beats, changed.frame_seconds) == (1.0, None)


# ---- batches -------------------------------------------------------------------------------------


def random_pieces(lengths: list[int], seed: int = 0) -> list[np.ndarray]:
    generator = np.random.default_rng(seed)
    return [generator.random((length, PITCHES)) < 0.1 for length in lengths]


def pieces_of(batch: data.Batch) -> list[bytes]:
    """Return the cells of each piece of a batch."""
    rows = zip(batch.frames, batch.lengths.tolist(), strict=True)
    return [row[1 : 1 + length].numpy().tobytes() for row, length in rows]


def test_an_item_of_the_dataset_is_the_roll_of_the_piece() -> None:
    rolls = random_pieces([3, 7, 2])
    dataset = RollDataset(rolls)
    assert (len(dataset), dataset.lengths.tolist()) == (3, [3, 7, 2])
    for i in range(3):
        assert dataset[i].dtype == torch.uint8
        np.testing.assert_array_equal(dataset[i].numpy(), rolls[i])


def test_a_batch_is_silence_then_piece_then_padding_longest_first() -> None:
    batch = collate([torch.ones(length, PITCHES, dtype=torch.uint8) for length in (2, 4, 1)])
    assert batch.lengths.tolist() == [4, 2, 1]
    assert (batch.frames.shape, batch.frames.dtype) == ((3, 6, PITCHES), torch.uint8)
    assert (batch.frames == batch.frames[:, :, :1]).all()
    assert batch.frames[:, :, 0].tolist() == [
        [0, 1, 1, 1, 1, 0],
        [0, 1, 1, 0, 0, 0],
        [0, 1, 0, 0, 0, 0],
    ]


@given(lengths=st.lists(st.integers(1, 20), min_size=1, max_size=8), seed=st.integers(0, 99))
def test_a_batch_has_all_its_pieces_and_nothing_beside_them(lengths: list[int], seed: int) -> None:
    rolls = random_pieces(lengths, seed)
    batch = batch_of(rolls)
    assert sorted(pieces_of(batch)) == sorted(roll.tobytes() for roll in rolls)
    assert int(batch.frames.sum()) == sum(roll.sum() for roll in rolls)


@given(
    lengths=st.lists(st.integers(1, 2000), min_size=1, max_size=60),
    batch_size=st.integers(1, 70),
    seed=st.none() | st.integers(0, 99),
)
def test_buckets_have_each_piece_once_and_similar_lengths(
    lengths: list[int], batch_size: int, seed: int | None
) -> None:
    generator = None if seed is None else np.random.default_rng(seed)
    buckets = bucket_by_length(np.array(lengths), batch_size, generator)
    assert sorted(itertools.chain(*buckets)) == list(range(len(lengths)))
    sizes = sorted((len(bucket) for bucket in buckets), reverse=True)
    assert len(sizes) == -(-len(lengths) // batch_size)
    assert sizes[:-1] == [batch_size] * (len(sizes) - 1)  # only one may have fewer
    ranges = sorted((min(lengths[i] for i in b), max(lengths[i] for i in b)) for b in buckets)
    # Pieces are out of order only where their lengths differ by less than about a tenth.
    tolerance = 1.0 if generator is None else np.exp(0.1)
    for (_, longest), (shortest, _) in itertools.pairwise(ranges):
        assert longest <= shortest * tolerance * (1 + 1e-9)


def test_without_a_generator_buckets_go_from_long_to_short() -> None:
    buckets = bucket_by_length(np.array([5, 30, 2, 9, 9, 100]), 2, None)
    assert [sorted(bucket) for bucket in buckets] == [[1, 5], [3, 4], [0, 2]]


def test_with_a_generator_pieces_of_similar_length_change_places() -> None:
    lengths = np.linspace(100, 300, 1000).round().astype(np.int64)
    buckets = bucket_by_length(lengths, 10, np.random.default_rng(0))
    by_length = sorted(buckets, key=lambda bucket: -lengths[bucket].max())
    order = np.array(list(itertools.chain(*by_length)))
    longest_to_come = np.maximum.accumulate(lengths[order][::-1])[::-1]
    ratio = (longest_to_come / lengths[order]).max()
    assert 1.05 < ratio < 1.16  # exp(0.1) = 1.105, and the range of a bucket


def test_batches_and_their_pieces_depend_on_the_generator_alone() -> None:
    lengths = np.array([100] * 8 + [200] * 8 + [400] * 8)

    def buckets(seed: int) -> list[list[list[int]]]:
        generator = np.random.default_rng(seed)
        return [bucket_by_length(lengths, 4, generator) for _ in range(2)]

    assert buckets(5) == buckets(5)
    seeds = [buckets(seed)[0] for seed in range(20)]
    # By chance all 20 begin with the same length once in 3^19, or pair the same pieces in 35^19.
    assert len({lengths[bucket[0][0]] for bucket in seeds}) > 1
    assert len({frozenset(map(frozenset, bucket)) for bucket in seeds}) > 1
    first, second = buckets(5)
    assert first != second


def test_batches_are_those_of_the_buckets_and_use_no_global_randomness() -> None:
    rolls = random_pieces([4, 5, 6])
    states = torch.get_rng_state(), np.random.get_state()[1].copy()  # noqa: NPY002  (the global state)
    first, second = batches(RollDataset(rolls), [[2, 0], [1]])
    assert pieces_of(first) == [rolls[2].tobytes(), rolls[0].tobytes()]
    assert pieces_of(second) == [rolls[1].tobytes()]
    assert torch.equal(torch.get_rng_state(), states[0])
    np.testing.assert_array_equal(np.random.get_state()[1], states[1])  # noqa: NPY002


# ---- transposition -------------------------------------------------------------------------------


@given(
    pieces=st.lists(
        st.tuples(st.integers(1, 9), st.integers(0, PITCHES - 1), st.integers(1, PITCHES)),
        min_size=1,
        max_size=6,
    ),
    probability=st.floats(0, 1),
    seed=st.integers(0, 999),
)
def test_a_transposed_piece_is_moved_whole_and_stays_on_the_88_pitches(
    pieces: list[tuple[int, int, int]], probability: float, seed: int
) -> None:
    rolls = []
    for length, low, width in pieces:
        roll = np.zeros((length, PITCHES), dtype=bool)
        width = min(width, PITCHES - low)
        roll[:, low : low + width] = random_frames(length, width, seed=seed)
        rolls.append(roll)
    batch = batch_of(rolls)
    before = batch.frames.clone()
    moved, shift = random_transpose(batch, probability, np.random.default_rng(seed))
    assert torch.equal(batch.frames, before), "the batch itself is not changed"
    assert torch.equal(moved.lengths, batch.lengths)
    assert (moved.frames.dtype, shift.dtype) == (torch.uint8, torch.int64)
    assert moved.frames.shape == before.shape
    for after, piece, semitones in zip(moved.frames, before, shift.tolist(), strict=True):
        assert -5 <= semitones <= 6
        moved_cells = piece.nonzero() + torch.tensor([0, semitones])
        assert torch.equal(after.nonzero(), moved_cells)


def middle_pieces(count: int) -> data.Batch:
    """Return pieces of one note, with room for any transposition."""
    rolls = np.zeros((count, 3, PITCHES), dtype=bool)
    rolls[np.arange(count), :, 20 + np.arange(count) % 48] = True
    return batch_of(list(rolls))


@pytest.mark.parametrize("probability", [0.3, 1.0])
def test_pieces_are_transposed_with_the_probability_by_all_intervals_alike(
    probability: float,
) -> None:
    _, shift = random_transpose(middle_pieces(3000), probability, np.random.default_rng(0))
    # One of the twelve intervals is 0. Off by 0.04 is 4 standard deviations and more.
    assert (shift != 0).float().mean().item() == pytest.approx(probability * 11 / 12, abs=0.04)
    counts = torch.bincount(shift + 5, minlength=12)
    assert len(counts) == 12
    others = torch.cat([counts[:5], counts[6:]])
    assert others.min() > 0.6 * others.max()


def test_a_piece_near_the_end_of_the_88_is_transposed_as_far_as_there_is_room() -> None:
    low, high, wide, silent = np.zeros((4, 2, PITCHES), dtype=bool)
    low[1, [2, 9]] = high[0, [80, 86]] = wide[0, 0] = wide[1, 87] = True
    seen: list[set[int]] = [set(), set(), set(), set()]
    for seed in range(200):
        batch = batch_of([low, high, wide, silent])
        _, shift = random_transpose(batch, 1.0, np.random.default_rng(seed))
        for values, semitones in zip(seen, shift.tolist(), strict=True):
            values.add(semitones)
    assert seen == [set(range(-2, 7)), set(range(-5, 2)), {0}, {0}]


def test_transposition_depends_on_the_generator_and_probability_0_does_not_use_it() -> None:
    batch = middle_pieces(40)
    one, again, other = (
        random_transpose(batch, 0.7, np.random.default_rng(seed))[1] for seed in (1, 1, 2)
    )
    assert torch.equal(one, again)
    assert not torch.equal(one, other)
    generator = np.random.default_rng(1)
    moved, shift = random_transpose(batch, 0.0, generator)
    assert torch.equal(moved.frames, batch.frames)
    assert not shift.any()
    assert generator.bit_generator.state == np.random.default_rng(1).bit_generator.state


# ---- chunks --------------------------------------------------------------------------------------


def marked(length: int) -> Tensor:
    """Return a piece whose frame t, from 1, has pitch t alone."""
    return torch.eye(PITCHES, dtype=torch.uint8)[1 : length + 1]


def letters(frames: Tensor) -> list[str]:
    """Write each row of frames as text: silence as a dot, pitch 1 as a, pitch 2 as b, ..."""
    return [
        "".join(chr(96 + int(frame.argmax())) if frame.any() else "." for frame in row)
        for row in frames
    ]


def test_the_chunks_of_a_small_batch_are_these() -> None:
    found = [
        (letters(chunk.inputs), letters(chunk.targets), chunk.mask.int().tolist(), chunk.total)
        for chunk in chunks(collate([marked(2), marked(7), marked(6), marked(3)]), 3)
    ]
    assert found == [
        (
            [".ab", ".ab", ".ab", ".ab"],
            ["abc", "abc", "abc", "ab."],
            [[1, 1, 1], [1, 1, 1], [1, 1, 1], [1, 1, 0]],
            11,
        ),
        (["cde", "cde", "c.."], ["def", "def", "..."], [[1, 1, 1], [1, 1, 1], [0, 0, 0]], 6),
        (["fg", "f."], ["g.", ".."], [[1, 0], [0, 0]], 1),
    ]


@pytest.mark.parametrize("bptt", [0, 7, 8, 100])
def test_a_batch_no_longer_than_bptt_is_one_chunk(bptt: int) -> None:
    (chunk,) = chunks(collate([marked(7), marked(3)]), bptt)
    assert letters(chunk.inputs) == [".abcdefg", ".abc...."]
    assert letters(chunk.targets) == ["abcdefg.", "abc....."]
    assert chunk.mask.int().tolist() == [[1] * 7 + [0], [1] * 3 + [0] * 5]
    assert {chunk.inputs.dtype, chunk.targets.dtype} == {torch.float32}


@given(
    lengths=st.lists(st.integers(1, 30), min_size=1, max_size=6),
    bptt=st.integers(0, 35),
    seed=st.integers(0, 99),
)
def test_chunks_read_and_predict_every_frame_once_and_in_order(
    lengths: list[int], bptt: int, seed: int
) -> None:
    rolls = sorted(random_pieces(lengths, seed), key=len, reverse=True)
    inputs: list[list[np.ndarray]] = [[] for _ in rolls]
    targets: list[list[np.ndarray]] = [[] for _ in rolls]
    rows = len(rolls)
    for chunk in chunks(batch_of(rolls), bptt):
        count, length = chunk.mask.shape
        assert chunk.inputs.shape == chunk.targets.shape == (count, length, PITCHES)
        assert 1 <= count <= rows  # a piece that has ended does not come back
        assert bptt == 0 or length <= bptt + 1
        assert chunk.total == int(chunk.mask.sum())
        rows = count
        for row in range(count):
            inputs[row].extend(chunk.inputs[row].numpy())
            targets[row].extend(chunk.targets[row][chunk.mask[row]].numpy())
    for roll, read, predicted in zip(rolls, inputs, targets, strict=True):
        silence = np.zeros((1, PITCHES))
        np.testing.assert_array_equal(read[: len(roll) + 1], np.concatenate([silence, roll]))
        assert not np.any(read[len(roll) + 1 :])
        np.testing.assert_array_equal(predicted, roll)


@given(
    lengths=st.lists(st.integers(2, 20), min_size=1, max_size=9),
    size=st.integers(1, 4),
    bptt=st.integers(0, 8),
)
def test_the_shards_of_a_batch_have_each_piece_once_and_chunks_in_step(
    lengths: list[int], size: int, bptt: int
) -> None:
    batch, shift = batch_of(random_pieces(lengths)), torch.arange(len(lengths))
    shards = [shard(batch, shift, rank, size) for rank in range(size)]
    pieces = [
        (piece, by)
        for part, semitones in shards
        for piece, length, by in zip(pieces_of(part), part.lengths, semitones.tolist(), strict=True)
        if length
    ]
    assert sorted(pieces) == sorted(zip(pieces_of(batch), shift.tolist(), strict=True))
    per_process = [list(chunks(part, bptt, "cpu", batch.lengths)) for part, _ in shards]
    for parts, whole in zip(zip(*per_process, strict=True), chunks(batch, bptt), strict=True):
        assert {part.total for part in parts} == {whole.total}
        assert {part.inputs.shape[1] for part in parts} == {whole.inputs.shape[1]}
        assert sum(int(part.mask.sum()) for part in parts) == whole.total
        assert all(len(part.inputs) for part in parts)


# ---- the real data -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "pieces", "frame_beats"),
    [("nottingham", [694, 173, 170], 0.5), ("jsb", [229, 76, 77], 1.0)],
)
def test_the_real_sets_are_recognised_and_all_their_notes_are_read_and_predicted(
    data_dir: Path, dataset: str, pieces: list[int], frame_beats: float
) -> None:
    named_set = NAMED_SETS[dataset]
    if not (data_dir / named_set.file).is_file():
        pytest.skip(f"PIANO_DATA_DIR has no {named_set.file}")
    corpus = load(data_settings(data_dir, dataset=dataset), named=True)
    assert (corpus.name, corpus.frame_beats) == (dataset, frame_beats)
    assert [len(corpus.splits[split]) for split in SPLITS] == pieces
    dataset_ = RollDataset(corpus.splits["train"])
    read = predicted = 0
    for batch in batches(dataset_, bucket_by_length(dataset_.lengths, 32, None)):
        for chunk in chunks(batch, 60):
            read += int(chunk.inputs.count_nonzero())
            predicted += int(chunk.targets[chunk.mask].count_nonzero())
    assert read == predicted == dataset_.rolls.pitch_counts().sum()
