"""Metrics of form: loops, held pitches, the end of a piece, repeats of sections, the beat.

A roll is (T, 88) bool. The reference for samples is a split of real pieces.
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np

from pianolstm.rolls import LOWEST_PITCH
from pianolstm.tonality import estimate_key

MAX_PERIOD = 16  # frames; what returns later than that is form, not a loop
SECTION_PERIODS = (32, 64, 128)  # frames; each bounds a group of periods, from the one before on
SECTION_LAGS = (16, 32, 64, 128)  # frames
_BEAT_PERIODS = (4, 6)  # frames between changes of chord, in simple and in compound metres
_BOUND_PIECES = 2000  # pieces of a training split that the bounds are computed from


class LoopBounds(NamedTuple):
    """The longest loop and the longest held pitch of real pieces, in frames.

    `sections` are the longest loops of longer periods, up to each of `SECTION_PERIODS`: how long a
    piece plays the same section again and again. Older weights have none.
    """

    loop: int
    hold: int
    sections: tuple[int, ...] = ()

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Return the bounds that weights keep of their training split; None without them."""
        bounds = metadata.get("loop_bounds")
        if bounds is None:
            return None
        return cls(bounds["loop"], bounds["hold"], tuple(bounds.get("sections", ())))

    def by_period(self) -> list[int]:
        """Return the bound of each period from 1 on."""
        bounds, period = [self.loop] * MAX_PERIOD, MAX_PERIOD
        for last, bound in zip(SECTION_PERIODS, self.sections, strict=False):
            bounds += [bound] * (last - period)
            period = last
        return bounds


def loop_lengths(roll: np.ndarray, max_period: int = MAX_PERIOD) -> np.ndarray:
    """Return the length in frames of the longest loop of each period, 1 to `max_period`.

    A loop of period p is a run of sounding frames with x_t = x_{t-p}. Its length is that of the
    run: a section played once has length 0, a chord held for n frames n - 1.

    Args:
        roll: (T, 88) bool.
        max_period: longest period in frames.

    Returns:
        (periods,) int64; as many periods as fit into the roll.
    """
    sounding = np.asarray(roll.any(axis=1))
    packed = np.packbits(roll, axis=1)
    # Whole frames as numbers: comparing these is much faster.
    _, frames = np.unique(packed.view(f"V{packed.shape[1]}")[:, 0], return_inverse=True)
    lengths = [
        _longest_run((frames[period:] == frames[:-period]) & sounding[period:])
        for period in range(1, min(max_period, len(roll) - 1) + 1)
    ]
    return np.array(lengths, dtype=np.int64)


def longest_loop(roll: np.ndarray, max_period: int = MAX_PERIOD) -> int:
    """Return the length in frames of the longest section that at once repeats itself.

    Args:
        roll: (T, 88) bool.
        max_period: longest period in frames.
    """
    return int(loop_lengths(roll, max_period).max(initial=0))


def loop_share(roll: np.ndarray) -> float:
    """Return the share of a roll's frames in its longest loop, 0 to 1; NaN for no frames."""
    return longest_loop(roll) / len(roll) if len(roll) else np.nan


def longest_held_pitch(roll: np.ndarray) -> float:
    """Return the largest number of consecutive frames in which one pitch sounds; 0 for silence."""
    return float(hold_lengths(roll).max(initial=0))


def hold_lengths(roll: np.ndarray) -> np.ndarray:
    """Return the largest number of consecutive frames in which each pitch sounds, (88,) int64."""
    lengths = np.zeros(roll.shape[1], dtype=np.int64)
    for column in np.flatnonzero(roll.any(axis=0)):
        lengths[column] = _longest_run(roll[:, column])
    return lengths


def loop_bounds(rolls: Sequence[np.ndarray], share: float = 0.001) -> LoopBounds:
    """Return the bounds that all but a share of real pieces stay within.

    Args:
        rolls: the training split, (T, 88) bool each; at most 2,000 of them are used.
        share: share of the pieces that may exceed a bound.
    """
    some = [rolls[i] for i in range(0, len(rolls), max(1, len(rolls) // _BOUND_PIECES))]
    ends = (MAX_PERIOD, *SECTION_PERIODS)
    loops = np.zeros((len(some), len(ends)), dtype=np.int64)
    for row, roll in zip(loops, some, strict=True):
        lengths = loop_lengths(roll, ends[-1])
        row[:] = [part.max(initial=0) for part in np.split(lengths, ends)[:-1]]
    holds = [longest_held_pitch(roll) for roll in some]
    # "higher": of fewer than a thousand pieces, none exceeds a bound that one in a thousand may.
    loop, *sections = np.quantile(loops, 1 - share, axis=0, method="higher").tolist()
    hold = np.quantile(holds, 1 - share, method="higher")
    return LoopBounds(loop, int(hold), tuple(sections))


def ends_on_tonic(roll: np.ndarray) -> float:
    """Return 1 if the last sounding frame is of the tonic triad, tonic included, else 0.

    The key is estimated from the whole roll. NaN where there is none, as in silence.
    """
    key, sounding = estimate_key(roll), np.flatnonzero(roll.any(axis=1))
    if key is None or not len(sounding):
        return np.nan
    classes = (np.flatnonzero(roll[sounding[-1]]) + LOWEST_PITCH - key.tonic) % 12
    triad = {0, 3 if key.minor else 4, 7}
    return float(0 in classes and set(classes.tolist()) <= triad)


def section_repeats(roll: np.ndarray, lag: int) -> float:
    """Return the share of frames that sound and equal the frame `lag` earlier, 0 to 1.

    NaN if the roll is not longer than the lag.
    """
    if len(roll) <= lag:
        return np.nan
    same = np.equal(roll[lag:], roll[:-lag]).all(axis=1) & roll[lag:].any(axis=1)
    return float(same.mean())


def beat_strength(roll: np.ndarray) -> float:
    """Return the share of changes of the bass that fall on the best phase of the metre, 0 to 1.

    The metre has a period of 4 or 6 frames, whichever holds more changes than chance (1/4, 1/6) by
    a larger factor. NaN with fewer than 8 changes.
    """
    bass = np.where(roll.any(axis=1), roll.argmax(axis=1), -1)
    changes = np.flatnonzero(bass[1:] != bass[:-1]) + 1
    if len(changes) < 8:
        return np.nan
    shares = [np.bincount(changes % p, minlength=p).max() / len(changes) for p in _BEAT_PERIODS]
    return float(max(zip(np.multiply(shares, _BEAT_PERIODS), shares, strict=True))[1])


def _longest_run(flags: np.ndarray) -> int:
    """Return the length of the longest run of True."""
    edges = np.diff(np.concatenate([[0], flags.astype(np.int8), [0]]))
    starts, ends = np.flatnonzero(edges == 1), np.flatnonzero(edges == -1)
    return int((ends - starts).max(initial=0))
