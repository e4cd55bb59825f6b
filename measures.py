"""What can be measured of a tune: its pitches, chords, lengths, repeats, and what it copied.

`MEASURES` is the table of them all; `comparison.py` sets two sets of tunes beside each other by it.
`health` says of one sample what a listener would complain of first.

A roll is (T, 88) bool: row = one frame, column 0 = MIDI 21 (A0). It has no onsets: a key that
sounds in consecutive frames is one note, held. A note-frame is one key sounding in one frame. What
a tune has no answer to is NaN, never 0; a measure says when.

Sources: Yang and Lerch, "On the evaluation of generative models in music" (Neural Computing and
Applications 32, 2020, online 2018); Dong, Chen, McAuley and Berg-Kirkpatrick, "MusPy: a toolkit for
symbolic music generation" (ISMIR 2020); Mogren, "C-RNN-GAN" (2016, arXiv:1611.09904). What bears no
name is ours.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from keys import NAMES, pitch_classes
from midi import held_notes
from rolls import BYTES
from settings import LOWEST, K

SCALE = (0, 2, 4, 5, 7, 9, 11)  # a major scale, in semitones from its tonic
LONGEST = 16  # frames; the last bin of note lengths holds all that are longer too
LAGS = (16, 32, 64)  # frames; 4, 8 and 16 beats where a frame is a quarter of one
REPEAT_WINDOW = 16  # frames of a window that may occur again
COPY_WINDOW = 32  # frames of a window that may be copied: too long to be met by chance
FACTOR = np.uint64(0x9E3779B97F4A7C15)  # odd; of the hash of windows
FOLD = np.eye(12)[(np.arange(K) + LOWEST) % 12]  # (K, 12), 1 where the key is of the pitch class


# ---- pitch ---------------------------------------------------------------------------------------


def pitch_count(roll: np.ndarray) -> float:
    """Return how many different keys sound in a roll, (T, 88) bool; keys, 0 for silence.

    |{k : key k sounds in some frame}|, the pitch count of Yang and Lerch.
    """
    return float(roll.any(axis=0).sum())


def pitch_range(roll: np.ndarray) -> float:
    """Return the highest key less the lowest of a roll, (T, 88) bool; semitones, NaN for silence.

    The pitch range of Yang and Lerch: 0 for a tune of one key.
    """
    return float(np.ptp(np.flatnonzero(roll.any(axis=0)))) if roll.any() else np.nan


def pitch_class_histogram(roll: np.ndarray) -> np.ndarray:
    """Return each pitch class's share of the note-frames, (T, 88) bool -> (12,), 0 = C.

    It sums to 1, and is NaN for silence. The pitch class histogram of Yang and Lerch; a note counts
    for as long as it lasts.
    """
    counts = pitch_classes(roll)
    return counts / (counts.sum() or np.nan)


def pitch_class_entropy(roll: np.ndarray) -> float:
    """Return the entropy of the pitch classes of a roll, (T, 88) bool; bits, NaN for silence.

    -sum of p log2 p over the histogram above: 0 for one pitch class, log2(12) = 3.58 for all twelve
    alike. MusPy's pitch-class entropy, but by note-frames, where that counts notes.
    """
    shares = pitch_class_histogram(roll)
    heard = shares[shares != 0]  # 0 log 0 = 0; NaN stays
    return float(-(heard * np.log2(heard)).sum()) + 0.0  # not -0.0


def pitch_class_transitions(roll: np.ndarray) -> np.ndarray:
    """Return how pitch classes follow one another, (T, 88) bool -> (12, 12) from a to b, sum 1.

    The share of pairs (a note sounding in a frame, a note that starts in the next) with pitch
    classes (a, b). NaN where no note starts just after a frame that sounds. The pitch class
    transition matrix of Yang and Lerch, who pair each note with the next one; in a roll of chords
    "next" is the next frame.
    """
    starts = roll[1:] & ~roll[:-1]
    counts = (roll[:-1] @ FOLD).T @ (starts @ FOLD)  # (12, T - 1) @ (T - 1, 12)
    return counts / (counts.sum() or np.nan)


def scale_consistency(roll: np.ndarray) -> float:
    """Return the largest share of note-frames within one scale, (T, 88) bool; 0 to 1.

    max over the 24 major and natural minor scales of (note-frames in the scale) / (all). NaN for
    silence. Mogren's scale consistency, by note-frames. A natural minor scale has the notes of its
    relative major, so twelve of them are all.
    """
    shares = pitch_class_histogram(roll)
    return float(max(np.roll(shares, -tonic)[list(SCALE)].sum() for tonic in range(12)))


# ---- texture and rhythm --------------------------------------------------------------------------


def polyphony(roll: np.ndarray) -> float:
    """Return the notes at a time of a roll, (T, 88) bool; notes a frame, NaN for silence.

    note-frames / (frames in which a key sounds): MusPy's polyphony.
    """
    sounding = roll.any(axis=1).sum()
    return float(roll.sum() / sounding) if sounding else np.nan


def silent_share(roll: np.ndarray) -> float:
    """Return the share of frames in which no key sounds, (T, 88) bool; NaN for no frames.

    MusPy's empty-beat rate, by frames.
    """
    return float(1 - roll.any(axis=1).mean()) if len(roll) else np.nan


def mean_note_length(roll: np.ndarray, frame_beats: float) -> float:
    """Return the mean length of the notes held in a roll, (T, 88) bool; beats, NaN for silence.

    sum of lengths / number of notes, each in frames of `frame_beats` beats.
    """
    lengths = [end - start for _, start, end in held_notes(roll)]
    return float(np.mean(lengths)) * frame_beats if lengths else np.nan


def note_lengths(roll: np.ndarray) -> np.ndarray:
    """Return the share of notes of 1, 2, ... frames, (T, 88) bool -> (16,), sum 1.

    The last bin is 16 frames or more. NaN for silence. The note length histogram of Yang and Lerch,
    whose bins are note values; a roll has only frames.
    """
    lengths = [min(end - start, LONGEST) for _, start, end in held_notes(roll)]
    counts = np.bincount(lengths, minlength=LONGEST + 1)[1:]
    return counts / (counts.sum() or np.nan)


# ---- form ----------------------------------------------------------------------------------------


def self_similarity(roll: np.ndarray, lag: int) -> float:
    """Return how like itself a roll, (T, 88) bool, is after `lag` frames; 0 to 1.

    The mean over frames t of the Jaccard similarity |x_t & x_(t-lag)| / |x_t | x_(t-lag)|, where
    either sounds. NaN where the tune is not longer than the lag, or none sounds.
    """
    now, then = roll[lag:], roll[: max(len(roll) - lag, 0)]
    shared, either = (now & then).sum(axis=1), (now | then).sum(axis=1)
    heard = either > 0
    return float((shared[heard] / either[heard]).mean()) if heard.any() else np.nan


def windows(roll: np.ndarray, frames: int) -> Iterator[bytes]:
    """Yield every stretch of so many frames of a roll, (T, 88) bool, as bytes, 11 a frame."""
    packed = np.packbits(roll, axis=1).tobytes()
    for start in range(len(roll) - frames + 1):
        yield packed[start * BYTES : (start + frames) * BYTES]


def exact_repeats(roll: np.ndarray) -> float:
    """Return the share of windows that the tune had before, (T, 88) bool; 0 to 1.

    Of the windows of 16 frames at every frame, those all silent left out, the share that equals one
    which starts earlier, overlapping or not. NaN where there is no window.
    """
    sounding = [window for window in windows(roll, REPEAT_WINDOW) if any(window)]
    return 1 - len(set(sounding)) / len(sounding) if sounding else np.nan


# ---- all of them ---------------------------------------------------------------------------------


class Measure(NamedTuple):
    """A measure as the table has it: called with a roll, (T, 88) bool, and `frame_beats`."""

    function: Callable[..., Any]
    unit: str
    bins: Sequence[str] = ()  # what the places of a vector, or both sides of a square, are called
    timed: bool = False  # whether the function asks for `frame_beats` too

    def __call__(self, roll: np.ndarray, frame_beats: float) -> np.ndarray:
        """Return the measure of a roll, (D,) float: D = 1 for a scalar, a square's rows in line."""
        value = self.function(roll, frame_beats) if self.timed else self.function(roll)
        return np.ravel(np.asarray(value, dtype=float))


MEASURES = {
    "pitch count": Measure(pitch_count, "keys"),
    "pitch range": Measure(pitch_range, "semitones"),
    "pitch class entropy": Measure(pitch_class_entropy, "bits"),
    "polyphony": Measure(polyphony, "notes a frame"),
    "silence": Measure(silent_share, "share of frames"),
    "scale consistency": Measure(scale_consistency, "share of note-frames"),
    "note length": Measure(mean_note_length, "beats", timed=True),
    **{
        f"self-similarity at {lag} frames": Measure(partial(self_similarity, lag=lag), "Jaccard")
        for lag in LAGS
    },
    "exact repeats": Measure(exact_repeats, "share of windows"),
    "pitch classes": Measure(pitch_class_histogram, "share of note-frames", NAMES),
    "pitch class transitions": Measure(pitch_class_transitions, "share of transitions", NAMES),
    "note lengths": Measure(
        note_lengths, "share of notes", [*map(str, range(1, LONGEST)), f"{LONGEST}+"]
    ),
}


# ---- what is copied ------------------------------------------------------------------------------


def telling_windows(roll: np.ndarray, frames: int) -> np.ndarray:
    """Return a number for each window of a roll, (T, 88) bool, of so many frames: (n,) uint64.

    Windows of one frame held or of silence are left out: these any two tunes may share. The number
    is a polynomial hash (Karp and Rabin 1987): equal windows have the same, and two that differ
    with a probability of about 2^-64.
    """
    packed = np.packbits(roll, axis=1)
    words = np.zeros((len(roll), 16), dtype=np.uint8)
    words[:, :BYTES] = packed
    low, high = words.view(np.uint64).T  # a frame is two of them
    frame_hash = mixed(mixed(low) ^ high)
    count = max(len(roll) - frames + 1, 0)
    window_hash = np.zeros(count, dtype=np.uint64)
    for place in range(frames):
        window_hash = window_hash * FACTOR + frame_hash[place : place + count]
    changes = np.concatenate([[0], np.cumsum((packed[1:] != packed[:-1]).any(axis=1))])
    return window_hash[changes[frames - 1 :][:count] > changes[:count]]


def mixed(words: np.ndarray) -> np.ndarray:
    """Return 64-bit words so mixed that each bit hangs on all: the finaliser of SplitMix64.

    (Steele, Lea and Flood 2014, "Fast Splittable Pseudorandom Number Generators".)
    """
    words = words + np.uint64(0x9E3779B97F4A7C15)
    words = (words ^ (words >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
    words = (words ^ (words >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
    return words ^ (words >> np.uint64(31))


def known_windows(known: Iterable[np.ndarray], window: int = COPY_WINDOW) -> np.ndarray:
    """Return every window that counts of the known rolls, (T, 88) bool each: (n,) uint64."""
    found = [telling_windows(roll, window) for roll in known]
    return np.unique(np.concatenate([np.empty(0, dtype=np.uint64), *found]))


def copied_share(
    rolls: Iterable[np.ndarray], known: Iterable[np.ndarray], window: int = COPY_WINDOW
) -> float:
    """Return the share of windows of the rolls that occur, note for note, in the known ones.

    Rolls are (T, 88) bool. Of the windows of `window` frames at every frame of every roll, but
    those of silence or of one frame held all through. NaN where there is no window. A known frame
    takes 8 bytes.
    """
    return share_within(rolls, known_windows(known, window), window)


def share_within(rolls: Iterable[np.ndarray], known: np.ndarray, window: int) -> float:
    """Return `copied_share` of known windows."""
    pieces = [np.empty(0, dtype=np.uint64), *(telling_windows(roll, window) for roll in rolls)]
    found = np.concatenate(pieces)
    if not len(found):
        return np.nan
    places = np.searchsorted(known, found).clip(max=len(known) - 1)  # known ones are in order
    return float((known[places] == found).mean()) if len(known) else 0.0


# ---- one sample ----------------------------------------------------------------------------------

SILENT = 0.5  # share of frames without a note above which a sample is called silent
STUCK = 64  # frames that a chord may be held
COPIED = 0.25  # share of windows that may be in the training set


@dataclass(frozen=True)
class Health:
    """What there is to say of one sample before anybody listens to it."""

    notes: int  # held ones
    lowest: int | None  # MIDI number; None for silence
    highest: int | None
    silent_share: float  # of frames; NaN for no frames
    longest_repeat: int  # frames for which the same keys sounded on end; 0 for silence
    copied_share: float  # of 32-frame windows; NaN without a training set or a window

    def warnings(self) -> list[str]:
        """Return what is wrong, a line each with what to try; nothing for a sound sample."""
        lines = []
        if self.silent_share > SILENT:
            lines.append(
                f"silent: {self.silent_share:.0%} of the frames have no note; try another --seed,"
                " --top_p 0.95 or a longer primer"
            )
        if self.longest_repeat > STUCK:
            lines.append(
                f"stuck: the same keys sound for {self.longest_repeat} frames on end; try another"
                " --seed or a higher --temperature"
            )
        if self.copied_share > COPIED:
            lines.append(
                f"copied: {self.copied_share:.0%} of it is in the training set, note for note; try"
                " another --seed, a higher --temperature or another primer"
            )
        return lines


def health(roll: np.ndarray, known: np.ndarray | None = None) -> Health:
    """Examine one sample, (T, 88) bool.

    Args:
        roll: the sample.
        known: `known_windows` of the training set; None where it is not at hand.
    """
    keys = np.flatnonzero(roll.any(axis=0))
    return Health(
        notes=len(list(held_notes(roll))),
        lowest=int(keys[0]) + LOWEST if len(keys) else None,
        highest=int(keys[-1]) + LOWEST if len(keys) else None,
        silent_share=silent_share(roll),
        longest_repeat=longest_repeat(roll),
        copied_share=np.nan if known is None else share_within([roll], known, COPY_WINDOW),
    )


def longest_repeat(roll: np.ndarray) -> int:
    """Return for how many frames on end a roll, (T, 88) bool, stays on one frame that sounds."""
    longest = length = 0
    before = None
    for frame in windows(roll, 1):
        length = length + 1 if frame == before else 1
        before = frame
        if any(frame):
            longest = max(longest, length)
    return longest
