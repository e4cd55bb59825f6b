"""How surprising a model finds a piece, as text, tables and picture, and in the page's record."""

import math
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pretty_midi

from pianolstm.files import atomic_write, write_csv, write_json
from pianolstm.metrics.surprise import (
    PieceNLLs,
    Surprise,
    frame_rows,
    less_predictable_than,
    note_rows,
)
from pianolstm.outputs.plots import plot_surprise
from pianolstm.parts import complete
from pianolstm.piece import Metre, Piece
from pianolstm.rolls import LOWEST_PITCH

_SHOWN = 3  # most surprising notes that the text names


def describe_surprise(
    found: Surprise, name: str, frame_beats: float, dataset: str, test: PieceNLLs | None
) -> tuple[dict[str, Any], list[str]]:
    """Return the numbers of a piece, and the same in words.

    Args:
        found: the surprise of the piece.
        name: name of its file.
        frame_beats: length of a frame in beats.
        dataset: name of the model's data.
        test: nats per frame of the test pieces; None if they are not known.
    """
    share = np.nan if test is None else less_predictable_than(found.per_frame, test.values)
    numbers = {
        "file": name,
        "frames": len(found.roll),
        "nats": found.total,
        "nats_per_frame": None if math.isnan(found.per_frame) else found.per_frame,
        "less_predictable_than": None if math.isnan(share) else share,
    }
    lines = [
        f"{name}: {found.total:.1f} nats in {len(found.roll)} frames, {found.per_frame:.3f} a frame"
        " without the first"
    ]
    if test is None:
        lines[0] += (
            "; the weights keep no NLLs of test pieces: to compare it with these, put the model's"
            " data into the folder that PIANO_DATA_DIR names"
        )
    elif math.isnan(share):
        lines[0] += "; a piece or a test split of single frames can't be compared"
    else:
        low, middle, high = np.percentile(test.values, (5, 50, 95))
        lines[0] += (
            f"; less predictable than {share:.0%} of the {test.pieces} test pieces of {dataset}"
            f" (median {middle:.3f}, nine of ten {low:.3f} to {high:.3f})"
        )
    places = np.argsort(-found.notes, axis=None, kind="stable")[:_SHOWN]
    notes = []
    for t, column in zip(*np.unravel_index(places, found.notes.shape), strict=True):
        if found.roll[t, column]:
            pitch = pretty_midi.note_number_to_name(int(column) + LOWEST_PITCH)
            nats = found.notes[t, column]
            notes.append(f"{pitch} at beat {t * frame_beats:g} ({nats:.1f} nats)")
    if notes:
        lines.append(f"most surprising: {', '.join(notes)}")
    return numbers, lines


def write_surprise(stem: Path, found: Surprise, piece: Piece, lines: Sequence[str]) -> None:
    """Write the tables, the picture, and the record from which the page is made.

    Args:
        stem: the path of the files without "-frames.csv", "-notes.csv", ".png" and ".json".
        found: the surprise of the piece, at the pitch to show.
        piece: the same roll, with tempo, metre and title.
        lines: the text to show with it.

    Raises:
        InputError: a file is not writable.
    """
    piece = complete(piece)
    columns = ("frame", "beat", "nats", "silence", "pitches")
    write_csv(Path(f"{stem}-frames.csv"), columns, frame_rows(found, piece.frame_beats))
    columns = ("beat", "beats", "pitch", "onset", "nats")
    write_csv(Path(f"{stem}-notes.csv"), columns, note_rows(found, piece.frame_beats))
    with atomic_write(f"{stem}.png") as temporary:
        plot_surprise(found, piece).savefig(temporary, format="png", dpi=120)
    metre = piece.metre or Metre()
    cells = [
        [int(column) + LOWEST_PITCH, int(t), round(float(found.notes[t, column]), 2)]
        for t, column in zip(*found.roll.nonzero(), strict=True)
    ]
    write_json(
        Path(f"{stem}.json"),
        {
            "title": piece.title,
            "text": list(lines),
            "frames": len(found.roll),
            "frame_beats": piece.frame_beats,
            "bpm": piece.bpm,
            "metre": str(metre),
            "upbeat": metre.upbeat,
            "cells": cells,  # MIDI number, frame, nats
        },
    )
