"""A folder of MIDI files: which files are read, the split of each, and what is left out."""

import hashlib
import os
from pathlib import Path

import mido
import pytest

from helpers import refusal, steps_of
from pianolstm.inputs import midi_folder
from pianolstm.inputs.formats import read
from pianolstm.inputs.midi_folder import assign_split
from pianolstm.rolls import SPLITS, fingerprint


def write_notes(path: Path, *pitches: int) -> Path:
    """Write a MIDI file of one quarter note after another."""
    track = mido.MidiTrack()
    for pitch in pitches:
        track.append(mido.Message("note_on", note=pitch, velocity=64))
        track.append(mido.Message("note_off", note=pitch, time=480))
    path.parent.mkdir(parents=True, exist_ok=True)
    mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(path)
    return path


# ---- split by folders ----------------------------------------------------------------------------


def test_a_folder_with_train_valid_and_test_is_split_by_them(tmp_path: Path) -> None:
    write_notes(tmp_path / "train" / "b.mid", 60, 62)
    write_notes(tmp_path / "train" / "deeper" / "a.MIDI", 64)
    write_notes(tmp_path / "valid" / "c.mid", 65)
    write_notes(tmp_path / "test" / "no-suffix", 67)
    splits, remarks = read(tmp_path, 0.5)
    assert {split: [steps_of(roll) for roll in splits[split]] for split in SPLITS} == {
        "train": [[[60], [60], [62], [62]], [[64], [64]]],
        "valid": [[[65], [65]]],
        "test": [[[67], [67]]],
    }
    assert remarks[0] == f"{tmp_path}: 4 of 4 MIDI files read"


def test_a_file_beside_the_three_folders_is_named_in_the_remarks(tmp_path: Path) -> None:
    for split in SPLITS:
        write_notes(tmp_path / split / "a.mid", 60, 62)
    write_notes(tmp_path / "beside.mid", 60, 62)
    _, remarks = read(tmp_path, 0.5)
    assert f"{tmp_path}: left out, in none of train/ valid/ test/: beside.mid" in remarks


# ---- chorales, split by names --------------------------------------------------------------------

# Literal, so that no version moves a user's file to another split.
PINNED = {
    "a.mid": "train",
    "bwv269.mid": "train",
    "prelude in C.mid": "train",
    "sonata.mid": "valid",
    "música.mid": "valid",
    "gigue.mid": "test",
}


def split_by_hand(name: str) -> str:
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 10
    return "train" if tenth < 8 else ("valid" if tenth == 8 else "test")


def test_the_split_of_a_name_never_changes() -> None:
    assert {name: assign_split(name) for name in PINNED} == PINNED
    assert {name: split_by_hand(name) for name in PINNED} == PINNED


def test_names_are_split_80_10_10() -> None:
    splits = [assign_split(f"piece-{number}.mid") for number in range(10_000)]
    # Three standard deviations of a binomial distribution: 120 of 8000, 90 of 1000.
    assert abs(splits.count("train") - 8000) < 120
    assert abs(splits.count("valid") - 1000) < 90
    assert abs(splits.count("test") - 1000) < 90


# ---- left out ------------------------------------------------------------------------------------


def test_up_to_one_damaged_file_in_twenty_is_left_out_and_named(tmp_path: Path) -> None:
    for number in range(38):
        write_notes(tmp_path / f"piece-{number}.mid", 60, 61 + number)
    (tmp_path / "broken.mid").write_bytes(b"MThd and no more")
    (tmp_path / "text.MID").write_text("no MIDI at all")
    splits, remarks = read(tmp_path, 0.5)
    assert sum(map(len, splits.values())) == 38
    assert "38 of 40" in remarks[0]
    assert [name for name in ("broken.mid", "text.MID") if any(name in r for r in remarks[1:])] == [
        "broken.mid",
        "text.MID",
    ]
    (tmp_path / "third.mid").write_bytes(b"MThd")
    message = refusal(tmp_path)
    assert "3 of 41" in message
    assert "broken.mid" in message


def test_files_that_are_not_midi_are_no_damage(tmp_path: Path) -> None:
    for split in SPLITS:
        write_notes(tmp_path / split / "a.mid", 60, 62)
        (tmp_path / split / "cover.png").write_bytes(b"\x89PNG")
        (tmp_path / split / "empty").write_bytes(b"")
    assert "3 of 3" in read(tmp_path, 0.5)[1][0]


def test_metadata_files_of_macos_are_counted_and_no_damage(tmp_path: Path) -> None:
    for split in SPLITS:
        write_notes(tmp_path / split / "a.mid", 60, 62)
        (tmp_path / split / "._a.mid").write_bytes(bytes(100))
    splits, remarks = read(tmp_path, 0.5)
    assert [len(splits[split]) for split in SPLITS] == [1, 1, 1]
    assert any("3 files named ._*" in remark for remark in remarks)


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"no MIDI"}, {"a.mat": b"no data"}])
def test_a_folder_without_midi_files_is_refused(tmp_path: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    assert "no MIDI files" in refusal(tmp_path)


def test_a_folder_with_too_few_files_for_three_splits_is_refused(tmp_path: Path) -> None:
    write_notes(tmp_path / "a.mid", 60, 62)
    assert "1 different pieces; 3 are needed" in refusal(tmp_path)


# ---- speed ---------------------------------------------------------------------------------------


def test_several_processes_parse_the_same_rolls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for number in range(6):
        write_notes(tmp_path / SPLITS[number % 3] / f"{number}.mid", 60, 62 + number)
    splits, remarks = read(tmp_path, 0.5)
    monkeypatch.setattr(midi_folder, "_PARALLEL_FILES", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    parallel, parallel_remarks = read(tmp_path, 0.5)
    assert fingerprint(parallel) == fingerprint(splits)
    assert parallel_remarks == remarks
