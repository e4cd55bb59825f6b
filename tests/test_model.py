"""The whole model is causal, and scores a tune alike however it is cut, padded or sampled."""

import itertools
from collections.abc import Callable
from typing import Any

import pytest
import torch
from torch import Tensor, nn

from data import chunks, collate
from heads import DRAWS, ChordHead
from helpers import draw_frames
from helpers_train import MEMORY, stir
from memory import Past
from model import FEW, LSTM, PianoLSTM, State, first_rows
from presets import PRESETS
from sampling import generators_of, sample
from settings import ModelSettings

# Either head, one layer or two; without a memory, with one shorter than most tunes, and with one
# longer and an LSTM above it; with intervals and without.
MODELS = [
    pytest.param(
        {"latent_size": latent, "layers": layers, **memory},
        id=f"latent {latent}, layers {layers}, {name}",
    )
    for latent in (0, 4)
    for layers in (1, 2)
    for name, memory in {
        "plain": {},
        "intervals": {"intervals": True},
        "memory 5": MEMORY | {"memory": 5},
        "memory 20": MEMORY | {"memory": 20, "upper_layers": 1, "intervals": True},
    }.items()
]
# The shape of the best model known, but small.
BEST = {
    name: value for name, value in PRESETS["best"](10_000).items() if name in vars(ModelSettings())
} | {
    "embed_size": 8,
    "hidden_size": 10,
    "latent_size": 6,
    "memory": 20,
    "head_size": 4,
}


def make_model(keys: int = 88, seed: int = 0, **sizes: Any) -> PianoLSTM:
    """Return a small model, in float32 and evaluation mode, with weights that matter."""
    torch.manual_seed(seed)
    small = {"embed_size": 6, "hidden_size": 7, "latent_size": 4}
    model = PianoLSTM(ModelSettings(**{**small, **sizes}), keys).eval()
    for weights in model.parameters():
        weights.data *= 2
    stir(model)
    return model


# ---- the whole model -----------------------------------------------------------------------------


@pytest.mark.parametrize("sizes", MODELS)
def test_a_frame_changes_no_prediction_up_to_itself(sizes: dict[str, Any]) -> None:
    model = make_model(8, **sizes).double()
    frames = draw_frames(24, 8).reshape(2, 12, 8)
    before, _ = model(frames)
    for t in range(12):
        changed = frames.clone()
        changed[0, t] = 1 - changed[0, t]
        after, _ = model(changed)
        # Output t - 1 predicts frame t, and is the last that must not know it.
        assert torch.equal(after[0, :t], before[0, :t])
        assert not torch.equal(after[0, t], before[0, t])
        assert torch.equal(after[1], before[1]), "tunes side by side do not hear each other"


@pytest.mark.parametrize(("dtype", "tolerance"), [(torch.float32, 2e-6), (torch.float64, 1e-12)])
@pytest.mark.parametrize("sizes", MODELS)
def test_state_carried_over_chunks_is_one_pass(
    sizes: dict[str, Any], dtype: torch.dtype, tolerance: float
) -> None:
    model = make_model(8, **sizes).to(dtype)
    frames = draw_frames(90, 8).reshape(3, 30, 8).to(dtype)
    whole, last = model(frames)
    for size in (1, 7, 29):
        pieces, state = [], None
        for piece in frames.split(size, dim=1):
            hidden, state = model(piece, first_rows(state, 3))
            pieces.append(hidden)
        assert torch.allclose(torch.cat(pieces, dim=1), whole, rtol=0, atol=tolerance)
        for carried, single in zip(tensors_of(state), tensors_of(last), strict=True):
            assert torch.allclose(carried, single, rtol=0, atol=tolerance)


def tensors_of(state: State | None) -> list[Tensor]:
    assert state is not None
    return [state.hidden, state.cell, state.outer, *(state.past or ())]


def tunes_of(*lengths: int) -> list[Tensor]:
    return [draw_frames(n, 88, 0.05, seed=n).to(torch.uint8) for n in lengths]


def per_tune(model: PianoLSTM, tunes: list[Tensor], bptt: int) -> dict[int, tuple[Tensor, Tensor]]:
    """Return hidden (T, H) and NLL (T,) of each tune by its length, batched as in training."""
    batch = collate(tunes)
    found: dict[int, list[tuple[Tensor, Tensor]]] = {n: [] for n in batch.lengths.tolist()}
    state = None
    for chunk in chunks(batch, bptt):
        hidden, state = model(chunk.inputs, first_rows(state, len(chunk.inputs)))
        nll = model.head.nll(hidden[chunk.scored], chunk.targets[chunk.scored])
        counts = chunk.scored.sum(dim=1).tolist()
        lengths = batch.lengths[: len(counts)].tolist()
        for n, h, losses in zip(lengths, hidden, nll.split(counts), strict=True):
            found[n].append((h[: len(losses)], losses))
    return {
        n: (torch.cat([h for h, _ in parts]), torch.cat([losses for _, losses in parts]))
        for n, parts in found.items()
    }


@torch.no_grad()
@pytest.mark.parametrize("bptt", [0, 1, 5, 11])
@pytest.mark.parametrize("sizes", MODELS)
def test_padding_changes_nothing_before_it(sizes: dict[str, Any], bptt: int) -> None:
    model, lengths = make_model(**sizes), (3, 11, 2, 30, 10)
    together = per_tune(model, tunes_of(*lengths), bptt)
    assert sorted(together) == sorted(lengths)
    for n in lengths:
        # A tune by itself, uncut: silence, then all its frames but the last.
        (tune,) = tunes_of(n)
        heard = torch.cat([torch.zeros(1, 88), tune[:-1].float()])
        hidden, _ = model(heard[None])
        assert together[n][0].shape == (n, 7 + 88 * sizes.get("intervals", False))
        assert torch.allclose(together[n][0], hidden[0], rtol=0, atol=2e-6)
        alone = model.double().head.nll(hidden[0].double(), tune.double())
        model.float()
        assert torch.allclose(together[n][1].double(), alone, rtol=1e-6, atol=1e-6)


def test_first_rows_keeps_these_rows_and_cuts_the_gradient() -> None:
    hidden = torch.arange(12.0).reshape(2, 3, 2).requires_grad_()
    past = Past(
        *(hidden.reshape(3, *shape) for shape in [(2, 2), (4,), (1, 4), (2, 1, 2)] + 3 * [(4, 1)])
    )
    outer = torch.arange(6).reshape(3, 2)
    kept = first_rows(State(hidden, hidden * 10, outer, past), 2)
    assert kept is not None
    assert kept.hidden.tolist() == [[[0, 1], [2, 3]], [[6, 7], [8, 9]]]
    assert kept.cell.tolist() == [[[0, 10], [20, 30]], [[60, 70], [80, 90]]]
    assert kept.outer.tolist() == [[0, 1], [2, 3]]
    assert kept.past is not None
    assert kept.past.old_keys.tolist() == [[[0, 1], [2, 3]], [[4, 5], [6, 7]]]
    assert kept.past.heard.tolist() == [[[0], [1], [2], [3]], [[4], [5], [6], [7]]]
    assert [len(tensor) for tensor in kept.past] == 7 * [2]
    assert not any(tensor.requires_grad for tensor in tensors_of(kept))
    without = first_rows(State(hidden, hidden * 10, outer, None), 2)
    assert [len(tensors_of(state)) for state in (without, kept)] == [3, 10]
    assert first_rows(None, 2) is None


@torch.no_grad()
@pytest.mark.parametrize("sizes", [*MODELS, pytest.param(BEST, id="best")])
def test_tune_sampled_step_by_step_is_scored_alike_in_one_pass(sizes: dict[str, Any]) -> None:
    model = make_model(**sizes)
    model.head.set_marginals(torch.full((88,), 0.04))
    noise = torch.rand(60, DRAWS, generator=generators_of(3, 1)[0])
    frame, state, drawn, stepwise = torch.zeros(1, 88), None, [], 0.0
    for t in range(60):
        hidden, state = model(frame[:, None], state)
        frame = model.head.sample(hidden[:, -1], noise[t : t + 1])
        stepwise -= model.head.nll(hidden[:, -1], frame).double().item()
        drawn.append(frame)
    tune = torch.cat(drawn)  # (60, 88)
    hidden, _ = model(torch.cat([torch.zeros(1, 88), tune[:-1]])[None])
    whole = -model.head.nll(hidden[0], tune).double().sum().item()
    assert tune.any()
    assert stepwise == pytest.approx(whole, abs=1e-4)
    # And `sampling.sample` takes these very steps.
    again = sample(model, 60, generators_of(3, 1))
    assert torch.equal(again[0], tune > 0)


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {"memory": 2, "match": 2, "heads": 2, "head_size": 1},
        {"memory": 2, "match": 2, "heads": 1, "head_size": 1, "upper_layers": 1},
        {"intervals": True},
    ],
)
@pytest.mark.parametrize("latent", [0, 2])
def test_gradients_of_the_whole_model_are_right(latent: int, memory: dict[str, int]) -> None:
    model = make_model(
        3, embed_size=2, hidden_size=2, latent_size=latent, transpose=0.5, **memory
    ).double()
    frames, shift = draw_frames(10, 3).reshape(2, 5, 3), torch.tensor([0, 3])
    parameters = list(model.parameters())

    def nll(*weights: Tensor) -> Tensor:
        with torch.no_grad():
            for parameter, values in zip(parameters, weights, strict=True):
                parameter.copy_(values)
        hidden, _ = model(frames[:, :-1], shift=shift)
        return model.head.nll(hidden.flatten(0, 1), frames[:, 1:].flatten(0, 1)).sum()

    nll(*[parameter.detach().clone() for parameter in parameters]).backward()
    start, step = [parameter.detach().clone() for parameter in parameters], 1e-6
    for index, parameter in enumerate(parameters):
        assert parameter.grad is not None
        slopes = torch.zeros_like(parameter)
        for cell in itertools.product(*map(range, parameter.shape)):
            sides = []
            for sign in (1, -1):
                moved = [values.clone() for values in start]
                moved[index][cell] += sign * step
                sides.append(nll(*moved).item())
            slopes[cell] = (sides[0] - sides[1]) / (2 * step)
        assert torch.allclose(parameter.grad, slopes, rtol=1e-5, atol=1e-7)


# ---- each flag of the recipe changes what it names -----------------------------------------------


def shapes(**sizes: Any) -> dict[str, tuple[int, ...]]:
    model = PianoLSTM(ModelSettings(**sizes), keys=10)
    return {name: tuple(weights.shape) for name, weights in model.state_dict().items()}


def test_sizes_are_those_of_the_settings() -> None:
    assert shapes(embed_size=3, hidden_size=5, latent_size=2, layers=2) == {
        "embedding.weight": (3, 10),
        "embedding.bias": (3,),
        "lstm.weight_ih_l0": (20, 3),
        "lstm.weight_hh_l0": (20, 5),
        "lstm.bias_ih_l0": (20,),
        "lstm.bias_hh_l0": (20,),
        "lstm.weight_ih_l1": (20, 5),
        "lstm.weight_hh_l1": (20, 5),
        "lstm.bias_ih_l1": (20,),
        "lstm.bias_hh_l1": (20,),
        "head.logits.weight": (11, 5),
        "head.logits.bias": (11,),
        "head.context.weight": (2, 5),
        "head.context.bias": (2,),
        "head.below.weight": (10, 5),
        "head.below.bias": (10,),
        "head.chosen.weight": (2, 20),
        "head.completion.weight": (21, 2),
    }


def test_latent_size_zero_is_the_bernoulli_head() -> None:
    made = shapes(embed_size=3, hidden_size=5, latent_size=0, layers=1)
    assert {name: shape for name, shape in made.items() if name.startswith("head")} == {
        "head.logits.weight": (10, 5),
        "head.logits.bias": (10,),
    }


def test_memory_and_transposition_add_these_weights_and_no_other() -> None:
    plain = {"embed_size": 3, "hidden_size": 5, "latent_size": 2}
    with_both = shapes(**plain, memory=6, heads=2, head_size=4, match=3, transpose=0.1)
    assert {name: with_both[name] for name in with_both.keys() - shapes(**plain).keys()} == {
        "key.weight": (3, 12),
        "memory.query.weight": (24, 5),
        "memory.query.bias": (24,),
        "memory.key.weight": (24, 5),
        "memory.key.bias": (24,),
        "memory.recent.0.weight": (8, 30),
        "memory.recent.1.weight": (8, 30),
        "memory.recent.2.weight": (8, 30),
        "memory.lag": (6, 6),
        "memory.output.weight": (5, 60),
    }
    assert shapes(**plain).items() <= with_both.items()


def test_upper_layers_hear_what_is_below_them_and_the_frame() -> None:
    plain = {"embed_size": 3, "hidden_size": 5, "latent_size": 2}
    above = shapes(**plain, upper_layers=2)
    assert {name: above[name] for name in above.keys() - shapes(**plain).keys()} == {
        "upper.weight_ih_l0": (20, 8),
        "upper.weight_hh_l0": (20, 5),
        "upper.bias_ih_l0": (20,),
        "upper.bias_hh_l0": (20,),
        "upper.weight_ih_l1": (20, 5),
        "upper.weight_hh_l1": (20, 5),
        "upper.bias_ih_l1": (20,),
        "upper.bias_hh_l1": (20,),
    }


@pytest.mark.parametrize(("latent", "classes"), [(0, 10), (2, 11)])
def test_intervals_are_heard_and_told_to_the_head(latent: int, classes: int) -> None:
    made = shapes(embed_size=3, hidden_size=5, latent_size=latent, intervals=True)
    assert made["intervals.heard.weight"] == (3, 20)
    assert made["intervals.steps.weight"] == (20, 5)
    assert made["intervals.moves.weight"] == (25, 5)
    assert made["head.logits.weight"] == (classes, 15)
    assert latent == 0 or made["head.context.weight"] == (2, 15)


def test_recipe_has_88_keys_and_its_own_sizes() -> None:
    with torch.device("meta"):
        model = PianoLSTM(ModelSettings())
    assert (model.embedding.in_features, model.embedding.out_features) == (88, 300)
    assert (model.lstm.input_size, model.lstm.hidden_size, model.lstm.num_layers) == (300, 256, 1)
    assert isinstance(model.head, ChordHead)
    assert model.head.chosen.out_features == 16


@torch.no_grad()
def test_dropout_drops_its_share_and_only_in_training() -> None:
    model = make_model(8, embed_size=50, hidden_size=50, dropout=0.4).train()
    frames = draw_frames(400, 8).reshape(4, 100, 8).float()
    torch.manual_seed(0)
    first, second = model(frames)[0], model(frames)[0]
    assert not torch.equal(first, second)
    # 20,000 outputs: a share off by 0.02 is 5.8 standard deviations, by chance once in 10^8 times.
    assert (first == 0).float().mean().item() == pytest.approx(0.4, abs=0.02)
    model.eval()
    assert torch.equal(model(frames)[0], model(frames)[0])
    assert (model(frames)[0] != 0).all()


@torch.no_grad()
@pytest.mark.parametrize("rows", [1, FEW, FEW + 1])
@pytest.mark.parametrize("layers", [1, 3])
def test_an_lstm_says_the_same_frame_by_frame(layers: int, rows: int) -> None:
    torch.manual_seed(rows)
    lstm, inputs = LSTM(5, 4, layers, 0.0).eval(), torch.randn(rows, 6, 5)
    start = torch.randn(layers, rows, 4), torch.randn(layers, rows, 4)
    whole, state = nn.LSTM.forward(lstm, inputs, start)
    steps, stepped = [], start
    for t in range(6):
        heard, stepped = lstm(inputs[:, t : t + 1], stepped)
        steps.append(heard)
    close = {"rtol": 0, "atol": 1e-6}  # rounding
    torch.testing.assert_close(torch.cat(steps, dim=1), whole, **close)
    torch.testing.assert_close(stepped, state, **close)


def test_dropout_reaches_the_layers_between() -> None:
    assert make_model(8, dropout=0.4, layers=3).lstm.dropout == 0.4
    assert make_model(8, input_dropout=0.4, layers=3).lstm.dropout == 0.0


@torch.no_grad()
@pytest.mark.parametrize(
    ("dropped", "share"), [({"input_dropout": 0.4}, 0.4), ({"dropout": 0.4}, 0)]
)
def test_input_dropout_drops_its_share_of_the_embedding(
    dropped: dict[str, Any], share: float
) -> None:
    model = make_model(8, **dropped).train()
    heard: list[Tensor] = []
    catch: Callable[..., None] = lambda _, inputs: heard.append(inputs[0])  # noqa: E731
    model.lstm.register_forward_pre_hook(catch)
    model(draw_frames(4000, 8).reshape(4, 1000, 8).float())
    # 24,000 cells: a share off by 0.02 is 6.3 standard deviations.
    assert (heard[0] == 0).float().mean().item() == pytest.approx(share, abs=0.02 if share else 0)
    assert model.eval()(draw_frames(3, 8)[None].float())[0].all()
    assert (heard[1] != 0).all()


@torch.no_grad()
def test_without_dropout_training_and_evaluation_agree() -> None:
    model = make_model(8, layers=2, **MEMORY, transpose=0.5)
    frames = draw_frames(40, 8).reshape(2, 20, 8).float()
    evaluated = model(frames)[0]
    assert torch.equal(model.train()(frames)[0], evaluated)


def test_fresh_weights_are_drawn_from_the_seed() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        model = PianoLSTM(ModelSettings(embed_size=3, hidden_size=4, latent_size=2))
        return torch.nn.utils.parameters_to_vector(model.parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))
