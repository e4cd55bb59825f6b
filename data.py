"""From a data set to batches: load a corpus -> Dataset -> buckets of similar length -> BPTT chunks.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0), column 87 = MIDI 108 (C8); a cell
is set while its pitch sounds. `pianolstm.inputs` reads the file formats; letters are those of
model.py.
"""

import re
import sys
from collections.abc import Collection, Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader
from torch.utils.data import Dataset as TorchDataset

from pianolstm.checkpoint import Metadata
from pianolstm.files import InputError
from pianolstm.inputs import formats
from pianolstm.inputs.datasets import (
    NAMED_SETS,
    Corpus,
    download,
    find_named_set,
    load_chorales,
    recognise,
)
from pianolstm.rolls import PITCHES, PackedRolls, fingerprint
from settings import DataSettings, Settings

CACHE_DIR = Path(".cache")  # parsed files, and locks
# Settings on how MIDI is read beside `frame_beats`; those that differ from the default are recorded
# in the weights, and playing reads the user's files in the same way.
READING = ("frame_seconds", "min_frames", "sustain")

# ---- a corpus ------------------------------------------------------------------------------------


def load(settings: DataSettings, *, named: bool) -> Corpus:
    """Return the corpus that the settings name.

    Args:
        settings: `data` overrides `dataset`.
        named: whether the user named the data set. If not, and it can be neither found nor
            downloaded, the Bach chorales of music21 replace it, with a notice on stderr.

    Raises:
        InputError: the corpus can't be read or downloaded, or is not what its name says.
    """
    if settings.data is not None:
        return load_path(
            Path(settings.data),
            settings.frame_beats,
            settings.max_minutes,
            **{name: getattr(settings, name) for name in READING},
        )
    folder = Path(settings.data_dir)
    if settings.dataset == "chorales":
        return load_chorales(folder, CACHE_DIR)
    named_set = NAMED_SETS[settings.dataset]
    path = find_named_set(named_set, folder)
    if path is None:
        print(f"{settings.dataset} is not in {folder}/; downloading it", file=sys.stderr)
    try:
        path = path or download(named_set, folder, CACHE_DIR)
    except InputError as error:
        if named:
            raise InputError(f"--dataset {settings.dataset}: {error}") from None
        print(
            f"notice: {settings.dataset}: {error}.\n"
            f"notice: to use it, save {named_set.url} in {folder}/ or give --data PATH.\n"
            "notice: training on `chorales` instead, the Bach chorales of the music21 package.",
            file=sys.stderr,
        )
        return load_chorales(folder, CACHE_DIR)
    corpus = load_path(path, settings.frame_beats)
    if corpus.name != settings.dataset:
        raise InputError(
            f"{path}: not the frames of {settings.dataset}; remove the file, or train on it with"
            " --data"
        )
    return corpus


def load_if_present(settings: DataSettings) -> Corpus | None:
    """Return the corpus if it can be read without a download; else None."""
    folder = Path(settings.data_dir)
    if settings.data is not None:
        present = Path(settings.data).exists()
    elif settings.dataset == "chorales":
        present = (folder / "chorales.npz").is_file()
    else:
        present = find_named_set(NAMED_SETS[settings.dataset], folder) is not None
    try:
        return load(settings, named=True) if present else None
    except InputError:
        return None


def load_path(
    path: Path, frame_beats: float, max_minutes: float | None = None, **reading: Any
) -> Corpus:
    """Read a file or folder. A benchmark set is recognised by its frames, under any name.

    Args:
        path: a file or folder of any form that `pianolstm.inputs.formats` reads.
        frame_beats: length of a frame in beats, for MIDI files and scores.
        max_minutes: longer MIDI files are left out; None = the default of --max_minutes.
        reading: the settings of READING; their defaults are those of DataSettings. A frame of
            `frame_seconds` is as long as at 120 beats per minute.

    Raises:
        InputError: it can't be read, or holds no piano-rolls.
    """
    minutes = DataSettings.max_minutes if max_minutes is None else max_minutes
    splits, remarks = formats.read(path, frame_beats, CACHE_DIR, minutes, **reading)
    frames_sha256 = fingerprint(splits)
    if known := recognise(frames_sha256):
        name, named_set = known
        return Corpus(
            name, splits, named_set.frame_beats, frames_sha256, tuple(remarks), named_set.published
        )
    # The resolved path gives `--data .` a name too. Only characters that every file system allows.
    name = re.sub(r"\W+", "-", path.resolve().stem).strip("-").lower()[:40] or "data"
    if name in (*NAMED_SETS, "chorales"):
        name += "-data"  # the plain names belong to the sets themselves
    if (seconds := reading.get("frame_seconds")) is not None:
        frame_beats = 2 * seconds
    changed = {key: reading[key] for key in reading if reading[key] != getattr(DataSettings, key)}
    return Corpus(name, splits, frame_beats, frames_sha256, tuple(remarks), reading=changed)


def training_data(path: Path, metadata: Metadata, given: dict[str, Any]) -> DataSettings:
    """Return where the data of a model are: as the flags say, or as its run had them.

    Args:
        path: the weights file, in the folder of its run or elsewhere.
        metadata: of the weights.
        given: data settings that the user gave as flags.

    Raises:
        InputError: neither says where.
    """
    if not {"data", "dataset"} & given.keys():
        if (path.parent / "settings.json").is_file():
            given = asdict(Settings.of_run(path.parent).data) | given
        if not given.get("data"):
            given = given | {"dataset": metadata["dataset"]}
    try:
        return DataSettings(**_reading_of(metadata, given) | given)
    except ValueError:
        raise InputError(
            f"{path}: trained on {metadata['dataset']}; name its folder with --data"
        ) from None


def read_like(settings: DataSettings, metadata: Metadata, given: Collection[str]) -> DataSettings:
    """Return the settings, but read MIDI as for trained weights, where the user does not say how.

    Args:
        settings: the user's values over the defaults.
        metadata: of the weights.
        given: names of the settings that the user gave.
    """
    reading = _reading_of(metadata, given)
    return replace(settings, **{name: reading[name] for name in reading.keys() - set(given)})


def _reading_of(metadata: Metadata, given: Collection[str]) -> dict[str, Any]:
    """Return how MIDI was read for trained weights, frames in seconds only if none are given."""
    names = [name for name in READING if name in metadata]
    if "frame_beats" in given:
        names = [name for name in names if name != "frame_seconds"]
    return {name: metadata[name] for name in ("frame_beats", *names)}


# ---- Dataset and batches -------------------------------------------------------------------------


class RollDataset(TorchDataset[Tensor]):
    """The pieces of one split; item i is piece i, (T, 88) uint8.

    Args:
        rolls: (T, 88) bool each.
    """

    def __init__(self, rolls: Sequence[np.ndarray]) -> None:
        """Pack the rolls, unless they are packed already."""
        self.rolls = PackedRolls.pack(rolls)
        self.lengths = self.rolls.lengths  # (N,) int64, frames

    def __len__(self) -> int:
        """Return N."""
        return len(self.lengths)

    def __getitem__(self, index: int) -> Tensor:
        """Return piece `index`, (T, 88) uint8."""
        return torch.from_numpy(self.rolls[index].view(np.uint8))


class Batch(NamedTuple):
    """Pieces side by side, longest first, each a frame of silence, the piece, and padding.

    row 0   .abcdefg.        . = silence before the piece, from which the model predicts its first
    row 1   .abcde...            frame, and padding behind it, which enters neither loss nor metric
    """

    frames: Tensor  # (B, T + 2, P) uint8, T = frames of the longest piece
    lengths: Tensor  # (B,) int64, frames of each piece, descending


def collate(pieces: Iterable[Tensor]) -> Batch:
    """Pad pieces, (T, P) uint8 each, on the right into a batch."""
    ordered = sorted(pieces, key=len, reverse=True)
    frames = torch.zeros(len(ordered), len(ordered[0]) + 2, PITCHES, dtype=torch.uint8)
    for row, piece in zip(frames, ordered, strict=True):
        row[1 : 1 + len(piece)] = piece
    return Batch(frames, torch.tensor([len(piece) for piece in ordered]))


def bucket_by_length(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None
) -> list[list[int]]:
    """Group pieces of similar length into batches, so that padding is small.

    With a generator, pieces whose lengths differ by less than about a tenth change places at
    random, and batches come in random order. Without one, pieces are ordered by length alone.

    Args:
        lengths: (N,) frames of each piece.
        batch_size: pieces in a batch; the last batch may have fewer.
        generator: random generator, or None.

    Returns:
        The indices of the pieces of each batch.
    """
    rank = np.log(lengths)
    if generator is not None:
        rank = rank + generator.uniform(-0.05, 0.05, len(lengths))
    order = np.argsort(rank, kind="stable")[::-1]
    buckets = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    if generator is not None:
        generator.shuffle(buckets)
    return buckets


def batches(dataset: RollDataset, buckets: list[list[int]]) -> Iterable[Batch]:
    """Return an iterable over the batches of these buckets."""
    # A generator of its own: otherwise DataLoader would draw a seed from torch's global one.
    return DataLoader(
        dataset, batch_sampler=buckets, collate_fn=collate, generator=torch.Generator()
    )


def random_transpose(
    batch: Batch, probability: float, generator: np.random.Generator
) -> tuple[Batch, Tensor]:
    """Transpose pieces at random by -5 to 6 semitones, as far as their notes stay on the 88.

    Args:
        batch: the pieces.
        probability: probability that a piece is transposed.
        generator: random generator.

    Returns:
        The batch, and the shift of each piece in semitones, (B,) int64.
    """
    if not probability:
        return batch, torch.zeros(len(batch.lengths), dtype=torch.int64)
    chosen = generator.random(len(batch.lengths)) < probability
    wanted = np.where(chosen, generator.integers(-5, 7, len(chosen)), 0)
    sounding = batch.frames.amax(dim=1)  # (B, P)
    room_below = sounding.argmax(dim=1)
    room_above = sounding.flip(1).argmax(dim=1)
    shift = torch.from_numpy(wanted).clamp(-room_below, room_above)
    pairs = zip(batch.frames, shift, strict=True)
    moved = [piece.roll(int(semitones), dims=1) for piece, semitones in pairs]
    return Batch(torch.stack(moved), batch.lengths), shift


def shard(batch: Batch, shift: Tensor, rank: int, size: int) -> tuple[Batch, Tensor]:
    """Return the part of a batch that one of `size` processes trains on: every size-th piece.

    A process without any piece gets a silent one of length 0, so that all take the same steps.

    Args:
        batch: the whole batch.
        shift: (B,) int64, the transposition of its pieces in semitones.
        rank: number of the process, from 0.
        size: number of processes.
    """
    if rank >= len(batch.lengths):
        return Batch(torch.zeros_like(batch.frames[:1]), batch.lengths[:1] * 0), shift[:1] * 0
    return Batch(batch.frames[rank::size], batch.lengths[rank::size]), shift[rank::size]


class Chunk(NamedTuple):
    """A section in time of a batch, for truncated back-propagation through time."""

    inputs: Tensor  # (B', t, P) float32, the frames to read
    targets: Tensor  # (B', t, P) float32, the frames that follow them
    mask: Tensor  # (B', t) bool, whether the target is a frame of the piece
    read: Tensor  # (B', t) bool, whether the input is a frame of the piece
    last: Tensor  # (B', t) bool, whether the input is its last frame
    times: Tensor  # (B', t) int64, frames of a piece read with each input; 0 = silence before it
    total: int  # frames of all targets in the whole batch, of which this may be a shard


def chunks(
    batch: Batch,
    bptt: int,
    device: torch.device | str = "cpu",
    whole_lengths: Tensor | None = None,
    least_rows: int = 1,
) -> Iterator[Chunk]:
    """Cut a batch along time into chunks of `bptt` frames; 0 = whole pieces.

        inputs    .ab|cde|fg     every frame of a piece is an input once, its last one too
        targets   abc|def|g      every frame of a piece is a target once

    Pieces that have ended are left out of later chunks. As the longest come first, those that
    continue are the first B' rows, and the next chunk starts from the state of these rows.

    Args:
        batch: the batch, or a shard of it.
        bptt: frames of a chunk.
        device: device of the chunks.
        whole_lengths: lengths of the whole batch, descending, where `batch` is a shard. A shard
            has as many chunks as the whole.
        least_rows: rows that a shard keeps when all of its pieces have ended.
    """
    whole = batch.lengths if whole_lengths is None else whole_lengths
    longest = int(whole[0])
    frames, lengths = batch.frames.to(device), batch.lengths.to(device)
    for start in range(0, longest, bptt or longest):
        stop = start + (bptt or longest)
        if stop >= longest:
            stop = longest + 1  # include the last frame as an input, though nothing follows it
        rows = max(int((batch.lengths >= start).sum()), least_rows)
        window = frames[:rows, start : stop + 1].float()
        times, ends = torch.arange(start, stop, device=device), lengths[:rows, None]
        read = (times > 0) & (times <= ends)  # at time 0 is the silence before the piece
        total = int((whole.clamp(max=stop) - start).clamp(min=0).sum())
        last, mask, times = times == ends, times < ends, times.expand_as(read)
        yield Chunk(window[:, :-1], window[:, 1:], mask, read, last, times, total)
