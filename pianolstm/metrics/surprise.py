"""Surprise: how improbable a model finds each frame and each note of a piece, exactly.

The surprise of an event is -log p(event | all before it), in nats. That of a frame is its NLL; the
head divides it into the NLLs of its notes, from the highest down, each given those above it, and of
"no further note". They add up: notes to frames, frames to the piece.

Source: information content as a measure of musical expectation, Pearce and Wiggins 2006
("Expectation in melody: the influence of context and learning", Music Perception 23).
"""

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple, Self

import numpy as np
import torch

from pianolstm.layers.heads import FrameModel
from pianolstm.midi import roll_to_notes
from pianolstm.rolls import LOWEST_PITCH, PITCHES
from pianolstm.tonality import transpose

_CHUNK = 128  # frames read at once, which bounds memory
_BATCH = 32  # pieces read side by side
_QUANTILES = 101  # percentiles 0 to 100


class Surprise(NamedTuple):
    """The surprise of a piece."""

    roll: np.ndarray  # (T, 88) bool
    notes: np.ndarray  # (T, 88) float64, nats of each note in each frame, 0 where none sounds
    silence: np.ndarray  # (T,) float64, nats of "no further note"

    @property
    def frames(self) -> np.ndarray:
        """The NLL of each frame in nats, (T,)."""
        frames: np.ndarray = self.notes.sum(axis=1) + self.silence
        return frames

    @property
    def total(self) -> float:
        """The NLL of the piece in nats."""
        return float(self.frames.sum())

    @property
    def per_frame(self) -> float:
        """Nats per frame, without the first, as in the benchmark; NaN for a single frame."""
        return float(self.frames[1:].mean()) if len(self.roll) > 1 else np.nan

    def transpose(self, semitones: int) -> "Surprise":
        """Return the same surprises at another pitch, moved as `tonality.transpose` moves notes."""
        notes = np.zeros_like(self.notes)
        for source, target in enumerate(_targets(semitones)):
            notes[:, target] += self.notes[:, source]
        return Surprise(transpose(self.roll, semitones), notes, self.silence)


@torch.inference_mode()
def surprise(model: FrameModel, roll: np.ndarray) -> Surprise:
    """Return the surprise of each note and frame of a piece.

    Args:
        model: in evaluation mode.
        roll: (T, 88) bool, in the model's key.
    """
    device = next(model.parameters()).device
    targets = torch.from_numpy(roll).float()
    inputs = torch.cat([torch.zeros(1, PITCHES), targets])[:-1]  # a piece starts from silence
    state: Any = None
    parts = [np.zeros((0, PITCHES + 1))]
    for start in range(0, len(roll), _CHUNK):
        vectors, state = model(inputs[None, start : start + _CHUNK].to(device), state)
        nll = model.head.note_nll(vectors[0], targets[start : start + _CHUNK].to(device))
        parts.append(nll.double().cpu().numpy())
    nats = np.concatenate(parts)  # (T, P + 1)
    return Surprise(roll, nats[:, 1:], nats[:, 0])


@torch.inference_mode()
def nlls_per_frame(model: FrameModel, rolls: Sequence[np.ndarray]) -> list[float]:
    """Return `Surprise.per_frame` of pieces, several side by side.

    Args:
        model: in evaluation mode.
        rolls: (T, 88) bool each.
    """
    device, lengths = next(model.parameters()).device, [len(roll) for roll in rolls]
    order = sorted(range(len(rolls)), key=lengths.__getitem__)
    means = [np.nan] * len(rolls)
    for first in range(0, len(order), _BATCH):
        chosen = order[first : first + _BATCH]
        longest = lengths[chosen[-1]]
        frames = torch.zeros(len(chosen), longest + 1, PITCHES)  # silence first
        for row, index in enumerate(chosen):
            frames[row, 1 : lengths[index] + 1] = torch.from_numpy(rolls[index])
        totals, state = np.zeros(len(chosen)), None
        for start in range(0, longest, _CHUNK):
            part = frames[:, start : start + _CHUNK + 1].to(device)
            vectors, state = model(part[:, :-1], state)
            nll = model.head.nll(vectors.flatten(0, 1), part[:, 1:].flatten(0, 1))
            grid = nll.view(len(chosen), -1).double().cpu().numpy()
            times = np.arange(start, start + grid.shape[1])
            counted = (times > 0) & (times < np.array([lengths[i] for i in chosen])[:, None])
            totals += (grid * counted).sum(axis=1)
        for row, index in enumerate(chosen):
            if lengths[index] > 1:
                means[index] = float(totals[row] / (lengths[index] - 1))
    return means


class PieceNLLs(NamedTuple):
    """The nats per frame of the pieces of a test split, short enough to be kept in weights."""

    values: tuple[float, ...]  # ascending; of more than 101 pieces, their percentiles 0 to 100
    pieces: int  # of the split, without those of a single frame

    @classmethod
    def of_pieces(cls, nlls: Sequence[float]) -> Self:
        """Return the values of all pieces of the split; NaN, that of a single frame, not counted.

        Args:
            nlls: what `nlls_per_frame` returned.
        """
        known = np.sort([nll for nll in nlls if not np.isnan(nll)])
        values = known
        if len(known) > _QUANTILES:
            values = np.quantile(known, np.linspace(0, 1, _QUANTILES))
        return cls(tuple(round(float(value), 4) for value in values), len(known))

    @classmethod
    def of_metadata(cls, metadata: Mapping[str, Any]) -> Self | None:
        """Return the values that weights keep; None if they keep none."""
        kept = metadata.get("test_nlls")
        return None if kept is None else cls(tuple(kept["values"]), kept["pieces"])


def frame_rows(found: Surprise, frame_beats: float) -> list[dict[str, Any]]:
    """Return a row for each frame: frame, beat, nats, nats of silence, MIDI numbers that sound."""
    return [
        {
            "frame": t,
            "beat": t * frame_beats,
            "nats": round(float(nats), 4),
            "silence": round(float(silence), 4),
            "pitches": " ".join(str(p + LOWEST_PITCH) for p in np.flatnonzero(frame)),
        }
        for t, (nats, silence, frame) in enumerate(
            zip(found.frames, found.silence, found.roll, strict=True)
        )
    ]


def note_rows(found: Surprise, frame_beats: float) -> list[dict[str, Any]]:
    """Return a row for each note, by start, then pitch.

    `onset` is the surprise of its first frame, `nats` that of all its frames: a note may surprise
    by its start or by being held.
    """
    rows = [
        {
            "beat": start * frame_beats,
            "beats": (end - start) * frame_beats,
            "pitch": column + LOWEST_PITCH,
            "onset": round(float(found.notes[start, column]), 4),
            "nats": round(float(found.notes[start:end, column].sum()), 4),
        }
        for column, start, end in roll_to_notes(found.roll)
    ]
    return sorted(rows, key=lambda row: (row["beat"], row["pitch"]))


def less_predictable_than(value: float, others: Sequence[float]) -> float:
    """Return the share of other values that are lower, equal ones by half, 0 to 1.

    Args:
        value: nats per frame of a piece.
        others: those of other pieces; NaN among them do not count.

    Returns:
        NaN without other values.
    """
    known = np.array([other for other in others if not np.isnan(other)])
    return float(((known < value) + (known == value) / 2).mean()) if len(known) else np.nan


def _targets(semitones: int) -> list[int]:
    """Return the column that `tonality.transpose` moves each column to."""
    columns = transpose(np.eye(PITCHES, dtype=bool), semitones)
    return [int(row.argmax()) for row in columns]
