"""Files whole or not at all; the user's mistakes in one line."""

import os
import stat
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from files import InputError, one_line, run_program, whole_file

ROOT = Path(__file__).parent.parent


class Interrupted(BaseException):
    """Like KeyboardInterrupt, which pytest would take for its own."""


@pytest.fixture
def umask() -> Iterator[Callable[[int], int]]:
    before = os.umask(0o022)
    yield os.umask
    os.umask(before)


def names_in(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


# ---- whole_file ----------------------------------------------------------------------------------


def test_the_file_appears_only_when_the_block_has_ended(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    with whole_file(path) as temporary:
        temporary.write_text("first half, ")
        assert not path.exists()
        with temporary.open("a") as file:
            file.write("second half")
        assert not path.exists()
    assert path.read_text() == "first half, second half"
    assert names_in(tmp_path) == ["out.txt"]


def test_readers_see_the_old_content_until_the_new_is_whole(tmp_path: Path) -> None:
    path = tmp_path / "out.txt"
    path.write_text("old")
    with whole_file(path) as temporary:
        temporary.write_text("new")
        assert path.read_text() == "old"
    assert path.read_text() == "new"


@pytest.mark.parametrize("error", [ValueError, OSError, Interrupted])
@pytest.mark.parametrize("old", ["old", None])
def test_an_exception_leaves_the_old_content_and_no_temporary_file(
    tmp_path: Path, error: type[BaseException], old: str | None
) -> None:
    path = tmp_path / "out.txt"
    if old is not None:
        path.write_text(old)
    with pytest.raises(error), whole_file(path) as temporary:
        temporary.write_text("half")
        raise error
    assert names_in(tmp_path) == ([] if old is None else ["out.txt"])
    assert old is None or path.read_text() == old


def test_the_temporary_file_is_in_the_folder_of_the_final_one(tmp_path: Path) -> None:
    # Only within one file system is a rename atomic.
    with whole_file(tmp_path / "out.txt") as temporary:
        assert temporary.parent == tmp_path


@pytest.mark.parametrize(("mask", "mode"), [(0o022, 0o644), (0o077, 0o600), (0o002, 0o664)])
def test_permissions_follow_the_umask(
    tmp_path: Path, umask: Callable[[int], int], mask: int, mode: int
) -> None:
    umask(mask)
    with whole_file(tmp_path / "out.txt") as temporary:
        temporary.write_text("x")
    assert stat.S_IMODE((tmp_path / "out.txt").stat().st_mode) == mode
    assert umask(mask) == mask  # and the umask is what it was


def test_folders_on_the_way_are_made(tmp_path: Path) -> None:
    with whole_file(tmp_path / "a" / "b" / "out.txt") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path / "a" / "b") == ["out.txt"]


def test_a_bare_name_is_written_in_the_current_folder(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    with whole_file("out.txt") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == ["out.txt"]


def test_a_file_in_place_of_the_folder_is_for_the_user_to_mend(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("in the way")
    with (
        pytest.raises(InputError, match="file: can't be written"),
        whole_file(tmp_path / "file" / "out.txt"),
    ):
        pytest.fail("there is nowhere to write")
    assert names_in(tmp_path) == ["file"]


def test_a_folder_in_place_of_the_file_is_an_os_error_and_is_kept(tmp_path: Path) -> None:
    (tmp_path / "out").mkdir()
    with pytest.raises(OSError, match="out"), whole_file(tmp_path / "out") as temporary:
        temporary.write_text("x")
    assert names_in(tmp_path) == ["out"]


# ---- one line ------------------------------------------------------------------------------------


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
def test_an_error_is_said_on_one_short_line(error: Exception, line: str) -> None:
    assert one_line(error) == line


# ---- run_program ---------------------------------------------------------------------------------


def run(main: Callable[[], int], monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.setattr(sys, "argv", ["folder/main.py"])
    with pytest.raises(SystemExit) as caught:
        run_program(main)
    return caught.value.code


@pytest.mark.parametrize(
    ("error", "status", "said"),
    [
        (InputError("a.mat: damaged; give another"), 2, "main.py: a.mat: damaged; give another\n"),
        (OSError("the disk is full"), 1, "main.py: the disk is full\n"),
        (KeyboardInterrupt(), 130, "main.py: stopped\n"),
    ],
)
def test_what_the_user_can_mend_is_one_line_and_a_status(
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    error: BaseException,
    status: int,
    said: str,
) -> None:
    def main() -> int:
        raise error

    assert run(main, monkeypatch) == status
    assert capsys.readouterr() == ("", said)


@pytest.mark.parametrize("status", [0, 1])
def test_the_status_of_the_program_is_passed_on(
    monkeypatch: pytest.MonkeyPatch, status: int
) -> None:
    assert run(lambda: status, monkeypatch) == status


def test_the_programs_own_mistakes_keep_their_traceback() -> None:
    def main() -> int:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        run_program(main)


def test_a_reader_that_leaves_gets_no_traceback() -> None:
    code = "from files import run_program\nrun_program(lambda: [print(i) for i in range(10**6)])"
    with subprocess.Popen(
        [sys.executable, "-c", code], cwd=ROOT, stdout=subprocess.PIPE, stderr=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        assert process.stderr is not None
        assert process.stdout.readline() == b"0\n"
        process.stdout.close()
        assert process.stderr.read() == b""
    assert process.returncode == 1
