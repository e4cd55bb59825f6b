"""Device, precision, threads, random numbers, signals and exit status."""

import signal
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator

import pytest
import torch

from helpers import ROOT
from pianolstm import runtime
from pianolstm.files import InputError
from pianolstm.runtime import (
    choose_device,
    choose_precision,
    defer_signals,
    make_generators,
    next_generator,
    run_script,
    sampling_threads,
)

# ---- device, precision, threads ------------------------------------------------------------------


def set_devices(monkeypatch: pytest.MonkeyPatch, *present: str) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: "cuda" in present)
    monkeypatch.setattr(torch.backends.mps, "is_available", lambda: "mps" in present)


@pytest.mark.parametrize(
    ("present", "auto"),
    [((), "cpu"), (("mps",), "mps"), (("cuda",), "cuda"), (("cuda", "mps"), "cuda")],
    ids=["neither", "mps", "cuda", "both"],
)
def test_auto_is_the_first_device_of_this_machine(
    monkeypatch: pytest.MonkeyPatch, present: tuple[str, ...], auto: str
) -> None:
    set_devices(monkeypatch, *present)
    assert choose_device("auto").type == auto
    for name in ("cpu", *present):
        assert choose_device(name).type == name


@pytest.mark.parametrize("name", ["cuda", "mps"])
def test_a_device_that_is_not_available_is_refused_with_the_remedy(
    monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    set_devices(monkeypatch)
    with pytest.raises(InputError, match=f"^--device {name}: .*cpu$"):
        choose_device(name)


@pytest.mark.parametrize(
    ("device", "speedup", "ampere", "auto"),
    [
        ("cpu", 1.5, False, "bfloat16"),
        ("cpu", 1.1, True, "float32"),
        ("cpu", 0.0, True, "float32"),  # no instructions for it
        ("cuda", 1.5, False, "float32"),
        ("cuda", 0.0, True, "bfloat16"),
        ("mps", 1.5, True, "float32"),
    ],
)
def test_auto_is_bfloat16_where_it_is_faster(
    monkeypatch: pytest.MonkeyPatch, device: str, speedup: float, ampere: bool, auto: str
) -> None:
    monkeypatch.setattr(runtime, "bfloat16_speedup", lambda: speedup)
    monkeypatch.setattr(
        torch.cuda, "is_bf16_supported", lambda including_emulation: ampere or including_emulation
    )
    assert choose_precision("auto", torch.device(device)) == auto
    for wanted in ("float32", "bfloat16"):
        assert choose_precision(wanted, torch.device(device)) == wanted


@pytest.mark.parametrize("features", [{}, {"amx_bf16": True}, {"avx512_bf16": True}])
def test_the_speedup_is_measured_only_with_instructions_for_bfloat16(
    monkeypatch: pytest.MonkeyPatch, features: dict[str, bool]
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: features)
    torch.manual_seed(1)
    state, threads = torch.get_rng_state(), torch.get_num_threads()
    speedup = runtime.bfloat16_speedup.__wrapped__()  # without the cache
    assert (speedup > 0) == bool(features)
    assert torch.equal(torch.get_rng_state(), state)
    assert torch.get_num_threads() == threads


@pytest.fixture
def three_threads() -> Iterator[None]:
    """Compute with three threads, and with one again afterwards."""
    torch.set_num_threads(3)
    yield
    torch.set_num_threads(1)


@pytest.mark.usefixtures("three_threads")
def test_threads_are_the_given_number_and_0_leaves_them() -> None:
    choose_device("cpu", threads=0)
    assert torch.get_num_threads() == 3
    choose_device("cpu", threads=2)
    assert torch.get_num_threads() == 2


@pytest.mark.usefixtures("three_threads")
@pytest.mark.parametrize(("pieces", "given", "used"), [(1, 0, 1), (8, 0, 1), (9, 0, 3), (1, 2, 2)])
def test_a_few_pieces_are_sampled_on_one_thread_unless_a_number_is_given(
    pieces: int, given: int, used: int
) -> None:
    with sampling_threads(pieces, given):
        assert torch.get_num_threads() == used
    assert torch.get_num_threads() == 3


# ---- random numbers ------------------------------------------------------------------------------


def test_generators_differ_between_all_pieces_and_seeds() -> None:
    seeds = [g.initial_seed() for seed in range(40) for g in make_generators(seed, 40)]
    seeds += [next_generator(g).initial_seed() for g in make_generators(0, 40)]
    assert len(set(seeds)) == 1640
    assert all(0 <= seed < 2**63 for seed in seeds)


def test_a_generator_depends_on_seed_and_piece_and_not_on_its_use() -> None:
    few, many = make_generators(5, 2), make_generators(5, 9)
    assert [g.initial_seed() for g in few] == [g.initial_seed() for g in many[:2]]
    torch.rand(3, generator=few[0])
    assert next_generator(few[0]).initial_seed() == next_generator(many[0]).initial_seed()


# ---- signals -------------------------------------------------------------------------------------


@pytest.fixture
def delivered() -> Iterator[list[int]]:
    """Handle SIGINT and SIGTERM by appending them to a list; return it."""
    received: list[int] = []
    stops = (signal.SIGINT, signal.SIGTERM)
    before = [signal.signal(stop, lambda number, _: received.append(number)) for stop in stops]
    yield received
    for stop, handler in zip(stops, before, strict=True):
        signal.signal(stop, handler)


def test_signals_are_deferred_to_the_next_delivery_sigterm_first(delivered: list[int]) -> None:
    with defer_signals() as deliver:
        deliver()
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        assert delivered == []
        deliver()
        assert delivered == [signal.SIGTERM, signal.SIGINT]
        deliver()
    assert len(delivered) == 2


def test_a_signal_without_a_delivery_acts_at_the_end_of_the_block(delivered: list[int]) -> None:
    with defer_signals():
        signal.raise_signal(signal.SIGINT)
        assert delivered == []
    assert delivered == [signal.SIGINT]
    signal.raise_signal(signal.SIGTERM)  # handled as before the block
    assert delivered == [signal.SIGINT, signal.SIGTERM]


def test_the_second_signal_of_a_kind_acts_at_once(delivered: list[int]) -> None:
    with defer_signals():
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGINT)
        assert delivered == [signal.SIGINT]


def test_an_ignored_sigint_does_not_hide_sigterm(delivered: list[int]) -> None:
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    with defer_signals() as deliver:
        signal.raise_signal(signal.SIGINT)
        signal.raise_signal(signal.SIGTERM)
        deliver()
        assert delivered == [signal.SIGTERM]


def test_signals_are_deferred_in_the_main_thread_alone() -> None:
    done = []

    def work() -> None:
        with defer_signals() as deliver:
            deliver()
            done.append(True)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    assert done == [True]


# ---- exit status ---------------------------------------------------------------------------------


@pytest.fixture(autouse=True)
def _keep_sigterm() -> Iterator[None]:
    handler = signal.getsignal(signal.SIGTERM)
    yield
    signal.signal(signal.SIGTERM, handler)


def status_of(main: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["folder/main.py"])
    with pytest.raises(SystemExit) as caught:
        run_script(main)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "status", "line"),
    [
        (InputError("a.mat: damaged; give another"), 2, "main.py: a.mat: damaged; give another\n"),
        (OSError("the disk is full"), 1, "main.py: the disk is full\n"),
        (KeyboardInterrupt(), 130, "main.py: stopped\n"),
    ],
)
def test_an_error_of_user_or_machine_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    line: str,
) -> None:
    def main() -> int:
        raise error

    assert status_of(main, monkeypatch) == status
    assert capsys.readouterr() == ("", line)


def test_the_status_of_main_is_the_exit_status(monkeypatch: pytest.MonkeyPatch) -> None:
    for status in (0, 1):
        assert status_of(lambda status=status: status, monkeypatch) == status


def test_an_error_of_the_program_keeps_its_traceback() -> None:
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_script(main)


def run_python(code: str) -> "subprocess.Popen[bytes]":
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    return subprocess.Popen([sys.executable, "-c", code], cwd=ROOT, **pipes)


def test_a_closed_pipe_is_no_error_and_sigterm_runs_the_clean_up() -> None:
    start = "import time\nfrom pianolstm.runtime import run_script\n"
    writer = run_python(start + "run_script(lambda: [print(i) for i in range(10**6)])")
    sleeper = run_python(
        start + "def main():\n"
        "    try:\n"
        "        print('ready', flush=True)\n"
        "        time.sleep(60)\n"
        "    finally:\n"
        "        print('clean', flush=True)\n"
        "run_script(main)"
    )
    with writer, sleeper:
        assert writer.stdout is not None
        assert sleeper.stdout is not None
        assert writer.stdout.readline() == b"0\n"
        writer.stdout.close()
        assert sleeper.stdout.readline() == b"ready\n"
        sleeper.terminate()
        assert sleeper.stdout.readline() == b"clean\n"
        for process, status in ((writer, 1), (sleeper, 143)):
            assert process.stderr is not None
            assert process.stderr.read() == b""
            assert process.wait() == status
