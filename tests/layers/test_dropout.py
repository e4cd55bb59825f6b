"""Dropout: how many elements are dropped, how the others are scaled, and gradients."""

import pytest
import torch

from pianolstm.layers.dropout import Dropout, dropout


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("probability", [0.02, 0.38, 0.7])
def test_elements_are_dropped_with_the_probability_and_the_mean_is_kept(
    probability: float, dtype: torch.dtype
) -> None:
    torch.manual_seed(1)
    outputs = dropout(torch.ones(500, 403, dtype=dtype), probability, training=True)
    assert outputs.dtype == dtype
    # Five standard errors: a false alarm in two million seeds.
    error = 5 * (probability * (1 - probability) / outputs.numel()) ** 0.5
    assert float((outputs == 0).float().mean()) == pytest.approx(probability, abs=error)
    scaled = outputs[outputs != 0].unique()
    assert len(scaled) == 1
    assert float(scaled) == pytest.approx(1 / (1 - probability), rel=5e-3)


def test_neighbours_are_dropped_independently() -> None:
    torch.manual_seed(1)
    kept = dropout(torch.ones(400_000), 0.5, training=True) > 0
    for distance in range(1, 9):  # four elements share a random integer
        both = float((kept[distance:] & kept[:-distance]).float().mean())
        assert both == pytest.approx(0.25, abs=0.004)


def test_the_gradient_has_the_same_mask() -> None:
    torch.manual_seed(1)
    inputs = torch.ones(7, 9, requires_grad=True)
    outputs = dropout(inputs, 0.4, training=True)
    outputs.sum().backward()
    assert torch.equal(inputs.grad, outputs.detach())


def test_the_seed_decides_and_evaluation_changes_nothing() -> None:
    layer, inputs = Dropout(0.4), torch.rand(3, 5)
    outputs = []
    for seed in (1, 1, 2):
        torch.manual_seed(seed)
        outputs.append(layer(inputs))
    assert torch.equal(outputs[0], outputs[1])
    assert not torch.equal(outputs[0], outputs[2])
    assert layer.eval()(inputs) is inputs


def test_a_probability_next_to_1_still_gives_finite_numbers() -> None:
    assert dropout(torch.ones(10_000), 1 - 1e-9, training=True).isfinite().all()
