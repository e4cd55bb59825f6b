"""A download from a server that misbehaves goes on at the next address and leaves no partial file.

Servers that send single bytes, each within the time limit, are not promised (docs/robustness.md).
"""

import hashlib
import threading
import time
import urllib.request
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import pytest
from trials import FinishedRun

from helpers import names_in
from pianolstm.inputs import datasets
from pianolstm.inputs.datasets import NamedSet, download
from pianolstm.inputs.formats import read
from pianolstm.rolls import fingerprint

urlopen = urllib.request.urlopen  # as it is before a fixture replaces it


class Server(ThreadingHTTPServer):
    """Serves one file, well as `/good.*` and badly in the way that another name says."""

    daemon_threads = False

    def __init__(self, content: bytes) -> None:
        self.content, self.requests, self.closing = content, 0, threading.Event()
        super().__init__(("127.0.0.1", 0), Handler)

    def handle_error(self, *_: object) -> None:
        """Print nothing when a client closes the connection."""


class Handler(BaseHTTPRequestHandler):
    """Answers one request."""

    server: Server

    def do_GET(self) -> None:
        self.server.requests += 1
        content, way = self.server.content, Path(self.path).stem
        if way == "missing":
            self.send_error(404)
            return
        if way == "redirect":
            self.send_response(302)
            self.send_header("Location", Path(__file__).resolve().as_uri())
            self.end_headers()
            return
        self.send_response(200)
        if way != "endless":
            length = len(content) * (2 if way == "long" else 1)
            self.send_header("Content-Length", str(length))
        self.end_headers()
        match way:
            case "wrong":
                self.wfile.write(content[::-1])
            case "long":
                self.wfile.write(content * 2)
            case "short":
                self.wfile.write(content[:-100])
            case "stall":
                self.wfile.write(content[:100])
                self.server.closing.wait(60)
            case "endless":
                while True:
                    self.wfile.write(bytes(2**20))
            case _:
                self.wfile.write(content)

    def log_message(self, *_: object) -> None:
        """Print nothing."""


@pytest.fixture(autouse=True)
def _no_network(monkeypatch: pytest.MonkeyPatch) -> None:
    """Allow the server of these tests, and no other."""

    def open_local(url: str, **options: Any) -> Any:
        assert url.startswith("http://127.0.0.1:")
        return urlopen(url, **options)

    monkeypatch.setattr(urllib.request, "urlopen", open_local)
    monkeypatch.setenv("no_proxy", "127.0.0.1")


@pytest.fixture
def server(finished_run: FinishedRun, monkeypatch: pytest.MonkeyPatch) -> Iterator[Server]:
    with Server(finished_run.data.read_bytes()) as server:
        for name in ("MAT_URL", "PICKLE_URL"):
            monkeypatch.setattr(datasets, name, f"http://127.0.0.1:{server.server_port}/")
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        yield server
        server.closing.set()
        server.shutdown()
        thread.join()


def named_set(finished_run: FinishedRun, way: str) -> NamedSet:
    """Return the set of the finished run, at a first address that is bad and a second, good one."""
    return NamedSet(
        file=f"{way}.mat",
        sha256=hashlib.sha256(finished_run.data.read_bytes()).hexdigest(),
        pickle="good.pickle",
        frame_beats=0.5,
        fingerprint=fingerprint(read(finished_run.data, 0.5)[0]),
        published=(),
    )


@pytest.mark.parametrize(
    "way",
    ["missing", "redirect", "wrong", "short", "long", "endless",
     pytest.param("stall", marks=pytest.mark.slow)],
)  # fmt: skip
def test_the_next_address_serves_the_set_within_thirty_seconds(
    way: str, server: Server, finished_run: FinishedRun, tmp_path: Path
) -> None:
    start, wanted = time.monotonic(), named_set(finished_run, way)
    path = download(wanted, tmp_path / "data", tmp_path / "cache")
    assert time.monotonic() - start < 30
    assert fingerprint(read(path, 0.5)[0]) == wanted.fingerprint
    assert names_in(tmp_path / "data") == ["good.pickle"]
    assert server.requests == 2


def test_two_downloads_at_once_are_one(
    server: Server, finished_run: FinishedRun, tmp_path: Path
) -> None:
    wanted = named_set(finished_run, "good")
    folders = [tmp_path / "data"] * 2
    with ThreadPoolExecutor(2) as pool:
        paths = list(pool.map(lambda folder: download(wanted, folder, tmp_path / "cache"), folders))
    assert paths == [tmp_path / "data" / "good.mat"] * 2
    assert names_in(tmp_path / "data") == ["good.mat"]
    assert server.requests == 1
