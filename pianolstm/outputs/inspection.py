"""What a data set holds, as text: pieces, lengths, pitches, keys, metres, copies, remarks.

`plots.plot_inspection` draws the same numbers.
"""

from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import pretty_midi

from pianolstm.rolls import LOWEST_PITCH, PITCHES, SPLITS, PackedRolls, Splits
from pianolstm.tonality import estimate_key

_NO_KEY = "none"
_MOST_KEYS = 8  # named in the text; the picture has all


@dataclass(frozen=True)
class SplitContents:
    """The contents of one split."""

    lengths: np.ndarray  # (N,) int64, frames of each piece
    polyphony: np.ndarray  # (89,) int64, frames in which so many pitches sound
    pitches: np.ndarray  # (88,) int64, frames in which each pitch sounds
    keys: Counter[str]  # pieces by estimated key, "Eb" or "Ebm"
    copies: int  # pieces equal to an earlier one of the split, up to transposition
    copies_of_train: int  # pieces equal to one of the training split, up to transposition

    @property
    def pitch_range(self) -> tuple[int, int] | None:
        """The lowest and the highest MIDI number; None for silence."""
        columns = np.flatnonzero(self.pitches)
        return (
            (int(columns[0]) + LOWEST_PITCH, int(columns[-1]) + LOWEST_PITCH)
            if len(columns)
            else None
        )


def inspect_splits(
    splits: Splits, content_hash: Callable[[np.ndarray], str]
) -> dict[str, SplitContents]:
    """Return the contents of each split.

    Args:
        splits: {"train", "valid", "test": rolls, (T, 88) bool each}.
        content_hash: of a roll; equal for pieces that are copies.
    """
    contents: dict[str, SplitContents] = {}
    of_train: set[str] = set()
    for split in SPLITS:
        rolls = PackedRolls.pack(splits[split])
        polyphony = np.zeros(PITCHES + 1, dtype=np.int64)
        keys: Counter[str] = Counter()
        hashes: list[str] = []
        for roll in rolls:
            polyphony += np.bincount(roll.sum(axis=1), minlength=PITCHES + 1)
            keys[str(estimate_key(roll) or _NO_KEY)] += 1
            hashes.append(content_hash(roll))
        contents[split] = SplitContents(
            lengths=rolls.lengths,
            polyphony=polyphony,
            pitches=rolls.pitch_counts(),
            keys=keys,
            copies=len(hashes) - len(set(hashes)),
            copies_of_train=sum(digest in of_train for digest in hashes),
        )
        if split == "train":
            of_train = set(hashes)
    return contents


def inspection_text(
    name: str,
    contents: Mapping[str, SplitContents],
    frame_beats: float,
    metres: Mapping[str, int] | None = None,
    remarks: Sequence[str] = (),
) -> str:
    """Return the contents of a data set as a text of several lines.

    Args:
        name: name of the data set.
        contents: of each split.
        frame_beats: length of a frame in beats.
        metres: MIDI files by metre; None = not known.
        remarks: of the reader, one line each, on what was left out.
    """
    rows: list[tuple[str, Callable[[SplitContents], str]]] = [
        ("pieces", lambda split: f"{len(split.lengths):,}"),
        ("frames", lambda split: f"{split.lengths.sum():,}"),
        ("frames of a piece, median", lambda split: f"{np.median(split.lengths):,.0f}"),
        ("  shortest", lambda split: f"{split.lengths.min():,}"),
        ("  longest", lambda split: f"{split.lengths.max():,}"),
        ("silent frames", lambda split: f"{split.polyphony[0] / split.lengths.sum():.1%}"),
        (
            "notes in a frame, mean",
            lambda split: f"{split.pitches.sum() / split.lengths.sum():.1f}",
        ),
        ("  most", lambda split: f"{np.flatnonzero(split.polyphony)[-1]}"),
        ("lowest note", lambda split: _pitch_name(split.pitch_range, 0)),
        ("highest note", lambda split: _pitch_name(split.pitch_range, 1)),
        ("copies in the split", lambda split: f"{split.copies:,}"),
        ("copies of training pieces", lambda split: f"{split.copies_of_train:,}"),
    ]
    lines = [f"{name}: a frame is {frame_beats:g} beats", ""]
    lines.append(f"  {'':28}" + "".join(f"{split:>12}" for split in contents))
    for label, value in rows:
        cells = [value(split) for split in contents.values()]
        if label == "copies of training pieces":
            cells[0] = ""
        lines.append((f"  {label:28}" + "".join(f"{cell:>12}" for cell in cells)).rstrip())
    keys = sum((split.keys for split in contents.values()), Counter[str]())
    lines += ["", f"keys (estimated)  {_most_common(keys)}"]
    if metres:
        lines.append(f"metres (MIDI)     {_most_common(metres)}")
    lines += ["", *remarks] if remarks else []
    return "\n".join(lines)


def _most_common(counts: Mapping[str, int]) -> str:
    """Return "G 20, D 13 and 3 in 2 others"."""
    ordered = Counter(counts).most_common()
    named, others = ordered[:_MOST_KEYS], ordered[_MOST_KEYS:]
    text = ", ".join(f"{name} {count:,}" for name, count in named)
    if others:
        text += f" and {sum(count for _, count in others):,} in {len(others)} others"
    return text


def _pitch_name(pitch_range: tuple[int, int] | None, end: int) -> str:
    return "" if pitch_range is None else str(pretty_midi.note_number_to_name(pitch_range[end]))
