"""Files whole or not at all, and errors that a user can mend. Shared by every room that writes.

A file is written beside its place under a temporary name and then renamed (POSIX `rename` is
atomic), so that a reader, a crash or a full disk never meets half a file.
"""

import os
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path


class InputError(Exception):
    """What the user gave can't be used; the message, one line, names it and says the mend."""


def one_line(error: BaseException) -> str:
    """Return what an error says, or its kind where it says nothing, on one short line."""
    return " ".join(str(error).split())[:200] or type(error).__name__


@contextmanager
def whole_file(path: str | Path) -> Iterator[Path]:
    """Give a temporary path to write to; it becomes `path` only if the block ends well.

    Raises:
        OSError: the folder can't be made or written to, or the disk is full. `path` is untouched.
    """
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
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


def run_program(main: Callable[[], int]) -> None:
    """Call `main` and exit with its status; what the user can mend is one line and status 2."""
    try:
        status = main()
    except InputError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        status = 2
    except BrokenPipeError:
        # The reader of our output has left (`... | head`); there is nobody to tell.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        status = 1
    except OSError as error:
        print(f"{Path(sys.argv[0]).name}: {error}", file=sys.stderr)
        status = 1
    except KeyboardInterrupt:
        status = 130
    sys.exit(status)
