"""Metrics of one piece: pitch, texture, rhythm and form. `METRICS` is the table of all of them.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0). It has no onsets: a pitch that
sounds in consecutive frames is one held note. A note-frame is one pitch sounding in one frame.
A metric that is undefined for a piece is NaN, never 0; each docstring names those cases.

Sources: Yang and Lerch, "On the evaluation of generative models in music" (Neural Computing and
Applications 32, 2020, online 2018); Dong, Chen, McAuley and Berg-Kirkpatrick, "MusPy: a toolkit for
symbolic music generation" (ISMIR 2020); Mogren, "C-RNN-GAN" (2016, arXiv:1611.09904). Metrics
without a source are our own.
"""

from collections.abc import Callable, Iterator, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from pianolstm.metrics.form import (
    SECTION_LAGS,
    beat_strength,
    ends_on_tonic,
    longest_held_pitch,
    loop_share,
    section_repeats,
)
from pianolstm.midi import roll_to_notes
from pianolstm.rolls import LOWEST_PITCH, PACKED_BYTES, PITCHES
from pianolstm.tonality import KEY_NAMES, pitch_class_counts

_MAJOR_SCALE = (0, 2, 4, 5, 7, 9, 11)  # semitones above the tonic
_LENGTH_BINS = 16  # frames; the last bin also counts all longer notes
_LAGS = (16, 32, 64)  # frames; 4, 8 and 16 beats if a frame is a quarter of a beat
_REPEAT_WINDOW = 16  # frames
_ONE_HOT_CLASSES = np.eye(12)[(np.arange(PITCHES) + LOWEST_PITCH) % 12]  # (P, 12)


# ---- pitch ---------------------------------------------------------------------------------------


def pitch_count(roll: np.ndarray) -> float:
    """Return the number of distinct pitches of a piece.

    |{p : pitch p sounds in some frame}|, the pitch count of Yang and Lerch.

    Args:
        roll: (T, 88) bool.

    Returns:
        Pitches, 0 to 88; 0 for silence.
    """
    return float(roll.any(axis=0).sum())


def pitch_range(roll: np.ndarray) -> float:
    """Return the distance between the highest and the lowest pitch of a piece.

    The pitch range of Yang and Lerch.

    Args:
        roll: (T, 88) bool.

    Returns:
        Semitones, 0 to 87; 0 for a single pitch, NaN for silence.
    """
    return float(np.ptp(np.flatnonzero(roll.any(axis=0)))) if roll.any() else np.nan


def pitch_class_histogram(roll: np.ndarray) -> np.ndarray:
    """Return the share of note-frames of each pitch class.

    The pitch class histogram of Yang and Lerch, with each note weighted by its length.

    Args:
        roll: (T, 88) bool.

    Returns:
        (12,) float, index 0 = C, sum 1; all NaN for silence.
    """
    counts = pitch_class_counts(roll)
    return counts / (counts.sum() or np.nan)


def pitch_class_entropy(roll: np.ndarray) -> float:
    """Return the entropy of the pitch class histogram, -sum of p log2 p.

    MusPy's pitch-class entropy, but over note-frames where MusPy counts notes.

    Args:
        roll: (T, 88) bool.

    Returns:
        Bits, from 0 for one pitch class to log2(12) = 3.58 for a uniform histogram; NaN for
        silence.
    """
    shares = pitch_class_histogram(roll)
    shares = shares[shares != 0]  # 0 log 0 = 0; NaN stays
    return float(-(shares * np.log2(shares)).sum()) + 0.0  # not -0.0


def pitch_class_transitions(roll: np.ndarray) -> np.ndarray:
    """Return the share of each transition between pitch classes.

    A transition is a pair of a note that sounds in one frame and a note that starts in the next;
    entry (a, b) is the share of pairs with pitch classes a and b. The pitch class transition matrix
    of Yang and Lerch, who pair each note with the following note; in a roll with chords the
    following notes are those of the next frame.

    Args:
        roll: (T, 88) bool.

    Returns:
        (12, 12) float, sum 1; all NaN if no note starts just after a frame that sounds.
    """
    starts = roll[1:] & ~roll[:-1]
    # (12, T - 1) @ (T - 1, 12)
    counts = (roll[:-1] @ _ONE_HOT_CLASSES).T @ (starts @ _ONE_HOT_CLASSES)
    return counts / (counts.sum() or np.nan)


def scale_consistency(roll: np.ndarray) -> float:
    """Return the largest share of note-frames that belong to one scale.

    The maximum over the 24 major and natural minor scales of (note-frames in the scale) /
    (note-frames). A natural minor scale has the pitch classes of its relative major, so 12 scales
    cover all. Mogren's scale consistency, over note-frames.

    Args:
        roll: (T, 88) bool.

    Returns:
        Share, 0 to 1; NaN for silence.
    """
    shares = pitch_class_histogram(roll)
    return float(max(np.roll(shares, -tonic)[list(_MAJOR_SCALE)].sum() for tonic in range(12)))


# ---- texture and rhythm --------------------------------------------------------------------------


def polyphony(roll: np.ndarray) -> float:
    """Return the mean number of simultaneous notes over frames that are not silent.

    note-frames / (frames in which a pitch sounds), MusPy's polyphony.

    Args:
        roll: (T, 88) bool.

    Returns:
        Notes per frame, 1 to 88; NaN for silence.
    """
    sounding = roll.any(axis=1).sum()
    return float(roll.sum() / sounding) if sounding else np.nan


def silent_share(roll: np.ndarray) -> float:
    """Return the share of frames in which no pitch sounds.

    MusPy's empty-beat rate, over frames.

    Args:
        roll: (T, 88) bool.

    Returns:
        Share, 0 to 1; NaN for a roll without frames.
    """
    return float(1 - roll.any(axis=1).mean()) if len(roll) else np.nan


def mean_note_length(roll: np.ndarray, frame_beats: float) -> float:
    """Return the mean length of the notes of a piece.

    Args:
        roll: (T, 88) bool.
        frame_beats: length of a frame in beats.

    Returns:
        Beats; NaN for silence.
    """
    lengths = [end - start for _, start, end in roll_to_notes(roll)]
    return float(np.mean(lengths)) * frame_beats if lengths else np.nan


def note_length_histogram(roll: np.ndarray) -> np.ndarray:
    """Return the share of notes of each length in frames.

    The note length histogram of Yang and Lerch, with frames for their note values.

    Args:
        roll: (T, 88) bool.

    Returns:
        (16,) float, sum 1: notes of 1, 2, ... 15 frames, and of 16 or more; all NaN for silence.
    """
    lengths = [min(end - start, _LENGTH_BINS) for _, start, end in roll_to_notes(roll)]
    counts = np.bincount(lengths, minlength=_LENGTH_BINS + 1)[1:]
    return counts / (counts.sum() or np.nan)


# ---- form ----------------------------------------------------------------------------------------


def self_similarity(roll: np.ndarray, lag: int) -> float:
    """Return the mean similarity of frames that are `lag` frames apart.

    The mean over t of the Jaccard similarity |x_t & x_(t-lag)| / |x_t | x_(t-lag)|, over those t
    where at least one of the two frames sounds.

    Args:
        roll: (T, 88) bool.
        lag: frames, at least 1.

    Returns:
        Similarity, 0 to 1; NaN if the piece is not longer than the lag, or no pair sounds.
    """
    later, earlier = roll[lag:], roll[: max(len(roll) - lag, 0)]
    intersection, union = (later & earlier).sum(axis=1), (later | earlier).sum(axis=1)
    sounding = union > 0
    if not sounding.any():
        return np.nan
    return float((intersection[sounding] / union[sounding]).mean())


def packed_windows(roll: np.ndarray, frames: int) -> Iterator[bytes]:
    """Yield every window of a roll, one for each start frame.

    Args:
        roll: (T, 88) bool.
        frames: length of a window.

    Yields:
        The frames of the window as packed bits, 11 bytes a frame.
    """
    packed = np.packbits(roll, axis=1).tobytes()
    for start in range(len(roll) - frames + 1):
        yield packed[start * PACKED_BYTES : (start + frames) * PACKED_BYTES]


def exact_repeats(roll: np.ndarray) -> float:
    """Return the share of 16-frame windows that equal an earlier window of the piece.

    A window starts at every frame; windows may overlap; silent windows are not counted.

    Args:
        roll: (T, 88) bool.

    Returns:
        Share, 0 to 1; NaN if there is no window.
    """
    sounding = [window for window in packed_windows(roll, _REPEAT_WINDOW) if any(window)]
    return 1 - len(set(sounding)) / len(sounding) if sounding else np.nan


# ---- the table -----------------------------------------------------------------------------------


class Metric(NamedTuple):
    """A metric of one piece; call it with a roll and the length of a frame in beats."""

    function: Callable[..., Any]
    unit: str
    bins: Sequence[str] = ()  # labels of a vector's entries, or of both axes of a square matrix
    in_beats: bool = False  # whether the function takes `frame_beats`

    def __call__(self, roll: np.ndarray, frame_beats: float) -> np.ndarray:
        """Return the metric of a roll, (T, 88) bool, as (D,) float.

        D is 1 for a scalar; a matrix is flattened row by row.
        """
        value = self.function(roll, frame_beats) if self.in_beats else self.function(roll)
        return np.ravel(np.asarray(value, dtype=float))


METRICS = {
    "pitch count": Metric(pitch_count, "pitches"),
    "pitch range": Metric(pitch_range, "semitones"),
    "pitch class entropy": Metric(pitch_class_entropy, "bits"),
    "polyphony": Metric(polyphony, "notes per frame"),
    "silence": Metric(silent_share, "share of frames"),
    "scale consistency": Metric(scale_consistency, "share of note-frames"),
    "note length": Metric(mean_note_length, "beats", in_beats=True),
    **{
        f"self-similarity at {lag} frames": Metric(partial(self_similarity, lag=lag), "Jaccard")
        for lag in _LAGS
    },
    "exact repeats": Metric(exact_repeats, "share of windows"),
    "length": Metric(lambda roll: float(len(roll)), "frames"),
    "ends on the tonic": Metric(ends_on_tonic, "share of pieces"),
    "longest loop": Metric(loop_share, "share of frames"),
    "longest held pitch": Metric(longest_held_pitch, "frames"),
    **{
        f"repeats after {lag} frames": Metric(partial(section_repeats, lag=lag), "share of frames")
        for lag in SECTION_LAGS
    },
    "beat": Metric(beat_strength, "share of bass changes"),
    "pitch classes": Metric(pitch_class_histogram, "share of note-frames", KEY_NAMES),
    "pitch class transitions": Metric(pitch_class_transitions, "share of transitions", KEY_NAMES),
    "note lengths": Metric(
        note_length_histogram,
        "share of notes",
        [*map(str, range(1, _LENGTH_BINS)), f"{_LENGTH_BINS}+"],
    ),
}
