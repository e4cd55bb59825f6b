"""A `.zip` of a data set is read like the data set, and leaves nothing behind."""

import io
import json
import stat
import tempfile
import zipfile
from pathlib import Path
from typing import Any

import pytest

from helpers import Splits, assert_same, mat_bytes, names_in, refusal, steps_of
from pianolstm.inputs import archives, scores
from pianolstm.inputs.formats import read
from pianolstm.rolls import SPLITS, write_npz

TUNE = """X:1
T:A scale of quarters on {first}
M:4/4
L:1/4
K:C
{first} D E F |
"""


@pytest.fixture(autouse=True)
def temporary(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the folder in which temporary folders are made."""
    folder = tmp_path / "temporary"
    folder.mkdir()
    monkeypatch.setattr(tempfile, "tempdir", str(folder))
    return folder


def pack(path: Path, files: dict[str, bytes]) -> Path:
    with zipfile.ZipFile(path, "w", zipfile.ZIP_DEFLATED) as archive:
        for name, content in files.items():
            archive.writestr(name, content)
    return path


def tunes(folder: str = "") -> dict[str, bytes]:
    return {f"{folder}{c}.abc": TUNE.format(first=c).encode() for c in "CGABcdefgab"}


@pytest.mark.parametrize("form", ["pickle", "json", "mat", "npz"])
@pytest.mark.parametrize("folder", ["", "data set/inner/"])
def test_one_data_file_in_an_archive_is_read(
    tmp_path: Path,
    temporary: Path,
    tiny_pieces: Any,
    tiny_pickle: bytes,
    tiny_splits: Splits,
    form: str,
    folder: str,
) -> None:
    write_npz(tmp_path / "n", tiny_splits)
    content = {
        "pickle": tiny_pickle,
        "json": json.dumps(tiny_pieces).encode(),
        "mat": mat_bytes(tiny_splits),
        "npz": (tmp_path / "n").read_bytes(),
    }[form]
    files = {
        f"{folder}README.md": b"# Tunes\n",
        f"{folder}data": content,
        f"__MACOSX/{folder}._data": b"\0\5\x16\7",
    }
    splits, remarks = read(pack(tmp_path / "a.zip", files), 0.5)
    assert_same(splits, tiny_splits)
    assert remarks == []
    assert names_in(temporary) == []


def test_scores_in_an_archive_are_read_and_messages_name_the_archive(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_PARALLEL_FILES", 1000)  # processes have temporary files too
    files = {f"set/{split}/{name}": data for split in SPLITS for name, data in tunes().items()}
    path = pack(tmp_path / "a.zip", {**files, "set/train/z.abc": b"X:1\nK:none\n"})
    splits, remarks = read(path, 1.0)
    assert [len(splits[split]) for split in SPLITS] == [11] * 3
    assert steps_of(splits["test"][0]) == [[69], [62], [64], [65]]
    assert f"{path}: 33 of 34 scores read, 33 pieces" in remarks
    assert any(remark.startswith(f"{path}/train/z.abc: ") for remark in remarks)
    assert not any(str(temporary) in remark for remark in remarks)
    assert names_in(temporary) == []


def test_an_archive_is_read_again_from_the_cache(
    tmp_path: Path, tiny_pickle: bytes, tiny_splits: Splits, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = pack(tmp_path / "a.zip", {"a.pickle": tiny_pickle})
    read(path, 0.5, tmp_path / "cache")
    monkeypatch.setattr(archives, "_unpack", None)
    assert_same(read(path, 0.5, tmp_path / "cache")[0], tiny_splits)


@pytest.mark.parametrize(
    "name", ["../a.json", "/a.json", "b/../../a.json", "C:/a.json", "..\\a.json"]
)
def test_a_file_outside_the_archive_is_refused(
    tmp_path: Path, temporary: Path, tiny_pieces: Any, name: str
) -> None:
    path = pack(tmp_path / "a.zip", {name: json.dumps(tiny_pieces).encode()})
    assert "a file outside the archive's own folder" in refusal(path)
    assert names_in(tmp_path) == ["a.zip", "temporary"]
    assert names_in(temporary) == []


def test_a_link_in_an_archive_is_not_followed(tmp_path: Path, tiny_pickle: bytes) -> None:
    (tmp_path / "secret").write_bytes(tiny_pickle)
    link = zipfile.ZipInfo("a.pickle")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, str(tmp_path / "secret"))
    assert "nor a data file" in refusal(tmp_path / "a.zip")


def test_what_unpacks_to_more_than_the_limit_is_refused(
    tmp_path: Path, temporary: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MAX_BYTES", 2**20)
    path = pack(tmp_path / "a.zip", {f"{i}.json": bytes(2**18) for i in range(5)})
    assert path.stat().st_size < 2**14
    assert "unpacks to more than 1 MB" in refusal(path)
    monkeypatch.setattr(archives, "_MAX_FILES", 4)
    assert "has more than 4 files" in refusal(path)
    assert names_in(temporary) == []


def test_a_size_that_lies_unpacks_no_further(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(archives, "_MAX_BYTES", 2**20)
    path = pack(tmp_path / "a.zip", {"a.json": b" " * 2**22})
    true, false = (size.to_bytes(4, "little") for size in (2**22, 2**10))
    path.write_bytes(path.read_bytes().replace(true, false))
    assert "damaged or incomplete" in refusal(path)


def test_an_encrypted_archive_is_refused_in_plain_words(tmp_path: Path, tiny_pickle: bytes) -> None:
    path = pack(tmp_path / "a.zip", {"a.pickle": tiny_pickle})
    data = bytearray(path.read_bytes())
    data[6] |= 1  # the flags, in both headers of the file
    data[data.index(b"PK\1\2") + 8] |= 1
    path.write_bytes(data)
    assert "is encrypted" in refusal(path)


def test_a_damaged_archive_is_refused(tmp_path: Path, tiny_pickle: bytes) -> None:
    whole = pack(tmp_path / "a.zip", {"a.pickle": tiny_pickle}).read_bytes()
    for size in range(4, len(whole), 15):
        (tmp_path / "a.zip").write_bytes(whole[:size])
        refusal(tmp_path / "a.zip")


def test_several_data_files_are_named(tmp_path: Path, tiny_pickle: bytes) -> None:
    path = pack(tmp_path / "a.zip", {"a.pickle": tiny_pickle, "b.pickle": tiny_pickle})
    assert "2 data files, such as a.pickle and b.pickle" in refusal(path)


def test_an_archive_without_data_is_refused(tmp_path: Path, tiny_pickle: bytes) -> None:
    inner = io.BytesIO()
    with zipfile.ZipFile(inner, "w") as archive:
        archive.writestr("a.pickle", tiny_pickle)
    path = pack(tmp_path / "a.zip", {"README": b"text", "inner.zip": inner.getvalue()})
    assert "nor a data file" in refusal(path)
