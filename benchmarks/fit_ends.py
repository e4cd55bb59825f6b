"""Train the end head of existing weights, and leave all their other numbers as they are.

    python benchmarks/fit_ends.py pretrained/nottingham.safetensors

`main.py` trains the end head along with the rest. This script adds one to weights that have none:
it reads the training split once with the model frozen and without dropout, and trains the head on
the model's vectors for five passes. The NLL of frames stays what it is. It prints the NLL of ends
per piece on the validation split, beside that of a constant rate, and writes the file anew.
"""

import argparse
import math
import sys
from dataclasses import asdict
from pathlib import Path

import numpy as np
import torch
from torch import Tensor
from torch.nn import functional

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import RollDataset, batches, bucket_by_length, chunks, load, training_data
from model import PianoLSTM, build_model
from pianolstm.checkpoint import read_weights, write_weights
from pianolstm.metrics.form import loop_bounds
from settings import ModelSettings

PASSES = 5
BATCH = 1024  # frames
LR = 0.002


@torch.inference_mode()
def read_vectors(model: PianoLSTM, dataset: RollDataset) -> tuple[Tensor, Tensor, Tensor]:
    """Return the vectors (F, H), frames (F, P) and ends (F,) of all frames of a split."""
    vectors, frames, ends = [], [], []
    for batch in batches(dataset, bucket_by_length(dataset.lengths, 32, None)):
        state = None
        for chunk in chunks(batch, 128):
            state = state and state.first_rows(len(chunk.inputs))
            output, state = model(chunk.inputs, state)
            vectors.append(output[chunk.read])
            frames.append(chunk.inputs[chunk.read].bool())
            ends.append(chunk.last[chunk.read])
    return torch.cat(vectors), torch.cat(frames), torch.cat(ends)


def main() -> None:
    """Fit the end head of one file."""
    parser = argparse.ArgumentParser(description="Train the end head of existing weights.")
    parser.add_argument("weights", type=Path)
    parser.add_argument("--seed", type=int, default=3111)
    flags = parser.parse_args()
    tensors, metadata = read_weights(flags.weights)
    torch.manual_seed(flags.seed)
    model = build_model(ModelSettings.from_dict(metadata["model"])).eval()
    kept = {name: tensor for name, tensor in tensors.items() if not name.startswith("end_head")}
    model.load_state_dict(kept, strict=False)
    corpus = load(training_data(flags.weights, metadata, {}), named=True)
    train, valid = (RollDataset(corpus.splits[split]) for split in ("train", "valid"))
    rate = len(train) / float(train.lengths.sum())
    model.end_head.set_rate(rate)
    constant = -math.log(rate) - (valid.lengths.mean() - 1) * math.log1p(-rate)
    split = {name: read_vectors(model, part) for name, part in (("train", train), ("valid", valid))}
    vectors, frames, ends = (tensor.clone() for tensor in split["train"])
    optimizer = torch.optim.Adam(model.end_head.parameters(), lr=LR)
    generator = np.random.default_rng(flags.seed)
    best, best_state = math.inf, model.state_dict()
    for number in range(1, PASSES + 1):
        for rows in torch.from_numpy(generator.permutation(len(ends))).split(BATCH):
            logits = model.end_head(vectors[rows], frames[rows].float())
            loss = functional.binary_cross_entropy_with_logits(logits, ends[rows].float())
            optimizer.zero_grad()
            loss.backward()
            optimizer.step()
        with torch.no_grad():
            outputs, inputs, last = split["valid"]
            logits = model.end_head(outputs, inputs.float())
            nll = functional.binary_cross_entropy_with_logits(logits, last.float(), reduction="sum")
            at_ends = float(torch.sigmoid(logits[last]).median())
            false_ends = float(torch.sigmoid(logits[~last]).sum()) / len(valid)
        if float(nll) < best:
            best = float(nll)
            best_state = {name: value.clone() for name, value in model.state_dict().items()}
        print(
            f"pass {number}: {float(nll) / len(valid):.2f} nats per piece on valid (constant rate"
            f" {constant:.2f}), median p(end) {at_ends:.2f} at ends, {false_ends:.2f} expected"
            " false ends per piece"
        )
    settings = {"model": asdict(model.settings)}
    metadata["loop_bounds"] = loop_bounds(train.rolls)._asdict()
    metadata = {name: value for name, value in metadata.items() if name != "format"}
    write_weights(flags.weights, best_state, settings | metadata)


if __name__ == "__main__":
    main()
