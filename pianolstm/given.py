"""The music that a user gives: notes or chords as text, a MIDI file, or a score."""

from collections.abc import Mapping
from typing import Any, NamedTuple

from pianolstm.checkpoint import PRETRAINED
from pianolstm.chords import Progression, parse_progression, read_progression
from pianolstm.cli import parse_value
from pianolstm.conditioning import find_key, first_beats, onsets_off_grid, parse_notes, top_line
from pianolstm.files import InputError
from pianolstm.inputs.datasets import NAMED_SETS
from pianolstm.inputs.music import read_music
from pianolstm.metre import estimate_metre
from pianolstm.piece import Metre, Note
from pianolstm.tonality import Key

DEFAULT_BPM = 120.0  # of music without a tempo


class Given(NamedTuple):
    """Music that the user gave."""

    name: str = ""  # of the flag; "" = nothing was given
    flag: str = ""  # the flag and its value, for messages
    notes: tuple[Note, ...] = ()  # those that the result keeps
    beats: float = 0.0  # length
    bpm: float = DEFAULT_BPM
    metre: Metre | None = None
    signature: Key | None = None
    key: Key | None = None  # estimated from all of the file
    progression: Progression | None = None  # chords to play
    remarks: tuple[str, ...] = ()  # what was left out

    @property
    def is_file(self) -> bool:
        """Whether it is a file of the user's, not a few notes on the command line, or nothing."""
        return self.name not in ("", "primer_notes")


def read_given(
    values: Mapping[str, str | None],
    reading: Mapping[str, Any],
    *,
    metre: Metre | None,
    velocity: int,
    primer_beats: float,
    max_minutes: float,
) -> Given:
    """Return the music of the flags that name some.

    Args:
        values: the value of each flag by its name; None = not given.
        reading: how the model's training files were read: `frame_seconds` and `sustain`, if given,
            and for chords `frame_beats`. Other entries of a model's metadata are ignored.
        metre: of the bars of --chords; None = 4/4.
        velocity: MIDI velocity of --primer_notes.
        primer_beats: beats of --primer_midi to use, at most.
        max_minutes: the longest file that is read, in minutes.

    Raises:
        InputError: there are two of them, or the music can't be read.
    """
    present = {name: value for name, value in values.items() if value is not None}
    if len(present) > 1:
        raise InputError(f"--{', --'.join(present)}: give only one of them")
    for name, value in present.items():
        flag = f"--{name} {value}"
        if name == "primer_notes":
            notes, beats = parse_notes(value, velocity)
            return Given(name, flag, notes, beats)
        if name == "chords":
            return _read_chords(value, metre or Metre(), reading["frame_beats"])
        given = _read_file(name, value, reading, max_minutes)
        if name == "primer_midi":
            notes = first_beats(given.notes, primer_beats)
            if not notes:
                raise InputError(f"{flag}: no note in the first {primer_beats:g} beats")
            return given._replace(notes=notes, beats=min(given.beats, primer_beats))
        if name == "harmonize" and len(notes := top_line(given.notes)) < len(given.notes):
            remark = (
                f"{flag}: the melody is its {len(notes)} highest notes;"
                f" {len(given.notes) - len(notes)} below them are left out"
            )
            return given._replace(notes=notes, remarks=(*given.remarks, remark))
        return given
    return Given()


def _read_file(name: str, path: str, reading: Mapping[str, Any], max_minutes: float) -> Given:
    """Return all the music of a MIDI file or a score.

    Args:
        name: of the flag.
        path: its value.
        reading: `frame_seconds` and `sustain`, if given.
        max_minutes: the longest file that is read, in minutes.

    Raises:
        InputError: the file can't be read, has no note, or is too long.
    """
    try:
        music, left_out = read_music(
            path,
            max_minutes,
            by_seconds=reading.get("frame_seconds") is not None,
            sustain=reading.get("sustain", False),
        )
    except InputError as error:
        raise InputError(f"--{name} {error}") from None
    metre = music.metre
    if metre is not None and not metre.upbeat:  # a MIDI file seldom says that it has one
        signature = (metre.numerator, metre.denominator)
        metre = estimate_metre([note[:3] for note in music.notes], signature)
    flag = f"--{name} {path}"
    return Given(
        name,
        flag,
        music.notes,
        music.beats,
        music.bpm,
        metre,
        music.key,
        find_key(music.notes, music.key),
        remarks=tuple(f"{flag}: {remark}" for remark in left_out),
    )


def _read_chords(text: str, metre: Metre, frame_beats: float) -> Given:
    """Return the chords of --chords, or of the file that it names.

    Args:
        text: the chords, or the file's path.
        metre: of the bars.
        frame_beats: length of a frame in beats.

    Raises:
        InputError: there is no such file, or a symbol is no chord.
    """
    content = read_progression(text)
    flag = "--chords" if content == text else f"--chords {text}"
    progression = parse_value(
        f"{flag}:", lambda t: parse_progression(t, metre.bar_beats, frame_beats), content
    )
    remarks: tuple[str, ...] = ()
    if progression.off_grid:
        remarks = (
            f"{flag}: {progression.off_grid} chords begin between the model's"
            f" {frame_beats:g}-beat frames; they are moved to the nearest",
        )
    beats = len(progression.chords) * frame_beats
    key = progression.key()
    return Given(
        "chords", flag, (), beats, metre=metre, key=key, progression=progression, remarks=remarks
    )


def describe_lost_onsets(given: Given, frame_beats: float) -> list[str]:
    """Return what to say of given notes that the model's frames can't show, one line each."""
    lost = onsets_off_grid(given.notes, frame_beats)
    lines = []
    if lost.between:
        share = lost.between / lost.onsets
        lines.append(
            f"{given.flag}: {lost.between} of {lost.onsets} onsets ({share:.0%}) are between"
            f" the model's {frame_beats:g}-beat frames; they are in the result, but the model"
            " can't read them"
        )
        if lost.frame_beats is None:
            lines[0] += "; the onsets are on no grid of beats"
        elif lost.frame_beats < frame_beats:
            lines[0] += f"; weights with --frame_beats {lost.frame_beats:g} could"
            lines[0] += "".join(
                f", such as pretrained/{name}.safetensors"
                for name, named_set in NAMED_SETS.items()
                if not onsets_off_grid(given.notes, named_set.frame_beats).between
                and (PRETRAINED / f"{name}.safetensors").is_file()
            )
    if lost.repeated:
        lines.append(
            f"{given.flag}: {lost.repeated} of {lost.onsets} onsets repeat a pitch without a"
            " rest; they are in the result, but the model reads one held note"
        )
    return lines
