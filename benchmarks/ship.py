"""Copy the weights of a run into pretrained/ at half the size, and print what the model card says.

    python benchmarks/ship.py runs/NAME pretrained/nottingham.safetensors

The numbers are stored as float16, which keeps three more bits of each than bfloat16 at the same
size; loading makes them float32 again. The NLL of frames may move by 0.002 at most. Weights that
lack the NLLs of the test pieces, with which --surprise compares, get them.

The end head, which learns beside a model that changes and with its dropout, is fitted once more to
the finished model: 14 passes over the training split, of which validation chooses one. All other
weights stay as they are.
"""

import argparse
import math
import sys
from copy import deepcopy
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import RollDataset
from generate import training_corpus
from model import PianoLSTM
from pianolstm.checkpoint import read_weights, write_weights
from pianolstm.metrics.surprise import PieceNLLs, nlls_per_frame
from train import EVAL_CHUNK, evaluate

CPU = torch.device("cpu")
LARGEST_CHANGE = 0.002  # nats per frame
PASSES = 14  # of the end head over the training split
FRAMES = 2048  # in a batch of these passes


@torch.no_grad()
def read_pieces(model: PianoLSTM, dataset: RollDataset) -> tuple[Tensor, Tensor, Tensor]:
    """Return what the end head reads, (F, size) and (F, P), and which frames are last, (F,)."""
    vectors, frames, last = [], [], []
    for roll in dataset.rolls:
        piece = torch.from_numpy(np.asarray(roll)).float()
        with_start = torch.cat([torch.zeros(1, piece.shape[1]), piece])[None]
        state, parts = None, []
        for chunk in with_start.split(EVAL_CHUNK, dim=1):
            part, state = model(chunk, state)
            parts.append(part[0, :, : model.end_head.size])
        vectors.append(torch.cat(parts)[1:])
        frames.append(piece)
        last.append(functional.one_hot(torch.tensor(len(piece) - 1), len(piece)).float())
    return torch.cat(vectors), torch.cat(frames), torch.cat(last)


def fit_ends(model: PianoLSTM, train: RollDataset, valid: RollDataset) -> None:
    """Fit the end head to the model as it is; the pass with the lowest validation NLL stays."""
    head, generator = model.end_head, torch.Generator().manual_seed(0)
    torch.manual_seed(0)  # of dropout
    parts, held_out = read_pieces(model, train), read_pieces(model, valid)

    def nll(vectors: Tensor, frames: Tensor, last: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(head(vectors, frames), last)

    with torch.no_grad():
        best = float(nll(*held_out))
    kept = deepcopy(head.state_dict())
    optimizer = torch.optim.AdamW(head.parameters(), lr=0.001)
    for _ in range(PASSES):
        for rows in torch.randperm(len(parts[2]), generator=generator).split(FRAMES):
            vectors, frames, last = (part[rows] for part in parts)
            optimizer.zero_grad()
            nll(functional.dropout(vectors, 0.2), frames, last).backward()
            optimizer.step()
        with torch.no_grad():
            now = float(nll(*held_out))
        if now < best:
            best, kept = now, deepcopy(head.state_dict())
    head.load_state_dict(kept)


def main() -> int:
    """Write the file; return 1, and write nothing, if its NLL would differ too much."""
    parser = argparse.ArgumentParser(description=str(__doc__).partition("\n")[0])
    parser.add_argument("run", type=Path, help="folder of a finished run")
    parser.add_argument("weights", type=Path, help="file to write")
    flags = parser.parse_args()
    path = flags.run / "model.safetensors"
    model, (tensors, metadata) = PianoLSTM.load(path), read_weights(path)
    corpus = training_corpus(path, model)
    if corpus is None:
        sys.exit(f"{path}: its training data are missing; name their folder in PIANO_DATA_DIR")
    train, valid, test = (RollDataset(corpus.splits[part]) for part in ("train", "valid", "test"))
    before = evaluate(model, valid, CPU, accuracy=False)
    fit_ends(model, train, valid)
    ends = {f"end_head.{name}": tensor for name, tensor in model.end_head.state_dict().items()}
    halves = {name: tensor.half() for name, tensor in (tensors | ends).items()}
    model.load_state_dict(halves)
    after = evaluate(model, valid, CPU, accuracy=False)
    print(f"validation NLL {before.nll:.4f}, as float16 {after.nll:.4f}")
    if not abs(after.nll - before.nll) <= LARGEST_CHANGE:
        print("not written: the NLL moves too much", file=sys.stderr)
        return 1
    rate = len(train) / float(train.lengths.sum())
    constant = -math.log(rate) - (valid.lengths.mean() - 1) * math.log1p(-rate)
    print(
        f"ends: {after.end_nll_per_piece:.2f} nats per validation piece, as trained"
        f" {before.end_nll_per_piece:.2f}, with a constant rate {constant:.2f}"
    )
    del metadata["format"]
    if not metadata.get("test_nlls"):
        nlls = PieceNLLs.of_pieces(nlls_per_frame(model, test.rolls))
        metadata["test_nlls"] = nlls._asdict()
    write_weights(flags.weights, halves, metadata)
    weights = sum(tensor.numel() for tensor in halves.values())
    print(f"{flags.weights}: {weights:,} weights, {flags.weights.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
