"""Add to existing weights the nats per frame of their test pieces, which --surprise compares with.

    python benchmarks/add_test_nlls.py pretrained/nottingham.safetensors

`main.py` does so at the end of each run. This script needs the training data, and changes nothing
else in the file.
"""

import argparse
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from generate import training_corpus
from model import PianoLSTM
from pianolstm.checkpoint import add_metadata
from pianolstm.metrics.surprise import PieceNLLs, nlls_per_frame


def main() -> None:
    """Measure the test pieces of each file."""
    parser = argparse.ArgumentParser(description="Add the NLLs of test pieces to weights.")
    parser.add_argument("weights", type=Path, nargs="+")
    for path in parser.parse_args().weights:
        model = PianoLSTM.load(path)
        corpus = training_corpus(path, model)
        if corpus is None:
            sys.exit(f"{path}: its training data are missing; name their folder in PIANO_DATA_DIR")
        test = PieceNLLs.of_pieces(nlls_per_frame(model, corpus.splits["test"]))
        add_metadata(path, {"test_nlls": test._asdict()})
        low, middle, high = (test.values[i * (len(test.values) - 1) // 4] for i in (1, 2, 3))
        print(
            f"{path}: {test.pieces} test pieces, median {middle:.3f} nats per frame, half of them"
            f" {low:.3f} to {high:.3f}"
        )


if __name__ == "__main__":
    main()
