"""The plan of a piece: what is sampled, from what it starts, and at which pitch the model works.

`make_plan` makes it from the music that is given and from what is asked; generate.py carries it
out.
"""

import math
from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any, NamedTuple

import numpy as np

from pianolstm.chords import over_chords
from pianolstm.conditioning import (
    FrameSampler,
    cadence,
    cut_out,
    frames_to_hold,
    harmonize,
    line_to_roll,
    melody_over,
    plan_transposition,
    transpose_notes,
    unconditional,
)
from pianolstm.ending import Ending
from pianolstm.files import InputError
from pianolstm.given import DEFAULT_BPM, Given, describe_lost_onsets
from pianolstm.inputs.datasets import CHORALES, IN_C, octave_shift
from pianolstm.layers.heads import MODEL_DISTRIBUTION, AutoregressiveHead, Head, SamplingParams
from pianolstm.piece import Metre, Piece, notes_to_roll
from pianolstm.rolls import PITCHES
from pianolstm.tonality import Key, estimate_key, nearest_shift, relative, transpose


class Request(NamedTuple):
    """What is asked of a piece, beside the music that is given; lengths are of new music."""

    seconds: float  # length, where neither beats nor bars are asked for
    beats: float | None = None
    bars: float | None = None
    key: Key | None = None  # of the result; None = any
    metre: Metre | None = None  # of the result; None = that of the given music
    bpm: float | None = None  # of the result; None = that of the given music
    normalize_key: bool = True  # whether the model reads given music in C, if its data are in C
    include_primer: bool = True  # whether the result has the primer
    medley: bool = False  # one piece after another
    first_bar: int | None = None  # to compose anew, for --infill
    last_bar: int | None = None  # None = the first
    particles: int = 1  # continuations that compete to fill the bars

    def frames(
        self, frame_beats: float, bpm: float = DEFAULT_BPM, metre: Metre | None = None
    ) -> int:
        """Return the number of new frames.

        Args:
            frame_beats: length of a frame in beats.
            bpm: tempo of the seconds.
            metre: of the bars; None = 4/4.
        """
        beats = self.seconds * bpm / 60 if self.beats is None else self.beats
        if self.bars is not None:
            beats = self.bars * (metre or Metre()).bar_beats
        return max(1, round(beats / frame_beats))


@dataclass(frozen=True)
class Plan:
    """A piece to sample: what it starts from, its length, and how each frame is sampled."""

    piece: Piece  # the result before its frames are sampled
    primer: np.ndarray  # (T, 88) bool, what the model reads first, in its own key
    frames: int  # new frames
    sample_frame: FrameSampler
    # Semitones to transpose new frames by; None = of each piece by its own key, to that of `piece`.
    shift: int | None = 0
    octave: int = 0  # semitones by which the training data lie above the pitch of their music
    context: np.ndarray | None = None  # (T, 88) bool, given notes within the new frames
    wanted: Key | None = None  # key that the new frames are to be in; None = any
    cadence: np.ndarray | None = None  # (T, 88) bool, a primer in that key, in place of none
    ending: Ending | None = None  # how a piece ends; None = only when it has all its frames
    medley: bool = False  # one piece after another
    after: np.ndarray | None = None  # (T, 88) bool, frames that the new ones are to lead into
    particles: int = 1  # continuations that compete to lead there
    remarks: tuple[str, ...] = ()  # one line each on what can't be done as asked

    def is_wanted(self, roll: np.ndarray) -> bool:
        """Return whether new frames will be in the wanted key."""
        if self.wanted is None:
            return True
        key = estimate_key(roll)
        if key is None or self.shift is None:
            return key is not None and key.minor == self.wanted.minor
        return key.transpose(self.shift) == self.wanted

    def finish(self, roll: np.ndarray) -> Piece:
        """Return the piece with a roll of new frames."""
        shift, key, remarks = self.shift, self.piece.key, self.piece.remarks
        found = estimate_key(roll)
        if self.wanted and found and (shift is None or not self.is_wanted(roll)):
            if len(self.primer) and shift is not None:  # it stays at the pitch of the primer
                nearer = found.transpose(shift)
                remarks += (f"no candidate stays in {self.wanted}; this one is nearer to {nearer}",)
            else:
                key = self.wanted
                if found.minor != key.minor:
                    key = relative(key)
                    remarks += (
                        f"--key {self.wanted}: no candidate is in {self.wanted.mode}; this one is"
                        f" in {key}, its relative",
                    )
                shift = nearest_shift(found.tonic, key.tonic) - self.octave
        shift = shift or 0
        if self.context is not None:
            roll = roll & ~self.context
        roll = np.concatenate([self.piece.roll, transpose(roll, shift)])
        return replace(self.piece, roll=roll, shift=shift, key=key, remarks=remarks)


def make_plan(
    given: Given,
    request: Request,
    head: Head,
    metadata: Mapping[str, Any],
    params: SamplingParams = MODEL_DISTRIBUTION,
    ending: Ending | None = None,
) -> Plan:
    """Return how to sample a piece.

    Args:
        given: the music that it starts from, or is made around.
        request: what else is asked.
        head: the model's head.
        metadata: the model's: `dataset`, `frame_beats` and, if its data were MIDI files,
            `min_frames`.
        params: how to sample a frame.
        ending: how a piece ends that isn't as long as the given music.

    Raises:
        InputError: the given music can't be used as asked.
    """
    wanted, frame_beats, dataset = request.key, metadata["frame_beats"], metadata["dataset"]
    octave, remarks = octave_shift(dataset), list(given.remarks)
    moves = plan_transposition(
        # A few notes establish no key: those of --primer_notes are in --key, or in the model's.
        given.key if given.is_file else wanted,
        wanted,
        in_c=dataset in IN_C and (request.normalize_key or not given.is_file),
        octave=octave,
    )
    if given.is_file and wanted is not None and moves.key is not None and moves.key != wanted:
        remarks.append(
            f"--key {wanted}: {given.flag} is in {moves.key.mode}; it is now in {moves.key}, the"
            f" relative of {wanted}"
        )
    remarks += describe_lost_onsets(given, frame_beats)
    piece = Piece(
        roll=np.zeros((0, PITCHES), dtype=bool),
        frame_beats=frame_beats,
        bpm=given.bpm if request.bpm is None else request.bpm,
        metre=given.metre,
        key=moves.key if wanted is not None else given.signature or moves.key,
        given=transpose_notes(given.notes, moves.given),
        four_voices=dataset in CHORALES,
    )
    if request.metre is not None:
        upbeat = given.metre.upbeat % request.metre.bar_beats if given.metre else 0.0
        piece = replace(piece, metre=request.metre._replace(upbeat=upbeat))
    plan = Plan(
        piece,
        primer=piece.roll,
        frames=request.frames(frame_beats, piece.bpm, piece.metre),
        sample_frame=unconditional(head, params),
        shift=moves.from_model,
        octave=octave,
        remarks=tuple(remarks),
    )
    length = frames_to_hold(given.beats, frame_beats)
    if given.progression is not None:
        progression = given.progression.transpose(moves.to_model)
        sampler = over_chords(progression, head, params)
        return replace(plan, frames=len(progression.chords), sample_frame=sampler)
    if given.name == "harmonize":
        if not isinstance(head, AutoregressiveHead):
            raise InputError(
                "--harmonize: this model has independent Bernoulli outputs; train one without"
                " --latent_size=0"
            )
        context = transpose(line_to_roll(given.notes, frame_beats, length), moves.to_model)
        sampler = harmonize(context, head, params)
        return replace(plan, frames=length, sample_frame=sampler, context=context)
    least = metadata.get("min_frames", 0)
    context = transpose(notes_to_roll(given.notes, frame_beats, length, least), moves.to_model)
    if given.name == "melody_over":
        sampler = melody_over(context, head, params)
        return replace(plan, frames=length, sample_frame=sampler, context=context)
    if given.name == "infill":
        return _plan_infill(plan, given, context, request)
    if request.include_primer:
        piece = replace(piece, roll=np.zeros_like(context))
    else:
        piece = replace(piece, given=(), metre=_later(piece.metre, length * frame_beats))
    in_any_key = wanted is not None and not length and dataset not in IN_C
    return replace(
        plan,
        piece=piece,
        primer=context,
        shift=None if in_any_key else plan.shift,
        wanted=moves.key if wanted is not None or given.name == "continue_from" else None,
        cadence=None
        if wanted is None or length
        else cadence(minor=wanted.minor, frame_beats=frame_beats, octave=octave),
        ending=ending,
        medley=request.medley,
    )


def _plan_infill(plan: Plan, given: Given, context: np.ndarray, request: Request) -> Plan:
    """Return the plan of a piece in which some bars are composed anew.

    Args:
        plan: the plan of the whole piece; its metre defines the bars, 4/4 if it is not known.
        given: the piece.
        context: its frames, (T, 88) bool, at the model's pitch.
        request: the bars.

    Raises:
        InputError: there are no such bars, or nothing follows them.
    """
    first, last = request.first_bar, request.last_bar
    last = first if last is None else last
    if first is None or last is None:
        raise InputError(f"{given.flag}: which bars? Give --from_bar and --to_bar")
    if last < first:
        raise InputError(f"--from_bar {first}, --to_bar {last}: the last bar is before the first")
    piece, metre = plan.piece, plan.piece.metre or Metre()
    start = metre.upbeat + (first - 1) * metre.bar_beats
    end = metre.upbeat + last * metre.bar_beats
    start_frame, end_frame = (int(beats / piece.frame_beats + 0.5) for beats in (start, end))
    if end_frame >= len(context):
        bars = math.ceil((given.beats - metre.upbeat) / metre.bar_beats - 0.01)
        flag = "from_bar" if request.last_bar is None else "to_bar"
        raise InputError(
            f"--{flag} {last}: nothing follows it, since {given.flag} has {bars} bars of {metre};"
            " --continue_from goes on from an end"
        )
    if end_frame == start_frame:
        raise InputError(f"--from_bar {first}: shorter than one of the model's frames")
    cut = cut_out(piece.given, start, end)
    remarks = [
        f"{given.flag}: {cut.removed} notes of bars {first} to {last} (beats {start:g} to {end:g}"
        f" of {metre}) are composed anew"
    ]
    if cut.shortened:
        remarks[0] += f"; {cut.shortened} that reach into them are shortened"
    if plan.piece.metre is None:
        remarks.append(f"{given.flag}: no metre is known, so bars are of 4/4; --metre changes it")
    return replace(
        plan,
        piece=replace(piece, given=cut.notes, roll=np.zeros_like(context[:start_frame])),
        primer=context[:start_frame],
        frames=end_frame - start_frame,
        after=context[end_frame:],
        particles=request.particles,
        remarks=(*plan.remarks, *remarks),
    )


def _later(metre: Metre | None, beats: float) -> Metre | None:
    """Return the metre of what follows after some beats."""
    if metre is None:
        return None
    return metre._replace(upbeat=(metre.upbeat - beats) % metre.bar_beats)
