"""How much of some pieces is copied from others, in the same key or transposed.

The share of copied windows of 32 frames is a rate that pieces of any length can be compared by. The
longest passage names the place that most of a piece is from.
"""

from collections.abc import Iterable
from typing import NamedTuple

import numpy as np

from pianolstm.metrics.pieces import packed_windows
from pianolstm.rolls import PACKED_BYTES, PITCHES

COPY_WINDOW = 32  # frames: long enough that two pieces hardly ever share a window by chance


def hash_windows(roll: np.ndarray, frames: int = COPY_WINDOW) -> np.ndarray:
    """Return a hash of every window of a roll in which at least one note changes.

    A window starts at every frame. Windows of silence or of one held frame are left out, since
    unrelated pieces share them.

    Args:
        roll: (T, 88) bool.
        frames: length of a window.

    Returns:
        (n,) int64. Windows that are equal, or equal once transposed, have equal hashes; others
        collide with a probability of about 2^-64. Hashes differ between Python processes, so they
        are not stored.
    """
    if len(roll) < frames:
        return np.empty(0, dtype=np.int64)
    # As one number, a window is transposed by shifting its bits: up to the highest pitch that keeps
    # its highest note among the 88. `room` is how far each frame could go.
    room = np.where(roll.any(axis=1), roll[:, ::-1].argmax(axis=1), PITCHES)
    rooms = np.lib.stride_tricks.sliding_window_view(room, frames).min(axis=1).tolist()
    hashes = [
        hash((int.from_bytes(window, "big") >> up).to_bytes(len(window), "big"))
        for window, up in zip(packed_windows(roll, frames), rooms, strict=True)
        if window != window[:PACKED_BYTES] * frames
    ]
    return np.array(hashes, dtype=np.int64)


def window_hashes(rolls: Iterable[np.ndarray], frames: int = COPY_WINDOW) -> np.ndarray:
    """Return the distinct hashes of the windows of rolls, such as a training split.

    Args:
        rolls: (T, 88) bool each.
        frames: length of a window.

    Returns:
        (n,) int64, sorted; at most 8 bytes for each frame of the rolls.
    """
    hashes = [hash_windows(roll, frames) for roll in rolls]
    return np.unique(np.concatenate([np.empty(0, dtype=np.int64), *hashes]))


def copied_share(
    rolls: Iterable[np.ndarray], known: np.ndarray, frames: int = COPY_WINDOW
) -> float:
    """Return the share of the windows of rolls that occur in known pieces, transposed or not.

    Args:
        rolls: (T, 88) bool each; windows are counted over all of them together.
        known: the output of `window_hashes` for the known pieces, with the same `frames`.
        frames: length of a window.

    Returns:
        Share, 0 to 1; NaN if the rolls have no window (see `hash_windows`).
    """
    hashes = np.concatenate(
        [np.empty(0, dtype=np.int64), *(hash_windows(roll, frames) for roll in rolls)]
    )
    return float(np.isin(hashes, known).mean()) if len(hashes) else np.nan


# ---- the longest passage -------------------------------------------------------------------------


class Passage(NamedTuple):
    """A passage that two pieces share, in the same key or transposed."""

    frames: int  # its length
    start: int  # frame of the one piece at which it starts
    piece: int  # index of the other piece, the first is 0
    piece_start: int  # frame of the other piece
    semitones: int  # from the other piece to the one


class KnownPieces:
    """Pieces, such as a training split, in which copies are looked for.

    Attributes:
        hashes: of their windows of `COPY_WINDOW` frames (`window_hashes`).
    """

    def __init__(self, rolls: Iterable[np.ndarray]) -> None:
        """Index the frames of N rolls, (T, 88) bool each."""
        rolls = list(rolls)
        self.hashes = window_hashes(rolls)
        self._starts = np.cumsum([0, *map(len, rolls)])  # (N + 1,)
        lines = [_Line.of(roll) for roll in rolls]
        self._steps = np.concatenate([np.empty(0, dtype=np.int64), *(line.steps for line in lines)])
        self._anchors = np.concatenate(
            [np.empty(0, dtype=np.int64), *(line.anchors for line in lines)]
        )
        places: dict[bytes, list[int]] = {}
        for place, shape in enumerate(shape for line in lines for shape in line.shapes):
            places.setdefault(shape, []).append(place)
        self._places = {shape: np.array(found) for shape, found in places.items()}

    def longest_passage(self, roll: np.ndarray) -> Passage | None:
        """Return the longest passage of a roll that is also in one of the pieces.

        Passages of one held frame, or of silence, do not count. The first of the longest is taken.

        Args:
            roll: (T, 88) bool.

        Returns:
            None if there is no passage of two frames or more.
        """
        line = _Line.of(roll)
        # The length of the common passage that ends at the current frame and at each known one,
        # shifted by one place so that index 0 stands before the first.
        lengths = np.zeros(len(self._steps) + 1, dtype=np.int64)
        none = np.empty(0, dtype=np.int64)
        before, best, held = none, None, 0
        for t, (shape, step) in enumerate(zip(line.shapes, line.steps, strict=True)):
            held = held + 1 if t and (roll[t] == roll[t - 1]).all() else 1
            places = self._places.get(shape, none)
            grown = np.where(self._steps[places] == step, lengths[places], 0) + 1
            lengths[before] = 0
            before = places + 1
            lengths[before] = grown
            longest = int(grown.max(initial=0))
            if longest > max(held, best.frames if best else 1):
                place = int(places[grown.argmax()])
                piece = int(np.searchsorted(self._starts, place, side="right")) - 1
                best = Passage(
                    longest,
                    t - longest + 1,
                    piece,
                    place - longest + 1 - int(self._starts[piece]),
                    int(line.anchors[t] - self._anchors[place]),
                )
        return best


class _Line(NamedTuple):
    """A roll as chords and the steps between them, which transposition does not change."""

    shapes: list[bytes]  # (T,) each frame with its lowest note at the lowest pitch
    steps: np.ndarray  # (T,) int64, semitones from the anchor before; none fits the first frame's
    anchors: np.ndarray  # (T,) int64, the lowest note, or the last one before silence

    @classmethod
    def of(cls, roll: np.ndarray) -> "_Line":
        """Return the line of a roll, (T, 88) bool."""
        sounding = roll.any(axis=1)
        lowest = roll.argmax(axis=1)
        shifted = np.take_along_axis(
            np.pad(roll, ((0, 0), (0, PITCHES))), lowest[:, None] + np.arange(PITCHES), axis=1
        )
        latest = np.maximum.accumulate(np.where(sounding, np.arange(len(roll)), 0))
        anchors = lowest[latest]
        steps = np.diff(anchors, prepend=anchors[:1])
        steps[:1] = 2 * PITCHES
        return cls([frame.tobytes() for frame in np.packbits(shifted, axis=1)], steps, anchors)
