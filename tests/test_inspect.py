"""--inspect, as its users call it: what the data hold, in text and as a picture, no training."""

from pathlib import Path

import numpy as np
import pytest

import main
from helpers import call, names_in, roll_from
from pianolstm.inputs.datasets import NamedSet
from pianolstm.inputs.metres import count_metres
from pianolstm.midi import roll_to_midi

G_MAJOR = (67, 69, 71, 72, 74, 76, 78, 79)


def write_folder(folder: Path) -> Path:
    """Write two MIDI files of each split; a test piece is a training piece, a tone higher."""
    for number, split in enumerate(("train", "valid", "test")):
        (folder / split).mkdir(parents=True)
        for i, piece in enumerate(([*G_MAJOR, 67], [67 + number, 74, 71 + number, 67])):
            roll = roll_from(*({pitch + 2 * (number == 2)} for pitch in piece))
            if number == 1 and i == 0:
                roll = roll[::-1]
            roll_to_midi(roll, 0.5).write(str(folder / split / f"{i}.mid"))
    return folder


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the path of such a folder; the current folder is empty but for it."""
    monkeypatch.chdir(tmp_path)
    return write_folder(Path("tunes"))


def lines_of(printed: str) -> dict[str, list[str]]:
    """Return the cells of each line of the table by its label."""
    rows = [line.split("  ") for line in printed.splitlines() if line.startswith("  ")]
    cells = [[cell.strip() for cell in row if cell.strip()] for row in rows]
    return {row[0]: row[1:] for row in cells if row}


def test_it_prints_what_a_folder_holds(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert call(main, "--data", folder, "--inspect") == 0
    printed = capsys.readouterr().out
    rows = lines_of(printed)
    assert rows["pieces"] == ["2", "2", "2"]
    assert rows["frames"] == ["13", "13", "13"]
    assert (rows["shortest"], rows["longest"]) == (["4"] * 3, ["9"] * 3)
    assert rows["notes in a frame, mean"] == ["1.0"] * 3
    assert rows["lowest note"] == ["G4", "G4", "A4"]
    assert rows["highest note"] == ["G5", "G5", "A5"]
    assert rows["copies of training pieces"] == ["0", "1"]
    assert "a frame is 0.5 beats" in printed
    assert "keys (estimated)  G " in printed
    assert "metres (MIDI)     4/4 6" in printed
    assert "6 of 6 MIDI files read" in printed


def test_it_draws_a_picture_named_in_the_output_and_leaves_no_other_file(
    folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, "--data", folder, "--inspect") == 0
    assert "picture  inspect-tunes.png" in capsys.readouterr().out
    assert names_in(Path()) == ["inspect-tunes.png", "tunes"]
    assert Path("inspect-tunes.png").read_bytes().startswith(b"\x89PNG")
    assert call(main, "--data", folder, "--inspect", "--run_dir=pictures") == 0
    assert names_in(Path("pictures")) == ["inspect-tunes.png"]


def test_it_shows_a_named_set(
    tiny_set: NamedSet,
    tiny_mat: bytes,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / tiny_set.file).write_bytes(tiny_mat)
    assert call(main, "--dataset=nottingham", "--data_dir=.", "--inspect") == 0
    printed = capsys.readouterr().out
    assert "nottingham: a frame is 0.75 beats" in printed
    rows = lines_of(printed)
    assert rows["pieces"] == ["3", "2", "2"]
    assert rows["most"] == ["3", "2", "2"]  # notes in a frame
    assert rows["silent frames"] == ["16.7%", "20.0%", "28.6%"]
    assert "metres" not in printed
    assert "inspect-nottingham.png" in names_in(tmp_path)


def test_the_real_nottingham_is_shown_with_its_sizes(
    data_dir: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    assert call(main, "--dataset=jsb", "--data_dir", data_dir, "--inspect") == 0
    rows = lines_of(capsys.readouterr().out)
    assert rows["pieces"] == ["229", "76", "77"]
    assert rows["frames"] == ["13,807", "4,602", "4,725"]


@pytest.mark.parametrize(
    ("words", "named"),
    [
        ("--inspect --lr=0.1", "--lr: has no effect with --inspect"),
        ("--inspect --seed=1", "--seed: has no effect with --inspect"),
        ("--inspect --evaluate=run", "--inspect: not with"),
        ("--inspect --resume=run", "--inspect: not with"),
        ("--inspect --preset=best", "--inspect: not with"),
        ("--inspect --json", "--json"),
        ("--inspect --data=nowhere", "nowhere"),
        ("--inspect --data=tunes --run_dir=tunes/train/0.mid", "tunes/train/0.mid"),
    ],
)
def test_a_wrong_call_gives_one_line_that_names_it(
    words: str, named: str, folder: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert call(main, *words.split()) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert named in error
    assert names_in(Path()) == ["tunes"]


def midi_bytes(*events: bytes) -> bytes:
    """Return a MIDI file of one track with these events, each after no time."""
    track = b"".join(b"\x00" + event for event in (*events, b"\xff\x2f\x00"))
    return (
        b"MThd" + bytes([0, 0, 0, 6, 0, 0, 0, 1, 1, 224]) + b"MTrk"
        + len(track).to_bytes(4, "big") + track
    )  # fmt: skip


def test_the_first_metre_of_each_midi_file_counts(tmp_path: Path) -> None:
    jig, waltz = b"\xff\x58\x04\x06\x03\x24\x08", b"\xff\x58\x04\x03\x02\x18\x08"
    for name, events in (
        ("a", (jig, waltz)),
        ("b", (jig,)),
        ("c", (waltz,)),
        ("d", (b"\xff\x03\x04name",)),
    ):
        (tmp_path / f"{name}.mid").write_bytes(midi_bytes(*events))
    paths = [*sorted(tmp_path.iterdir()), tmp_path / "missing.mid"]
    assert count_metres(paths) == {"6/8": 2, "3/4": 1, "none": 1}


def test_silent_pieces_are_shown_too(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    splits = {split: [np.zeros((4, 88), dtype=bool)] for split in ("train", "valid", "test")}
    main.write_inspection(main.Corpus("silence", splits, 0.5, "abc"), None, tmp_path)
    printed = capsys.readouterr().out
    assert lines_of(printed)["silent frames"] == ["100.0%"] * 3
    assert "keys (estimated)  none 3" in printed
