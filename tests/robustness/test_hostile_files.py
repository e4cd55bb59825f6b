"""Damaged, unusual and hostile files are read or refused, in bounded time, and run no code.

MIDI and weights have a limit on RAM as well. Pickles have none (docs/robustness.md), so there is no
trial with a pickle that unfolds to gigabytes.
"""

import json
import os
import pickle
import struct
from collections.abc import Iterator
from itertools import chain, islice
from pathlib import Path
from typing import Any

import numpy as np
import torch
from trials import FinishedRun, failures, forms, memory_limit, mutants

from model import PianoLSTM
from pianolstm.checkpoint import read_weights, write_weights
from pianolstm.files import InputError
from pianolstm.inputs.formats import read
from pianolstm.midi import read_midi, roll_to_midi
from pianolstm.rolls import SPLITS

Contents = Iterator[tuple[str, bytes]]


class Evil:
    """An object whose pickle makes a folder when it is loaded."""

    def __init__(self, marker: Path) -> None:
        self.marker = marker

    def __reduce__(self) -> tuple[Any, ...]:
        return os.mkdir, (str(self.marker),)


# ---- weights -------------------------------------------------------------------------------------


def hostile_weights(good: Path, folder: Path) -> Contents:
    """Yield weights that promise more than they hold, or hold what no training writes."""
    yield "empty", b""
    torch.save({"a": Evil(folder / "marker")}, folder / "pickle.pt")
    yield "a pickle", (folder / "pickle.pt").read_bytes()
    yield "a header of 2^60 bytes", struct.pack("<Q", 2**60) + good.read_bytes()[8:]
    four_tb = {"a": {"dtype": "F32", "shape": [2**40], "data_offsets": [0, 2**42]}}
    header = json.dumps(four_tb).encode()
    yield "a tensor of 4 TB", struct.pack("<Q", len(header)) + header
    tensors, metadata = read_weights(good)
    nan = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
    small = {name: torch.zeros(7) for name in tensors}
    for name, others in (("NaN", nan), ("wrong shapes", small)):
        write_weights(folder / "other.safetensors", others, metadata)
        yield name, (folder / "other.safetensors").read_bytes()


def damaged_weights(good: bytes) -> Contents:
    """Yield truncated weights and weights with a flipped bit, two and three by turns."""
    generator = np.random.default_rng(1)
    while True:
        for _ in range(2):
            size = int(generator.integers(len(good)))
            yield f"cut to {size} bytes", good[:size]
        for _ in range(3):
            place, content = int(generator.integers(8 * len(good))), bytearray(good)
            content[place // 8] ^= 1 << place % 8
            yield f"bit {place} flipped", bytes(content)


@forms(56, 506)
def test_damaged_and_hostile_weights_are_refused(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    hostile = hostile_weights(finished_run.weights, tmp_path)
    contents = chain(hostile, damaged_weights(finished_run.weights.read_bytes()))
    assert not failures(
        PianoLSTM.load,
        islice(contents, count),
        tmp_path / "a.safetensors",
        seconds=2,
        memory=300,
        refused=True,
    )
    assert not (tmp_path / "marker").exists()


# ---- pickles -------------------------------------------------------------------------------------


def read_rolls(path: Path) -> Any:
    return read(path, 0.5)


def good_pickles() -> list[bytes]:
    """Return pickles of frames and of arrays, of every protocol."""
    generator = np.random.default_rng(2)
    frames = [
        [tuple(generator.integers(21, 109, int(generator.integers(4))).tolist()) for _ in range(n)]
        for n in (9, 2, 30)
    ]
    arrays = [np.eye(88, dtype=bool)[:5], np.eye(88)[3:9]]
    return [
        pickle.dumps(dict.fromkeys(SPLITS, pieces), protocol)
        for pieces in (frames, arrays)
        for protocol in range(6)
    ]


def hostile_pickles(marker: Path) -> Contents:
    """Yield pickles that call os.mkdir by every opcode, and some with what no pitch can be."""
    argument = str(marker).encode()
    mkdir, text = b"cos\nmkdir\n", b"X" + struct.pack("<I", len(argument)) + argument
    dtype = b"cnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R"
    yield "REDUCE", mkdir + b"(" + text + b"tR."
    yield "STACK_GLOBAL", b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + text + b"\x85R."
    yield "INST", b"(" + text + b"ios\nmkdir\n."
    yield "OBJ", b"(" + mkdir + text + b"o."
    yield "NEWOBJ", b"\x80\x02" + mkdir + text + b"\x85\x81."
    yield "NEWOBJ_EX", b"\x80\x04" + mkdir + text + b"\x85}\x92."
    yield "BUILD", b"\x80\x02" + dtype + mkdir + text + b"\x85Rb."
    yield "PERSID", b"P" + argument + b"\n."
    yield "BINPERSID", text + b"Q."
    yield "EXT1", b"\x80\x02\x82\x01" + text + b"\x85R."
    yield "pitches out of range", pickle.dumps({key: [[(300,), (2,)]] for key in SPLITS})
    yield "pitches of 400 digits", pickle.dumps({key: [[(10**400,), (2,)]] for key in SPLITS})
    deep = b"".join(b"S'%b'\n" % split.encode() + b"(l" * 9**5 for split in SPLITS)
    yield "59,049 open lists", b"(d" + deep
    lists: list[Any] = [60]
    for _ in range(30):
        lists = [lists] * 10
    yield "a billion laughs", pickle.dumps({key: [[lists]] for key in SPLITS})


@forms(114, 514)
def test_damaged_and_hostile_pickles_are_read_or_refused(count: int, tmp_path: Path) -> None:
    path, hostile = tmp_path / "a.pickle", list(hostile_pickles(tmp_path / "marker"))
    damaged = islice(mutants(good_pickles(), np.random.default_rng(2)), count - len(hostile))
    for contents, refused in ((hostile, True), (damaged, False)):
        # The limit protects this machine from a mutant that unfolds; it is refused then too.
        with memory_limit(500):
            broken = failures(read_rolls, contents, path, seconds=5, memory=500, refused=refused)
        assert not broken
    assert not (tmp_path / "marker").exists()


# ---- MIDI ----------------------------------------------------------------------------------------


def track(*events: bytes) -> bytes:
    """Return a track of a Standard MIDI File."""
    body = b"".join(events)
    return b"MTrk" + struct.pack(">I", len(body)) + body


def midi_file(
    *tracks: bytes, kind: int = 1, division: int = 480, count: int | None = None
) -> bytes:
    """Return a Standard MIDI File."""
    count = len(tracks) if count is None else count
    return b"MThd" + struct.pack(">IHHH", 6, kind, count, division) + b"".join(tracks)


END = b"\x00\xff\x2f\x00"
NOTE = b"\x00\x90\x3c\x40\x83\x60\x80\x3c\x00"
LONGEST = b"\xff\xff\xff\x7f"  # delta time
UNUSUAL_MIDI = {
    "no tracks": midi_file(),
    "division 0": midi_file(track(NOTE, END), division=0),
    "tempo 0": midi_file(track(b"\x00\xff\x51\x03\x00\x00\x00", NOTE, END)),
    "SMPTE time": midi_file(track(NOTE, END), division=0xE728),
    "type 2": midi_file(track(NOTE, END), track(NOTE, END), kind=2),
    "one tick a beat for hours": midi_file(
        track(b"\x00\x90\x3c\x40" + b"\x82\xf0\x00\x80\x3c\x00", END), division=1
    ),
    "only drums": midi_file(track(b"\x00\x99\x3c\x40\x83\x60\x89\x3c\x00", END)),
    "all 128 pitches": midi_file(
        track(
            *(bytes([0, 0x90, pitch, 64]) for pitch in range(128)),
            b"\x83\x60\x80\x00\x00",
            *(bytes([0, 0x80, pitch, 0]) for pitch in range(1, 128)),
            END,
        )
    ),
    "a name in Unicode": midi_file(
        track(b"\x00\xff\x03\x0c" + "Prélude №1".encode()[:12], NOTE, END)
    ),
    "a name in no encoding": midi_file(track(b"\x00\xff\x03\x04\xff\xfe\xc0\x80", NOTE, END)),
    "the longest pause": midi_file(track(LONGEST + b"\x90\x3c\x40" + b"\x60\x80\x3c\x00", END)),
    "many of the longest pauses": midi_file(track((LONGEST + b"\x90\x3c\x40") * 99, END)),
    "65,535 tracks": midi_file(track(NOTE, END), count=65535),
    "a track longer than the file": midi_file(b"MTrk\xff\xff\xff\xff" + NOTE),
    "no end of track": midi_file(track(NOTE)),
    "an open system exclusive": midi_file(track(b"\x00\xf0\x7f" + bytes(20), END)),
    "an impossible key signature": midi_file(track(b"\x00\xff\x59\x02\x7f\x07", NOTE, END)),
    "a metre over 2^255": midi_file(track(b"\x00\xff\x58\x04\x00\xff\x18\x08", NOTE, END)),
    "notes that only end": midi_file(track(b"\x00\x80\x3c\x00" * 9, END)),
    "running status without status": midi_file(track(b"\x00\x3c\x40", END)),
}


def good_midi(folder: Path, count: int) -> list[bytes]:
    """Return MIDI files of random rolls."""
    generator, contents = np.random.default_rng(3), []
    for _ in range(count):
        roll_to_midi(generator.random((40, 88)) < 0.04, 0.5).write(str(folder / "good.mid"))
        contents.append((folder / "good.mid").read_bytes())
    return contents


@forms(220, 6020)
def test_damaged_and_unusual_midi_is_read_or_refused(count: int, tmp_path: Path) -> None:
    damaged = mutants(good_midi(tmp_path, 6), np.random.default_rng(3))
    assert not failures(
        lambda path: read_midi(path, 0.5),
        islice(chain(UNUSUAL_MIDI.items(), damaged), count),
        tmp_path / "a.mid",
        seconds=1,
        memory=500,
    )


@forms(50, 250)
def test_exactly_the_damaged_files_of_a_folder_are_left_out_and_named(
    count: int, tmp_path: Path
) -> None:
    good = good_midi(tmp_path, count)
    (tmp_path / "good.mid").unlink()
    for number, content in enumerate(good):
        (tmp_path / f"{number}.mid").write_bytes(content)
    damaged = set()
    for number, (_, content) in enumerate(
        islice(mutants(good, np.random.default_rng(4)), count // 25)
    ):
        path = tmp_path / f"mutant{number}.mid"
        path.write_bytes(content)
        try:
            read_midi(path, 0.5)
        except InputError:
            damaged.add(str(path))
    splits, remarks = read(tmp_path, 0.5)
    mutants_named = {
        str(path) for path in tmp_path.glob("mutant*") if any(str(path) in line for line in remarks)
    }
    assert damaged
    assert mutants_named == damaged
    assert sum(len(rolls) for rolls in splits.values()) == count + count // 25 - len(damaged)
