"""Mirrors that lie, and what a download makes of them; for faults.py."""

import http.server
import sys
import threading
import time
from collections.abc import Iterator
from functools import partial
from pathlib import Path

from trials import Bench, apart

import corpora
from data import fingerprint, read


class Liar(http.server.BaseHTTPRequestHandler):
    """A server that answers each path in another wrong way, and /good in the right one."""

    good = b""

    def do_GET(self) -> None:
        """Answer."""
        body = self.good
        match self.path.split("/")[1]:
            case "404":
                self.send_error(404)
                return
            case "redirect":
                self.send_response(302)
                self.send_header("Location", Path(__file__).resolve().as_uri())
                self.end_headers()
                return
            case "headers":
                self.wfile.write(b"HTTP/1.0 200 OK\r\nX-Much: ")
                while True:
                    self.wfile.write(b"a")
                    time.sleep(0.2)
            case "wrong":
                body = body[::-1]
            case "long":
                body = body * 2
        self.send_response(200)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        match self.path.split("/")[1]:
            case "short":
                self.wfile.write(body[:-100])
            case "stall":
                self.wfile.write(body[:100])
                time.sleep(60)
            case "endless":
                while True:
                    self.wfile.write(bytes(2**20))
            case "drip":
                for byte in body:
                    self.wfile.write(bytes([byte]))
                    time.sleep(0.2)
            case _:
                self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        """Say nothing."""


class Quiet(http.server.ThreadingHTTPServer):
    """A server that does not mind when a client leaves."""

    def handle_error(self, *_: object) -> None:
        """Say nothing."""


class Mirrored(corpora.Benchmark):
    """A set that is to be had from a mirror that answers in one `way`, and then from a good one."""

    address, way = "", ""

    def paths(self, folder: Path) -> Iterator[Path]:
        """Yield where it is kept."""
        yield folder / "a.npz"

    def mirrors(self) -> Iterator[tuple[str, str, str | None]]:
        """Yield the two."""
        for way in (self.way, "good"):
            yield f"{self.address}/{way}/a.npz", "a.npz", None


def fetched(address: str, way: str, sha256: str, folder: Path) -> tuple[int, int]:
    """Fetch a set beside a mirror of this way; return 1, and 1 if all is as it should be."""
    known = corpora.BENCHMARKS["jsb"]
    names = {field: getattr(known, field) for field in vars(known)}
    benchmark = Mirrored(**names | {"mat": way, "frames_sha256": sha256})
    Mirrored.address, Mirrored.way = address, way
    began = time.monotonic()
    path = corpora.download(benchmark, folder)
    good = time.monotonic() - began < 30
    # The frames count: what else an archive holds, twice the same, say, is no harm.
    good = good and fingerprint(read(path, 0.5)[0]) == sha256
    good = good and [found.name for found in folder.iterdir()] == ["a.npz"]
    if not good:
        print(f"not fetched beside a mirror that is {way}", file=sys.stderr)
    return 1, int(good)


def servers(bench: Bench, share: float) -> tuple[int, int]:
    """Fetch from mirrors that lie, and twice at once from a good one."""
    Liar.good = bench.data.read_bytes()
    server = Quiet(("127.0.0.1", 0), Liar)
    server.daemon_threads = True
    threading.Thread(target=server.serve_forever, daemon=True).start()
    address = f"http://127.0.0.1:{server.server_port}"
    sha256 = fingerprint(read(bench.data, 0.5)[0])
    ways = ["404", "redirect", "wrong", "short", "long", "endless", "drip", "stall", "headers"]
    ways = [*ways[: max(round(len(ways) * share), 3)], "good", "good"]
    corpora.KEPT = bench.folder / "kept"
    waits = [
        apart(partial(fetched, address, way, sha256, bench.folder / f"from-{way}")) for way in ways
    ]
    results = [wait() for wait in waits]
    server.shutdown()
    return len(results), sum(held for _, held in results)
