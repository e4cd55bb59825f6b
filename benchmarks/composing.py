"""Measure what composing with the model is worth, on test pieces; write composing.md.

    python benchmarks/composing.py pretrained/nottingham.safetensors

Chords: melodies over the chord progressions of test pieces, beside these pieces and free samples.
The share of melody notes that belong to the chord should be that of real pieces, and chords should
be voiced as in the training split. Gaps: the NLL of the 32 frames that follow a gap, filled
by `--infill`, by a plain continuation, and by the piece itself.
"""

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from data import load, training_data
from generate import sample_rolls
from model import PianoLSTM
from pianolstm.checkpoint import find_weights
from pianolstm.chords import (
    NO_CHORD,
    QUALITIES,
    Chord,
    Progression,
    in_chord_share,
    over_chords,
    parse_chord,
)
from pianolstm.conditioning import FrameSampler
from pianolstm.files import InputError
from pianolstm.infilling import LOOKAHEAD, infill, join_nll
from pianolstm.layers.heads import SamplingParams
from pianolstm.rolls import LOWEST_PITCH
from pianolstm.runtime import make_generators, run_script
from pianolstm.tonality import KEY_NAMES
from settings import SampleSettings

MOST_FRAMES = 256  # of a progression


def recognise(roll: np.ndarray) -> Progression:
    """Return the chords below the highest notes of a roll, (T, 88) bool.

    A frame whose lower notes are no chord with a name continues the chord before it.
    """
    by_classes: dict[tuple[frozenset[int], int], Chord] = {}
    for root, name in enumerate(KEY_NAMES):
        for quality in QUALITIES.values():
            chord = parse_chord(name + quality.split("|")[0])
            for bass in sorted(chord.classes):
                key = (chord.classes, bass)
                if key not in by_classes or bass == root:
                    by_classes[key] = chord._replace(bass=bass)
    chords, current = [], NO_CHORD
    for frame in roll:
        pitches = (np.flatnonzero(frame) + LOWEST_PITCH)[:-1] % 12
        if len({*pitches.tolist()}) >= 3:
            current = by_classes.get((frozenset(pitches.tolist()), int(pitches[0])), current)
        chords.append(current)
    return Progression(tuple(chords), (-1,) * len(chords))


def voicings(rolls: Sequence[np.ndarray]) -> list[bytes]:
    """Return the notes below the highest one of each frame that has three or more of them."""
    found = []
    for roll in rolls:
        for frame in roll[roll.sum(axis=1) > 3]:
            lower = frame.copy()
            lower[np.flatnonzero(frame)[-1]] = False
            found.append(np.packbits(lower).tobytes())
    return found


def main(argv: Sequence[str] | None = None) -> int:
    """Parse the flags, measure, print and write the table; return the exit status."""
    parser = argparse.ArgumentParser(prog="composing.py", description=__doc__)
    parser.add_argument("weights", nargs="?", help="a weights file or a run")
    parser.add_argument("--pieces", type=int, default=24, help="progressions (default: 24)")
    parser.add_argument("--gaps", type=int, default=50, help="gaps (default: 50)")
    parser.add_argument("--gap", type=int, default=32, help="frames of a gap (default: 32)")
    parser.add_argument("--particles", type=int, default=64, help="as of --infill (default: 64)")
    parser.add_argument("--seed", type=int, default=1, help="of pieces, gaps, samples (default: 1)")
    parser.add_argument("--output", default="composing.md", help="file (default: composing.md)")
    flags = parser.parse_args(argv)
    path = find_weights(flags.weights)
    model = PianoLSTM.load(path)
    corpus = load(training_data(path, model.metadata, {}), named=True)
    lines = [f"# Composing with {path.name}: test pieces of {corpus.name}, seed {flags.seed}", ""]
    test = list(corpus.splits["test"])
    lines += measure_chords(model, list(corpus.splits["train"]), test, flags.pieces, flags.seed)
    lines += ["", *measure_gaps(model, test, flags.gaps, flags.gap, flags.particles, flags.seed)]
    text = "\n".join(lines) + "\n"
    print(text)
    Path(flags.output).write_text(text, encoding="utf-8")
    return 0


def measure_chords(
    model: PianoLSTM,
    train: Sequence[np.ndarray],
    test: Sequence[np.ndarray],
    count: int,
    seed: int,
) -> list[str]:
    """Return a table on melodies over the chords of test pieces."""
    order = np.random.default_rng(seed).permutation(len(test))[:count]
    real = [test[i][:MOST_FRAMES] for i in order]
    top_p = SampleSettings().top_p
    params = SamplingParams(top_p=top_p)
    over, free = [], []

    def one(roll: np.ndarray, number: int, sampler: FrameSampler | None) -> np.ndarray:
        generator = make_generators(seed, number + 1)[number:]
        sampled = sample_rolls(model, len(roll), generator, sampler)
        return np.asarray(sampled[0])

    for number, roll in enumerate(real):
        over.append(one(roll, number, over_chords(recognise(roll), model.head, params)))
        free.append(one(roll, number, None))
    known = {*voicings(train)}
    lines = [
        "| pieces | melody notes in the chord | voicings that the training split has |",
        "| --- | --- | --- |",
    ]
    for name, rolls in (
        ("test pieces", real),
        ("free samples", free),
        ("melodies over the chords of the test pieces (`--chords`)", over),
    ):
        shares = [in_chord_share([roll]) for roll in rolls]
        # The error counts pieces, since the frames of a piece are not independent.
        error = np.nanstd(shares) / np.sqrt(np.isfinite(shares).sum())
        found = voicings(rolls)
        share = np.mean([voicing in known for voicing in found])
        lines.append(f"| {name} | {in_chord_share(rolls):.3f} ± {error:.3f} | {share:.3f} |")
    same = [
        (a == b).all()
        for one_roll, other in zip(real, over, strict=True)
        for a, b in zip(below(one_roll), below(other), strict=True)
        if a.sum() >= 3
    ]
    lines += ["", f"Frames with the voicing of the test piece itself: {np.mean(same):.3f}."]
    return lines


def below(roll: np.ndarray) -> np.ndarray:
    """Return a roll without the highest note of each frame."""
    lower = roll.copy()
    for t in np.flatnonzero(roll.any(axis=1)):
        lower[t, np.flatnonzero(roll[t])[-1]] = False
    return lower


def measure_gaps(
    model: PianoLSTM, test: Sequence[np.ndarray], count: int, frames: int, particles: int, seed: int
) -> list[str]:
    """Return a table on gaps in test pieces; as many frames precede a gap as it has, at least.

    Raises:
        InputError: no piece is long enough.
    """
    generator = np.random.default_rng(seed)
    names = ("a plain continuation", f"`--infill`, {particles} particles", "the piece itself")
    nats: dict[str, list[float]] = {name: [] for name in names}
    params = SamplingParams(top_p=SampleSettings().top_p)
    long_enough = [roll for roll in test if len(roll) >= 2 * frames + LOOKAHEAD]
    if not long_enough:
        raise InputError(f"--gap {frames}: no test piece is long enough")
    order = generator.permutation(len(long_enough))
    for number in range(count):
        roll = torch.from_numpy(long_enough[order[number % len(order)]])
        start = int(generator.integers(frames, len(roll) - frames - LOOKAHEAD + 1))
        end = start + frames
        before, gap, after = roll[:start], roll[start:end], roll[end:]
        fillings = [
            infill(model, before, frames, after, make_generators(seed + number, 1), size, params)[0]
            for size in (1, particles)
        ]
        for name, filling in zip(names, (*fillings, gap), strict=True):
            nats[name].append(join_nll(model, before, filling, after))
    plain = np.array(nats[names[0]])
    lines = [
        f"| what fills {count} gaps of {frames} frames | nats of the {LOOKAHEAD} frames after, mean"
        " | median | more likely than the plain continuation |",
        "| --- | --- | --- | --- |",
    ]
    for name, values in nats.items():
        better = "" if name == names[0] else f"{np.mean(np.array(values) < plain):.0%}"
        lines.append(f"| {name} | {np.mean(values):.1f} | {np.median(values):.1f} | {better} |")
    return lines


if __name__ == "__main__":
    run_script(main)
