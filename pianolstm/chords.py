"""Chord symbols: what they mean, and melodies over them.

A progression such as "C | Am F | G7 | C" fixes in each frame which notes may sound below the
melody. The model chooses among all such frames, with its probabilities of whole frames: so chords
are voiced, and led into one another, as in its training data, and no voicing is stored here.
"""

import re
from collections.abc import Sequence
from functools import cache
from itertools import combinations
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from torch import Tensor

from pianolstm.conditioning import FrameSampler
from pianolstm.files import InputError
from pianolstm.layers.heads import (
    MODEL_DISTRIBUTION,
    AutoregressiveHead,
    Head,
    SamplingParams,
    sample_categorical,
)
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import Key, estimate_key_of_counts

_LETTERS = {"C": 0, "D": 2, "E": 4, "F": 5, "G": 7, "A": 9, "B": 11}
_ACCIDENTALS = {"": 0, "#": 1, "b": -1, "♯": 1, "♭": -1}
_PITCH_CLASS = r"([A-G])([#b♯♭]?)"
# Semitones above the root, and how the quality may be written.
QUALITIES: dict[tuple[int, ...], str] = {
    (0, 4, 7): "|maj|M",
    (0, 3, 7): "m|min|-",
    (0, 4, 7, 10): "7|dom7",
    (0, 4, 7, 11): "maj7|M7|Maj7|ma7|Δ|Δ7|^7",
    (0, 3, 7, 10): "m7|min7|-7",
    (0, 3, 7, 11): "mM7|mmaj7|m(maj7)|-Δ7",
    (0, 3, 6): "dim|o|°|mb5",
    (0, 3, 6, 9): "dim7|o7|°7",
    (0, 3, 6, 10): "m7b5|min7b5|-7b5|ø|ø7",
    (0, 4, 8): "aug|+|#5",
    (0, 4, 8, 10): "aug7|+7|7#5",
    (0, 4, 6, 10): "7b5",
    (0, 4, 7, 9): "6|maj6",
    (0, 3, 7, 9): "m6|min6|-6",
    (0, 5, 7): "sus4|sus",
    (0, 2, 7): "sus2",
    (0, 5, 7, 10): "7sus4|7sus",
    (0, 2, 4, 7): "add9|2",
    (0, 2, 4, 7, 10): "9",
    (0, 2, 4, 7, 11): "maj9|M9",
    (0, 2, 3, 7, 10): "m9|min9|-9",
    (0, 1, 4, 7, 10): "7b9",
    (0, 7): "5",
}
_INTERVALS = {name: steps for steps, names in QUALITIES.items() for name in names.split("|")}
_NO_CHORD = ("N.C.", "NC", "N.C")
_EXAMPLES = "write for example C, F#m, G7, Bbmaj7, Dm7b5 or C/E"
_MAX_BYTES = 2**16  # of a file of chords
_MAX_FRAMES = 72_000

# Where the notes below the melody may lie, in columns. Wide enough for every training set.
_BASS_COLUMNS = range(36 - LOWEST_PITCH, 73 - LOWEST_PITCH)
_SPAN = 19  # semitones from the bass to the highest of them
_MELODY_BLOCK = 6  # melody notes whose frames are evaluated at once
_NEGLIGIBLE = 1e-6  # share of the probability that may be left out


class Chord(NamedTuple):
    """A chord symbol; pitch classes count from 0 = C. Without classes, only the melody sounds."""

    root: int
    classes: frozenset[int]  # with the bass
    bass: int
    optional: frozenset[int] = (
        frozenset()
    )  # classes that need not sound: the fifth of a fuller chord

    def transpose(self, semitones: int) -> "Chord":
        """Return the chord so many semitones higher."""
        moved = [frozenset((c + semitones) % 12 for c in part) for part in (self[1], self[3])]
        return Chord((self.root + semitones) % 12, moved[0], (self.bass + semitones) % 12, moved[1])


NO_CHORD = Chord(0, frozenset(), 0)


class Progression(NamedTuple):
    """Chords on a grid of frames."""

    chords: tuple[Chord, ...]  # (T,) the chord of each frame
    # (T,) where a repeat sign repeats a frame, the index of the frame; -1 elsewhere.
    repeats: tuple[int, ...]
    off_grid: int = 0  # changes of chord that are moved to the nearest frame

    def transpose(self, semitones: int) -> "Progression":
        """Return the progression so many semitones higher."""
        return self._replace(chords=tuple(chord.transpose(semitones) for chord in self.chords))

    def key(self) -> Key | None:
        """Estimate the key from how long each pitch class of the chords sounds."""
        counts = np.zeros(12)
        for chord in self.chords:
            counts[[*chord.classes]] += 1
            counts[chord.root] += bool(chord.classes)
        sounding = [chord for chord in self.chords if chord.classes]
        if sounding:  # music tends to end on its tonic
            counts[sounding[-1].root] += len(sounding) / 4
        return estimate_key_of_counts(counts)


# ---- symbols -------------------------------------------------------------------------------------


def parse_chord(symbol: str) -> Chord:
    """Parse a chord symbol: C, Am, F#m7b5, G7sus4, Bb/D; N.C. stands for no chord.

    Raises:
        ValueError: the text is no chord symbol.
    """
    if symbol in _NO_CHORD:
        return NO_CHORD
    match = re.fullmatch(rf"{_PITCH_CLASS}([^/]*)(?:/{_PITCH_CLASS})?", symbol)
    if match is None or match[3] not in _INTERVALS:
        raise ValueError(f"{symbol!r} is no chord; {_EXAMPLES}")
    root = (_LETTERS[match[1]] + _ACCIDENTALS[match[2]]) % 12
    classes = frozenset((root + step) % 12 for step in _INTERVALS[match[3]])
    bass = root if match[4] is None else (_LETTERS[match[4]] + _ACCIDENTALS[match[5]]) % 12
    fifth = (root + 7) % 12
    optional = frozenset({fifth} - {bass}) if len(classes) > 3 else frozenset()
    return Chord(root, classes | {bass}, bass, optional)


class _Bar(NamedTuple):
    """A bar as it is written."""

    symbols: tuple[str, ...]
    starts: bool = False  # after |:
    ends: bool = False  # before :|
    ending: int | None = None  # 1 for a first ending, 2 for a second


def parse_progression(text: str, bar_beats: float, frame_beats: float) -> Progression:
    """Parse chords such as "|: C | Am F | G7 :| C |".

    Bars stand between |, or on lines of their own. The symbols of a bar share it evenly; "/" or "."
    continues the chord before it, "%" alone repeats the bar before it. Between |: and :| music is
    played twice, note for note; |1 and :|2 mark a first and a second ending.

    Args:
        text: the chords.
        bar_beats: length of a bar in beats.
        frame_beats: length of a frame in beats.

    Raises:
        ValueError: a symbol is no chord, or a bar has more chords than frames.
    """
    bars = _parse_bars(text)
    if not any(bar.symbols for bar in bars):
        raise ValueError(f"there are no chords; {_EXAMPLES}")
    chords: list[Chord] = []
    repeats: list[int] = []
    first_frame: dict[int, int] = {}  # of each written bar, where it is first played
    off_grid, time, chord = 0, 0.0, NO_CHORD

    def frame_at(beats: float) -> int:
        return int(beats / frame_beats + 0.5)

    for index in _played_order(bars):
        bar, start = bars[index], frame_at(time)
        length = frame_at(time + bar_beats) - start
        if length < len(bar.symbols):
            raise ValueError(
                f"bar {index + 1} has {len(bar.symbols)} chords, but the model's frames divide it"
                f" into {length}"
            )
        for number, symbol in enumerate(bar.symbols):
            moment = time + number * bar_beats / len(bar.symbols)
            if symbol not in ("/", "."):
                chord = parse_chord(symbol)
                off_grid += abs(moment / frame_beats - round(moment / frame_beats)) > 1e-6
            end = time + (number + 1) * bar_beats / len(bar.symbols)
            chords += [chord] * (frame_at(end) - frame_at(moment))
        again = first_frame.get(index)
        repeats += [-1 if again is None else again + t for t in range(length)]
        first_frame.setdefault(index, start)
        time += bar_beats
        if len(chords) > _MAX_FRAMES:
            raise ValueError(f"too long; the limit is {_MAX_FRAMES:,} frames")
    return Progression(tuple(chords), tuple(repeats), off_grid)


def _parse_bars(text: str) -> list[_Bar]:
    """Return the bars of a text in the order of writing."""
    text = re.sub(r"[\r\n]+", " | ", text.strip())
    bars: list[_Bar] = []
    symbols: tuple[str, ...] = ()
    starts, ending = False, None
    # Bar lines with their repeat signs, and the words between them.
    for sign in re.findall(r"[:|\]]*\|[:|\]]*|[^\s|:]+|:", f"{text} |"):
        if "|" not in sign:
            if sign == ":":
                raise ValueError("':' stands beside a bar line: |: or :|")
            mark = re.fullmatch(r"\[?([1-9])\.?", sign)
            if mark and not symbols:
                ending = int(mark[1])
            else:
                symbols += (sign,)
            continue
        if symbols:
            if symbols == ("%",):
                if not bars:
                    raise ValueError("'%' repeats the bar before it, but there is none")
                symbols = bars[-1].symbols
            ends = sign.startswith(":")
            bars.append(_Bar(symbols, starts, ends, ending))
            symbols, starts = (), False
            ending = None if ends else ending
        if sign.endswith(":"):
            starts, ending = True, None
    return bars


def _played_order(bars: Sequence[_Bar]) -> list[int]:
    """Return the indices of the bars in the order of playing."""
    order: list[int] = []
    start, turn, index = 0, 1, 0
    while index < len(bars):
        bar = bars[index]
        if bar.starts and index != start:
            start, turn = index, 1
        if bar.ending is not None and bar.ending != turn:
            index += 1
            continue
        order.append(index)
        if bar.ends and turn < _turns(bars, start):
            index, turn = start, turn + 1
            continue
        index += 1
        if bar.ends and bar.ending is None:
            start, turn = index, 1
    return order


def _turns(bars: Sequence[_Bar], start: int) -> int:
    """Return how often the repeated section that starts at a bar is played."""
    endings = [bars[start].ending or 0]
    for bar in bars[start + 1 :]:
        if bar.starts:
            break
        endings.append(bar.ending or 0)
    return max(2, *endings, 2)


def read_progression(text: str) -> str:
    """Return the chords of a file, or the text itself if it does not name one.

    Raises:
        InputError: there is no such file, or it is no text.
    """
    path = Path(text)
    try:
        is_file = path.is_file()
    except (OSError, ValueError):  # too long for a name
        is_file = False
    if not is_file:
        if path.suffix.lower() == ".txt" and "|" not in text:
            raise InputError(f"--chords {text}: no such file")
        return text
    try:
        if path.stat().st_size > _MAX_BYTES:
            raise ValueError(f"larger than {_MAX_BYTES:,} bytes")
        return path.read_text(encoding="utf-8-sig")
    except (OSError, ValueError) as error:
        raise InputError(f"--chords {text}: not a readable text ({error})") from None


# ---- voicings ------------------------------------------------------------------------------------


class _Candidates(NamedTuple):
    """The frames that a chord allows: every accompaniment with every melody that fits it."""

    accompaniments: Tensor  # (V, P) of 0 and 1
    fits: Tensor  # (V, P + 1) bool, which melodies go with each; 0 = none, 1..P = the pitches


@cache
def candidates(chord: Chord) -> _Candidates:
    """Return the frames that a chord allows.

    The notes below the melody belong to the chord, and the lowest is its bass. They are as many as
    the chord has classes, but at least two, and at most four; three are enough for a fuller chord.
    Together with the melody they have every class of the chord that is not optional. The melody is
    any note above them, or none.
    """
    if not chord.classes:
        return _Candidates(torch.zeros(1, PITCHES), torch.ones(1, PITCHES + 1, dtype=torch.bool))
    needed, size = chord.classes - chord.optional, len(chord.classes)
    sizes = (2, 3) if size == 2 else (3,) if size == 3 else (3, 4)
    pitch_classes = (np.arange(PITCHES) + LOWEST_PITCH) % 12
    accompaniments, all_melodies = [], []
    for bass in _BASS_COLUMNS:
        if pitch_classes[bass] != chord.bass:
            continue
        above = [
            column
            for column in range(bass + 1, min(bass + _SPAN + 1, PITCHES))
            if pitch_classes[column] in chord.classes
        ]
        for count in sizes:
            for others in combinations(above, count - 1):
                columns = [bass, *others]
                missing = needed - set(pitch_classes[columns].tolist())
                if len(missing) > 1 or (size > 3 and len(set(pitch_classes[columns])) < count):
                    continue
                melodies = np.zeros(PITCHES + 1, dtype=bool)
                melodies[0] = not missing
                melodies[columns[-1] + 2 :] = True
                if missing:
                    melodies[1:] &= pitch_classes == next(iter(missing))
                accompaniments.append(np.isin(np.arange(PITCHES), columns))
                all_melodies.append(melodies)
    return _Candidates(
        torch.from_numpy(np.array(accompaniments)).float(), torch.from_numpy(np.array(all_melodies))
    )


# ---- sampling ------------------------------------------------------------------------------------


def over_chords(
    progression: Progression, head: Head, params: SamplingParams = MODEL_DISTRIBUTION
) -> FrameSampler:
    """Return a function that samples the frames of a progression.

    The melody is sampled from its exact conditional distribution given the chord, the sum over all
    accompaniments of p(melody and accompaniment); then the accompaniment given the melody.

    Args:
        progression: the chords, at the model's pitch.
        head: the model's head.
        params: how to sample: `temperature` is of the melody, `chord_temperature` of the rest.
    """
    past: list[Tensor] = []  # (B, P) each

    def sample_frame(vectors: Tensor, uniforms: Tensor, t: int) -> Tensor:
        del past[t:]
        source = progression.repeats[t]
        if source >= 0:
            frame = past[source]
        else:
            allowed = candidates(progression.chords[t])
            rows = [
                _sample_row(vector, uniform, head, allowed, params)
                for vector, uniform in zip(vectors, uniforms, strict=True)
            ]
            frame = torch.stack(rows)
        past.append(frame)
        return frame

    return sample_frame


def _sample_row(
    vector: Tensor, uniforms: Tensor, head: Head, allowed: _Candidates, params: SamplingParams
) -> Tensor:
    """Sample a frame of one piece: vector (H,), uniforms (P + 1,) -> (P,)."""
    log_joint = joint_log_probs(vector, head, allowed)  # (V, P + 1)
    log_melody = log_joint.logsumexp(dim=0, keepdim=True)  # (1, P + 1)
    temperatures = (params.temperature, params.chord_temperature)
    melody = sample_categorical(log_melody, uniforms[None, :1], temperatures[0], params.top_p)
    given = log_joint[:, int(melody)][None]  # (1, V)
    index = sample_categorical(given, uniforms[None, 1:2], temperatures[1], params.top_p)
    frame = torch.zeros(PITCHES + 1).to(vector)
    frame[int(melody)] = 1.0
    return frame[1:] + allowed.accompaniments[int(index)].to(vector)


def joint_log_probs(vector: Tensor, head: Head, allowed: _Candidates) -> Tensor:
    """Return log p(accompaniment and melody) of the frames that a chord allows, -inf for others.

    The chord head's first choice bounds the probability of all frames with a melody note. Notes
    are evaluated from the most probable one; once those left can have only a millionth of the
    probability so far, they count as impossible.

    Args:
        vector: (H,), the model's output.
        head: the model's head.
        allowed: the frames.

    Returns:
        (V, P + 1); column 0 is of no melody.
    """
    accompaniments, fits = (part.to(vector.device) for part in allowed)
    log_joint = vector.new_full(fits.shape, -torch.inf)

    def evaluate(columns: Tensor) -> None:
        rows, melodies = fits[:, columns].nonzero(as_tuple=True)
        notes = columns[melodies]
        frames = torch.nn.functional.one_hot(notes, PITCHES + 1)[:, 1:].to(vector)
        frames = frames + accompaniments[rows]
        log_joint[rows, notes] = -head.nll(vector.expand(len(frames), -1), frames)

    if not isinstance(head, AutoregressiveHead):
        evaluate(torch.arange(PITCHES + 1, device=vector.device))
        return log_joint
    first = torch.softmax(head.first_logits(vector[None])[0], dim=0)  # (P + 1,), p(highest note)
    first = first * fits.any(dim=0)
    order = first[1:].argsort(descending=True) + 1
    left = float(first[1:].sum())
    evaluate(order.new_zeros(1))
    for columns in order.split(_MELODY_BLOCK):
        total = float(log_joint.logsumexp(dim=(0, 1)).exp())
        if left <= _NEGLIGIBLE * total:
            break
        evaluate(columns)
        left -= float(first[columns].sum())
    return log_joint


def in_chord_share(rolls: Sequence[np.ndarray]) -> float:
    """Return the share of melody frames whose pitch class is one of the chord below.

    The chord is all notes but the highest. Frames in which these have fewer than three pitch
    classes do not count.

    Args:
        rolls: (T, 88) bool each.

    Returns:
        Share, 0 to 1; NaN without such a frame.
    """
    counted = inside = 0
    for roll in rolls:
        for frame in roll:
            pitches = np.flatnonzero(frame) + LOWEST_PITCH
            below = {*(pitches[:-1] % 12).tolist()}
            if len(below) >= 3:
                counted += 1
                inside += pitches[-1] % 12 in below
    return inside / counted if counted else np.nan
