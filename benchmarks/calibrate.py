"""Calibration: train a published LSTM with this program's parts, and hold its score to the paper's.

    python benchmarks/calibrate.py --dataset jsb --threads 1          # 2 minutes on a CPU core
    python benchmarks/calibrate.py --dataset nottingham --threads 1   # 30 seconds an epoch
    python benchmarks/calibrate.py                                    # both

If our data, model or evaluation counted anything else than the literature does, this model would
not reach the literature's score. It is the LSTM of Bai, Kolter and Koltun, "An Empirical Evaluation
of Generic Convolutional and Recurrent Networks for Sequence Modeling" (2018, arXiv:1803.01271).

Read in the paper (table 1, section 5, table 3 and A.2 of its supplement): the scores, 8.45 on JSB
and 3.29 on Nottingham; layers, width, dropout, clipping, forget-gate bias; "Adam 4e-3" for
Nottingham, "SGD/Adam" with no rate for JSB; all found by grid search. For Nottingham table 3 has
two LSTMs, 3 x 280 (clip 0.5) and 1 x 500 (clip 1), and does not say whose score table 1 gives. The
second is taken: table 1 says about 1M weights, it has 1.22M, the first 1.70M. (The first was
tried before and given up, by its valid NLL, before its rate could first be divided: above 10 after
six epochs at 4e-3 and after three at 1e-3. So the size is an argument found afterwards.)

Read in their code (github.com/locuslab/TCN, TCN/poly_music, commits ba0a543 and ec2ee10): x[1:] is
predicted from x[:-1]; a step for each tune, in a new order each epoch, on the loss summed over its
keys and frames; Adam, at 1e-3 unless told otherwise; the rate is divided by 10 after each epoch
beyond the tenth that is worse on valid than all three before; 100 epochs; the weights that were
best on valid; the score is the NLL of a whole split divided by its frames.

Not to be found: the code of the LSTM (their issue 18: not released; swap the TCN for one). So its
dropout's place, its first weights, JSB's rate (here 1e-3), and whether clipping worked: the TCN's
code clips before `backward`, when there is nothing to clip. Here gradients are clipped.

Departures: the model reads a frame of silence before each tune, as everywhere in this program (not
scored); dropout is where PianoLSTM has it, on input, between layers and on output; the embedding is
the identity, fixed, so that the LSTM reads the 88 keys; training ends early once the rate has been
divided four times, after which nothing moves.
"""

import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor, nn

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

import corpora
import settings
from data import Batch, RollDataset, batches, chunks
from evaluation import evaluate
from files import InputError
from flags import Parser
from model import PianoLSTM
from settings import K, ModelSettings

CPU = torch.device("cpu")
PUBLISHED = "LSTM (Bai et al. 2018)"
STILL = 4  # divisions of the rate by 10, after which the weights stand still


@dataclass(frozen=True)
class Recipe:
    """A line of their table 3."""

    layers: int
    hidden_size: int
    dropout: float
    clip: float  # largest norm of a step's gradient
    forget_bias: float | None  # of the forget gates at the start; None = PyTorch's
    lr: float  # of Adam


RECIPES = {
    "jsb": Recipe(2, 200, dropout=0.2, clip=1.0, forget_bias=10.0, lr=1e-3),
    "nottingham": Recipe(1, 500, dropout=0.1, clip=1.0, forget_bias=None, lr=4e-3),
}


@dataclass(frozen=True)
class Result:
    """What came of a set; NLLs in nats per frame, first frames not scored."""

    name: str
    published: float
    valid: list[float]  # after each epoch
    test: float  # with the weights that were best on valid
    seconds: float


def make_model(recipe: Recipe) -> PianoLSTM:
    """Make their LSTM: 88 keys -> LSTM -> 88 independent keys."""
    r = recipe
    sizes = ModelSettings(
        embed_size=K,
        hidden_size=r.hidden_size,
        layers=r.layers,
        latent_size=0,
        dropout=r.dropout,
        input_dropout=r.dropout,
    )
    model = PianoLSTM(sizes)
    nn.init.eye_(model.embedding.weight)
    nn.init.zeros_(model.embedding.bias)
    model.embedding.requires_grad_(False)
    if recipe.forget_bias is not None:
        for name, bias in model.lstm.named_parameters():
            if "bias" in name:  # PyTorch adds two of them, each input, forget, cell, output
                _, forget, _, _ = bias.detach().chunk(4)  # a view
                forget.fill_(recipe.forget_bias if "bias_ih" in name else 0.0)
    return model


def tune_loss(model: PianoLSTM, batch: Batch) -> Tensor:
    """Return the NLL of a tune in nats, summed over its frames but the first; a batch: the mean."""
    (chunk,) = chunks(batch, bptt=0)
    scored = chunk.scored.clone()  # (B, T + 1)
    scored[:, 0] = False
    hidden, _ = model(chunk.inputs)
    return model.head.nll(hidden[scored], chunk.targets[scored]).sum() / len(batch.lengths)


def plateau(valid: Sequence[float]) -> bool:
    """Whether the rate is divided after the last of these epochs, given the valid NLL of each."""
    return len(valid) > 10 and valid[-1] > max(valid[-4:-1])


def calibrate(corpus: corpora.Corpus, recipe: Recipe, seed: int, epochs: int) -> Result:
    """Train on a set, print a line each epoch, and score the weights that were best on valid."""
    began = time.perf_counter()
    splits = {split: RollDataset(rolls) for split, rolls in corpus.splits.items()}
    torch.manual_seed(seed)
    order = np.random.default_rng(seed)
    model = make_model(recipe)
    optimizer = torch.optim.Adam([p for p in model.parameters() if p.requires_grad], recipe.lr)
    frames = int((splits["train"].lengths - 1).sum())
    history: list[float] = []
    best: dict[str, Tensor] = {}
    divided = 0
    while len(history) < epochs and divided < STILL:
        total = 0.0
        model.train()
        for batch in batches(splits["train"], 1, order):
            loss = tune_loss(model, batch)
            optimizer.zero_grad()
            loss.backward()
            nn.utils.clip_grad_norm_(model.parameters(), recipe.clip)
            optimizer.step()
            total += float(loss.detach())
        valid = evaluate(model, splits["valid"], CPU, accuracy=False).nll
        if not history or valid < min(history):
            best = {name: tensor.clone() for name, tensor in model.state_dict().items()}
        history.append(valid)
        print(
            f"{corpus.name}  epoch {len(history):3d}   train {total / frames:6.3f}"
            f"   valid {valid:6.3f} nats/frame   lr {optimizer.param_groups[0]['lr']:.0e}"
            f"   {time.perf_counter() - began:6.0f} s",
            flush=True,
        )
        if plateau(history):
            divided += 1
            optimizer.param_groups[0]["lr"] /= 10
    model.load_state_dict(best)
    test = evaluate(model, splits["test"], CPU, accuracy=False).nll
    published = dict(corpus.published)[PUBLISHED]
    return Result(corpus.name, published, history, test, time.perf_counter() - began)


def table(results: Sequence[Result]) -> str:
    """Return the results as a Markdown table."""
    lines = ["| set | published | ours, valid | ours, test | difference | best epoch | time |"]
    lines.append("| --- " * 7 + "|")
    for r in results:
        best, epochs, difference = min(r.valid), len(r.valid), r.test - r.published
        lines.append(
            f"| {r.name} | {r.published:.2f} | {best:.3f} | {r.test:.3f} | {difference:+.2f}"
            f" | {r.valid.index(best) + 1} of {epochs} | {r.seconds / 60:.1f} min |"
        )
    return "\n".join(lines)


def main() -> None:
    """Calibrate on the sets that the flags ask for."""
    parser = Parser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("--dataset", choices=[*RECIPES, "all"], default="all")
    parser.add_argument("--data_dir", default=settings.DataSettings().data_dir, help="of the sets")
    parser.add_argument("--seed", type=int, default=settings.RunSettings().seed)
    parser.add_argument("--epochs", type=int, default=100, help="at most; theirs: 100 (default)")
    parser.add_argument("--threads", type=int, default=0, help="CPU threads; 0 = PyTorch's choice")
    flags = parser.parse_args()
    names = list(RECIPES) if flags.dataset == "all" else [flags.dataset]
    try:
        settings.TrainSettings(epochs=flags.epochs)  # the ranges are those of main.py
        settings.RunSettings(seed=flags.seed)
        settings.MachineSettings(threads=flags.threads)
        chosen = [settings.DataSettings(dataset=name, data_dir=flags.data_dir) for name in names]
        loaded = [corpora.load(data, named=True) for data in chosen]
    except (ValueError, InputError) as error:
        parser.error(str(error))
    if flags.threads:
        torch.set_num_threads(flags.threads)
    results = [calibrate(c, RECIPES[c.name], flags.seed, flags.epochs) for c in loaded]
    print("\n" + table(results))


if __name__ == "__main__":
    main()
