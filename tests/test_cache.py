"""What is kept of a folder of MIDI: found again while it holds, and never trusted otherwise."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import cache
import midi_folder
from data import fingerprint, read
from helpers import roll_from
from midi import roll_to_midi
from rolls import SPLITS, Rolls

HOME = Path(__file__).parent.parent
ROLLS = {
    split: Rolls.of([np.random.default_rng(i).random((n, 88)) < 0.1 for i in range(n)])
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
    """Return the list of files that are parsed from here on."""
    files: list[Path] = []
    one = midi_folder.parse_one

    def count(path: Path, frame_beats: float, max_minutes: float) -> Any:
        files.append(path)
        return one(path, frame_beats, max_minutes)

    monkeypatch.setattr(midi_folder, "parse_one", count)
    return files


def test_a_folder_is_parsed_once_and_then_found(folder: Path, parsed: list[Path]) -> None:
    kept = folder.parent / "kept"
    first = read(folder, 0.5, kept)
    assert len(parsed) == 6
    again = read(folder, 0.5, kept)
    assert len(parsed) == 6
    assert fingerprint(again[0]) == fingerprint(first[0]) == fingerprint(read(folder, 0.5)[0])
    assert again[1] == first[1] != []
    assert isinstance(again[0]["train"].packed, np.memmap)
    assert [path.suffix for path in kept.iterdir() if path.is_file()] == [".rolls"]


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
    ids=["written", "gone", "renamed", "in another split", "come"],
)
def test_a_folder_that_has_changed_is_parsed_anew(
    folder: Path, change: Callable[[Path], Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(midi_folder, "UNREADABLE_SHARE", 1)
    before = read(folder, 0.5, folder.parent / "kept")
    change(folder)
    after = read(folder, 0.5, folder.parent / "kept")
    assert after != before
    assert (fingerprint(after[0]), after[1]) == (
        fingerprint(read(folder, 0.5)[0]),
        read(folder, 0.5)[1],
    )


def test_frames_of_another_length_are_other_rolls(folder: Path) -> None:
    kept = folder.parent / "kept"
    prints = [fingerprint(read(folder, beats, kept)[0]) for beats in (0.5, 0.25, 0.5, 0.25)]
    assert prints[:2] == prints[2:]
    assert prints[0] != prints[1]


def test_where_nothing_can_be_kept_the_folder_is_read_and_it_is_said(folder: Path) -> None:
    in_the_way = folder.parent / "kept"
    in_the_way.write_text("a file")
    splits, remarks = read(folder, 0.5, in_the_way)
    assert fingerprint(splits) == fingerprint(read(folder, 0.5)[0])
    assert "the next time" in remarks[-1]


def test_many_files_are_parsed_side_by_side_to_the_same_rolls(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alone = read(folder, 0.5)
    monkeypatch.setattr(midi_folder, "MANY", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    together = read(folder, 0.5)
    assert fingerprint(together[0]) == fingerprint(alone[0])
    assert together[1] == alone[1]


# ---- the file ------------------------------------------------------------------------------------


def test_rolls_and_remarks_are_found_as_they_were_kept(tmp_path: Path) -> None:
    cache.keep(tmp_path / "a.rolls", "key", ROLLS, ["a remark", "ein ünicode"])
    found = cache.find(tmp_path / "a.rolls", "key")
    assert found is not None
    assert found[1] == ["a remark", "ein ünicode"]
    assert list(found[0]) == list(SPLITS)
    for split in SPLITS:
        np.testing.assert_array_equal(found[0][split].packed, ROLLS[split].packed)
        np.testing.assert_array_equal(found[0][split].lengths, ROLLS[split].lengths)


def test_another_key_or_no_file_is_nothing_found(tmp_path: Path) -> None:
    cache.keep(tmp_path / "a.rolls", "key", ROLLS, [])
    assert cache.find(tmp_path / "a.rolls", "other") is None
    assert cache.find(tmp_path / "b.rolls", "key") is None
    assert cache.find(tmp_path, "key") is None


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_file_is_nothing_found(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    path = tmp_path_factory.getbasetemp() / "damaged.rolls"
    cache.keep(path, "key", ROLLS, ["remark"])
    whole = path.read_bytes()
    place = data.draw(st.integers(0, len(whole) - 1))
    damage = data.draw(st.sampled_from(["cut", "flip", "more"]))
    if damage == "cut":
        damaged = whole[:place]
    elif damage == "flip":
        bit = 1 << data.draw(st.integers(0, 7))
        damaged = whole[:place] + bytes([whole[place] ^ bit]) + whole[place + 1 :]
    else:
        damaged = whole + bytes(place + 1)
    path.write_bytes(damaged)
    assert cache.find(path, "key") is None


READ = """
import sys
from pathlib import Path
import midi_folder
from data import read
one = midi_folder.parse_one
def say(*given, **named):
    print("parsed", flush=True)
    return one(*given, **named)
midi_folder.parse_one = say
print(len(read(Path(sys.argv[1]), 0.5, Path(sys.argv[2]))[0]["train"]))
"""


def test_two_processes_that_want_one_folder_parse_it_once(folder: Path) -> None:
    command = [sys.executable, "-c", READ, str(folder), str(folder.parent / "kept")]
    two = [subprocess.Popen(command, cwd=HOME, stdout=subprocess.PIPE, text=True) for _ in range(2)]
    said = [process.communicate(timeout=60)[0].split() for process in two]
    assert sorted(map(len, said)) == [1, 7]  # six files by one of them
    assert {lines[-1] for lines in said} == {"2"}
