"""Frame accuracy: how many of the notes of the next frame a model predicts, given the true past.

Both accuracies count the notes of a predicted frame as right (TP), too many (FP) and missed (FN),
as Bay, Ehmann and Downie 2009 do ("Evaluation of Multiple-F0 Estimation and Tracking Systems"):
TP / (TP + FP + FN).
"""

import torch
from torch import Tensor

from pianolstm.layers.heads import GREEDY, UNIFORMS_PER_FRAME, Head


def greedy_counts(head: Head, vectors: Tensor, frames: Tensor) -> tuple[int, int]:
    """Return TP, and FP + FN, of the greedy frames.

    Args:
        head: of the model.
        vectors: (F, H), the model's vectors before the frames.
        frames: (F, P) of 0 and 1.
    """
    unused = vectors.new_zeros(len(vectors), UNIFORMS_PER_FRAME)
    predicted, true = head.sample(vectors, unused, GREEDY) > 0, frames > 0
    return int((predicted & true).sum()), int((predicted ^ true).sum())


def expected_accuracy(head: Head, vectors: Tensor, frames: Tensor, uniforms: Tensor) -> Tensor:
    """Return the expected accuracy of each frame, (F,), estimated with D samples.

    This is the rule of the benchmark of Boulanger-Lewandowski et al. 2012: for each frame, the
    expectation, under the model's distribution, of the accuracy of that frame alone; it is then
    averaged over all frames. The rule does not say what silence sampled as silence counts: here 0,
    the strictest reading.

    Args:
        head: of the model.
        vectors: (F, H), the model's vectors before the frames.
        frames: (F, P) of 0 and 1.
        uniforms: (F, D, UNIFORMS_PER_FRAME) in [0, 1).
    """
    true, total = frames > 0, vectors.new_zeros(len(vectors))
    for uniform in uniforms.unbind(1):
        sampled = head.sample(vectors, uniform) > 0
        right, all_notes = (sampled & true).sum(dim=1), (sampled | true).sum(dim=1)
        total += right / all_notes.clamp(min=1)
    return total / uniforms.shape[1]


def piece_uniforms(generators: list[torch.Generator], frames: list[int], draws: int) -> Tensor:
    """Return the random numbers of the next frames of several pieces, (F, D, UNIFORMS_PER_FRAME).

    Args:
        generators: one for each piece, so that its numbers depend on no other piece.
        frames: how many frames of each piece.
        draws: D.
    """
    return torch.cat(
        [
            torch.rand(count, draws, UNIFORMS_PER_FRAME, generator=generator)
            for count, generator in zip(frames, generators, strict=True)
        ]
    )
