"""The LSTM gives what PyTorch's gives, frame by frame too, and counts in bfloat16."""

from collections.abc import Iterator

import pytest
import torch
from torch import nn

from pianolstm.layers.lstm import LSTM, _mixes_formats


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


# ---- bfloat16 ------------------------------------------------------------------------------------


# Of PyTorch's own switch for oneDNN.
without_tf32_warning = pytest.mark.filterwarnings("ignore:TF32 acceleration:UserWarning")


@pytest.fixture(params=[True, False], ids=["oneDNN", "no oneDNN"])
def onednn(request: pytest.FixtureRequest) -> Iterator[bool]:
    """With oneDNN, if the machine has it, and as on a machine without it."""
    _mixes_formats.cache_clear()
    enabled = request.param and torch.backends.mkldnn.is_available()
    with torch.backends.mkldnn.flags(enabled=enabled):
        yield enabled
    _mixes_formats.cache_clear()


@torch.no_grad()
@without_tf32_warning
@pytest.mark.parametrize("layers", [1, 2])
def test_a_cell_sums_many_small_steps_under_autocast_as_in_float32(
    layers: int, onednn: bool
) -> None:
    lstm = LSTM(1, 4, layers, 0.0)
    for name, weights in lstm.named_parameters():
        weights.zero_()
        if name.startswith("bias_ih"):  # gates: input 1/404, forget 1, cell 1, output 1
            weights[:4], weights[4:] = -6.0, 20.0
    frames = torch.zeros(2, 1000, 1)
    _, (_, exact) = lstm(frames)
    torch.testing.assert_close(exact, torch.full_like(exact, 2.4726), rtol=0, atol=1e-3)
    with torch.autocast("cpu", torch.bfloat16):
        output, (_, cell) = lstm(frames)
        state = None
        for chunk in frames.split(100, dim=1):
            _, state = lstm(chunk, state)
    assert output.dtype == (torch.bfloat16 if _mixes_formats() else torch.float32)
    assert cell.dtype == torch.float32
    assert onednn or not _mixes_formats()
    torch.testing.assert_close(cell, exact, rtol=0, atol=1e-3)
    assert state is not None
    torch.testing.assert_close(state[1], exact, rtol=0, atol=1e-3)


@without_tf32_warning
@pytest.mark.parametrize("recurrent_dropout", [0.0, 0.5])
def test_the_gradients_under_autocast_are_those_of_float32_but_for_rounding(
    recurrent_dropout: float, onednn: bool
) -> None:
    torch.manual_seed(0)
    lstm = LSTM(5, 8, 2, 0.0, recurrent_dropout).train()
    inputs, state = torch.randn(3, 7, 5), (torch.randn(2, 3, 8), torch.randn(2, 3, 8))

    def gradients(bfloat16: bool) -> list[torch.Tensor]:
        torch.manual_seed(1)  # of the dropped weights
        lstm.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, bfloat16):
            output, (hidden, cell) = lstm(inputs, state)
        (output.float().square().sum() + hidden.float().sum() + cell.sum()).backward()
        return [weights.grad.clone() for weights in lstm.parameters() if weights.grad is not None]

    for rounded, exact in zip(gradients(True), gradients(False), strict=True):
        assert float((rounded - exact).norm() / exact.norm()) < 0.03
