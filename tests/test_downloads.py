"""A missing set is fetched, checked and kept whole or not at all; where none is had, chorales play.

The web is a dict.
"""

import email.message
import io
import pickle
import threading
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import corpora
from corpora import Benchmark, load
from files import InputError
from helpers import Splits, assert_frames, data_settings, names_in
from rolls import SPLITS

MAT_URL = corpora.MAT_PAGE + "Tiny_Set.mat"
PICKLE_URL = corpora.PICKLE_PAGE + "Tiny%20Set.pickle"


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

    def read1(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise TimeoutError("timed out")
        return super().read1(16)


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

        def read1(self, size: int | None = -1) -> bytes:
            Endless.given += size or 0
            assert Endless.given < 2**22  # or it would never end
            return b"\0" * (size or 0)

    monkeypatch.setattr(corpora, "MAX_DOWNLOAD_BYTES", 2**20)
    serve({MAT_URL: Endless(b""), PICKLE_URL: Endless(b"")})
    with pytest.raises(InputError, match="more than 1 MB"):
        load(data_settings(tmp_path), named=True)
    assert names_in(tmp_path) == []


def test_a_download_that_drips_gives_way_to_the_next(
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    tiny: Benchmark,
    mat: bytes,
    serve: Callable[[Web], None],
) -> None:
    clock = iter(range(0, 10**6, 5))  # five seconds from each byte to the next

    class Dripping(Response):
        def read1(self, size: int | None = -1) -> bytes:
            return b"a"

    monkeypatch.setattr(corpora.time, "monotonic", lambda: next(clock))
    serve({MAT_URL: Dripping(b""), PICKLE_URL: Dripping(b"")})
    with pytest.raises(InputError, match=r"github.com: slower than 4 kB a second; www-ens"):
        load(data_settings(tmp_path), named=True)
    assert next(clock) < 100
    assert names_in(tmp_path) == []


def test_a_server_whose_headers_never_end_gives_way_to_the_next(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny: Benchmark
) -> None:
    over = threading.Event()

    def urlopen(address: str, timeout: float) -> None:
        assert over.wait(60)

    monkeypatch.setattr(urllib.request, "urlopen", urlopen)
    monkeypatch.setattr(corpora, "TIMEOUT_SECONDS", 0.1)
    with pytest.raises(InputError, match=r"github.com: no answer in 0.1 seconds; www-ens"):
        load(data_settings(tmp_path), named=True)
    over.set()
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
        def read1(self, size: int | None = -1) -> bytes:
            if self.tell():
                raise Interrupted
            return super().read1(16)

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


# ---- the way out ---------------------------------------------------------------------------------


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
    looking, *lines = err.splitlines()
    assert "looking for it on the network" in looking
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
