"""Many rolls in one array, eight keys to a byte: in memory, or mapped from a file."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise

import numpy as np

from settings import K

SPLITS = ("train", "valid", "test")
BYTES = K // 8  # of a frame
BLOCK = 2**16  # frames that are worked on at once

Splits = Mapping[str, Sequence[np.ndarray]]  # of rolls, (T, 88) bool


class Rolls(Sequence[np.ndarray]):
    """Tunes as a sequence of rolls, (T, 88) bool each, unpacked when they are asked for.

    Args:
        packed: (sum of T, 11) uint8, the frames of all tunes one after another, the lowest key of
            eight in the highest bit; it may be a memory map.
        lengths: (N,) frames of each tune.
    """

    def __init__(self, packed: np.ndarray, lengths: np.ndarray) -> None:
        """Take the arrays.

        Raises:
            ValueError: they do not belong together.
        """
        if packed.dtype != np.uint8 or lengths.dtype.kind not in "iu":
            raise ValueError("frames are no bytes, or lengths no whole numbers")
        self.packed, self.lengths = packed, lengths.astype(np.int64)
        self.offsets = np.concatenate([[0], np.cumsum(self.lengths)])  # (N + 1,)
        if packed.shape != (self.offsets[-1], BYTES) or self.lengths.min(initial=0) < 0:
            raise ValueError("the lengths do not add up")

    @classmethod
    def of(cls, rolls: Sequence[np.ndarray]) -> "Rolls":
        """Pack rolls, (T, 88) bool each."""
        if isinstance(rolls, cls):
            return rolls
        return cls.joined([np.packbits(roll, axis=1) for roll in rolls])

    @classmethod
    def joined(cls, tunes: Sequence[np.ndarray]) -> "Rolls":
        """Join tunes that are packed already, (T, 11) uint8 each."""
        lengths = np.array([len(tune) for tune in tunes], dtype=np.int64)
        return cls(np.concatenate([np.empty((0, BYTES), dtype=np.uint8), *tunes]), lengths)

    def __len__(self) -> int:
        """Return N, the number of tunes."""
        return len(self.lengths)

    def __getitem__(self, i: int) -> np.ndarray:  # type: ignore[override]  # no slices
        """Return roll i, (T, 88) bool."""
        if not -len(self) <= i < len(self):
            raise IndexError(i)
        i %= len(self)
        return unpack(self.packed[self.offsets[i] : self.offsets[i + 1]])

    def without(self, dropped: np.ndarray) -> "Rolls":
        """Return the tunes that are not dropped, (N,) bool."""
        if not dropped.any():
            return self
        frames = np.repeat(~dropped, self.lengths)
        return Rolls(self.packed[frames], self.lengths[~dropped])

    def key_counts(self) -> np.ndarray:
        """Return in how many frames each key sounds, (88,) int64."""
        bits = np.unpackbits(np.arange(256, dtype=np.uint8)[:, None], axis=1)  # (256, 8)
        counts = np.zeros((BYTES, 8), dtype=np.int64)
        for start in range(0, len(self.packed), BLOCK):
            for place, column in enumerate(self.packed[start : start + BLOCK].T):
                counts[place] += np.bincount(column, minlength=256) @ bits
        return counts.ravel()

    def steps(self) -> Iterator[tuple[np.ndarray, np.ndarray]]:
        """Yield all frames but the last of a tune, and those that follow, packed, by the block."""
        if not len(self.packed):
            return
        last = np.zeros(len(self.packed), dtype=bool)
        last[self.offsets[1:] - 1] = True
        bounds = [*range(0, len(self.packed) - 1, BLOCK), len(self.packed) - 1]
        for start, stop in pairwise(bounds):
            inside = ~last[start:stop]
            yield self.packed[start:stop][inside], self.packed[start + 1 : stop + 1][inside]


def unpack(packed: np.ndarray) -> np.ndarray:
    """Return packed frames, (T, 11) uint8, as a roll, (T, 88) bool."""
    return np.unpackbits(packed, axis=1).view(bool)


def as_roll(cells: np.ndarray) -> np.ndarray:
    """Return the cells as a roll, (T, 88) bool.

    Raises:
        ValueError: another shape, or a cell that is neither 0 nor 1.
    """
    if cells.ndim != 2 or cells.shape[1] != K:
        raise ValueError(f"a roll is frames x {K}, not {' x '.join(map(str, cells.shape))}")
    if cells.dtype.kind not in "biuf" or not np.isin(cells, (0, 1)).all():
        raise ValueError("a cell of a roll is 0 or 1")
    return cells.astype(bool)
