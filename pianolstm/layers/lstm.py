"""PyTorch's LSTM, faster for a few pieces and more exact in bfloat16 on a CPU."""

from contextlib import nullcontext
from functools import cache

import torch
from torch import Tensor, nn

from pianolstm.layers.dropout import dropout

_FEW_ROWS = 16  # up to so many pieces, one frame is faster without oneDNN


class LSTM(nn.LSTM):
    """`nn.LSTM` with batch first, and two changes on CPUs, where oneDNN computes the LSTM.

    oneDNN rearranges the weights at every call, which takes longer than one frame of a few rows:
    without it, a single piece is sampled 2 to 4 times as fast.

    Autocast would also round the cells to bfloat16, at every frame. They could not count then: a
    sum of steps of 1/400 would stop at 1. So inputs, weights and hidden states are rounded, which
    is as fast, and the cells stay float32. Where oneDNN can't do that, all is in float32.

    Args:
        input_size: size of the input vectors.
        hidden_size: H.
        layers: number of stacked layers.
        dropout: dropout probability between the layers.
        recurrent_dropout: dropout probability of the hidden-to-hidden weights, with one mask for
            all frames of a call (Merity et al. 2018, arXiv:1708.02182).
    """

    def __init__(
        self,
        input_size: int,
        hidden_size: int,
        layers: int,
        dropout: float,
        recurrent_dropout: float = 0.0,
    ) -> None:
        """Make the layers."""
        dropout = dropout if layers > 1 else 0.0
        super().__init__(input_size, hidden_size, layers, batch_first=True, dropout=dropout)
        self.recurrent_dropout = recurrent_dropout

    def forward(  # type: ignore[override]
        self, inputs: Tensor, state: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Map inputs (B, T, input_size) and a state to outputs (B, T, H) and the next state.

        A state is hidden and cell, (layers, B, H) each.
        """
        rows, frames, _ = inputs.shape
        on_cpu = inputs.device.type == "cpu"
        casts = on_cpu and torch.is_autocast_enabled("cpu")
        drops = self.training and self.recurrent_dropout > 0 and state is not None
        if casts or drops:
            return self._forward_with(self._weights(drops), inputs, state, casts)
        if self.training or state is None or not on_cpu or rows > _FEW_ROWS or frames > 1:
            return super().forward(inputs, state)
        output, hidden, cell = inputs[:, 0], [], []
        for weights, *before in zip(self.all_weights, *state, strict=True):
            output, layer_cell = torch.lstm_cell(output, before, *weights)
            hidden.append(output)
            cell.append(layer_cell)
        return output[:, None], (torch.stack(hidden), torch.stack(cell))

    def _weights(self, drops: bool) -> list[Tensor]:
        """Return all weights, in the order that torch.lstm wants, the recurrent ones dropped."""
        return [
            dropout(weight, self.recurrent_dropout, drops and name.startswith("weight_hh"))
            for name, weight in self.named_parameters()
        ]

    def _forward_with(
        self,
        weights: list[Tensor],
        inputs: Tensor,
        state: tuple[Tensor, Tensor] | None,
        casts: bool,
    ) -> tuple[Tensor, tuple[Tensor, Tensor]]:
        """Do the same with these weights; `casts` = in bfloat16, if possible, but for the cells."""
        if state is None:
            zeros = inputs.new_zeros(self.num_layers, len(inputs), self.hidden_size)
            state = zeros, zeros
        hidden, cell = state
        if casts:
            rounded = torch.bfloat16 if _mixes_formats() else torch.float32
            inputs, hidden = inputs.to(rounded), hidden.to(rounded)
            weights, cell = [weight.to(rounded) for weight in weights], cell.float()
        with torch.autocast("cpu", enabled=False) if casts else nullcontext():
            output, hidden, cell = torch.lstm(
                inputs,
                (hidden, cell),
                weights,
                has_biases=True,
                num_layers=self.num_layers,
                dropout=self.dropout,
                train=self.training,
                bidirectional=False,
                batch_first=True,
            )
        return output, (hidden, cell)


@cache
def _mixes_formats() -> bool:
    """Return whether torch.lstm takes float32 cells beside bfloat16: only oneDNN's does."""
    # Two frames, as PyTorch's own LSTM fails at the second.
    inputs = torch.zeros(1, 2, 1, dtype=torch.bfloat16, requires_grad=True)
    state = inputs[:, :1], inputs[:, :1].float()
    weights = [inputs[0, :1].expand(4, 1)] * 2
    try:
        with torch.enable_grad(), torch.autocast("cpu", enabled=False):
            output, _, _ = torch.lstm(inputs, state, weights, False, 1, 0.0, True, False, True)
            output.sum().backward()
    except RuntimeError:
        return False
    return True
