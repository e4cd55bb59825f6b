"""Metre: how often the estimate is right, for the MIDI files of Nottingham and Bach's chorales.

    python benchmarks/metre.py /path/to/nottingham-midi      # a minute
    python benchmarks/metre.py chorales                      # of music21's corpus; five minutes

The folder has train/, valid/ and test/ with .mid files that contain their time signature. Where
their bars begin is known from their first chord, since none is played in an upbeat. The table is
of each family of tunes, by the files' names: share of files whose time signature and upbeat are
estimated right from the file itself, from its roll of eighth notes, and from its melody alone.

Below it are the rates of `pianolstm/metre.py`, from the files in train/ alone: how often each of
its six events happens at each position of a bar.
"""

import argparse
import re
import sys
from collections import Counter
from collections.abc import Sequence
from pathlib import Path

import numpy as np

sys.path.insert(0, str(Path(__file__).resolve().parent.parent))

from pianolstm import metre as estimator
from pianolstm.metre import estimate_metre
from pianolstm.midi import read_midi, read_notes
from pianolstm.parts import complete, generated_notes, split_parts
from pianolstm.piece import Metre, Note, Piece

FRAME_BEATS = 0.5
FAMILIES = ("ashover", "hpps", "jigs", "morris", "playford", "reels", "slip", "waltzes", "xmas")
COLUMNS = ("file", "roll", "melody")


def measure_nottingham(folder: Path) -> None:
    """Print the share of right estimates, by family, and the rates of the training split."""
    counts: dict[str, Counter[str]] = {family: Counter() for family in (*FAMILIES, "all")}
    rates = {name: np.zeros(6) for name in estimator._RATES}
    for path in sorted(folder.glob("*/*.mid")):
        music = read_notes(path)
        melody, chords = split_tracks(path)
        true = music.metre or Metre()
        roll, _ = read_midi(path, FRAME_BEATS)
        known = bool(chords)
        upbeat = min((note.start for note in chords), default=0.0) % true.bar_beats
        if path.parent.name == "train" and known and (true[:2]) in estimator._BARS:
            tune = generated_notes(Piece(roll, FRAME_BEATS))
            count_events(tune, true._replace(upbeat=upbeat), rates)
        tune = generated_notes(Piece(roll, FRAME_BEATS))
        highest = split_parts(tune, four_voices=False)[0].notes
        true_cells, cells = (to_cells(part, FRAME_BEATS) for part in (melody, highest))
        counts["all"]["melody"] += len(true_cells)
        counts["all"]["melody found"] += len(true_cells & cells)
        given = {
            "file": music.notes,
            "roll": generated_notes(Piece(roll, FRAME_BEATS)),
            "melody": melody,
        }
        for family in (re.sub(r"[_\d].*", "", path.name), "all"):
            counts[family]["files"] += 1
            counts[family]["known"] += known
        for column, notes in given.items():
            found = estimate_metre([note[:3] for note in notes])
            same = str(found) == str(true) or (str(true), str(found)) == ("2/2", "4/4")
            for family in (re.sub(r"[_\d].*", "", path.name), "all"):
                counts[family][f"{column} metre"] += same
                counts[family][f"{column} upbeat"] += known and abs(found.upbeat - upbeat) < 0.05
        counts["all"][f"{true} as {estimate_metre([n[:3] for n in given['roll']])}"] += 1
    print("| family | files | " + " | ".join(f"{c}: metre, upbeat" for c in COLUMNS) + " |")
    print("| --- |" + " --- |" * (1 + len(COLUMNS)))
    for family, count in counts.items():
        shares = [
            f"{count[f'{c} metre'] / max(count['files'], 1):.0%},"
            f" {count[f'{c} upbeat'] / max(count['known'], 1):.0%}"
            for c in COLUMNS
        ]
        print(f"| {family} | {count['files']} | " + " | ".join(shares) + " |")
    print(
        "\nfrom the roll: "
        + ", ".join(
            f"{name} {number}" for name, number in sorted(counts["all"].items()) if " as " in name
        )
    )
    share = counts["all"]["melody found"] / counts["all"]["melody"]
    print(f"\nframes of the melody that are found in the roll: {share:.1%}")
    print_rates(rates)


def to_cells(notes: Sequence[Note], frame_beats: float) -> set[tuple[int, int]]:
    """Return the frames and pitches that notes fill."""
    spans = [(int(n.start / frame_beats + 0.5), int(n.end / frame_beats + 0.5)) for n in notes]
    return {
        (frame, note.pitch)
        for note, (start, end) in zip(notes, spans, strict=True)
        for frame in range(start, end)
    }


def split_tracks(path: Path) -> tuple[list[Note], list[Note]]:
    """Return the notes of the first track that has any, and those of all others."""
    import pretty_midi

    midi = pretty_midi.PrettyMIDI(str(path))
    parts = [
        [
            Note(
                midi.time_to_tick(note.start) / midi.resolution,
                midi.time_to_tick(note.end) / midi.resolution,
                note.pitch,
            )
            for note in track.notes
        ]
        for track in midi.instruments
    ]
    return parts[0], [note for part in parts[1:] for note in part]


def count_events(notes: Sequence[Note], metre: Metre, rates: dict[str, np.ndarray]) -> None:
    """Add what begins at each position of a piece's bars."""
    bar = estimator._BARS[metre[:2]]
    events = estimator._events([note[:3] for note in notes], estimator.EIGHTH, 0.0)
    shift = round(metre.upbeat / estimator.EIGHTH)
    for i, event in enumerate(events.tolist()):
        rates[bar[(i - shift) % len(bar)]][event] += 1


def print_rates(rates: dict[str, np.ndarray]) -> None:
    """Print the rates of each position."""
    print()
    for name, counts in rates.items():
        print(f"{name}: " + ", ".join(f"{rate:.2f}" for rate in counts / max(counts.sum(), 1)))


def measure_chorales() -> None:
    """Print the share of right estimates of the chorales in music21's corpus, and of the voices.

    The rates for chorales are from every second one; these are the others.
    """
    from music21 import corpus

    from pianolstm.inputs.datasets import score_to_roll

    count: Counter[str] = Counter()
    scores = (corpus.parse(path) for path in sorted(corpus.getComposer("bach"))[1::2])
    for score in scores:
        if len(score.parts) != 4:
            continue
        signature = score.parts[0].recurse().getElementsByClass("TimeSignature")[0]
        first = score.parts[0].getElementsByClass("Measure")[0]
        length = float(first.duration.quarterLength)
        upbeat = length if length < signature.barDuration.quarterLength else 0.0
        roll = score_to_roll(score)[::2]
        piece = complete(Piece(roll, 1.0, four_voices=True))
        found = piece.metre or Metre()
        count["chorales"] += 1
        count["metre"] += str(found) == signature.ratioString
        count["metre and upbeat"] += (
            str(found) == signature.ratioString and abs(found.upbeat - upbeat) < 0.05
        )
        voices = split_parts(generated_notes(piece), four_voices=True)
        for part, voice in zip(score.parts, voices, strict=True):
            cells = {
                (int(note.start) + i, note.pitch)
                for note in voice.notes
                for i in range(int(note.end - note.start))
            }
            true = {
                (int(note.offset) + i, pitch.midi)
                for note in part.flatten().notes
                if note.offset == int(note.offset)
                for pitch in note.pitches
                for i in range(int(note.quarterLength))
            }
            count["quarter notes"] += len(true)
            count["in their voice"] += len(true & cells)
    print(dict(count))


def main(argv: Sequence[str] | None = None) -> int:
    """Measure what the arguments name; return the exit status."""
    parser = argparse.ArgumentParser(description="Measure the estimate of the metre.")
    parser.add_argument("folder", help="the folder nottingham-midi, or `chorales`")
    flags = parser.parse_args(argv)
    if flags.folder == "chorales":
        measure_chorales()
    else:
        measure_nottingham(Path(flags.folder))
    return 0


if __name__ == "__main__":
    sys.exit(main())
