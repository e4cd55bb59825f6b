"""The LSTM's faster path for single frames gives what PyTorch's LSTM gives."""

import pytest
import torch
from torch import nn

from pianolstm.layers.lstm import LSTM


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, 16, 17])
@pytest.mark.parametrize("layers", [1, 3])
def test_frames_one_by_one_give_what_pytorch_gives_for_all_at_once(layers: int, rows: int) -> None:
    torch.manual_seed(rows)
    lstm, inputs = LSTM(5, 4, layers, dropout=0.5).eval(), torch.randn(rows, 6, 5)
    start = torch.randn(layers, rows, 4), torch.randn(layers, rows, 4)
    expected, expected_state = nn.LSTM.forward(lstm, inputs, start)
    outputs, state = [], start
    for frame in inputs.split(1, dim=1):
        output, state = lstm(frame, state)
        outputs.append(output)
    torch.testing.assert_close(torch.cat(outputs, dim=1), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(state, expected_state, rtol=0, atol=1e-6)


@torch.no_grad()
def test_dropout_acts_between_layers_in_training_for_single_frames_too() -> None:
    torch.manual_seed(0)
    frame, state = torch.randn(1, 1, 5), (torch.zeros(2, 1, 40), torch.zeros(2, 1, 40))
    lstm = LSTM(5, 40, 2, dropout=0.5).train()
    (first, _), (second, _) = lstm(frame, state), lstm(frame, state)
    assert not torch.equal(first, second)
    single = LSTM(5, 40, 1, dropout=0.5).train()
    state = (state[0][:1], state[1][:1])
    assert torch.equal(single(frame, state)[0], single(frame, state)[0])
