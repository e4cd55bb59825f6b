"""Both models equal reference.py in value and gradient; each setting has its effect."""

from typing import Any

import numpy as np
import pytest
import torch
from torch import Tensor

import reference
from helpers import random_frames
from helpers_train import ATTENTION, VARIANTS, frame_parameters, make_model
from model import AttentivePianoLSTM, PianoLSTM, build_model
from pianolstm.layers import attention
from settings import ModelSettings

variants = pytest.mark.parametrize("sizes", VARIANTS.values(), ids=VARIANTS)

PITCHES = 8


def random_pieces(rows: int, length: int, seed: int = 2) -> Tensor:
    """Return random pieces, (rows, length, 8) float64, which end with frames of their start.

    Two frames of the first are silent.
    """
    frames = random_frames(rows * length, PITCHES, seed=seed).view(rows, length, PITCHES)
    frames[0, [0, length // 2]] = 0
    frames[:, -length // 3 :] = frames[:, : length - (2 * length) // 3]
    return frames


# ---- the computation -----------------------------------------------------------------------------


@torch.no_grad()
@pytest.mark.parametrize("lengths", [[16], [1] * 16, [7, 8, 1]], ids=str)
@variants
def test_predictions_equal_the_reference_in_any_chunks(
    sizes: dict[str, Any], lengths: list[int], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(attention, "_BLOCK", 5)  # so that a short piece has older blocks too
    model = make_model(pitches=PITCHES, **sizes).double().eval()
    pieces, shift = random_pieces(2, 16), torch.tensor([-3, 14])
    vectors, state = [], None
    for chunk in pieces.split(lengths, dim=1):
        vector, state = model(chunk, state, shift)
        vectors.append(vector)
    weights = reference.weights_of(model)
    for row, piece, semitones in zip(torch.cat(vectors, 1), pieces, shift.tolist(), strict=True):
        expected = reference.predict(weights, piece.numpy(), semitones)
        np.testing.assert_allclose(row, expected, rtol=1e-9, atol=1e-12)


@variants
def test_the_gradient_equals_the_slope_of_the_reference(sizes: dict[str, Any]) -> None:
    model = make_model(pitches=PITCHES, **sizes).double()
    piece, shift = random_pieces(1, 10), torch.tensor([4])
    vectors, _ = model(piece[:, :-1], shift=shift)
    model.head.nll(vectors[0], piece[0, 1:]).sum().backward()
    # The slope along one random direction, in which every weight changes.
    torch.manual_seed(1)
    direction = {name: torch.randn_like(w) for name, w in frame_parameters(model).items()}
    slope = sum(float((model.get_parameter(n).grad * d).sum()) for n, d in direction.items())

    def loss(weights: reference.Weights) -> float:
        vectors = reference.predict(weights, piece[0, :-1].numpy(), 4)
        head = reference.part(weights, "head")
        pairs = zip(vectors, piece[0, 1:].numpy(), strict=True)
        return sum(reference.nll(head, vector, frame) for vector, frame in pairs)

    weights = {n: a for n, a in reference.weights_of(model).items() if n in direction}
    moved = {name: values.numpy() for name, values in direction.items()}
    assert slope == pytest.approx(reference.slope(loss, weights, moved, 1e-6), rel=1e-6)


@torch.no_grad()
@variants
def test_a_frame_changes_no_prediction_of_itself_of_earlier_frames_or_of_other_pieces(
    sizes: dict[str, Any],
) -> None:
    model = make_model(pitches=PITCHES, **sizes).double().eval()
    pieces = random_pieces(2, 10)
    before, _ = model(pieces)
    for t in range(10):
        changed = pieces.clone()
        changed[0, t] = 1 - changed[0, t]
        after, _ = model(changed)
        # Vector t - 1 predicts frame t.
        assert torch.equal(after[0, :t], before[0, :t])
        assert not torch.equal(after[0, t], before[0, t])
        assert torch.equal(after[1], before[1])


@pytest.mark.parametrize("name", ["plain", "all"])
def test_a_state_cut_to_its_first_rows_continues_these_pieces_without_gradient(name: str) -> None:
    model = make_model(pitches=PITCHES, **VARIANTS[name]).double().eval()
    earlier, later = random_pieces(3, 12).split(6, dim=1)
    _, state = model(earlier.requires_grad_())
    vectors, _ = model(later[:2], state.first_rows(2))
    expected, _ = model(later, state)
    torch.testing.assert_close(vectors, expected[:2])
    vectors.sum().backward()
    assert earlier.grad is None
    expected.sum().backward()
    assert earlier.grad is not None


# ---- settings ------------------------------------------------------------------------------------


def shapes(**sizes: Any) -> dict[str, tuple[int, ...]]:
    model = make_model(pitches=10, **sizes)
    return {name: tuple(weights.shape) for name, weights in model.state_dict().items()}


def test_the_weights_of_a_model_have_these_names_and_sizes() -> None:
    sizes = {"embed_size": 3, "hidden_size": 5, "latent_size": 2, "layers": 2}
    assert shapes(**sizes) == {
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
        "head.base.weight": (11, 5),
        "head.base.bias": (11,),
        "head.context.weight": (2, 5),
        "head.context.bias": (2,),
        "head.below.weight": (10, 5),
        "head.below.bias": (10,),
        "head.chosen_proj.weight": (2, 20),
        "head.unit_proj.weight": (21, 2),
        "end_head.hidden.weight": (32, 15),
        "end_head.hidden.bias": (32,),
        "end_head.logit.weight": (1, 32),
        "end_head.logit.bias": (1,),
    }
    head = {
        name: shape
        for name, shape in shapes(**sizes | {"latent_size": 0}).items()
        if name.startswith("head")
    }
    assert head == {"head.logits.weight": (10, 5), "head.logits.bias": (10,)}


def test_the_parts_of_an_attentive_model_add_weights_of_these_names_and_sizes() -> None:
    plain: dict[str, Any] = {"embed_size": 3, "hidden_size": 5, "latent_size": 2}
    attentive = shapes(
        **plain,
        transpose_prob=0.1,
        attention_window=6,
        viewpoints=2,
        attention_heads=3,
        head_dim=4,
        query_frames=7,
        upper_layers=1,
        relative_pitch=True,
        metrical_position=True,
        voice_leading=True,
        copy_candidates=3,
    )
    # The chord head is within the mixture with candidates.
    attentive = {name.replace("head.head.", "head."): shape for name, shape in attentive.items()}
    assert {name: attentive[name] for name in attentive.keys() - shapes(**plain).keys()} == {
        "transposition.weight": (3, 12),
        "attention.query_proj.weight": (24, 5),
        "attention.query_proj.bias": (24,),
        "attention.key_proj.weight": (24, 5),
        "attention.key_proj.bias": (24,),
        "attention.frame_proj.0.weight": (12, 70),
        "attention.frame_proj.1.weight": (12, 70),
        "attention.lag_bias": (6, 6),
        "attention.out_proj.weight": (5, 60),
        "upper_lstm.weight_ih_l0": (20, 8),
        "upper_lstm.weight_hh_l0": (20, 5),
        "upper_lstm.bias_ih_l0": (20,),
        "upper_lstm.bias_hh_l0": (20,),
        "relative_pitch.input_proj.weight": (3, 20),
        "relative_pitch.outer_proj.weight": (20, 5),
        "relative_pitch.outer_proj.bias": (20,),
        "relative_pitch.near_proj.weight": (25, 5),
        "relative_pitch.near_proj.bias": (25,),
        "metrical_position.proj.weight": (3, 63),
        "candidates.from_vector.weight": (3, 5),
        "candidates.from_vector.bias": (3,),
        "candidates.from_lengths.weight": (3, 99),
        "head.voice_leading.proj.weight": (54, 15),
        "head.voice_leading.proj.bias": (54,),
        "head.voice_leading.voice_bias": (8, 54),
    }
    assert attentive["head.base.weight"] == (11, 15)  # reads the logits by interval too


@pytest.mark.parametrize(
    "part",
    [
        {"attention_window": 1},
        {"upper_layers": 1},
        {"relative_pitch": True},
        {"metrical_position": True},
        {"voice_leading": True},
        {"copy_candidates": 1},
        {"transpose_prob": 0.1},
    ],
    ids=str,
)
def test_any_attentive_setting_makes_the_attentive_model_and_the_defaults_do_not(
    part: dict[str, Any],
) -> None:
    with torch.device("meta"):
        assert type(build_model(ModelSettings())) is PianoLSTM
        assert type(build_model(ModelSettings(**part))) is AttentivePianoLSTM


def test_new_weights_depend_on_the_seed_alone() -> None:
    def weights(seed: int) -> Tensor:
        torch.manual_seed(seed)
        settings = ModelSettings(**VARIANTS["all"])
        return torch.nn.utils.parameters_to_vector(build_model(settings).parameters()).detach()

    assert torch.equal(weights(1), weights(1))
    assert not torch.equal(weights(1), weights(2))


# ---- transposition -------------------------------------------------------------------------------


@torch.no_grad()
def test_the_model_distinguishes_twelve_transpositions_and_no_octaves() -> None:
    model = make_model(pitches=PITCHES, transpose_prob=0.5).eval()
    pieces = random_pieces(1, 5).float().expand(12, -1, -1)
    vectors, _ = model(pieces, shift=torch.arange(-5, 7))
    for one in range(12):
        for other in range(one):
            assert not torch.allclose(vectors[one], vectors[other], atol=1e-4)
    octave_higher, _ = model(pieces, shift=torch.arange(7, 19))
    assert torch.equal(octave_higher, vectors)
    torch.testing.assert_close(model(pieces)[0], vectors[5:6].expand(12, -1, -1))  # None = 0


@torch.no_grad()
def test_a_new_model_treats_all_transpositions_alike() -> None:
    model = build_model(ModelSettings(embed_size=5, hidden_size=6, transpose_prob=0.5))
    frames = random_frames(5, 88)[None].float()
    assert torch.equal(model(frames, shift=torch.tensor([5]))[0], model(frames)[0])


# ---- dropout -------------------------------------------------------------------------------------


def dropped(values: Tensor) -> float:
    return (values == 0).float().mean().item()


@torch.no_grad()
@pytest.mark.parametrize("part", [{}, {"relative_pitch": True}], ids=["plain", "attentive"])
def test_dropout_acts_on_embedding_and_outputs_in_training_alone(part: dict[str, Any]) -> None:
    model = make_model(embed_size=50, hidden_size=50, embed_dropout=0.3, dropout=0.4, **part)
    frames = random_frames(400, 88).view(4, 100, 88).float()
    inputs: list[Tensor] = []
    model.lstm.register_forward_pre_hook(lambda _, args: inputs.append(args[0]))
    outputs = model.train()(frames)[0][:, :, :50]
    # 20,000 values each: off by 0.02 is 5.8 standard deviations.
    assert dropped(inputs[0]) == pytest.approx(0.3, abs=0.02)
    assert dropped(outputs) == pytest.approx(0.4, abs=0.02)
    assert dropped(model.eval()(frames)[0]) == dropped(inputs[1]) == 0


@torch.no_grad()
def test_dropout_of_the_lower_output_leaves_what_attention_reads_and_adds() -> None:
    model = make_model(hidden_size=50, dropout=0.5, **ATTENTION).train()
    assert isinstance(model, AttentivePianoLSTM)
    assert model.attention is not None
    read: list[Tensor] = []
    model.attention.register_forward_hook(lambda _, args, output: read.extend([args[0], output[0]]))
    vectors, _ = model(random_frames(100, 88).view(4, 25, 88).float())
    output, attended = read
    kept = vectors - attended
    zero = torch.isclose(kept, torch.zeros(()), atol=1e-6)
    assert (zero | torch.isclose(kept, 2 * output, atol=1e-5)).all()
    assert (output != 0).all()
    # 5,000 values: off by 0.04 is 5.6 standard deviations.
    assert zero.float().mean().item() == pytest.approx(0.5, abs=0.04)


@torch.no_grad()
def test_the_upper_lstm_reads_the_embedding_that_the_lower_one_read_and_has_dropout_too() -> None:
    sizes = {"hidden_size": 50, "embed_size": 20, "dropout": 0.5, "embed_dropout": 0.3}
    model = make_model(**sizes, upper_layers=1, transpose_prob=0.5).train()
    assert isinstance(model, AttentivePianoLSTM)
    assert model.upper_lstm is not None
    seen: list[Tensor] = []
    for lstm in (model.lstm, model.upper_lstm):
        lstm.register_forward_hook(lambda _, args, output: seen.extend([args[0], output[0]]))
    frames = random_frames(100, 88).view(4, 25, 88).float()
    vectors, _ = model(frames, shift=torch.arange(4))
    embedded, _, inputs, output = seen
    assert torch.equal(inputs[:, :, 50:], embedded)
    added = vectors - inputs[:, :, :50]
    zero = torch.isclose(added, torch.zeros(()), atol=1e-6)
    assert (zero | torch.isclose(added, 2 * output, atol=1e-5)).all()
    assert zero.float().mean().item() == pytest.approx(0.5, abs=0.04)


# ---- use -----------------------------------------------------------------------------------------


def test_pitch_probabilities_are_those_of_each_frame_given_the_frames_before() -> None:
    model = make_model(latent_size=0).eval()
    for parameter in model.parameters():
        parameter.data *= 5  # so that predictions differ
    roll = random_frames(6, 88).bool()
    estimate = model.pitch_probabilities(roll, torch.Generator().manual_seed(1), samples=4_000)
    frames = np.concatenate([np.zeros((1, 88)), roll.numpy()])
    weights = reference.weights_of(model)
    logits = reference.predict(weights, frames) @ weights["head.logits.weight"].T
    expected = reference.sigmoid(logits + weights["head.logits.bias"])
    differences = np.abs(np.diff(expected, axis=0)).max(axis=1)
    assert differences.min() > 0.1, "the test needs predictions that differ"
    assert estimate.shape == (7, 88)
    # 616 estimates with a standard error of at most 0.008: with another seed,
    # one is off by 0.04 once in 4,000 times.
    np.testing.assert_allclose(estimate, expected, atol=0.04)


def nll_of_repeats(model: PianoLSTM, half: int, generator: torch.Generator) -> Tensor:
    """Return the NLL per frame of the repeated half of random pieces, one note a frame.

    The first three frames of the repeat are not scored, since nothing announces it.
    """
    notes = torch.randint(8, (16, half), generator=generator)
    pieces = torch.nn.functional.one_hot(notes.repeat(1, 2), 8).float()
    pieces = torch.nn.functional.pad(pieces, (0, 0, 1, 0))  # silence first
    vectors, _ = model(pieces[:, :-1])
    scored = slice(half + 3, None)
    targets = pieces[:, 1:][:, scored].flatten(0, 1)
    return model.head.nll(vectors[:, scored].flatten(0, 1), targets).mean()


def learn_repeats(**sizes: Any) -> float:
    """Return the NLL of other pieces, of a length not trained on, after a short training."""
    torch.manual_seed(0)
    settings = ModelSettings(embed_size=8, hidden_size=24, latent_size=2, **sizes)
    model = AttentivePianoLSTM(settings, pitches=8)  # without `sizes` it has no attention
    model.head.set_unigram(torch.full((8,), 1 / 8))
    generator = torch.Generator().manual_seed(2)
    optimizer = torch.optim.Adam(model.parameters(), lr=0.02)
    for step in range(150):
        optimizer.zero_grad()
        nll_of_repeats(model, 8 + step % 7, generator).backward()
        optimizer.step()
    with torch.no_grad():
        return float(nll_of_repeats(model, 15, generator))


def test_attention_and_candidates_learn_to_copy_a_repeat_which_an_lstm_of_this_size_can_not() -> (
    None
):
    # The repeats have different lags, so that only what they contain identifies them.
    chance = float(np.log(8))
    assert learn_repeats() > 0.95 * chance
    attentive = {"attention_window": 32, "query_frames": 3, "attention_heads": 2, "head_dim": 8}
    assert learn_repeats(**attentive) < 0.3 * chance
    assert learn_repeats(copy_candidates=1) < 0.01 * chance
