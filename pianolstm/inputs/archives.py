"""Unpacks a `.zip` file of a data set into a temporary folder."""

import shutil
import tempfile
import zipfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path, PurePosixPath

from pianolstm.files import InputError

_MAX_BYTES = 2**30  # of all files, unpacked
_MAX_FILES = 200_000


@contextmanager
def unpacked(path: Path) -> Iterator[Path]:
    """Yield a temporary folder with the files of an archive, and remove it after the block.

    Nothing is written outside this folder, and nothing but plain files: a link in the archive
    becomes a file with the link's target as text. The metadata that macOS adds are left out.

    Args:
        path: the `.zip` file.

    Yields:
        The folder, or the one in it if it holds nothing else.

    Raises:
        InputError: the archive is damaged, encrypted, or unpacks to more than a gigabyte or 200,000
            files.
    """
    with tempfile.TemporaryDirectory(prefix="pianolstm-") as name:
        folder = Path(name)
        try:
            _unpack(path, folder)
        except InputError as error:
            raise InputError(f"{path}: {error}") from None
        except OSError:  # the disk is full or broken
            raise
        except Exception:  # zipfile raises many types for damaged archives
            raise InputError(f"{path}: damaged or incomplete, not a .zip file") from None
        content = list(folder.iterdir())
        while len(content) == 1 and content[0].is_dir():
            (folder,) = content
            content = list(folder.iterdir())
        yield folder


def _unpack(path: Path, folder: Path) -> None:
    with zipfile.ZipFile(path) as archive:
        entries = [entry for entry in archive.infolist() if not entry.is_dir()]
        if len(entries) > _MAX_FILES:
            raise InputError(f"has more than {_MAX_FILES:,} files")
        # A file never unpacks to more than the size of its entry: zipfile stops there.
        if sum(entry.file_size for entry in entries) > _MAX_BYTES:
            raise InputError(f"unpacks to more than {_MAX_BYTES >> 20} MB")
        for entry in entries:
            if entry.flag_bits & 1:
                raise InputError("is encrypted; unpack it and give the folder")
            inside = PurePosixPath(entry.filename.replace("\\", "/"))
            if inside.is_absolute() or ".." in inside.parts or ":" in inside.parts[0]:
                raise InputError(f"has a file outside the archive's own folder, {inside}")
            if "__MACOSX" in inside.parts:
                continue
            target = folder / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            with archive.open(entry) as source, target.open("wb") as file:
                shutil.copyfileobj(source, file)
