"""Reads Standard MIDI Files: bytes -> the notes, tempos, metres and pedals of each piece, in ticks.

What does not concern notes never costs a file: unknown chunks and events, RIFF wrappers, a wrong
number of tracks and data bytes above 127 are passed over. General readers give up on one or more
of them, and none tells which notes never end.

Source: the Standard MIDI File 1.0 (MIDI Manufacturers Association, RP-001, 1996).
"""

import struct
from collections import defaultdict
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import NamedTuple

_DRUM_CHANNEL = 9  # General MIDI's channel 10
_PEDAL = 64  # the controller of the sustain pedal, down from a value of 64 on
_END_OF_TRACK, _TEXT, _TEMPO, _METRE, _KEY = 0x2F, 0x01, 0x51, 0x58, 0x59
# Bytes behind a status byte, by its upper half; F1 to FE do not belong in a file, but are found.
_CHANNEL_DATA = {0x8: 2, 0x9: 2, 0xA: 2, 0xB: 2, 0xC: 1, 0xD: 1, 0xE: 2}
_SYSTEM_DATA = {0xF1: 1, 0xF2: 2, 0xF3: 1}
_NO_TICK = -1
_END_BYTES = 3  # of an end-of-track event
_NEXT_TRACK = b"\xff\x2f\x00MTrk"  # this event, and the header of another track
_MAX_DENOMINATOR = 6  # of a metre, as a power of two: 64

_Strikes = list[tuple[int, int]]  # (tick, velocity) of one pitch in file order; velocity 0 = off


class MidiError(Exception):
    """The bytes are not a MIDI file that can be read; the message says why, without the path."""


class SmpteError(MidiError):
    """The file is in order, but its time is in SMPTE frames."""


class TickNote(NamedTuple):
    """A note; times in ticks."""

    start: int
    end: int
    pitch: int  # MIDI number
    velocity: int
    channel: int


@dataclass
class Sequence:
    """A piece: all tracks of a file, or one track of a file of type 2. Times in ticks."""

    ticks_per_beat: int
    notes: list[TickNote] = field(default_factory=list)  # without drums, in no order
    drums: int = 0  # notes of the drum channel
    hanging: int = 0  # notes that never end; they are not in `notes`
    unbalanced: int = 0  # notes without an end of their own, which end with another of their pitch
    missing_tracks: int = 0  # tracks that the header promises and the file does not have
    tempos: list[tuple[int, int]] = field(default_factory=list)  # (tick, microseconds per beat)
    metres: list[tuple[int, int, int]] = field(default_factory=list)  # (tick, 6, 8) for 6/8
    keys: list[tuple[int, int, bool]] = field(default_factory=list)  # (tick, sharps, is minor)
    texts: list[tuple[int, bytes]] = field(default_factory=list)
    pedals: dict[int, list[tuple[int, bool]]] = field(default_factory=dict)  # channel: (tick, down)


def read_smf(data: bytes) -> list[Sequence]:
    """Read the bytes of a MIDI file.

    Args:
        data: all bytes. Whatever stands before the header, such as a RIFF wrapper, is passed over.

    Returns:
        One piece; of a file of type 2, one piece for each track that has notes.

    Raises:
        SmpteError: the time is in SMPTE frames.
        MidiError: there is no MIDI header, or a track is damaged.
    """
    header = data.find(b"MThd")
    if header < 0:
        raise MidiError("not a MIDI file (it has no MThd header)")
    if len(data) < header + 14:
        raise MidiError("the file ends within its header")
    size, kind, count, division = struct.unpack(">IHHH", data[header + 4 : header + 14])
    if division & 0x8000:
        rate = 256 - (division >> 8)
        raise SmpteError(
            f"its time is in SMPTE frames ({rate} a second), not in beats; export it with ticks per"
            " beat"
        )
    if division == 0:
        raise MidiError("its header gives 0 ticks per beat")
    tracks = list(_tracks(data, header + 8 + max(size, 6)))
    if not tracks:
        raise MidiError("it has no tracks")
    if kind != 2:
        piece = _read_tracks(tracks, division)
        piece.missing_tracks = max(count - len(tracks), 0)
        return [piece]
    pieces = [_read_tracks([track], division) for track in tracks]
    return [piece for piece in pieces if piece.notes or piece.hanging or piece.drums] or pieces[:1]


class _Track(NamedTuple):
    body: bytes
    missing: int  # bytes that the header of the track promises and the file does not have


def _tracks(data: bytes, position: int) -> Iterator[_Track]:
    """Yield the tracks among the chunks from a position on, whatever number the header gives."""
    if position > len(data):
        position = 0  # the header's size is wrong
    while position + 8 <= len(data):
        name, size = struct.unpack_from(">4sI", data, position)
        stop = position + 8 + size
        if name == b"MTrk":
            # A size that reaches into the next track, by a byte or by all of it, would swallow it.
            end = data.find(_NEXT_TRACK, position + 8, stop + 3)
            stop = end + _END_BYTES if end >= 0 else stop
            yield _Track(data[position + 8 : stop], max(stop - len(data), 0))
        elif stop > len(data) or not size:  # not a chunk, but bytes that lie between tracks
            stop = data.find(b"MTrk", position + 1)
            if stop < 0:
                return
        position = stop
    if data[position:] and b"MTrk".startswith(data[position : position + 4]):
        yield _Track(b"", 1)  # cut off within its header


def _read_tracks(tracks: list[_Track], division: int) -> Sequence:
    """Return the piece of these tracks."""
    piece = Sequence(division)
    for number, track in enumerate(tracks, 1):
        # A note belongs to its track and channel: two voices may hold the same pitch.
        strikes: dict[tuple[int, int], _Strikes] = defaultdict(list)  # by (channel, pitch)
        try:
            complete = _read_track(track, piece, strikes)
        except IndexError:
            complete = False
        except MidiError as error:
            raise MidiError(f"damaged: track {number} of {len(tracks)} has {error}") from None
        if not complete:
            raise MidiError(f"damaged: track {number} of {len(tracks)} is cut off")
        for (channel, pitch), struck in strikes.items():
            _pair(struck, pitch, channel, piece)
    # Tracks come one after another. Sorting keeps the file's order of events at one tick.
    piece.tempos.sort(key=_tick)
    piece.metres.sort(key=_tick)
    piece.keys.sort(key=_tick)
    for events in piece.pedals.values():
        events.sort(key=_tick)
    return piece


def _tick(event: tuple[int, object] | tuple[int, object, object]) -> int:
    return event[0]


def _read_track(track: _Track, piece: Sequence, strikes: dict[tuple[int, int], _Strikes]) -> bool:
    """Add the events of a track to a piece, and its note-ons and note-offs to `strikes`.

    Returns:
        Whether the track is complete: it ends between two events, and if it is shorter than its
        header says, with an end-of-track event.

    Raises:
        IndexError: the track ends within an event.
        MidiError: there is something else where an event should begin.
    """
    body, length = track.body, len(track.body)
    position, tick, running = 0, 0, 0
    while position < length:
        delta = body[position]
        position += 1
        if delta >= 0x80:
            delta, position = _number(body, position - 1)
        tick += delta
        status = body[position]
        if status >= 0x80:
            position += 1
        elif running:
            status = running
        else:
            raise MidiError(f"no event at byte {position}, where one should begin")
        if status < 0xF0:
            running, kind, channel = status, status >> 4, status & 0xF
            if kind in (0x8, 0x9):
                pitch, velocity = min(body[position], 127), min(body[position + 1], 127)
                strikes[channel, pitch].append((tick, velocity if kind == 0x9 else 0))
            elif kind == 0xB and body[position] == _PEDAL:
                piece.pedals.setdefault(channel, []).append((tick, body[position + 1] >= 64))
            position += _CHANNEL_DATA[kind]
        elif status == 0xFF:
            kind = body[position]
            size, position = _number(body, position + 1)
            if kind == _END_OF_TRACK:
                return True
            _read_meta(kind, body[position : position + size], tick, piece)
            position += size
        elif status in (0xF0, 0xF7):  # system exclusive
            size, position = _number(body, position)
            position += size
        else:
            position += _SYSTEM_DATA.get(status, 0)
    return position == length and not track.missing


def _number(body: bytes, position: int) -> tuple[int, int]:
    """Return the variable-length number at a position, and the position behind it."""
    number = 0
    for _ in range(4):
        byte = body[position]
        position += 1
        number = number << 7 | byte & 0x7F
        if byte < 0x80:
            return number, position
    raise MidiError(f"a number of more than 4 bytes at byte {position}")


def _read_meta(kind: int, data: bytes, tick: int, piece: Sequence) -> None:
    """Add a meta event to a piece; one with impossible values is passed over."""
    if kind == _TEXT:
        piece.texts.append((tick, data))
    elif kind == _TEMPO and len(data) >= 3 and any(data[:3]):
        piece.tempos.append((tick, int.from_bytes(data[:3], "big")))
    elif kind == _METRE and len(data) >= 2 and data[0] and data[1] <= _MAX_DENOMINATOR:
        piece.metres.append((tick, data[0], 2 ** data[1]))
    elif kind == _KEY and len(data) >= 2:
        sharps = (data[0] + 128) % 256 - 128  # a signed byte; negative = flats
        if abs(sharps) <= 7 and data[1] <= 1:
            piece.keys.append((tick, sharps, data[1] == 1))


def _pair(events: _Strikes, pitch: int, channel: int, piece: Sequence) -> None:
    """Add the notes of one pitch of a track and channel to a piece.

    If every note-on has a note-off, an off ends the oldest note that is on. Offs while the pitch is
    silent do not count: some programs end all 128 pitches to be on the safe side. If an off is
    missing, nothing says which note it belongs to; then an off ends all notes that are on.
    """
    notes, left = _pair_oldest(events)
    unbalanced = 0
    if left:
        notes, left = _pair_oldest(_on_before_off(events))
    if left:
        notes, left, unbalanced = _pair_all(events)
    if channel == _DRUM_CHANNEL:
        piece.drums += len(notes) + left
        return
    piece.hanging += left
    piece.unbalanced += unbalanced
    piece.notes += [
        TickNote(start, end, pitch, velocity, channel) for start, end, velocity in notes
    ]


def _pair_oldest(events: _Strikes) -> tuple[list[tuple[int, int, int]], int]:
    """Return (start, end, velocity) of notes that an off ends oldest first, and those left on."""
    notes, first, sounding = [], 0, []
    for tick, velocity in events:
        if velocity:
            sounding.append((tick, velocity))
        elif first < len(sounding):
            start, struck = sounding[first]
            notes.append((start, tick, struck))
            first += 1
    return notes, len(sounding) - first


def _on_before_off(events: _Strikes) -> _Strikes:
    """Return the events with each off of a silent pitch behind an on of the same tick.

    music21 and others write a grace note, of no length, as an off and then an on.
    """
    ordered: _Strikes = []
    sounding, early = 0, _NO_TICK
    for tick, velocity in events:
        if velocity and early == tick:
            ordered += [(tick, velocity), (tick, 0)]
            early = _NO_TICK
        elif velocity:
            ordered.append((tick, velocity))
            sounding += 1
        elif sounding:
            ordered.append((tick, 0))
            sounding -= 1
        else:
            early = tick
    return ordered


def _pair_all(events: _Strikes) -> tuple[list[tuple[int, int, int]], int, int]:
    """Return the notes as `_pair_oldest` does, if an off ends all that are on, and those left on.

    A note that starts at the very tick of an off goes on where the off has earlier ones to end:
    some programs write the next note's on before the off of the one it follows.

    Returns:
        The notes, the number left on at the end, and the number that ended with another's off.
    """
    notes, unbalanced = [], 0
    sounding: list[tuple[int, int]] = []
    for tick, velocity in events:
        if velocity:
            sounding.append((tick, velocity))
            continue
        ended = [note for note in sounding if note[0] < tick] or sounding
        notes += [(start, tick, struck) for start, struck in ended]
        unbalanced += max(len(ended) - 1, 0)
        sounding = [] if ended is sounding else [note for note in sounding if note[0] == tick]
    return notes, len(sounding), unbalanced
