"""Reads a folder of scores as a data set: MusicXML, ABC or Humdrum, through music21.

Source: Cuthbert and Ariza, "music21: A Toolkit for Computer-Aided Musicology and Symbolic Music
Data" (ISMIR 2010).
"""

import io
import os
import re
import warnings
import zipfile
from bisect import bisect_right
from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ProcessPoolExecutor
from contextlib import redirect_stderr
from copy import deepcopy
from functools import partial
from html import unescape
from multiprocessing import get_context
from pathlib import Path
from typing import Any, NamedTuple, TypeVar

import numpy as np
from tqdm import tqdm

from pianolstm.files import InputError
from pianolstm.inputs.folders import content_hash, copy_remarks, deal_pieces, find_splits
from pianolstm.midi import MidiAccount, ReadOptions
from pianolstm.piece import Note
from pianolstm.rolls import LOWEST_PITCH, PITCHES, SPLITS, PackedRolls

SCORE_SUFFIXES = (".musicxml", ".mxl", ".xml", ".abc", ".krn")

T = TypeVar("T")

_HEAD_BYTES = 2**14  # of a file, in which its format shows
_MAX_BYTES = 2**26  # of one file, unpacked
_MAX_FRAMES = 200_000  # of one piece
_MAX_DAMAGED = 0.05  # share of the files of a folder
_PARALLEL_FILES = 8  # from here on, several processes repay the two seconds of their start
_VELOCITY = 80  # of notes without a dynamic
_EPSILON = 1e-6  # beats; music21 rounds the thirds of a beat

_UTF_16 = (b"\xff\xfe", b"\xfe\xff")  # the byte order marks
_ABC = re.compile(r"^X: ?\d.*?^K:", re.MULTILINE | re.DOTALL)
_HUMDRUM = re.compile(r"^(?:\*\*\S+\t)*\*\*kern(?=\s|$)", re.MULTILINE)
_MUSICXML = re.compile(r"<score-(?:partwise|timewise)[\s>]|<!DOCTYPE\s+score-(?:part|time)wise\b")


class Counts(NamedTuple):
    """What the reader left out of scores, beside what the account of notes says."""

    chord_symbols: int = 0  # names of chords, which are not notes
    unplayed_repeats: int = 0  # pieces whose repeat signs contradict one another


class _File(NamedTuple):
    """What a file gave."""

    pieces: list[tuple[np.ndarray, str]]  # (T, 11) uint8, and its hash
    account: MidiAccount
    counts: Counts
    left_out: str = ""  # the message of a file without a piece


def score_format(path: Path) -> str | None:
    """Return "musicxml", "abc" or "humdrum" by the content of a file; None if it is no score.

    Args:
        path: the file.
    """
    with path.open("rb") as file:
        head = file.read(_HEAD_BYTES)
    if head.startswith(b"PK\x03\x04"):
        return "musicxml" if _is_mxl(path) else None
    if b"\0" in head and not head.startswith(_UTF_16):
        return None  # binary
    text = _decode(head).replace("\r", "\n")
    for name, pattern in (("musicxml", _MUSICXML), ("humdrum", _HUMDRUM), ("abc", _ABC)):
        if pattern.search(text):
            return name
    return None


def _decode(data: bytes) -> str:
    """Decode text; of a character that is cut off or wrong, something else is made."""
    return data.decode("utf-16" if data.startswith(_UTF_16) else "utf-8", "replace")


def _is_mxl(path: Path) -> bool:
    """Return whether a `.zip` file is compressed MusicXML."""
    try:
        with zipfile.ZipFile(path) as archive:
            return "META-INF/container.xml" in archive.namelist()
    except Exception:  # zipfile raises many types for damaged archives
        return False


def read_score_folder(
    folder: Path, files: Sequence[Path], options: ReadOptions
) -> tuple[dict[str, PackedRolls], list[str]]:
    """Read scores, split by folders train/, valid/ and test/ or, without them, by content.

    An ABC file may hold many tunes; each is a piece. Repeats are played.

    Args:
        folder: the folder.
        files: scores in it.
        options: how notes become frames. A score has no seconds: a frame of `frame_seconds` is as
            long as at 120 quarter notes per minute.

    Returns:
        {"train", "valid", "test": rolls, (T, 88) bool each}, and remarks, one line each, on what
        was left out.

    Raises:
        InputError: the folders of the splits are not as they should be, more than 5 % of the files
            can't be read, or there are too few pieces.
    """
    layout = find_splits(folder, files)
    parsed = list(_parse_files(layout.files, options))
    damaged = [file.left_out for file in parsed if file.left_out]
    if len(damaged) > max(_MAX_DAMAGED * len(parsed), 1) or len(damaged) == len(parsed):
        raise InputError(
            f"{folder}: {len(damaged)} of {len(parsed)} scores can't be read, the first:"
            f" {damaged[0]}"
        )
    hashes = [digest for file in parsed for _, digest in file.pieces]
    dealt = {} if layout.splits else deal_pieces(folder, hashes)
    pieces: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    of_split: dict[str, list[str]] = {split: [] for split in SPLITS}
    for i, file in enumerate(parsed):
        for packed, digest in file.pieces:
            split = layout.splits[i] if layout.splits else dealt[digest]
            pieces[split].append(packed)
            of_split[split].append(digest)
    remarks = [
        f"{folder}: {len(parsed) - len(damaged):,} of {len(parsed):,} scores read,"
        f" {len(hashes):,} pieces"
    ]
    account = sum((file.account for file in parsed), MidiAccount())
    remarks += [f"{folder}: {remark}" for remark in account.remarks(options)]
    symbols, unplayed = (sum(count) for count in zip(*(f.counts for f in parsed), strict=True))
    if symbols:
        remarks.append(f"{folder}: left out: {symbols:,} chord symbols, which are not notes")
    if unplayed:
        remarks.append(
            f"{folder}: pieces read without repeats, as their repeat signs contradict one another:"
            f" {unplayed:,}"
        )
    remarks += copy_remarks(folder, of_split)
    splits = {split: PackedRolls.concatenate(packed) for split, packed in pieces.items()}
    return splits, remarks + layout.remarks + damaged


# ---- parsing -------------------------------------------------------------------------------------


def _parse_files(files: Sequence[Path], options: ReadOptions) -> Iterator[_File]:
    """Yield the result of `_parse_file` for each file, in order; several files use all cores."""
    parse = partial(_parse_file, options=options)
    bar = partial(
        tqdm, total=len(files), desc="reading scores", unit=" files", leave=False, disable=None
    )
    if len(files) < _PARALLEL_FILES or (os.cpu_count() or 1) == 1:
        yield from bar(map(parse, files))
        return
    # forkserver: this process has threads (torch's), with which fork is unsafe.
    with ProcessPoolExecutor(mp_context=get_context("forkserver")) as pool:
        yield from bar(pool.map(parse, files, chunksize=4))


def _parse_file(path: Path, options: ReadOptions) -> _File:
    """Return the pieces of a file, or why it has none."""
    pieces, account, symbols, unplayed = [], MidiAccount(), 0, 0
    try:
        for notes, counts in _notes_of_file(path):
            roll, more = notes_to_roll(notes, options)
            account += more
            symbols += counts.chord_symbols
            unplayed += counts.unplayed_repeats
            if len(roll) > 1 and roll.any():
                pieces.append((np.packbits(roll, axis=1), content_hash(roll)))
        left_out = "" if pieces else f"{path}: no piece with notes for two frames or more"
    except InputError as error:
        left_out = f"{path}: {error}"
    except OSError as error:
        words = (error.strerror or "input error").lower()
        left_out = f"{path}: can't be read ({words})"
    except Exception:  # music21 raises almost any type for damaged files
        left_out = f"{path}: damaged, or in a form that music21 can't read"
    return _File([] if left_out else pieces, account, Counts(symbols, unplayed), left_out)


def notes_to_roll(
    notes: Sequence[tuple[int, float, float]], options: ReadOptions
) -> tuple[np.ndarray, MidiAccount]:
    """Convert notes to a roll.

    Starts and ends are rounded to the nearest frame, half a frame up, as for MIDI files.

    Args:
        notes: (MIDI number, start, end), in beats.
        options: how notes become frames.

    Returns:
        The roll, (T, 88) bool, column 0 = MIDI 21, up to the end of the last note, and what became
        of the notes.

    Raises:
        InputError: the roll would have too many frames. The message has no path.
    """
    seconds = options.frame_seconds
    frame_beats = options.frame_beats if seconds is None else 2 * seconds
    table = np.array(notes, dtype=np.float64).reshape(-1, 3)
    pitches = table[:, 0].astype(np.int64) - LOWEST_PITCH
    start, end = table[:, 1:].T / frame_beats + _EPSILON
    first, last = (np.floor(times + 0.5).astype(np.int64) for times in (start, end))
    if options.min_frames:
        first = np.where(first < last, first, np.floor((start + end) / 2).astype(np.int64))
        last = np.maximum(last, first + options.min_frames)
    in_range = (pitches >= 0) & (pitches < PITCHES)
    kept = in_range & (first < last)
    frames = int(last[kept].max(initial=0))
    if frames > _MAX_FRAMES:
        raise InputError(f"too long, {frames:,} frames; the limit is {_MAX_FRAMES:,}")
    roll = np.zeros((frames, PITCHES), dtype=bool)
    for pitch, i, j in zip(pitches[kept], first[kept], last[kept], strict=True):
        roll[i:j, pitch] = True
    return roll, MidiAccount(
        notes=len(notes),
        out_of_range=int((~in_range).sum()),
        too_short=int((in_range & ~kept).sum()),
    )


# ---- one score -----------------------------------------------------------------------------------

_Notes = list[tuple[int, float, float]]  # (MIDI number, start, end), in beats


def _notes_of_file(path: Path) -> Iterator[tuple[_Notes, Counts]]:
    """Yield the notes of each piece in a file, with repeats played, and what is left out."""
    for score in parse_scores(path):
        notes, counts = sounding_notes(score, join_ties=False)
        yield [(note.pitch, note.start, note.end) for note in notes], counts


def parse_scores(path: Path) -> list[Any]:
    """Return each piece in a file, a music21.stream.Score at sounding pitch.

    Raises:
        InputError: the file is in another form, or too large; the message has no path.
        Exception: of almost any type, if it is damaged.
    """
    if (kind := score_format(path)) is None:
        raise InputError("neither MusicXML, ABC nor Humdrum with **kern")
    with path.open("rb") as file:
        compressed = file.read(2) == b"PK"
    text = _unpack_mxl(path) if compressed else None
    _check_size(path.stat().st_size)
    from music21.converter import Converter  # takes half a second
    from music21.stream import Opus

    with redirect_stderr(io.StringIO()), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # music21 warns of files that are odd but readable
        converter = Converter()
        # Not `parse`, which keeps pickles of the files, and opens addresses.
        if text is None:
            converter.parseFileNoPickle(path, format=kind)
        else:
            converter.parseData(text, format=kind)
        stream: Any = converter.stream
        scores = list(stream.scores) if isinstance(stream, Opus) else [stream]
        for score in scores:
            if any(part.transposition for part in score.recurse().getElementsByClass("Instrument")):
                score.toSoundingPitch(inPlace=True)
    return scores


def _unpack_mxl(path: Path) -> str:
    """Return the score in a compressed MusicXML file."""
    with zipfile.ZipFile(path) as archive:
        container = _decode(archive.read("META-INF/container.xml"))
        root = re.search(r"""full-path=["']([^"']+)""", container)
        if root is None:
            raise InputError("damaged, its container.xml names no score")
        entry = archive.getinfo(unescape(root[1]))
        _check_size(entry.file_size)
        return _decode(archive.read(entry))


def _check_size(size: int) -> None:
    if size > _MAX_BYTES:
        raise InputError(f"{size >> 20} MB; the limit is {_MAX_BYTES >> 20}")


def sounding_notes(score: Any, *, join_ties: bool) -> tuple[list[Note], Counts]:
    """Return the notes of a music21 score as they sound, and what is left out of them.

    Repeats are played; grace notes and the names of chords are left out.

    Args:
        score: a music21.stream.Score.
        join_ties: whether tied notes are one. A roll is the same either way.
    """
    written: list[tuple[tuple[int, int], float, float]] = []
    symbols = 0
    for element in (score.stripTies() if join_ties else score).flatten().notes:
        start, length = float(element.offset), float(element.quarterLength)
        if "Harmony" in element.classes:
            symbols += 1
        elif length > 0:  # grace notes have no length
            for part in getattr(element, "notes", [element]):  # of a chord, each has its volume
                velocity = part.volume.velocity or element.volume.velocity or _VELOCITY
                written += [((p.midi, velocity), start, start + length) for p in part.pitches]
    unplayed = 0
    try:
        written = _play_repeats(score, written)
    except Exception:  # music21's Expander, on repeat signs that contradict one another
        unplayed = 1
    notes = [Note(start, end, pitch, velocity) for (pitch, velocity), start, end in written]
    return notes, Counts(symbols, unplayed)


def _play_repeats(score: Any, notes: list[tuple[T, float, float]]) -> list[tuple[T, float, float]]:
    """Return the notes in the order in which repeat signs, endings, da capo and so on play them.

    A note is (anything, start, end), in beats.

    music21 expands a copy of a part that has its signs but not its notes: copying these as well
    takes minutes for a long score.
    """
    from music21.note import Rest
    from music21.repeat import Expander
    from music21.spanner import RepeatBracket
    from music21.stream import Measure, Part

    if not _marks(score):
        return notes
    part = next(filter(_marks, score.parts))
    measures = list(part.getElementsByClass(Measure))
    place = {measure: i for i, measure in enumerate(measures)}
    signs, copies = Part(), []
    for i, measure in enumerate(measures):
        copy = Measure([Rest()], number=i + 1)
        copies.append(copy)
        copy.leftBarline, copy.rightBarline = deepcopy((measure.leftBarline, measure.rightBarline))
        for mark in measure.getElementsByClass("RepeatExpression"):
            copy.append(deepcopy(mark))
        signs.insert(i, copy)
    endings = set()
    for bracket in part.flatten().getElementsByClass(RepeatBracket):
        spanned = [place[measure] for measure in bracket.getSpannedElements()]
        signs.insert(0, RepeatBracket([copies[i] for i in spanned], number=bracket.number))
        endings.update(spanned)
    _open_repeats(copies, endings)
    starts = [float(measure.offset) for measure in measures]
    ends = [*starts[1:], max([starts[-1], *(end for *_, end in notes)])]
    inside: list[list[tuple[T, float, float]]] = [[] for _ in measures]
    for pitch, start, end in notes:
        inside[max(bisect_right(starts, start + _EPSILON) - 1, 0)].append((pitch, start, end))
    played: list[tuple[T, float, float]] = []
    now = 0.0
    for i in Expander(signs).measureMap():
        later = now - starts[i]
        played += [(pitch, start + later, end + later) for pitch, start, end in inside[i]]
        now += ends[i] - starts[i]
    return played


def _open_repeats(measures: Sequence[Any], endings: Collection[int]) -> None:
    """Set the start of each repeat that has an end only: it starts where the one before it ended.

    Args:
        measures: of music21; changed in place.
        endings: indices of those in first and second endings, which belong to the repeat before.
    """
    from music21.bar import Repeat

    start, is_open = 0, True  # of the section that the measure is in; the first needs no sign
    for i, measure in enumerate(measures):
        left, right = (getattr(measure, f"{side}Barline") for side in ("left", "right"))
        if isinstance(left, Repeat) and left.direction == "start":
            start, is_open = i, True
        if isinstance(right, Repeat) and right.direction == "end":
            if not is_open and i >= start:
                measures[start].leftBarline = Repeat(direction="start")
            start, is_open = i + 1, False
            while start in endings:
                start += 1


def _marks(stream: Any) -> bool:
    """Return whether a stream has a repeat sign, a da capo or the like."""
    return bool(stream.recurse().getElementsByClass("RepeatMark"))
