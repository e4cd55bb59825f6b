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


@torch.no_grad()
@pytest.mark.parametrize("layers", [1, 2])
def test_recurrent_dropout_drops_recurrent_weights_alone_in_training_alone(layers: int) -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 40, layers, 0.0, recurrent_dropout=0.5)
    inputs, zero = torch.randn(2, 3, 5), torch.zeros(layers, 2, 40)
    start = torch.randn(layers, 2, 40), torch.randn(layers, 2, 40)
    expected, expected_state = nn.LSTM.forward(lstm.eval(), inputs, start)
    output, state = lstm(inputs, start)
    torch.testing.assert_close(output, expected)
    torch.testing.assert_close(state, expected_state)
    first, second = (lstm.train()(inputs, start)[0] for _ in range(2))
    assert not torch.equal(first, second)
    # The recurrent weights of the first frame meet a state of zeros.
    torch.testing.assert_close(
        lstm(inputs[:, :1], (zero, zero))[0], lstm.eval()(inputs[:, :1], (zero, zero))[0]
    )
    for name, weights in lstm.named_parameters():
        if name.startswith("weight_hh"):
            weights.zero_()
    assert torch.equal(lstm.train()(inputs, start)[0], lstm(inputs, start)[0])


def test_the_gradient_of_dropped_recurrent_weights_has_their_mask() -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 30, 1, 0.0, recurrent_dropout=0.5).train()
    start = torch.randn(1, 2, 30), torch.randn(1, 2, 30)
    lstm(torch.randn(2, 3, 5), start)[0].sum().backward()
    gradient = lstm.weight_hh_l0.grad
    assert gradient is not None and 0.4 < float((gradient == 0).double().mean()) < 0.6
