"""Diagnostics of one sample, with warnings of silence, long holds and copied music."""

import math
from dataclasses import dataclass

import numpy as np
import pretty_midi

from pianolstm.metrics.copying import KnownPieces, copied_share
from pianolstm.metrics.pieces import packed_windows, silent_share
from pianolstm.midi import roll_to_notes
from pianolstm.rolls import LOWEST_PITCH

# A sample gets a warning above these limits.
_MAX_SILENT_SHARE = 0.5  # of frames
_MAX_HOLD = 64  # frames of one chord
_MAX_COPIED_SHARE = 0.25  # of 32-frame windows


@dataclass(frozen=True)
class Diagnostics:
    """What a sample contains, and the figures that show a failed one."""

    notes: int  # held notes
    lowest: int | None  # MIDI number; None for silence
    highest: int | None  # likewise
    silent_share: float  # share of frames; NaN without frames
    longest_hold: int  # frames; longest run of equal frames that are not silent; 0 for silence
    copied_share: float  # share of 32-frame windows; NaN if unknown or without a window
    copied_frames: int | None = None  # longest passage in the training set; None if unknown
    copied_piece: int | None = None  # the training piece it is from, the first is 0
    copied_semitones: int | None = None  # by which it is transposed

    def warnings(self) -> list[str]:
        """Return one line for each limit that the sample exceeds, with settings to try."""
        lines = []
        if self.silent_share > _MAX_SILENT_SHARE:
            lines.append(
                f"silent: {self.silent_share:.0%} of the frames have no note; try another --seed,"
                " --top_p 0.95 or a longer primer"
            )
        if self.longest_hold > _MAX_HOLD:
            lines.append(
                f"stuck: one chord is held for {self.longest_hold} frames; try another --seed or a"
                " higher --temperature"
            )
        if self.copied_share > _MAX_COPIED_SHARE:
            lines.append(
                f"copied: {self.copied_share:.0%} of it is in the training set, in the same key or"
                " another; try another --seed, a higher --temperature or another primer"
            )
        return lines

    def summary(self) -> str:
        """Return the diagnostics on one line."""
        parts = [f"{self.notes} notes"]
        if self.lowest is not None and self.highest is not None:
            lowest, highest = map(pretty_midi.note_number_to_name, (self.lowest, self.highest))
            parts.append(f"{lowest} to {highest}")
        parts.append(f"silence {self.silent_share:.0%}")
        parts.append(f"longest hold {self.longest_hold} frames")
        if not math.isnan(self.copied_share):
            parts.append(f"copied {self.copied_share:.0%}")
        if self.copied_frames is not None:
            parts.append(f"longest copy {self.copied_frames} frames")
            if self.copied_piece is not None:
                moved = self.copied_semitones
                key = f", {moved:+d} semitones" if moved else ""
                parts[-1] += f" (training piece {self.copied_piece}{key})"
        return ", ".join(parts)


def diagnose(roll: np.ndarray, known: KnownPieces | None = None) -> Diagnostics:
    """Return the diagnostics of one sample.

    Args:
        roll: (T, 88) bool.
        known: the training split; None if it is not available.
    """
    passage = None if known is None else known.longest_passage(roll)
    pitches = np.flatnonzero(roll.any(axis=0))
    return Diagnostics(
        notes=len(list(roll_to_notes(roll))),
        lowest=int(pitches[0]) + LOWEST_PITCH if len(pitches) else None,
        highest=int(pitches[-1]) + LOWEST_PITCH if len(pitches) else None,
        silent_share=silent_share(roll),
        longest_hold=longest_hold(roll),
        copied_share=np.nan if known is None else copied_share([roll], known.hashes),
        copied_frames=None if known is None else passage.frames if passage else 0,
        copied_piece=passage.piece if passage else None,
        copied_semitones=passage.semitones if passage else None,
    )


def longest_hold(roll: np.ndarray) -> int:
    """Return the length in frames of the longest run of equal frames that are not silent.

    Args:
        roll: (T, 88) bool.
    """
    longest = length = 0
    previous = None
    for frame in packed_windows(roll, 1):
        length = length + 1 if frame == previous else 1
        previous = frame
        if any(frame):
            longest = max(longest, length)
    return longest
