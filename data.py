"""Piano-rolls in: any file or folder -> {split: [rolls]} -> Dataset -> right-padded batches.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0), column 87 = MIDI 108 (C8); a cell
is set while its key sounds. One letter per axis, in all files: N tunes, B batch, T frames,
K = 88 keys, E embedding, H hidden, L latent. `read` tells the format by content, not by name.

Sources: the pickles of Boulanger-Lewandowski, Bengio and Vincent (ICML 2012, arXiv:1206.6392), the
same frames as `.mat` files (Bai, Kolter and Koltun 2018, arXiv:1803.01271), Standard MIDI Files.
"""

import hashlib
from collections.abc import Iterable, Iterator, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset

import cache
from files import InputError, one_at_a_time, one_line, whole_file
from matlab import read_mat
from midi_folder import midi_files, read_midi_folder
from rolls import SPLITS, Rolls, Splits, as_roll
from settings import LOWEST, DataSettings, K
from unpickle import Array, unpickle

MAX_PICKLE_BYTES = 2**30
SHARED_CELLS = 4  # times the bytes of a pickle: frames and notes that it may have together


def read(
    path: str | Path,
    frame_beats: float,
    kept: Path | None = None,
    max_minutes: float = DataSettings.max_minutes,
) -> tuple[dict[str, Rolls], list[str]]:
    """Read a pickle, `.mat`, `.npz` or folder of MIDI files, told apart by their content.

    Args:
        path: the file or folder.
        frame_beats: length of a frame in beats; only MIDI has a use for it.
        kept: folder where what was read is kept, and found again while it has not changed; None =
            nowhere.
        max_minutes: MIDI files that are longer are left out.

    Returns:
        {"train", "valid", "test": lists of rolls, (T, 88) bool}, and remarks, a line each, on what
        was left out.

    Raises:
        InputError: the path is missing, is none of these, or holds what is not a piano-roll.
    """
    path = Path(path)
    if not (path.is_file() or path.is_dir()):
        raise InputError(f"{path}: no such file or folder")
    files = midi_files(path) if path.is_dir() else [path]
    if kept is None:
        return parse(path, files, frame_beats, max_minutes)
    key = cache.key_of(path, files, frame_beats, max_minutes)
    place = cache.place_of(kept, path, frame_beats)
    with one_at_a_time(kept / "locks" / place.name):
        if found := cache.find(place, key):
            return found
        splits, remarks = parse(path, files, frame_beats, max_minutes)
        try:
            cache.keep(place, key, splits, remarks)
        except (InputError, OSError) as error:
            remarks.append(f"{one_line(error)}: it will take as long to read {path} the next time")
    return splits, remarks


def parse(
    path: Path, files: Sequence[Path], frame_beats: float, max_minutes: float
) -> tuple[dict[str, Rolls], list[str]]:
    """Do what `read` does, given the MIDI files where `path` is a folder; nothing is kept."""
    splits: Splits
    if path.is_dir():
        splits, remarks = read_midi_folder(path, files, frame_beats, max_minutes)
    else:
        splits, remarks = read_file(path), []
    packed: dict[str, Rolls] = {}
    for split in SPLITS:
        rolls = Rolls.of(splits[split])
        # A tune of one frame has nothing to predict from what came before.
        packed[split] = rolls.without(rolls.lengths < 2)
        if short := len(splits[split]) - len(packed[split]):
            remarks.append(f"{path}: {short} tunes of {split} left out: shorter than two frames")
        if not packed[split]:
            raise InputError(
                f"{path}: no tunes for {split}; give more, or folders train/ valid/ test/"
            )
    return packed, remarks


def read_file(path: Path) -> Splits:
    """Read one file of rolls, (T, 88) bool, whichever of the three formats it is in.

    Raises:
        InputError: it is in none of them, or damaged.
    """
    with path.open("rb") as file:
        head = file.read(128)
    if head.startswith(b"PK\x03\x04"):
        return read_npz(path)
    if head.startswith(b"MATLAB 5.0"):
        return read_mat(path)
    if head.startswith(b"MATLAB 7.3"):
        raise InputError(f"{path}: a MATLAB 7.3 file, which is not read; save it with -v7")
    if head.startswith(b"MThd"):
        raise InputError(f"{path}: one MIDI file is no training set; give the folder it is in")
    return read_pickle(path)


def fingerprint(splits: Splits) -> str:
    """Return the SHA-256 of the frames themselves, the same whichever format they came from."""
    digest = hashlib.sha256()
    for split in SPLITS:
        rolls = Rolls.of(splits[split])
        digest.update(f"{split} {len(rolls)}\n".encode() + rolls.lengths.astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(rolls.packed).data)
    return digest.hexdigest()


# ---- pickle --------------------------------------------------------------------------------------


def read_pickle(path: Path) -> Splits:
    """Read a dict of splits; a split is tunes, a tune is steps, a step the MIDI numbers that sound.

    Pickles of Python 2 and 3 are read, with steps as tuples, lists or arrays of any integers, or a
    tune as one (T, 88) array.

    Raises:
        InputError: it is damaged, hostile, or holds something else.
    """
    try:
        if (size := path.stat().st_size) > MAX_PICKLE_BYTES:
            raise ValueError(f"larger than {MAX_PICKLE_BYTES >> 20} MB")
        loaded = unpickle(path.read_bytes())
    except Exception as error:  # a damaged pickle raises nearly anything; nothing of it is kept
        raise InputError(
            f"{path}: not a pickle, .mat or .npz of piano-rolls, nor a folder of MIDI"
            f" ({one_line(error)})"
        ) from None
    if not isinstance(loaded, dict) or not all(split in loaded for split in SPLITS):
        raise InputError(f"{path}: a dict of 'train', 'valid' and 'test' is needed")
    try:
        left = SHARED_CELLS * size + 2**20
        packed: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
        for split in SPLITS:
            for tune in loaded[split]:
                left -= count_cells(tune, left)
                packed[split].append(np.packbits(roll_from_steps(tune), axis=1))
        return {split: Rolls.joined(tunes) for split, tunes in packed.items()}
    except Exception as error:  # whatever a hostile one holds in the place of tunes
        raise InputError(f"{path}: not piano-rolls: {one_line(error)}") from None


def count_cells(steps: Any, left: int) -> int:
    """Return the steps of a tune and the notes of them together, of which so many are `left`.

    What is one thing in a pickle may be referred to often, and a tune of it take any memory.

    Raises:
        ValueError: there are more.
    """
    steps = steps.cells if isinstance(steps, Array) else steps
    cells = len(steps) * (K if isinstance(steps, np.ndarray) else 1)
    if cells <= left and not isinstance(steps, np.ndarray):
        cells += sum(len(step) for step in steps)
    if cells > left:
        raise ValueError("far more notes than a file of its size can hold")
    return cells


def roll_from_steps(steps: Any) -> np.ndarray:
    """Return the (T, 88) bool roll of a tune given as steps of MIDI numbers.

    Raises:
        ValueError: a note that is no whole number from 21 to 108.
    """
    steps = steps.cells if isinstance(steps, Array) else steps
    if isinstance(steps, np.ndarray) and steps.ndim == 2:
        return as_roll(steps)
    counts = [len(step) for step in steps]
    named = [note for step in steps for note in step]
    roll = np.zeros((len(steps), K), dtype=bool)
    if named:
        # By type, for numpy would look for numbers in lists of lists of lists.
        if not all(issubclass(kind, (int, np.integer)) for kind in {type(note) for note in named}):
            raise ValueError("a time step must hold whole numbers")
        notes = np.array(named)
        if notes.dtype.kind not in "iu":
            raise ValueError("a time step must hold whole numbers")
        if notes.min() < LOWEST or notes.max() >= LOWEST + K:
            raise ValueError(f"MIDI numbers {notes.min()} to {notes.max()}; a piano has 21 to 108")
        roll[np.repeat(np.arange(len(steps)), counts), notes - LOWEST] = True
    return roll


# ---- .npz ----------------------------------------------------------------------------------------


def read_npz(path: Path) -> Splits:
    """Read what `write_npz` wrote, rolls (T, 88) bool.

    Raises:
        InputError: it is damaged, or holds something else.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            splits: dict[str, Rolls] = {}
            for split in SPLITS:
                splits[split] = Rolls(arrays[f"{split}_frames"], arrays[f"{split}_lengths"])
                if splits[split].lengths.min(initial=1) < 1:
                    raise ValueError("a tune has no frame")
            # Archives check each part by its CRC-32; this sees that they belong together.
            if "sha256" in arrays and str(arrays["sha256"]) != fingerprint(splits):
                raise ValueError("the checksum is wrong")
            return splits
    except Exception as error:  # damaged archives raise nearly anything
        raise InputError(f"{path}: not an .npz of piano-rolls ({one_line(error)})") from None


def write_npz(path: Path, splits: Splits) -> None:
    """Keep the rolls, eight cells to a byte, and their SHA-256, for `read_npz`."""
    arrays = {"sha256": np.array(fingerprint(splits))}
    for split, rolls in splits.items():
        packed = Rolls.of(rolls)
        arrays[f"{split}_lengths"], arrays[f"{split}_frames"] = packed.lengths, packed.packed
    with whole_file(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]


# ---- Dataset and batches -------------------------------------------------------------------------


class RollDataset(Dataset[Tensor]):
    """The tunes of one split, item i is tune i, (T, 88) uint8."""

    def __init__(self, rolls: Sequence[np.ndarray]) -> None:
        """Take the rolls, each (T, 88) bool."""
        self.rolls = Rolls.of(rolls)
        self.lengths = self.rolls.lengths  # (N,) int64

    def __len__(self) -> int:
        """Return N, the number of tunes."""
        return len(self.lengths)

    def __getitem__(self, i: int) -> Tensor:
        """Return tune i, (T, 88) uint8."""
        return torch.from_numpy(self.rolls[i].view(np.uint8))


class Batch(NamedTuple):
    """Tunes side by side, the longest first: silence, tune, padding.

    row 0   .abcdefg.        . = a frame of silence, from which the first real frame is predicted,
    row 1   .abcde...            and padding behind the tune, which is never scored
    """

    frames: Tensor  # (B, T + 2, K) uint8, T = the longest tune
    lengths: Tensor  # (B,) int64, frames of each tune, descending


def collate(tunes: Iterable[Tensor]) -> Batch:
    """Pad tunes, each (T, K), on the right into a batch."""
    ordered = sorted(tunes, key=len, reverse=True)
    frames = torch.zeros(len(ordered), len(ordered[0]) + 2, K, dtype=torch.uint8)
    for row, tune in zip(frames, ordered, strict=True):
        row[1 : 1 + len(tune)] = tune
    return Batch(frames, torch.tensor([len(tune) for tune in ordered]))


def length_groups(
    lengths: np.ndarray, batch_size: int, generator: np.random.Generator | None
) -> list[list[int]]:
    """Group tunes of similar length into batches, so that little is padded.

    With a generator, ties and near ties are shuffled (lengths within about a tenth of each other
    are taken as equal) and so is the order of the batches; without one, tunes go by length alone.

    Args:
        lengths: (N,) frames of each tune.
        batch_size: tunes in a batch; the last one may have fewer.
        generator: of the shuffling.
    """
    rank = np.log(lengths)
    if generator is not None:
        rank = rank + generator.uniform(-0.05, 0.05, len(lengths))
    order = np.argsort(rank, kind="stable")[::-1]
    groups = [order[i : i + batch_size].tolist() for i in range(0, len(order), batch_size)]
    if generator is not None:
        generator.shuffle(groups)
    return groups


def batches(
    dataset: RollDataset, batch_size: int, generator: np.random.Generator | None = None
) -> Iterable[Batch]:
    """Return an iterable over the dataset in batches, each tune in exactly one of them."""
    return in_groups(dataset, length_groups(dataset.lengths, batch_size, generator))


def in_groups(dataset: RollDataset, groups: list[list[int]]) -> Iterable[Batch]:
    """Return an iterable over the batches of these tunes."""
    # Its own generator: without, DataLoader would draw a seed from torch's global one.
    return DataLoader(
        dataset, batch_sampler=groups, collate_fn=collate, generator=torch.Generator()
    )


def transposed(batch: Batch, share: float, generator: np.random.Generator) -> tuple[Batch, Tensor]:
    """Move a share of a batch's tunes, drawn at random, by -5 to 6 semitones.

    A tune goes no further than its notes stay on the keyboard.

    Returns:
        The batch, and by how many semitones each tune was moved, (B,) int64.
    """
    if not share:
        return batch, torch.zeros(len(batch.lengths), dtype=torch.int64)
    chosen = generator.random(len(batch.lengths)) < share
    drawn = np.where(chosen, generator.integers(-5, 7, len(chosen)), 0)
    sounding = batch.frames.amax(dim=1)  # (B, K)
    room_below = sounding.argmax(dim=1)
    room_above = sounding.flip(1).argmax(dim=1)
    shift = torch.from_numpy(drawn).clamp(-room_below, room_above)
    moved = [tune.roll(int(by), dims=1) for tune, by in zip(batch.frames, shift, strict=True)]
    return Batch(torch.stack(moved), batch.lengths), shift


def share_of(batch: Batch, shift: Tensor, rank: int, size: int) -> tuple[Batch, Tensor]:
    """Return what one of `size` processes takes of a batch: each of its tunes goes to one of them.

    A process for which no tune is left gets a silent one of no length, so that it keeps step.

    Args:
        batch: the whole.
        shift: (B,) int64, the semitones that its tunes were moved by.
        rank: which of the processes, from 0.
        size: how many there are.
    """
    if rank >= len(batch.lengths):
        return Batch(torch.zeros_like(batch.frames[:1]), batch.lengths[:1] * 0), shift[:1] * 0
    return Batch(batch.frames[rank::size], batch.lengths[rank::size]), shift[rank::size]


class Chunk(NamedTuple):
    """A stretch of time of a batch, for truncated back-propagation."""

    inputs: Tensor  # (B', t, K) float32, the frames that are read
    targets: Tensor  # (B', t, K) float32, the frames that follow them
    scored: Tensor  # (B', t) bool, whether the target is a frame of the tune
    total: int  # frames that are scored in the whole batch, of which this may be a share


def chunks(
    batch: Batch,
    bptt: int,
    device: torch.device | str = "cpu",
    whole: Tensor | None = None,
) -> Iterator[Chunk]:
    """Cut a batch along time into chunks of `bptt` frames; 0 = the whole tunes.

        inputs    .ab|cde|fg     every frame of a tune is read once, its last one too
        targets   abc|def|g      every frame of a tune is predicted once

    Tunes that have ended are left out of later chunks: as the longest come first, those that go on
    are the first B' rows, and the state of a chunk's first B' rows is where the next one starts.

    Args:
        batch: what is cut.
        bptt: frames of a chunk.
        device: of the chunks.
        whole: the lengths of the batch of which this is a share, descending; None = it is whole. A
            share has as many chunks as the whole; one of its rows is always there.
    """
    whole = batch.lengths if whole is None else whole
    longest = int(whole[0])
    frames, lengths = batch.frames.to(device), batch.lengths.to(device)
    for start in range(0, longest, bptt or longest):
        stop = start + (bptt or longest)
        if stop >= longest:
            stop = longest + 1  # the last frame, after which there is nothing to predict
        rows = max(int((batch.lengths >= start).sum()), 1)
        window = frames[:rows, start : stop + 1].float()
        scored = torch.arange(start, stop, device=device) < lengths[:rows, None]
        total = int((whole.clamp(max=stop) - start).clamp(min=0).sum())
        yield Chunk(window[:, :-1], window[:, 1:], scored, total)
