"""Copy the weights of a run into pretrained/ at half the size, and print what the model card says.

    python benchmarks/ship.py runs/NAME pretrained/nottingham.safetensors

The numbers are stored as float16, which keeps three more bits of each than bfloat16 at the same
size; loading makes them float32 again. The NLL of frames may move by 0.002 at most.
"""

import argparse
import math
import sys
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from data import RollDataset
from generate import training_corpus
from model import PianoLSTM
from pianolstm.checkpoint import read_weights, write_weights
from train import evaluate

CPU = torch.device("cpu")
LARGEST_CHANGE = 0.002  # nats per frame


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
    train, valid = (RollDataset(corpus.splits[part]) for part in ("train", "valid"))
    before = evaluate(model, valid, CPU, accuracy=False)
    halves = {name: tensor.half() for name, tensor in tensors.items()}
    model.load_state_dict(halves)
    after = evaluate(model, valid, CPU, accuracy=False)
    print(f"validation NLL {before.nll:.4f}, as float16 {after.nll:.4f}")
    if not abs(after.nll - before.nll) <= LARGEST_CHANGE:
        print("not written: the NLL moves too much", file=sys.stderr)
        return 1
    rate = len(train) / float(train.lengths.sum())
    constant = -math.log(rate) - (valid.lengths.mean() - 1) * math.log1p(-rate)
    print(
        f"ends: {after.end_nll_per_piece:.2f} nats per validation piece, with a constant rate"
        f" {constant:.2f}"
    )
    del metadata["format"]
    write_weights(flags.weights, halves, metadata)
    weights = sum(tensor.numel() for tensor in halves.values())
    print(f"{flags.weights}: {weights:,} weights, {flags.weights.stat().st_size / 1e6:.1f} MB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
