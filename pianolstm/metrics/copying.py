"""How much of some pieces is copied from others, by windows that are equal note for note."""

from collections.abc import Iterable

import numpy as np

from pianolstm.metrics.pieces import packed_windows
from pianolstm.rolls import PACKED_BYTES

COPY_WINDOW = 32  # frames: long enough that two pieces hardly ever share a window by chance


def hash_windows(roll: np.ndarray, frames: int = COPY_WINDOW) -> np.ndarray:
    """Return a hash of every window of a roll in which at least one note changes.

    A window starts at every frame. Windows of silence or of one held frame are left out, since
    unrelated pieces share them.

    Args:
        roll: (T, 88) bool.
        frames: length of a window.

    Returns:
        (n,) int64. Equal windows have equal hashes; different windows collide with a probability
        of about 2^-64. Hashes differ between Python processes, so they are not stored.
    """
    windows = packed_windows(roll, frames)
    changing = (window for window in windows if window != window[:PACKED_BYTES] * frames)
    return np.fromiter(map(hash, changing), dtype=np.int64)


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
    """Return the share of the windows of rolls that occur, note for note, in known pieces.

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
