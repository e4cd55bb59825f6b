"""The expected frame accuracy is that of the ICML 2012 benchmark."""

import itertools
from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

from helpers_train import random_rolls
from pianolstm.layers.heads import UNIFORMS_PER_FRAME, BernoulliHead, Head
from pianolstm.metrics.accuracy import expected_accuracy, piece_uniforms


class Copies(Head):
    """A head whose k-th sample of a frame is row k of a list."""

    def __init__(self, *samples: list[float]) -> None:
        super().__init__()
        self.samples = iter(samples)

    def sample(self, hidden: Tensor, *_: Any) -> Tensor:
        return torch.tensor(next(self.samples)).expand(len(hidden), -1)


def test_the_accuracy_of_a_frame_is_the_mean_over_samples_worked_out_by_hand() -> None:
    frames = torch.tensor([[1.0, 1.0, 0.0], [0.0, 0.0, 0.0], [0.0, 0.0, 1.0]])
    head = Copies([1, 0, 1], [0, 0, 0], [1, 1, 0])
    # Frame 1: 1 / 3, 0 / 2, 2 / 2. Silence: 0 / 2, 0 by convention, 0 / 2. Frame 3: 1 / 2, 0, 0.
    found = expected_accuracy(head, torch.zeros(3, 2), frames, torch.zeros(3, 3, 4))
    assert found.tolist() == pytest.approx([(1 / 3 + 0 + 1) / 3, 0, 1 / 6])


@torch.no_grad()
def test_the_accuracy_is_near_the_exact_expectation_of_a_brute_force_computation() -> None:
    torch.manual_seed(0)
    head, vectors = BernoulliHead(2, pitches=4), torch.randn(5, 2)
    frames = torch.from_numpy(random_rolls(5, density=0.5)[0][:, 20:24]).float()
    p = torch.sigmoid(head.logits(vectors)).numpy()
    exact = np.zeros(5)
    for t, wanted in enumerate(frames.numpy() > 0):
        for cells in itertools.product([False, True], repeat=4):
            sampled = np.array(cells)
            probability = np.where(sampled, p[t], 1 - p[t]).prod()
            union = (sampled | wanted).sum()
            exact[t] += probability * (sampled & wanted).sum() / max(union, 1)
    uniforms = torch.rand(5, 20_000, 4, generator=torch.Generator().manual_seed(1))
    found = expected_accuracy(head, vectors, frames, uniforms)
    np.testing.assert_allclose(found, exact, atol=4.5 * 0.5 / 20_000**0.5)


def test_the_random_numbers_of_a_piece_depend_on_its_generator_alone() -> None:
    def generators() -> list[torch.Generator]:
        return [torch.Generator().manual_seed(seed) for seed in (5, 6)]

    both = generators()
    parts = [piece_uniforms(both, counts, 2) for counts in ([2, 3], [1, 0])]
    alone = piece_uniforms(generators()[:1], [3], 2)
    assert torch.equal(torch.cat([parts[0][:2], parts[1]]), alone)
    assert alone.shape == (3, 2, UNIFORMS_PER_FRAME)
