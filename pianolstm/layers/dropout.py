"""Dropout with a mask that is fast to draw on a CPU."""

import torch
from torch import Tensor, nn
from torch.nn import functional

_LEVELS = 2**16  # on a CPU, probabilities are multiples of its inverse


def dropout(inputs: Tensor, probability: float, training: bool) -> Tensor:
    """Set elements to 0 with this probability while training, and scale the others up.

    On a CPU, PyTorch draws Bernoulli masks one element at a time. Here, one random integer of 64
    bits decides on four elements, which takes a sixth of that time.
    """
    if not training or probability == 0:
        return inputs
    if inputs.device.type != "cpu":
        return functional.dropout(inputs, probability, training=True)
    levels = min(round(probability * _LEVELS), _LEVELS - 1)  # of 2^16, for a dropped element
    count = inputs.numel()
    integers = torch.empty(-(-count // 4), dtype=torch.int64).random_(-(2**63), None)
    # In place, the comparison gives 0 and 1 as integers, five times as fast as booleans.
    kept = integers.view(torch.int16)[:count].ge_(levels - _LEVELS // 2)
    scale = _LEVELS / (_LEVELS - levels)
    return inputs * kept.view(inputs.shape).to(inputs.dtype).mul_(scale)


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
