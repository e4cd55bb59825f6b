"""Files whole or not at all, and errors that a user can mend. Shared by every room that writes.

A file is written beside its place under a temporary name and then renamed (POSIX `rename` is
atomic), so that a reader, a crash or a full disk never meets half a file.
"""

import os
import signal
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from errno import EACCES, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS
from pathlib import Path

from filelock import FileLock

LOCK_SECONDS = 600  # that another process is waited for


class InputError(Exception):
    """What the user gave can't be used; the message, one line, names it and says the mend."""


def one_line(error: BaseException) -> str:
    """Return what an error says, or its kind where it says nothing, on one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


def make_folder(path: Path) -> None:
    """Make a folder and those above it, if they are not there.

    Raises:
        InputError: a file is in the way, or the place can't be written to.
        OSError: the disk is full or broken.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise_if_mendable(path, error)
        raise


def raise_if_mendable(path: Path, error: OSError) -> None:
    """Raise InputError where another place to write would do."""
    mendable = {EACCES, EPERM, EROFS, EEXIST, ENOTDIR, EISDIR, ENAMETOOLONG, EINVAL, ENOENT}
    if error.errno in mendable:
        raise InputError(f"{path}: can't be written ({error.strerror}); name another") from None


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` only if the block ends well.

    Raises:
        InputError: the place can't be written to. `path` is untouched, as it is with any error.
        OSError: the disk is full or broken.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        raise_if_mendable(path, error)
        raise
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp is private by design; the finished file gets what `open` would have given it.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


@contextmanager
def one_at_a_time(lock: Path) -> Iterator[None]:
    """Let one process at a time into the block; where no lock can be had, whoever comes.

    Args:
        lock: an empty file that says who is in; it stays.
    """
    held = FileLock(lock)
    with suppress(OSError, InputError):  # a timeout among them
        make_folder(lock.parent)
        held.acquire(timeout=LOCK_SECONDS)
    try:
        yield
    finally:
        held.release()


def run_program(main: Callable[[], int]) -> None:
    """Call `main` and exit with its status; what the user can mend is one line and status 2.

    Being told to end (SIGTERM) is an exit like another: what is half written is cleared away.
    """
    status: int | str | None
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(128 + signal.SIGTERM))
    try:
        try:
            status = main()
        except SystemExit as leave:  # argparse's
            status = leave.code
        sys.stdout.flush()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        status = 2
    except OSError as error:
        # A reader that has left (`... | head`) needs no telling.
        if not isinstance(error, BrokenPipeError):
            print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        with suppress(OSError, ValueError):  # what is still unwritten would fail again at exit
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except KeyboardInterrupt:
        print(f"{Path(sys.argv[0]).name}: stopped", file=sys.stderr)
        status = 130
    sys.exit(status)
