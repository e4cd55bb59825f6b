"""Files that are damaged or mean harm, and what the readers make of them; for faults.py.

Each trial runs in a process of its own and gives how many files there were and how many were held
to: read, or refused with one line of the program's own error, in bounded time and memory, and
nothing of them run.
"""

import pickle
import resource
import struct
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import hypothesis
import numpy as np
import torch
from hypothesis import strategies as st

from checkpoint import load_model, read_tensors, write_tensors
from data import read
from files import InputError
from midi import midi_to_roll, roll_to_midi
from rolls import SPLITS

MB = 2**20
Content = bytes | Path  # of a file; or a file or folder that is there


def peak() -> float:
    """Return the most memory that this process has had, in MB."""
    kib = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return kib / (MB if sys.platform == "darwin" else 1024)


def hold(
    contents: Iterator[tuple[str, Content]],
    reader: Callable[[Path], object],
    place: Path,
    *,
    seconds: float,
    memory: float,
    refused: bool = False,
) -> tuple[int, int]:
    """Read each content; return how many there were, and how many were held to.

    Args:
        contents: names, to be told of what fails, and contents.
        reader: of the file.
        place: where it is written.
        seconds: of the processor that reading one may take.
        memory: MB that all together may take more than was taken before.
        refused: none of them may be read.
    """
    count, held, before = 0, 0, peak()
    for name, content in contents:
        path = content if isinstance(content, Path) else place
        if isinstance(content, bytes):
            place.write_bytes(content)
        began, said = time.process_time(), ""
        try:
            reader(path)
            said = "was read" if refused else ""
        except InputError as error:
            if "\n" in str(error) or str(path) not in str(error):
                said = f"is refused with {error!r}"
        except BaseException as error:  # what must not come
            said = f"raises {type(error).__name__}: {str(error)[:200]}"
        if (took := time.process_time() - began) > seconds:
            said += f" takes {took:.1f} s"
        if peak() - before > memory:
            said += f" takes {peak() - before:.0f} MB"
            before = peak()
        count, held = count + 1, held + (not said)
        if said:
            print(f"{name} {said}", file=sys.stderr)
    return count, held


def mutants(
    originals: list[bytes], count: int, chance: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
    """Yield originals with bits flipped, bytes set, stretches cut out or doubled, or cut off."""
    for number in range(count):
        content = bytearray(originals[int(chance.integers(len(originals)))])
        for _ in range(int(chance.integers(1, 9))):
            place = int(chance.integers(max(len(content), 1)))
            stretch = slice(place, place + int(chance.integers(1, 40)))
            match int(chance.integers(5)):
                case 0 if content:
                    content[place] ^= 1 << int(chance.integers(8))
                case 1 if content:
                    content[place] = int(chance.choice([0, 1, 0x7F, 0x80, 0xFF]))
                case 2:
                    del content[stretch]
                case 3:
                    content[place:place] = content[stretch]
                case 4 if chance.random() < 0.3:
                    del content[place:]
        yield f"mutant {number}", bytes(content)


# ---- weights -------------------------------------------------------------------------------------


def weights(good: Path, folder: Path, cuts: int, flips: int) -> tuple[int, int]:
    """Hold the reader of weights to files made from a good one."""
    whole, chance = good.read_bytes(), np.random.default_rng(1)
    tensors, record = read_tensors(good)
    (folder / "a folder").mkdir()

    def contents() -> Iterator[tuple[str, Content]]:
        for size in chance.integers(len(whole), size=cuts).tolist():
            yield f"cut to {size} bytes", whole[:size]
        for place in chance.integers(len(whole) * 8, size=flips).tolist():
            flipped = bytearray(whole)
            flipped[place // 8] ^= 1 << place % 8
            yield f"bit {place} flipped", bytes(flipped)
        yield "empty", b""
        yield "a folder", folder / "a folder"
        torch.save({"a": Evil(folder / "marker")}, folder / "torch")
        yield "a pickle of torch", (folder / "torch").read_bytes()
        yield "a header of 2^60 bytes", struct.pack("<Q", 2**60) + whole[8:]
        bomb = b'{"a":{"dtype":"F32","shape":[1099511627776],"data_offsets":[0,4398046511104]}}'
        yield "a tensor of 4 TB", struct.pack("<Q", len(bomb)) + bomb
        nan = {name: torch.full_like(tensor, torch.nan) for name, tensor in tensors.items()}
        wide = {name: torch.zeros(7) for name in tensors}
        for name, others in (("no numbers", nan), ("wrong shapes", wide)):
            write_tensors(folder / "other", others, record)
            yield name, (folder / "other").read_bytes()

    result = hold(
        contents(), load_model, folder / "a.safetensors", seconds=2, memory=300, refused=True
    )
    return result if not (folder / "marker").exists() else (result[0], 0)


class Evil:
    """Makes a folder when it is unpickled."""

    def __init__(self, marker: Path) -> None:
        """Take the folder."""
        self.marker = marker

    def __reduce__(self) -> tuple[Callable[..., object], tuple[object, ...]]:
        """Return what unpickling calls."""
        return Path.mkdir, (self.marker,)


# ---- pickles -------------------------------------------------------------------------------------


def pickles(folder: Path, count: int) -> tuple[int, int]:
    """Hold the reader of pickles to damaged ones, and to some that mean harm."""
    chance = np.random.default_rng(2)
    tunes = [
        [tuple(chance.integers(21, 109, int(chance.integers(4))).tolist()) for _ in range(length)]
        for length in (9, 2, 30)
    ]
    splits = dict.fromkeys(SPLITS, tunes)
    arrays = {split: [np.eye(88, dtype=bool)[:5], np.eye(88)[3:9]] for split in SPLITS}
    good = [pickle.dumps(set_, protocol) for set_ in (splits, arrays) for protocol in range(6)]
    marker = str(folder / "marker").encode()
    call = b"cos\nmkdir\n"
    text = b"X" + struct.pack("<I", len(marker)) + marker
    harmful = {
        "REDUCE": call + b"(" + text + b"tR.",
        "STACK_GLOBAL": b"\x80\x04\x8c\x02os\x8c\x05mkdir\x93" + text + b"\x85R.",
        "INST": b"(" + text + b"ios\nmkdir\n.",
        "OBJ": b"(" + call + text + b"o.",
        "NEWOBJ": b"\x80\x02" + call + text + b"\x85\x81.",
        "NEWOBJ_EX": b"\x80\x04" + call + text + b"\x85}\x92.",
        "BUILD": b"\x80\x02cnumpy\ndtype\nX\x02\x00\x00\x00i8\x85R" + call + text + b"\x85Rb.",
        "PERSID": b"P" + marker + b"\n.",
        "BINPERSID": text + b"Q.",
        "EXT1": b"\x80\x02\x82\x01" + text + b"\x85R.",
        "a memo of 2^32": b"\x80\x02}r\xff\xff\xff\xff.",
        "notes out of range": pickle.dumps({split: [[(300,), (2,)]] for split in SPLITS}),
        "notes of great size": pickle.dumps({split: [[(10**400,), (2,)]] for split in SPLITS}),
        "one step a million times": pickle.dumps({s: [[(60,)] * 10**6] * 99 for s in SPLITS}),
        "lists in lists": b"(d" + b"".join(b"S'%b'\n" % s.encode() + b"(l" * 9**5 for s in SPLITS),
    }
    lists: list[object] = [60]
    for _ in range(30):
        lists = [lists] * 10
    harmful["a billion laughs"] = pickle.dumps({split: [[lists]] for split in SPLITS})

    def contents() -> Iterator[tuple[str, Content]]:
        yield from mutants(good, count, chance)

    place = folder / "a.pickle"
    damaged = hold(contents(), lambda path: read(path, 0.5), place, seconds=5, memory=500)
    hostile = hold(
        iter(harmful.items()), lambda path: read(path, 0.5), place, seconds=10, memory=1000,
        refused=True,
    )  # fmt: skip
    count = damaged[0] + hostile[0]
    return count, 0 if (folder / "marker").exists() else damaged[1] + hostile[1]


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
FAR = b"\xff\xff\xff\x7f"  # the longest delta time
CRAFTED = {
    "no tracks": midi_file(),
    "division 0": midi_file(track(NOTE, END), division=0),
    "tempo 0": midi_file(track(b"\x00\xff\x51\x03\x00\x00\x00", NOTE, END)),
    "SMPTE time": midi_file(track(NOTE, END), division=0xE728),
    "type 2": midi_file(track(NOTE, END), track(NOTE, END), kind=2),
    "one tick a beat for hours": midi_file(
        track(b"\x00\x90\x3c\x40" + b"\x82\xf0\x00\x80\x3c\x00", END), division=1
    ),
    "drums alone": midi_file(track(b"\x00\x99\x3c\x40\x83\x60\x89\x3c\x00", END)),
    "all 128 notes": midi_file(
        track(
            *(bytes([0, 0x90, key, 64]) for key in range(128)),
            b"\x83\x60\x80\x00\x00",
            *(bytes([0, 0x80, key, 0]) for key in range(1, 128)),
            END,
        )
    ),
    "a name in Unicode": midi_file(
        track(b"\x00\xff\x03\x0c" + "Prélude №1".encode()[:12], NOTE, END)
    ),
    "a name in no encoding": midi_file(track(b"\x00\xff\x03\x04\xff\xfe\xc0\x80", NOTE, END)),
    "the longest pause": midi_file(track(FAR + b"\x90\x3c\x40" + b"\x60\x80\x3c\x00", END)),
    "many of the longest pauses": midi_file(track((FAR + b"\x90\x3c\x40") * 99, END)),
    "65,535 tracks": midi_file(track(NOTE, END), count=65535),
    "a track longer than the file": midi_file(b"MTrk\xff\xff\xff\xff" + NOTE),
    "no end of track": midi_file(track(NOTE)),
    "an open sysex": midi_file(track(b"\x00\xf0\x7f" + bytes(20), END)),
    "a bad key": midi_file(track(b"\x00\xff\x59\x02\x7f\x07", NOTE, END)),
    "a metre over 2^255": midi_file(track(b"\x00\xff\x58\x04\x00\xff\x18\x08", NOTE, END)),
    "notes that only end": midi_file(track(b"\x00\x80\x3c\x00" * 9, END)),
    "a running status of nothing": midi_file(track(b"\x00\x3c\x40", END)),
}


def midis(folder: Path, examples: Path | None, count: int) -> tuple[int, int]:
    """Hold the reader of MIDI to damaged files, and to some that are odd."""
    chance = np.random.default_rng(3)
    files = sorted(examples.rglob("*.mid"))[::40] if examples and examples.is_dir() else []
    good = [path.read_bytes() for path in files]
    for number in range(6):
        path = folder / f"{number}.mid"
        roll_to_midi(chance.random((40, 88)) < 0.04, 0.5).write(str(path))
        good.append(path.read_bytes())

    def contents() -> Iterator[tuple[str, Content]]:
        yield from CRAFTED.items()
        yield from mutants(good, count, chance)

    return hold(
        contents(), lambda path: midi_to_roll(path, 0.5), folder / "a.mid", seconds=1, memory=500
    )


def midi_folder(folder: Path, count: int) -> tuple[int, int]:
    """See that exactly the files that can't be used are left out of a folder, and all are named."""
    chance, wrong = np.random.default_rng(4), set()
    good = []
    for number in range(count):
        path = folder / f"{number}.mid"
        roll_to_midi(chance.random((12, 88)) < 0.04, 0.5).write(str(path))
        good.append(path.read_bytes())
    for number, (_, content) in enumerate(mutants(good, count // 25, chance)):
        path = folder / f"mutant{number}.mid"
        path.write_bytes(content)
        try:
            midi_to_roll(path, 0.5)
        except InputError:
            wrong.add(str(path))
    splits, remarks = read(folder, 0.5)
    named = {name for name in wrong if any(name in remark for remark in remarks)}
    read_in = sum(len(rolls) for rolls in splits.values())
    return count, count if named == wrong and read_in >= count - 1 else 0


# ---- fuzzing -------------------------------------------------------------------------------------


def fuzz(
    reader: Callable[[Path], object], good: list[bytes], place: Path, seconds: float
) -> tuple[int, int]:
    """Let hypothesis look for a file that is neither read nor refused, for so long."""
    count, failed, until = 0, 0, time.monotonic() + seconds

    @hypothesis.settings(
        max_examples=500, deadline=None, database=None,
        suppress_health_check=list(hypothesis.HealthCheck),
        phases=[hypothesis.Phase.generate, hypothesis.Phase.target],
    )  # fmt: skip
    @hypothesis.given(st.data())
    def attempt(data: st.DataObject) -> None:
        nonlocal count, failed
        content = bytearray(data.draw(st.sampled_from(good)))
        for _ in range(data.draw(st.integers(1, 6))):
            place_ = data.draw(st.integers(0, max(len(content) - 1, 0)))
            content[place_ : place_ + data.draw(st.integers(0, 9))] = data.draw(
                st.binary(max_size=9)
            )
        if time.monotonic() > until:
            return
        _, held = hold(iter([("fuzzed", bytes(content))]), reader, place, seconds=5, memory=500)
        count, failed = count + 1, failed + (not held)
        hypothesis.target(float(len(set(content))))

    while time.monotonic() < until:
        attempt()
    return count, count - failed
