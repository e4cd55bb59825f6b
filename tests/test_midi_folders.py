"""A folder of MIDI: which files are tunes, which split each falls in, and what is left out."""

import hashlib
from pathlib import Path

import mido
import pytest

from data import read
from files import InputError
from helpers import refusal, steps_of
from midi_folder import split_of
from rolls import SPLITS


def write_tune(path: Path, *keys: int) -> Path:
    """Write a MIDI file of one quarter note after another."""
    track = mido.MidiTrack()
    for key in keys:
        track.append(mido.Message("note_on", note=key, velocity=64))
        track.append(mido.Message("note_off", note=key, time=480))
    path.parent.mkdir(parents=True, exist_ok=True)
    mido.MidiFile(ticks_per_beat=480, tracks=[track]).save(path)
    return path


def test_one_midi_file_is_refused_with_the_mend(tmp_path: Path) -> None:
    assert "folder" in refusal(write_tune(tmp_path / "tune.mid", 60, 62))


def test_a_folder_with_train_valid_and_test_is_split_by_them(tmp_path: Path) -> None:
    write_tune(tmp_path / "train" / "b.mid", 60, 62)
    write_tune(tmp_path / "train" / "deeper" / "a.MIDI", 64)
    write_tune(tmp_path / "valid" / "c.mid", 65)
    write_tune(tmp_path / "test" / "no-suffix", 67)
    splits, (remark,) = read(tmp_path, 0.5)
    assert {split: [steps_of(roll) for roll in splits[split]] for split in SPLITS} == {
        "train": [[[60], [60], [62], [62]], [[64], [64]]],
        "valid": [[[65], [65]]],
        "test": [[[67], [67]]],
    }
    assert str(tmp_path) in remark
    assert "4 of 4" in remark
    assert "0 notes off" in remark


def test_notes_that_a_roll_cannot_hold_are_counted_in_the_remarks(tmp_path: Path) -> None:
    write_tune(tmp_path / "train" / "a.mid", 60, 10, 62, 120)
    write_tune(tmp_path / "valid" / "b.mid", 60, 62, 109)
    write_tune(tmp_path / "test" / "c.mid", 60, 62)
    _, (remark,) = read(tmp_path, 0.5)
    assert "3 notes off" in remark


def test_a_file_beside_the_three_folders_is_named_in_the_remarks(tmp_path: Path) -> None:
    for split in SPLITS:
        write_tune(tmp_path / split / "a.mid", 60, 62)
    write_tune(tmp_path / "beside.mid", 60, 62)
    _, remarks = read(tmp_path, 0.5)
    assert any("beside.mid" in remark or "3 of 4" in remark for remark in remarks)


def test_train_and_test_without_valid_is_not_mixed_anew_without_a_word(tmp_path: Path) -> None:
    for number in range(60):
        write_tune(tmp_path / ("train" if number % 2 else "test") / f"{number}.mid", 60, 62)
    try:
        _, remarks = read(tmp_path, 0.5)
    except InputError:
        return
    assert any("valid" in remark for remark in remarks)


def split_by_hand(name: str) -> str:
    """Return SHA-256 of the name modulo 10 as a split: 0 to 7 train, 8 valid, 9 test."""
    tenth = int.from_bytes(hashlib.sha256(name.encode()).digest(), "big") % 10
    return "train" if tenth < 8 else ("valid" if tenth == 8 else "test")


# Literal, so that no change of a release moves a file of a user's to another split.
PINNED = {
    "a.mid": "train",
    "bwv269.mid": "train",
    "prelude in C.mid": "train",
    "sonata.mid": "valid",
    "música.mid": "valid",
    "gigue.mid": "test",
}


def test_the_split_of_a_name_never_changes() -> None:
    assert {name: split_of(name) for name in PINNED} == PINNED
    assert {name: split_by_hand(name) for name in PINNED} == PINNED


def test_names_fall_80_10_10() -> None:
    split = [split_of(f"tune-{number}.mid") for number in range(10_000)]
    # Three standard deviations of a binomial: 120 of 8000, 90 of 1000.
    assert abs(split.count("train") - 8000) < 120
    assert abs(split.count("valid") - 1000) < 90
    assert abs(split.count("test") - 1000) < 90


def test_a_flat_folder_is_split_by_the_names_of_its_files(tmp_path: Path) -> None:
    for number in range(40):
        write_tune(tmp_path / f"tune-{number}.mid", 40 + number, 41 + number)
    splits, _ = read(tmp_path, 1.0)
    for split in SPLITS:
        found = sorted(steps_of(roll)[0][0] - 40 for roll in splits[split])
        assert found == [n for n in range(40) if split_by_hand(f"tune-{n}.mid") == split]


def test_adding_and_moving_files_moves_no_other(tmp_path: Path) -> None:
    def held(folder: Path) -> dict[str, set[int]]:
        splits, _ = read(folder, 1.0)
        return {s: {steps_of(roll)[0][0] - 40 for roll in splits[s]} for s in SPLITS}

    for number in range(30):
        write_tune(tmp_path / "old" / f"tune-{number}.mid", 40 + number, 41)
        write_tune(tmp_path / "new" / f"sub{number % 3}" / f"tune-{number}.mid", 40 + number, 41)
    for number in range(30, 60):
        write_tune(tmp_path / "new" / f"tune-{number}.mid", 40 + number, 41)
    before, after = held(tmp_path / "old"), held(tmp_path / "new")
    assert sum(map(len, after.values())) == 60
    for split in SPLITS:
        assert before[split] == {number for number in after[split] if number < 30}


def test_a_damaged_file_is_counted_and_named_in_the_remarks(tmp_path: Path) -> None:
    for number in range(38):
        write_tune(tmp_path / f"tune-{number}.mid", 60, 62)
    (tmp_path / "broken.mid").write_bytes(b"MThd and no more")
    (tmp_path / "text.MID").write_text("not MIDI at all")
    splits, remarks = read(tmp_path, 0.5)
    assert sum(map(len, splits.values())) == 38
    assert "38 of 40" in remarks[0]
    assert [sum(name in remark for remark in remarks) for name in ("broken.mid", "text.MID")] == [
        1,
        1,
    ]


def test_more_than_one_damaged_file_in_twenty_is_refused(tmp_path: Path) -> None:
    for number in range(37):
        write_tune(tmp_path / f"tune-{number}.mid", 60, 62)
    for number in range(2):
        (tmp_path / f"broken-{number}.mid").write_bytes(b"MThd")
    message = refusal(tmp_path)
    assert "2 of 39" in message
    assert "broken-0.mid" in message
    write_tune(tmp_path / "one-more.mid", 60, 62)
    assert "38 of 40" in read(tmp_path, 0.5)[1][0]


@pytest.mark.parametrize("content", [{}, {"notes.txt": b"no MIDI"}, {"a.pickle": b"(lp0\n."}])
def test_a_folder_without_midi_is_refused(tmp_path: Path, content: dict[str, bytes]) -> None:
    for name, data in content.items():
        (tmp_path / name).write_bytes(data)
    assert "no MIDI" in refusal(tmp_path)


def test_a_folder_with_too_few_files_for_three_splits_is_refused(tmp_path: Path) -> None:
    write_tune(tmp_path / "a.mid", 60, 62)
    assert "no tunes for" in refusal(tmp_path)


def test_other_files_in_the_folder_do_not_count_as_damaged(tmp_path: Path) -> None:
    for split in SPLITS:
        write_tune(tmp_path / split / "a.mid", 60, 62)
        (tmp_path / split / "cover.png").write_bytes(b"\x89PNG")
        (tmp_path / split / "empty").write_bytes(b"")
    assert "3 of 3" in read(tmp_path, 0.5)[1][0]


def test_what_macos_hides_beside_a_tune_is_counted_and_no_damage(tmp_path: Path) -> None:
    for split in SPLITS:
        write_tune(tmp_path / split / "a.mid", 60, 62)
        (tmp_path / split / "._a.mid").write_bytes(bytes(100))
    splits, remarks = read(tmp_path, 0.5)
    assert [len(splits[split]) for split in SPLITS] == [1, 1, 1]
    assert any("3 files named ._*" in remark for remark in remarks)
