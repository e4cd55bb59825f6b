"""Atomic writes, locks, JSON and CSV, and the error for mistakes that a user can correct.

A file is written under a temporary name in its own folder and then renamed. Rename is atomic under
POSIX, so a reader, a crash or a full disk never leaves half a file.
"""

import csv
import json
import os
import tempfile
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from errno import EACCES, EEXIST, EINVAL, EISDIR, ENAMETOOLONG, ENOENT, ENOTDIR, EPERM, EROFS
from pathlib import Path
from typing import Any

from filelock import FileLock

_LOCK_TIMEOUT = 600  # seconds
# A write that fails with one of these can succeed elsewhere: the path is at fault, not the disk.
_PATH_ERRORS = {EACCES, EPERM, EROFS, EEXIST, ENOTDIR, EISDIR, ENAMETOOLONG, EINVAL, ENOENT}


class InputError(Exception):
    """A mistake in the user's input. The message is one line: the file or flag, and the remedy."""


def one_line(error: BaseException) -> str:
    """Return an error's message, or its type if it has none, on one line of at most 200 characters.

    Args:
        error: any exception.
    """
    return " ".join(str(error).split())[:200] or type(error).__name__


def make_folder(path: Path) -> None:
    """Create a folder and its parents where they are missing.

    Args:
        path: the folder.

    Raises:
        InputError: a file is in the way, or the path is not writable.
        OSError: the disk is full or broken.
    """
    try:
        path.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        _raise_if_path_error(path, error)
        raise


@contextmanager
def atomic_write(path: str | Path) -> Iterator[Path]:
    """Yield a temporary path to write to, and rename it to `path` when the block succeeds.

    If the block raises, the temporary file is removed and `path` stays as it was.

    Args:
        path: the file to write; missing parent folders are created.

    Yields:
        The temporary path, in the same folder as `path`.

    Raises:
        InputError: the path is not writable.
        OSError: the disk is full or broken.
    """
    path = Path(path)
    make_folder(path.parent)
    try:
        handle, name = tempfile.mkstemp(prefix=f".{path.name}.", suffix=".tmp", dir=path.parent)
    except OSError as error:
        _raise_if_path_error(path, error)
        raise
    temporary = Path(name)
    try:
        os.close(handle)
        yield temporary
        with temporary.open("rb") as written:
            os.fsync(written.fileno())
        # mkstemp creates files that only their owner can read; `open` would have applied the umask.
        umask = os.umask(0)
        os.umask(umask)
        temporary.chmod(0o666 & ~umask)
        temporary.replace(path)
    except BaseException as error:
        temporary.unlink(missing_ok=True)
        if isinstance(error, OSError) and error.errno and error.filename is None:  # a full disk
            raise OSError(error.errno, error.strerror, str(path)) from None
        raise


@contextmanager
def file_lock(path: Path) -> Iterator[None]:
    """Let one process at a time run the block.

    If the lock can't be acquired within ten minutes, or not at all on this file system, the block
    runs without it.

    Args:
        path: the lock file, empty; it is created if missing and not removed.
    """
    lock = FileLock(path)
    with suppress(OSError, InputError):  # filelock's Timeout is an OSError
        make_folder(path.parent)
        lock.acquire(timeout=_LOCK_TIMEOUT)
    try:
        yield
    finally:
        lock.release()


def read_json(path: Path) -> Any:
    """Read a JSON file.

    Args:
        path: the file, in UTF-8.

    Returns:
        Its value.

    Raises:
        InputError: the file is missing or not valid JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error})") from None


def write_json(path: Path, values: Any) -> None:
    """Write values as indented JSON.

    Args:
        path: the file.
        values: anything that the `json` module can encode.

    Raises:
        InputError: the path is not writable.
        OSError: the disk is full or broken.
    """
    with atomic_write(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def write_csv(path: Path, columns: Sequence[str], rows: Sequence[Mapping[str, Any]]) -> None:
    """Write rows as CSV, with a header line.

    Args:
        path: the file.
        columns: names of the columns, in order.
        rows: the value of each column by its name; other names are ignored.

    Raises:
        InputError: the path is not writable.
        OSError: the disk is full or broken.
    """
    with atomic_write(path) as temporary, temporary.open("w", encoding="utf-8", newline="") as file:
        writer = csv.DictWriter(file, columns, extrasaction="ignore", lineterminator="\n")
        writer.writeheader()
        writer.writerows(rows)


def _raise_if_path_error(path: Path, error: OSError) -> None:
    """Raise InputError if writing to another path would help."""
    if error.errno in _PATH_ERRORS:
        raise InputError(f"{path}: can't be written ({error.strerror}); name another") from None
