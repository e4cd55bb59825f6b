"""MIDI files byte by byte, so that a test says exactly one thing, damaged or odd as it may be."""

import struct
from collections.abc import Iterable
from pathlib import Path

TICKS = 480  # a beat
SCALE = (60, 62, 64, 65, 67, 69, 71, 72)

Event = tuple[int, bytes]  # (ticks since the previous one, its bytes)


def number(value: int) -> bytes:
    """Return a variable-length number."""
    digits = [value & 127]
    while value := value >> 7:
        digits.insert(0, value & 127 | 128)
    return bytes(digits)


def track(*events: Event) -> bytes:
    """Return a track chunk, with its end of track."""
    body = b"".join(number(delta) + event for delta, event in events) + b"\0\xff\x2f\0"
    return b"MTrk" + struct.pack(">I", len(body)) + body


def smf(*chunks: bytes, kind: int = 0, division: int = TICKS, count: int | None = None) -> bytes:
    """Return a file of these chunks; `count` is the number of tracks in its header."""
    count = len(chunks) if count is None else count
    return b"MThd" + struct.pack(">IHHH", 6, kind, count, division) + b"".join(chunks)


def on(pitch: int, channel: int = 0, velocity: int = 80) -> bytes:
    """Return a note-on."""
    return bytes((0x90 | channel, pitch, velocity))


def off(pitch: int, channel: int = 0) -> bytes:
    """Return a note-off."""
    return bytes((0x80 | channel, pitch, 0))


def meta(kind: int, *data: int) -> bytes:
    """Return a meta event."""
    return bytes((0xFF, kind, len(data), *data))


def line(pitches: Iterable[int], ticks: int = TICKS, channel: int = 0) -> list[Event]:
    """Return one note after another, each of `ticks` ticks."""
    return [event for p in pitches for event in ((0, on(p, channel)), (ticks, off(p, channel)))]


def write_midi(path: Path, *tracks: Iterable[Event], kind: int = 1) -> Path:
    """Write tracks as a file; return its path."""
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(smf(*(track(*events) for events in tracks), kind=kind))
    return path
