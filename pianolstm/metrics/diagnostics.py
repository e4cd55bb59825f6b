"""Diagnostics of one sample, with warnings of silence, loops, held notes and copied music."""

import math
from dataclasses import dataclass

import numpy as np
import pretty_midi

from pianolstm.metrics.copying import KnownPieces, copied_share
from pianolstm.metrics.form import MAX_PERIOD, LoopBounds, hold_lengths, loop_lengths
from pianolstm.metrics.pieces import packed_windows, silent_share
from pianolstm.midi import roll_to_notes
from pianolstm.rolls import LOWEST_PITCH

# A sample gets a warning above these limits.
_MAX_SILENT_SHARE = 0.5  # of frames
# Of a loop and of a single pitch, where those of the training pieces are not known. No piece of the
# five named sets has a loop of more than 35 frames, or holds a pitch for more than 512.
_BOUNDS = LoopBounds(loop=63, hold=512)
# Repeats of a longer period are often form: a tune of Nottingham plays 24 frames six times.
_MAX_TURNS = 5
_MAX_LOOP_PERIOD = 256  # frames; frames of a hundredth of a beat would make 800 of two bars
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
    loop_frames: int = 0  # length of the longest section that repeats itself, all its turns
    loop_period: int = 0  # frames of one turn; 0 without a repeat
    loop_share: float = 0.0  # share of the frames that the section has
    held_frames: int = 0  # longest run of frames in which one pitch sounds
    held_pitch: int | None = None  # its MIDI number; None for silence
    frame_beats: float | None = None  # length of a frame in beats; None = unknown
    max_loop: int = _BOUNDS.loop  # repeated frames without a warning
    max_held: int = _BOUNDS.hold  # frames of a held pitch without a warning
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
        lines += self._loop_warning() or self._hold_warning()
        if self.copied_share > _MAX_COPIED_SHARE:
            lines.append(
                f"copied: {self.copied_share:.0%} of it is in the training set, in the same key or"
                " another; try another --seed, a higher --temperature or another primer"
            )
        return lines

    def _loop_warning(self) -> list[str]:
        """Return a line on a loop, or a chord, that goes on for too long; else none."""
        repeated = self.loop_frames - self.loop_period
        if repeated <= _loop_bound(self.loop_period, self.max_loop):
            return []
        what = "one chord is held"
        if self.loop_period > 1:
            beats = f" ({self._beats(self.loop_period)})" if self.frame_beats else ""
            what = f"the same {self.loop_period} frames{beats} are repeated"
        return [
            f"stuck: {what} for {self.loop_frames} frames, {self.loop_share:.0%} of the piece; try"
            " another --seed or a higher --temperature"
        ]

    def _hold_warning(self) -> list[str]:
        """Return a line on a pitch that sounds for too long; else none."""
        if self.held_pitch is None or self.held_frames <= self.max_held:
            return []
        name = pretty_midi.note_number_to_name(self.held_pitch)
        beats = f" ({self._beats(self.held_frames)})" if self.frame_beats else ""
        return [
            f"stuck: {name} is held for {self.held_frames} frames{beats}; training pieces hold a"
            f" pitch for {self.max_held} at most; try another --seed or a higher --temperature"
        ]

    def _beats(self, frames: int) -> str:
        """Return the length of frames in beats, as text."""
        beats = frames * (self.frame_beats or 0)
        return f"{beats:g} beat{'' if beats == 1 else 's'}"

    def summary(self) -> str:
        """Return the diagnostics on one line."""
        parts = [f"{self.notes} notes"]
        if self.lowest is not None and self.highest is not None:
            lowest, highest = map(pretty_midi.note_number_to_name, (self.lowest, self.highest))
            parts.append(f"{lowest} to {highest}")
        parts.append(f"silence {self.silent_share:.0%}")
        parts.append(f"longest hold {self.longest_hold} frames")
        parts.append(f"longest loop {self.loop_frames} frames")
        if not math.isnan(self.copied_share):
            parts.append(f"copied {self.copied_share:.0%}")
        if self.copied_frames is not None:
            parts.append(f"longest copy {self.copied_frames} frames")
            if self.copied_piece is not None:
                moved = self.copied_semitones
                key = f", {moved:+d} semitones" if moved else ""
                parts[-1] += f" (training piece {self.copied_piece}{key})"
        return ", ".join(parts)


def diagnose(
    roll: np.ndarray,
    known: KnownPieces | None = None,
    *,
    frame_beats: float | None = None,
    bounds: LoopBounds | None = None,
) -> Diagnostics:
    """Return the diagnostics of one sample.

    Loops are looked for with periods of up to 16 frames or, if that is more, 8 beats: two bars.

    Args:
        roll: (T, 88) bool.
        known: the training split; None if it is not available.
        frame_beats: length of a frame in beats; None = unknown.
        bounds: longest loop and longest held pitch of the training split; None = unknown.
    """
    bounds = bounds or _BOUNDS
    two_bars = 0 if frame_beats is None else min(round(8 / frame_beats), _MAX_LOOP_PERIOD)
    loops = loop_lengths(roll, max(MAX_PERIOD, two_bars))
    # The loop that goes furthest beyond its bound; else the longest.
    beyond = loops - np.array(
        [_loop_bound(period, bounds.loop) for period in range(1, len(loops) + 1)], dtype=np.int64
    )
    ranked = beyond if (beyond > 0).any() else loops
    period = int(ranked.argmax()) + 1 if loops.any() else 0
    loop_frames = int(loops[period - 1]) + period if period else 0
    holds = hold_lengths(roll)
    passage = None if known is None else known.longest_passage(roll)
    pitches = np.flatnonzero(roll.any(axis=0))
    return Diagnostics(
        notes=len(list(roll_to_notes(roll))),
        lowest=int(pitches[0]) + LOWEST_PITCH if len(pitches) else None,
        highest=int(pitches[-1]) + LOWEST_PITCH if len(pitches) else None,
        silent_share=silent_share(roll),
        longest_hold=longest_hold(roll),
        copied_share=np.nan if known is None else copied_share([roll], known.hashes),
        loop_frames=loop_frames,
        loop_period=period,
        loop_share=loop_frames / len(roll) if len(roll) else 0.0,
        held_frames=int(holds.max(initial=0)),
        held_pitch=int(holds.argmax()) + LOWEST_PITCH if holds.any() else None,
        frame_beats=frame_beats,
        max_loop=bounds.loop,
        max_held=bounds.hold,
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


def _loop_bound(period: int, max_loop: int) -> int:
    """Return how many frames that repeat those a period earlier are no reason for a warning."""
    return max_loop if period <= MAX_PERIOD else max(max_loop, _MAX_TURNS * period)
