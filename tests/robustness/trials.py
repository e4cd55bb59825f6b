"""Shared by the tests of robustness: counted trials, programs in their own processes, file readers.

Processes are forked from a server that has imported main.py and generate.py, so that a run takes as
long as its work and not as long as its imports.
"""

import importlib
import os
import re
import resource
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from multiprocessing import forkserver, get_context
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import ROOT, one_line_naming
from pianolstm.files import InputError
from pianolstm.runtime import run_script

MB = 2**20
TIMEOUT = 120  # seconds after which a process is killed
_CONTEXT = get_context("forkserver")
_PRELOADED = [
    "pytest", "main", "generate", "trials",
    "torch._dynamo", "matplotlib.backends.backend_agg", "scipy.stats",  # imported late
]  # fmt: skip


def forms(short: int, long: int) -> pytest.MarkDecorator:
    """Parametrise a test by the number of its trials: a short form, and a long one marked slow."""
    return pytest.mark.parametrize("count", [short, pytest.param(long, marks=pytest.mark.slow)])


# ---- programs ------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Ended:
    """How a program ended."""

    status: int  # -9 if signal 9 killed it
    output: str  # stdout and stderr
    seconds: float  # since it was interrupted, or since its start

    def __str__(self) -> str:
        return f"status {self.status} after {self.seconds:.1f} s: {self.output[-400:]}"

    @property
    def crashed(self) -> bool:
        """Whether an exception ended it."""
        return "Traceback" in self.output

    @property
    def errors(self) -> int:
        """The number of lines with an error message of the program."""
        return len(re.findall(r"^(main|generate)\.py: ", self.output, re.MULTILINE))


@dataclass(frozen=True)
class FinishedRun:
    """A run of main.py that nothing stopped."""

    data: Path  # .npz
    flags: list[str]  # all of them but --run_dir and --epochs
    folder: Path
    seconds: float

    @property
    def weights(self) -> Path:
        """The weights file."""
        return self.folder / "model.safetensors"


def start_server() -> None:
    """Start the server that processes are forked from."""
    _CONTEXT.set_forkserver_preload(_PRELOADED)
    forkserver._forkserver._stop()  # another test may have started one without the imports
    with pytest.MonkeyPatch.context() as monkeypatch:
        here = Path(__file__).parent
        # Python 3.11's server preloads from its own sys.path.
        monkeypatch.setenv("PYTHONPATH", os.pathsep.join(map(str, (ROOT, here.parent, here))))
        forkserver.ensure_running()


def run(
    script: str,
    *words: str,
    limits: Mapping[int, int] | None = None,
    interrupt: Callable[[int], Any] = lambda pid: None,
) -> Ended:
    """Run a program in a process of its own until it ends.

    Args:
        script: "main" or "generate".
        words: its flags.
        limits: the largest value of each resource, such as `resource.RLIMIT_FSIZE`.
        interrupt: called with the number of the process once it has started.
    """
    reader, writer = _CONTEXT.Pipe(duplex=False)
    process = _CONTEXT.Process(target=_run, args=(script, words, dict(limits or {}), writer))
    start = time.monotonic()
    process.start()
    writer.close()
    killer = threading.Timer(TIMEOUT, process.kill)
    killer.start()
    if interrupt(process.pid or 0) is not None:
        start = time.monotonic()
    with reader, open(reader.fileno(), errors="replace", closefd=False) as pipe:
        output = pipe.read()
    process.join()
    killer.cancel()
    ended = Ended(process.exitcode or 0, output, time.monotonic() - start)
    process.close()
    return ended


def signal_after(number: int, seconds: float, path: Path | None = None) -> Callable[[int], int]:
    """Return an `interrupt` for `run` that sends a signal.

    Args:
        number: of the signal.
        seconds: how long to wait before.
        path: a file to wait for first.
    """

    def send(pid: int) -> int:
        until = time.monotonic() + TIMEOUT
        while path is not None and not path.exists() and time.monotonic() < until:
            time.sleep(0.01)
        time.sleep(seconds)
        with suppress(ProcessLookupError):  # it has ended already
            os.kill(pid, number)
        return pid

    return send


def _run(script: str, words: Sequence[str], limits: Mapping[int, int], output: Connection) -> None:
    """Run a program in this process as its `__main__` does."""
    os.dup2(output.fileno(), 1)
    os.dup2(output.fileno(), 2)
    for kind, most in limits.items():
        resource.setrlimit(kind, (most, most))
    signal.signal(signal.SIGINT, signal.default_int_handler)  # a shell may have it ignored
    sys.argv = [f"{script}.py"]
    program = importlib.import_module(script)
    run_script(lambda: int(program.main(list(words))))


# ---- memory --------------------------------------------------------------------------------------


def memory_mb(name: str) -> float:
    """Return a number of `/proc/self/status` in MB; 0 on other systems than Linux.

    Args:
        name: "VmRSS" = RAM in use, "VmHWM" = its peak, "VmSize" = all that is mapped.
    """
    if sys.platform != "linux":
        return 0.0
    status = Path("/proc/self/status").read_text(encoding="utf-8")
    return int(status.partition(f"{name}:")[2].split()[0]) / 1024


def reset_peak() -> None:
    """Set the peak of RAM in use back to what is in use now."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5", encoding="utf-8")


@contextmanager
def memory_limit(mb: int) -> Iterator[None]:
    """Let this process allocate `mb` MB more than it has now; beyond that it gets a MemoryError."""
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    if sys.platform == "linux":
        resource.setrlimit(resource.RLIMIT_AS, (int((memory_mb("VmSize") + mb) * MB), hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))


# ---- readers -------------------------------------------------------------------------------------


def failures(
    reader: Callable[[Path], Any],
    contents: Iterable[tuple[str, bytes]],
    path: Path,
    *,
    seconds: float,
    memory: int,
    refused: bool = False,
) -> list[str]:
    """Read contents one by one; return a line for each that breaks a promise.

    A file must be read, or refused with an InputError of one line that names it.

    Args:
        reader: of the file.
        contents: (name, content) each.
        path: the file that they are written to.
        seconds: CPU time that reading one may take.
        memory: RAM that reading one may take, in MB.
        refused: whether all of them must be refused.
    """
    broken = []
    for name, content in contents:
        path.write_bytes(content)
        reset_peak()
        problem, before, start = "", memory_mb("VmRSS"), time.process_time()
        try:
            reader(path)
            problem = " was read" if refused else ""
        except InputError as error:
            if not one_line_naming(path, error):
                problem = f" was refused with {error!r}"
        except BaseException as error:
            problem = f" raised {type(error).__name__}: {str(error)[:200]}"
        if (took := time.process_time() - start) > seconds:
            problem += f" took {took:.1f} s"
        if (took := memory_mb("VmHWM") - before) > memory:
            problem += f" took {took:.0f} MB"
        if problem:
            broken.append(name + problem)
    return broken


def mutants(
    originals: Sequence[bytes], generator: np.random.Generator
) -> Iterator[tuple[str, bytes]]:
    """Yield damaged copies without end: bits flipped, bytes set, parts removed, doubled, cut off.

    Args:
        originals: undamaged contents.
        generator: random generator.
    """
    number = 0
    while True:
        content = bytearray(originals[int(generator.integers(len(originals)))])
        for _ in range(int(generator.integers(1, 9))):
            place = int(generator.integers(max(len(content), 1)))
            part = slice(place, place + int(generator.integers(1, 40)))
            match int(generator.integers(5)):
                case 0 if content:
                    content[place] ^= 1 << int(generator.integers(8))
                case 1 if content:
                    content[place] = int(generator.choice([0, 1, 0x7F, 0x80, 0xFF]))
                case 2:
                    del content[part]
                case 3:
                    content[place:place] = content[part]
                case 4 if generator.random() < 0.3:
                    del content[place:]
        yield f"mutant {number}", bytes(content)
        number += 1
