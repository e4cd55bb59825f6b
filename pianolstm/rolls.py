"""Piano-rolls packed into one array, their fingerprint, and the `.npz` format.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0), column 87 = MIDI 108 (C8). A cell
is set while its pitch sounds. One letter per axis, in all files: N pieces, B batch, T frames,
P = 88 pitches, E embedding, H hidden, L latent.
"""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise
from pathlib import Path

import numpy as np

from pianolstm.files import InputError, atomic_write, one_line

PITCHES = 88  # columns of a roll, the pitches of a piano
LOWEST_PITCH = 21  # MIDI number of column 0, A0
PACKED_BYTES = PITCHES // 8  # of one frame
SPLITS = ("train", "valid", "test")

_BLOCK = 2**16  # frames processed at once, so that a memory map is not loaded whole

Splits = Mapping[str, Sequence[np.ndarray]]  # {split: rolls, (T, 88) bool each}


class PackedRolls(Sequence[np.ndarray]):
    """A sequence of N rolls, (T, 88) bool each, stored with one bit per cell.

    Indexing unpacks one roll; the rest stays packed.

    Args:
        packed: (sum of T, 11) uint8, the frames of all pieces in order. The lowest of eight pitches
            is the highest bit of its byte. A memory map works as well as an array.
        lengths: (N,) integers, the frames of each piece.

    Raises:
        ValueError: the arrays have the wrong type, or the lengths don't add up to the frames.
    """

    def __init__(self, packed: np.ndarray, lengths: np.ndarray) -> None:
        if packed.dtype != np.uint8 or lengths.dtype.kind not in "iu":
            raise ValueError("frames must be uint8 and lengths must be integers")
        self.packed, self.lengths = packed, lengths.astype(np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])  # (N + 1,)
        if packed.shape != (self.offsets[-1], PACKED_BYTES) or self.lengths.min(initial=0) < 0:
            raise ValueError("the lengths don't add up to the frames")

    @classmethod
    def pack(cls, rolls: Sequence[np.ndarray]) -> "PackedRolls":
        """Pack rolls; rolls that are packed already are returned as they are.

        Args:
            rolls: N rolls, (T, 88) bool each.
        """
        if isinstance(rolls, cls):
            return rolls
        return cls.concatenate([np.packbits(roll, axis=1) for roll in rolls])

    @classmethod
    def concatenate(cls, packed: Sequence[np.ndarray]) -> "PackedRolls":
        """Concatenate pieces that are packed already.

        Args:
            packed: N arrays, (T, 11) uint8 each.
        """
        lengths = np.array([len(frames) for frames in packed], dtype=np.int64)
        return cls(np.concatenate([np.empty((0, PACKED_BYTES), dtype=np.uint8), *packed]), lengths)

    def __len__(self) -> int:
        """Return N, the number of pieces."""
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]  # no slices
        """Return roll i, (T, 88) bool."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return unpack(self.packed[self.offsets[i] : self.offsets[i + 1]])

    def without(self, mask: np.ndarray) -> "PackedRolls":
        """Return the pieces that the mask does not mark.

        Args:
            mask: (N,) bool, True for each piece to leave out.
        """
        if not mask.any():
            return self
        frames = np.repeat(~mask, self.lengths)
        return PackedRolls(self.packed[frames], self.lengths[~mask])

    def pitch_counts(self) -> np.ndarray:
        """Return the number of frames in which each pitch sounds, (88,) int64."""
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)  # (256, 8)
        counts = np.zeros((PACKED_BYTES, 8), dtype=np.int64)
        for start in range(0, len(self.packed), _BLOCK):
            for i, column in enumerate(self.packed[start : start + _BLOCK].T):
                counts[i] += np.bincount(column, minlength=256) @ bits
        return counts.ravel()

    def transitions(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield pairs of consecutive frames within a piece, in blocks.

        Yields:
            (frames, the frame after each of them), packed, (n, 11) uint8 each.
        """
        if not len(self.packed):
            return
        last = np.zeros(len(self.packed), dtype=bool)
        last[self.offsets[1:] - 1] = True
        bounds = [*range(0, len(self.packed) - 1, _BLOCK), len(self.packed) - 1]
        for start, stop in pairwise(bounds):
            inside = ~last[start:stop]
            yield self.packed[start:stop][inside], self.packed[start + 1 : stop + 1][inside]


def unpack(packed: np.ndarray) -> np.ndarray:
    """Unpack frames.

    Args:
        packed: (T, 11) uint8.

    Returns:
        A roll, (T, 88) bool.
    """
    return np.unpackbits(packed, axis=1).view(bool)


def fingerprint(splits: Splits) -> str:
    """Return the SHA-256 of the frames, which does not depend on the file format.

    Args:
        splits: {"train", "valid", "test": rolls, (T, 88) bool each}.

    Returns:
        64 hexadecimal digits. They change with any cell, with the order and the limits of the
        pieces, and with the split.
    """
    digest = hashlib.sha256()
    for split in SPLITS:
        rolls = PackedRolls.pack(splits[split])
        digest.update(f"{split} {len(rolls)}\n".encode() + rolls.lengths.astype("<i8").tobytes())
        digest.update(np.ascontiguousarray(rolls.packed).data)
    return digest.hexdigest()


def read_npz(path: Path) -> dict[str, PackedRolls]:
    """Read an `.npz` file of rolls.

    Args:
        path: a file that `write_npz` wrote, or one with the same arrays. Without a "sha256" array
            its fingerprint is not checked.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}.

    Raises:
        InputError: the file is damaged or has other contents.
    """
    try:
        with path.open("rb") as file, np.load(file, allow_pickle=False) as arrays:
            splits = {
                split: PackedRolls(arrays[f"{split}_frames"], arrays[f"{split}_lengths"])
                for split in SPLITS
            }
            if any(rolls.lengths.min(initial=1) < 1 for rolls in splits.values()):
                raise ValueError("a piece has no frames")
            # Each array has a CRC-32; the fingerprint shows that the arrays belong together.
            if "sha256" in arrays and str(arrays["sha256"]) != fingerprint(splits):
                raise ValueError("the checksum is wrong")
            return splits
    except Exception as error:  # NumPy and zipfile raise many types for damaged archives
        raise InputError(f"{path}: not an .npz of piano-rolls ({one_line(error)})") from None


def write_npz(path: Path, splits: Splits) -> None:
    """Write rolls as a compressed `.npz` file.

    It has the arrays `{split}_frames`, (sum of T, 11) uint8, and `{split}_lengths`, (N,) int64, for
    each split, and `sha256`, the fingerprint.

    Args:
        path: the file.
        splits: {"train", "valid", "test": rolls, (T, 88) bool each}.

    Raises:
        InputError: the path is not writable.
        OSError: the disk is full or broken.
    """
    arrays = {"sha256": np.array(fingerprint(splits))}
    for split, rolls in splits.items():
        packed = PackedRolls.pack(rolls)
        arrays[f"{split}_lengths"], arrays[f"{split}_frames"] = packed.lengths, packed.packed
    with atomic_write(path) as temporary, temporary.open("wb") as file:
        np.savez_compressed(file, **arrays)  # type: ignore[arg-type]
