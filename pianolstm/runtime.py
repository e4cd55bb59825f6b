"""How the program runs: device, threads, precision, processes, signals, exit status, seeds.

Several processes train as one under PyTorch's launcher: `torchrun --nproc_per_node=N main.py ...`.
Each process takes its shard of every batch, and PyTorch averages the gradients
(DistributedDataParallel; Li et al. 2020, arXiv:2006.15704) over gloo on CPUs and NCCL on GPUs.
"""

import os
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import torch
from torch import Tensor, distributed, nn

from pianolstm.files import InputError

T = TypeVar("T")

_FEW_PIECES = 8  # up to so many side by side, one thread samples faster than two
_BFLOAT16_INSTRUCTIONS = "amx_bf16", "avx512_bf16"
_WORTHWHILE = 1.15  # smallest speedup for which to train in bfloat16

# ---- device, precision, threads ------------------------------------------------------------------


def choose_device(name: str, threads: int = 0) -> torch.device:
    """Return the device of this name, and set the number of CPU threads.

    Args:
        name: "cpu", "cuda", "mps", or "auto" for the first available of cuda, mps and cpu.
        threads: number of CPU threads; 0 = PyTorch's default.

    Raises:
        InputError: this machine has no such device.
    """
    if threads:
        torch.set_num_threads(threads)
    available = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    if name == "auto":
        name = next(device for device, there in available.items() if there)
    if not available[name]:
        raise InputError(
            f"--device {name}: not available on this machine; use --device auto or cpu"
        )
    return torch.device(name)


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return the number format of training, "float32" or "bfloat16".

    Args:
        wanted: the setting `precision`; "auto" takes bfloat16 where it is faster.
        device: the device to train on.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and bfloat16_speedup() >= _WORTHWHILE
    return "bfloat16" if fast else "float32"


@cache
def bfloat16_speedup() -> float:
    """Return how many times as fast this CPU trains an LSTM in bfloat16 as in float32.

    It is measured once, in a quarter of a second, and only on CPUs with instructions for bfloat16;
    others emulate them, which is slower, and 0 is returned. The choice must not differ from run to
    run: so one thread computes, its own CPU time counts, and of several turns the fastest.
    """
    if not any(torch.cpu.get_capabilities().get(name) for name in _BFLOAT16_INSTRUCTIONS):
        return 0.0
    with torch.random.fork_rng(devices=[]):
        lstm = nn.LSTM(256, 256, batch_first=True)
        inputs = torch.rand(32, 8, 256)

    def seconds(bfloat16: bool) -> float:
        start = time.thread_time()
        with torch.autocast("cpu", torch.bfloat16, bfloat16, cache_enabled=False):
            output, _ = lstm(inputs)
        output.float().sum().backward()
        return time.thread_time() - start

    with sampling_threads(1):
        turns = [(seconds(False), seconds(True)) for _ in range(12)]
    float32, bfloat16 = (min(times) for times in zip(*turns, strict=True))
    return float32 / bfloat16


@contextmanager
def sampling_threads(pieces: int, threads: int = 0) -> Iterator[None]:
    """Compute the block on one thread for a few pieces, else on the usual number of threads.

    For a few rows, starting a second thread takes longer than the work it would do.

    Args:
        pieces: pieces that are sampled side by side.
        threads: number of threads to use in any case; 0 = as above.
    """
    usual = torch.get_num_threads()
    torch.set_num_threads(threads or (1 if pieces <= _FEW_PIECES else usual))
    try:
        yield
    finally:
        torch.set_num_threads(usual)


# ---- random numbers ------------------------------------------------------------------------------


def make_generators(seed: int, count: int) -> list[torch.Generator]:
    """Return a random generator for each of `count` pieces.

    Their streams differ between pieces and between seeds, and piece i has the same stream whatever
    `count` is.
    """
    return [_generator([seed, index]) for index in range(count)]


def next_generator(generator: torch.Generator, index: int = 1) -> torch.Generator:
    """Return a new generator that depends only on the seed of this one, not on its use so far.

    Args:
        generator: the generator.
        index: which of its successors; each has another stream.
    """
    return _generator([generator.initial_seed(), index])


def _generator(entropy: list[int]) -> torch.Generator:
    state = np.random.SeedSequence(entropy).generate_state(1, np.uint64)
    return torch.Generator().manual_seed(int(state[0] >> np.uint64(1)))


# ---- several processes ---------------------------------------------------------------------------


@dataclass(frozen=True)
class World:
    """The processes that train together: their number, and the rank of this one."""

    rank: int = 0
    size: int = 1

    @property
    def is_main(self) -> bool:
        """Whether this process writes files and prints."""
        return self.rank == 0

    def broadcast(self, value: T | None) -> T:
        """Return the main process's value in every process."""
        box = [value]
        if self.size > 1:
            distributed.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over all processes, in every process."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    @contextmanager
    def main_process_first(self) -> Iterator[None]:
        """Run the block in the main process before the others, which then use what it stored."""
        if self.size > 1 and not self.is_main:
            distributed.barrier()
        yield
        if self.size > 1 and self.is_main:
            distributed.barrier()


SINGLE_PROCESS = World()


@contextmanager
def join_world(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun started, if any; give them and this process's device."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield SINGLE_PROCESS, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    world, stdout = World(distributed.get_rank(), size), sys.stdout
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as devnull:
            sys.stdout = stdout if world.is_main else devnull
            yield world, device
    finally:
        sys.stdout = stdout
        distributed.destroy_process_group()


# ---- signals and exit status ---------------------------------------------------------------------


@contextmanager
def defer_signals() -> Iterator[Callable[[], None]]:
    """Defer SIGINT and SIGTERM to the next call of the function that this gives.

    The training loop calls it between optimizer steps. Without it, a signal could end an epoch
    with half of its numbers updated, or be lost while Python runs a destructor. A second signal of
    the same kind acts at once.
    """
    if threading.current_thread() is not threading.main_thread():
        yield lambda: None  # only the main thread receives signals
        return
    handlers: dict[int, Any] = {s: signal.getsignal(s) for s in (signal.SIGTERM, signal.SIGINT)}
    pending: set[int] = set()

    def defer(number: int, _: object) -> None:
        pending.add(number)
        signal.signal(number, handlers[number])

    def deliver() -> None:
        for number in handlers:  # SIGTERM first; an ignored SIGINT must not hide it
            if number in pending:
                pending.remove(number)
                signal.raise_signal(number)

    try:
        for number in handlers:
            signal.signal(number, defer)
        yield deliver
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)
    deliver()


def run_script(main: Callable[[], int]) -> None:
    """Call `main` and exit with its status.

    An InputError becomes one line on stderr and exit status 2. SIGTERM exits like any other error,
    so temporary files are removed.
    """
    status: int | str | None
    name = Path(sys.argv[0]).name
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            status = main()
        except SystemExit as leave:  # raised by argparse
            status = leave.code
        sys.stdout.flush()
    except InputError as error:
        print(f"{name}: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        if not isinstance(error, BrokenPipeError):  # a closed pipe (`... | head`) is no error
            print(f"{name}: {error}", file=sys.stderr)
        with suppress(OSError, ValueError):  # Python would fail again to flush stdout at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except KeyboardInterrupt:
        print(f"{name}: stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
