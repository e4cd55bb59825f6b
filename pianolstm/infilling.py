"""Infilling: frames for a gap in a piece, so that they lead into what follows it.

Sequential Monte Carlo: many continuations of what precedes the gap, the particles, are sampled side
by side from the model and weighted by the exact likelihood of the frames that follow the gap. One
of them is chosen by its weight; then its second half, and its last quarter, compete with as many
new ones.

Sources: Gordon, Salmond and Smith 1993 ("Novel approach to nonlinear/non-Gaussian Bayesian state
estimation"); Andrieu, Doucet and Holenstein 2010 ("Particle Markov chain Monte Carlo methods"), on
particles that compete with a kept one. Looking ahead within the gap, with the likelihood of what
follows as if the gap ended there, was tried; the join became no more likely.
"""

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor

from pianolstm.layers.heads import (
    MODEL_DISTRIBUTION,
    UNIFORMS_PER_FRAME,
    FrameModel,
    SamplingParams,
)
from pianolstm.rolls import PITCHES

LOOKAHEAD = 32  # frames after the gap that weigh the particles
SWEEPS = (0.0, 0.5, 0.75)  # from where in the gap particles are sampled, as a share of it


@torch.inference_mode()
def infill(
    model: FrameModel,
    before: Tensor,
    frames: int,
    after: Tensor,
    generators: Sequence[torch.Generator],
    particles: int,
    params: SamplingParams = MODEL_DISTRIBUTION,
    on_frames: Callable[[int], Any] = lambda count: None,
) -> Tensor:
    """Sample frames for a gap.

    With many particles this is a sample of p(gap | before, after), which is proportional to the
    distribution that `params` make of p(gap | before), times p(after | before, gap). With one
    particle it is a plain continuation.

    Args:
        model: in evaluation mode.
        before: (T, 88) of 0 and 1, the frames before the gap.
        frames: length of the gap.
        after: (S, 88) of 0 and 1, the frames after it; the first `LOOKAHEAD` are used.
        generators: a random generator on the CPU for each sample, its only source of randomness.
        particles: continuations that compete, for each sample.
        params: how to sample them.
        on_frames: called with the number of frames done since the last call.

    Returns:
        (B, frames, 88) bool.
    """
    device = next(model.parameters()).device
    before, after = (part.to(device, torch.float32) for part in (before, after[:LOOKAHEAD]))
    rolls = []
    for generator in generators:
        roll = before.new_zeros(frames, PITCHES)
        starts = [int(share * frames) for share in SWEEPS] if particles > 1 else [0]
        for number, start in enumerate(dict.fromkeys(starts)):
            read = torch.cat([before, roll[:start]])
            kept = roll[start:] if number else None
            roll = torch.cat(
                [
                    roll[:start],
                    _compete(
                        model, read, frames - start, after, kept, generator, particles, params
                    ),
                ]
            )
        rolls.append(roll > 0)
        on_frames(frames)
    return torch.stack(rolls).cpu()


def _compete(
    model: FrameModel,
    before: Tensor,
    frames: int,
    after: Tensor,
    kept: Tensor | None,
    generator: torch.Generator,
    particles: int,
    params: SamplingParams,
) -> Tensor:
    """Return one of several continuations, chosen by the likelihood of what follows it.

    Args:
        model: the model.
        before: (T, 88), the frames before them.
        frames: length of each.
        after: (S, 88), the frames after them.
        kept: (frames, 88), the first particle; None = sample this one as well.
        generator: the source of randomness.
        particles: number of continuations.
        params: how to sample them.

    Returns:
        (frames, 88) of 0 and 1.
    """
    sampler = model.head.sampler(params)
    silence = before.new_zeros(1, PITCHES)  # a piece starts from it
    vectors, state = model(torch.cat([silence, before])[None])
    vector = vectors[:, -1].expand(particles, -1)
    state = select_rows(state, torch.zeros(particles, dtype=torch.int64, device=before.device))
    rolls = before.new_zeros(particles, frames, PITCHES)
    for t in range(frames):
        uniforms = torch.rand(particles, UNIFORMS_PER_FRAME, generator=generator)
        rolls[:, t] = sampler(vector, uniforms.to(vector))
        if kept is not None:
            rolls[0, t] = kept[t]
        vectors, state = model(rolls[:, t : t + 1], state)
        vector = vectors[:, -1]
    weights = torch.softmax(log_likelihood(model, vector, state, after), dim=0).cpu()
    uniform = torch.rand(1, generator=generator)
    chosen = torch.searchsorted(weights.cumsum(0), uniform * weights.sum(), right=True)
    return rolls[min(int(chosen), particles - 1)]


def log_likelihood(model: FrameModel, vector: Tensor, state: Any, after: Tensor) -> Tensor:
    """Return the log-likelihood of frames that follow, in nats, (B,).

    Args:
        model: in evaluation mode.
        vector: (B, H), the model's output at the frame before them.
        state: its state there.
        after: (S, P) of 0 and 1; S at least 1.
    """
    frames = after.expand(len(vector), -1, -1)  # (B, S, P)
    vectors = vector[:, None]
    if len(after) > 1:
        following, _ = model(frames[:, :-1], state)
        vectors = torch.cat([vectors, following], dim=1)  # (B, S, H)
    nll = model.head.nll(vectors.flatten(0, 1), frames.flatten(0, 1))
    return -nll.view(len(vector), -1).sum(dim=1)


def join_nll(model: FrameModel, before: Tensor, gap: Tensor, after: Tensor) -> float:
    """Return the NLL in nats of the first `LOOKAHEAD` frames after a gap, given all before them.

    Args:
        model: in evaluation mode.
        before: (T, 88).
        gap: (G, 88), the frames in the gap.
        after: (S, 88).
    """
    device = next(model.parameters()).device
    read = torch.cat([torch.zeros(1, PITCHES), before.float(), gap.float()]).to(device)
    with torch.inference_mode():
        vectors, state = model(read[None])
        wanted = after[:LOOKAHEAD].to(device, torch.float32)
        return -float(log_likelihood(model, vectors[:, -1], state, wanted))


def select_rows(state: Any, rows: Tensor) -> Any:
    """Return the state of other pieces of the batch.

    Args:
        state: a model's state: tensors, (B, ...) each, in nested named tuples; those of an LSTM,
            a tuple with a field `cell`, are (layers, B, H). Anything else is shared by all pieces.
        rows: (N,) int64, indices of pieces; one may occur several times.
    """
    if isinstance(state, Tensor):
        return state.index_select(0, rows)
    if not isinstance(state, tuple):
        return state
    if "cell" in getattr(state, "_fields", ()):
        return type(state)(*(tensor.index_select(1, rows) for tensor in state))
    return type(state)(*(select_rows(part, rows) for part in state))
