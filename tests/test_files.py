"""Atomic writes, locks, JSON and CSV."""

import os
import stat
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from helpers import ROOT, names_in, one_line_naming
from pianolstm.files import (
    InputError,
    atomic_write,
    file_lock,
    one_line,
    read_json,
    write_csv,
    write_json,
)


class Interrupted(BaseException):
    """Like KeyboardInterrupt, which would stop pytest itself."""


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


# ---- atomic writes -------------------------------------------------------------------------------


def test_a_file_appears_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with atomic_write(path) as temporary:
        temporary.write_text("content")
        assert not path.exists()
    assert path.read_text() == "content"
    assert names_in(tmp_path) == ["out.txt"]


def test_readers_see_the_old_content_until_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with atomic_write(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [OSError, Interrupted])
@pytest.mark.parametrize("old", ["old", None])
def test_an_exception_keeps_the_old_content_and_removes_the_temporary_file(
    tmp_path: Path, error: type[BaseException], old: str | None
) -> None:
    path = tmp_path / "out.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(error), atomic_write(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names_in(tmp_path) == ([] if old is None else ["out.txt"])
    assert old is None or path.read_text() == old


def test_the_temporary_file_is_in_the_folder_of_the_final_one(tmp_path: Path) -> None:
    # Rename is atomic only within one file system.
    with atomic_write(tmp_path / "out.txt") as temporary:
        assert temporary.parent == tmp_path


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int
) -> None:
    umask(mask)
    with atomic_write(tmp_path / "out.txt") as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == mode
    assert umask(mask) == mask  # the umask itself has not changed


def test_missing_parent_folders_are_created(tmp_path: Path) -> None:
    with atomic_write(tmp_path / "a" / "b" / "out.txt") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path / "a" / "b") == ["out.txt"]


def test_a_bare_name_is_written_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with atomic_write("out.txt") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == ["out.txt"]


def test_a_file_in_place_of_the_folder_is_an_input_error(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(InputError, match="file: can't be written"),
        atomic_write(tmp_path / "file" / "out.txt"),
    ):
        pytest.fail("the block must not run")
    assert names_in(tmp_path) == ["file"]


def test_a_folder_in_place_of_the_file_is_an_os_error_and_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="out"), atomic_write(tmp_path / "out") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == ["out"]


# ---- locks ---------------------------------------------------------------------------------------

APPEND = """
import sys, time
from pathlib import Path
from pianolstm.files import file_lock
with file_lock(Path(sys.argv[1])):
    file = Path(sys.argv[2])
    before = file.read_text() if file.exists() else ""
    time.sleep(0.2)
    file.write_text(before + "x")
"""


def test_one_process_at_a_time_runs_the_block(tmp_path: Path) -> None:
    command = [sys.executable, "-c", APPEND, tmp_path / "locks" / "a", tmp_path / "count"]
    processes = [subprocess.Popen(command, cwd=ROOT) for _ in range(3)]
    assert [process.wait(timeout=60) for process in processes] == [0, 0, 0]
    assert (tmp_path / "count").read_text() == "xxx"


def test_the_block_runs_where_no_lock_can_be_created(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    start = time.monotonic()
    with file_lock(tmp_path / "file" / "lock"):
        assert time.monotonic() - start < 10


# ---- JSON and CSV --------------------------------------------------------------------------------


def test_values_survive_json(tmp_path: Path) -> None:
    values = {"a": [1, 2.5, None, True], "name": "Übung \udcff"}
    write_json(tmp_path / "a.json", values)
    assert read_json(tmp_path / "a.json") == values


@pytest.mark.parametrize("content", [None, b"", b"{", b"\xff\xfe"])
def test_a_file_that_is_not_json_is_an_input_error(tmp_path: Path, content: bytes | None) -> None:
    path = tmp_path / "a.json"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(InputError) as caught:
        read_json(path)
    assert one_line_naming(path, caught.value)


def test_csv_has_the_columns_in_order_and_no_others(tmp_path: Path) -> None:
    rows = [{"b": 2.5, "a": 1, "c": "ignored"}, {"a": "x, y", "b": None}]
    write_csv(tmp_path / "a.csv", ("a", "b"), rows)
    assert (tmp_path / "a.csv").read_bytes() == b'a,b\n1,2.5\n"x, y",\n'


# ---- messages ------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("error", "line"),
    [
        (ValueError("two\n  lines\tand a tab"), "two lines and a tab"),
        (EOFError(), "EOFError"),
        (ValueError("  \n "), "ValueError"),
        (ValueError("x" * 500), "x" * 200),
        (OSError(2, "No such file", "a.mid"), "[Errno 2] No such file: 'a.mid'"),
    ],
)
def test_the_message_of_an_error_is_one_short_line(error: Exception, line: str) -> None:
    assert one_line(error) == line
