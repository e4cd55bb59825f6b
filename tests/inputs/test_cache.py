"""The cache of parsed rolls: used while the source is unchanged, never trusted otherwise."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import ROOT, assert_same, names_in, roll_from
from pianolstm.inputs import cache, midi_folder
from pianolstm.inputs.formats import read
from pianolstm.midi import ReadOptions, roll_to_midi
from pianolstm.rolls import SPLITS, PackedRolls, fingerprint

ROLLS = {
    split: PackedRolls.pack([np.random.default_rng(i).random((n, 88)) < 0.1 for i in range(n)])
    for split, n in zip(SPLITS, (4, 2, 3), strict=True)
}


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return a folder of six MIDI files, two for each split."""
    for split in SPLITS:
        for i in range(2):
            (tmp_path / "music" / split).mkdir(parents=True, exist_ok=True)
            roll = roll_from(*[{60 + i, 64}] * (4 + i))
            roll_to_midi(roll, 0.5).write(str(tmp_path / "music" / split / f"{i}.mid"))
    return tmp_path / "music"


@pytest.fixture
def parsed(monkeypatch: pytest.MonkeyPatch) -> list[Path]:
    """Return a list of the files that are parsed from now on."""
    files: list[Path] = []
    parse = midi_folder._parse_file

    def count(path: Path, options: ReadOptions) -> Any:
        files.append(path)
        return parse(path, options)

    monkeypatch.setattr(midi_folder, "_parse_file", count)
    return files


# ---- in use --------------------------------------------------------------------------------------


def test_a_folder_is_parsed_once(folder: Path, parsed: list[Path]) -> None:
    cache_dir = folder.parent / "cache"
    first, first_remarks = read(folder, 0.5, cache_dir)
    assert len(parsed) == 6
    again, again_remarks = read(folder, 0.5, cache_dir)
    assert len(parsed) == 6
    assert fingerprint(again) == fingerprint(first) == fingerprint(read(folder, 0.5)[0])
    assert again_remarks == first_remarks != []
    assert isinstance(again["train"].packed, np.memmap)
    assert sorted(p.suffix for p in cache_dir.iterdir() if p.is_file()) == [".json", ".npy"]


def rewrite(folder: Path) -> None:
    roll_to_midi(roll_from(*[{72}] * 5), 0.5).write(str(folder / "train" / "0.mid"))
    os.utime(folder / "train" / "0.mid", ns=(1, 1))


@pytest.mark.parametrize(
    "change",
    [
        rewrite,
        lambda folder: (folder / "valid" / "0.mid").unlink(),
        lambda folder: (folder / "test" / "0.mid").rename(folder / "test" / "7.mid"),
        lambda folder: (folder / "test" / "0.mid").rename(folder / "train" / "7.mid"),
        lambda folder: (folder / "train" / "damaged.mid").write_bytes(b"MThd"),
    ],
    ids=["rewritten", "removed", "renamed", "moved", "added"],
)
def test_a_folder_that_has_changed_is_parsed_again(
    folder: Path,
    change: Callable[[Path], Any],
    parsed: list[Path],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(midi_folder, "_MAX_DAMAGED", 1)
    read(folder, 0.5, folder.parent / "cache")
    change(folder)
    parsed.clear()
    cached, cached_remarks = read(folder, 0.5, folder.parent / "cache")
    assert len(parsed) >= 5
    splits, remarks = read(folder, 0.5)
    assert (fingerprint(cached), cached_remarks) == (fingerprint(splits), remarks)


def test_each_frame_length_has_its_own_entry(folder: Path, parsed: list[Path]) -> None:
    cache_dir = folder.parent / "cache"
    results = [fingerprint(read(folder, beats, cache_dir)[0]) for beats in (0.5, 0.25, 0.5, 0.25)]
    assert results[:2] == results[2:]
    assert results[0] != results[1]
    assert len(parsed) == 12


def test_another_max_minutes_is_parsed_again(folder: Path, parsed: list[Path]) -> None:
    for max_minutes in (30, 30, 60):
        read(folder, 0.5, folder.parent / "cache", max_minutes)
    assert len(parsed) == 12


def test_a_cache_that_cannot_be_written_is_a_remark(folder: Path) -> None:
    in_the_way = folder.parent / "cache"
    in_the_way.write_text("a file")
    splits, remarks = read(folder, 0.5, in_the_way)
    assert fingerprint(splits) == fingerprint(read(folder, 0.5)[0])
    assert "can't be cached" in remarks[-1]


READ = """
import sys
from pathlib import Path
from pianolstm.inputs import midi_folder
from pianolstm.inputs.formats import read
parse = midi_folder._parse_file
def count(*args, **options):
    print("parsed", flush=True)
    return parse(*args, **options)
midi_folder._parse_file = count
print(len(read(Path(sys.argv[1]), 0.5, Path(sys.argv[2]))[0]["train"]))
"""


def test_two_processes_parse_a_folder_once(folder: Path) -> None:
    command = [sys.executable, "-c", READ, str(folder), str(folder.parent / "cache")]
    two = [subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    lines = [process.communicate(timeout=60)[0].split() for process in two]
    assert sorted(map(len, lines)) == [1, 7]  # one of them parses six files
    assert {words[-1] for words in lines} == {"2"}


# ---- the entry -----------------------------------------------------------------------------------


def test_rolls_and_remarks_survive(tmp_path: Path) -> None:
    cache.store(tmp_path / "a.npy", "key", ROLLS, ["a remark", "Übung", "\udcff"])
    entry = cache.load(tmp_path / "a.npy", "key")
    assert entry is not None
    assert_same(entry[0], ROLLS)
    assert entry[1] == ["a remark", "Übung", "\udcff"]
    assert names_in(tmp_path) == ["a.json", "a.npy"]


def test_another_key_or_a_missing_entry_is_none(tmp_path: Path) -> None:
    cache.store(tmp_path / "a.npy", "key", ROLLS, [])
    assert cache.load(tmp_path / "a.npy", "other") is None
    assert cache.load(tmp_path / "b.npy", "key") is None
    (tmp_path / "a.npy").unlink()
    assert cache.load(tmp_path / "a.npy", "key") is None


def test_the_frames_of_another_entry_are_none(tmp_path: Path) -> None:
    # As if the program had been killed between the two files.
    cache.store(tmp_path / "a.npy", "key", ROLLS, [])
    other = {split: PackedRolls(~rolls.packed, rolls.lengths) for split, rolls in ROLLS.items()}
    cache.store(tmp_path / "b.npy", "key", other, [])
    (tmp_path / "b.npy").replace(tmp_path / "a.npy")
    assert cache.load(tmp_path / "a.npy", "key") is None


@given(data=st.data())
def test_damaged_frames_are_none(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.npy"
    cache.store(path, "key", ROLLS, ["remark"])
    whole = path.read_bytes()
    position = data.draw(st.integers(0, len(whole) - 1))
    if data.draw(st.booleans()):
        damaged = whole[:position]
    else:
        bit = 1 << data.draw(st.integers(0, 7))
        damaged = whole[:position] + bytes([whole[position] ^ bit]) + whole[position + 1 :]
    path.write_bytes(damaged)
    entry = cache.load(path, "key")
    assert entry is None or fingerprint(entry[0]) == fingerprint(ROLLS)
