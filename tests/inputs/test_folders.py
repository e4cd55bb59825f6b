"""Folders of music: links, splits by folders and by content, copies, and what is left out."""

import os
from collections import Counter
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import refusal, steps_of
from helpers_midi import SCALE, TICKS, line, off, on, smf, track, write_midi
from pianolstm.inputs import midi_folder
from pianolstm.inputs.folders import content_hash, deal, find_files
from pianolstm.inputs.formats import read
from pianolstm.rolls import SPLITS


def melody(index: int, transposed: int = 0) -> list[int]:
    """Return the pitches of a piece that no other index gives, in any transposition."""
    digits = [index // 12**power % 12 for power in range(3)]
    return [60 + transposed, *(61 + transposed + digit for digit in digits)]


def write_piece(path: Path, index: int, transposed: int = 0) -> Path:
    return write_midi(path, line(melody(index, transposed)))


def write_pieces(folder: Path, count: int, start: int = 0) -> None:
    for index in range(start, start + count):
        write_piece(folder / f"{index}.mid", index)


def pieces_of(folder: Path) -> dict[str, Counter[tuple[int, ...]]]:
    """Return how often each split has each melody, by its first pitches from the lowest up."""
    splits, _ = read(folder, 0.5)
    found: dict[str, Counter[tuple[int, ...]]] = {}
    for split in SPLITS:
        melodies = [[pitch for (pitch,) in steps_of(roll)[::2]] for roll in splits[split]]
        found[split] = Counter(tuple(p - min(m) for p in m) for m in melodies)
    return found


def remarks_on(folder: Path) -> str:
    return "\n".join(read(folder, 0.5)[1])


# ---- links ---------------------------------------------------------------------------------------


def test_links_to_files_and_folders_are_followed(tmp_path: Path) -> None:
    for index in range(6):
        write_piece(tmp_path / "elsewhere" / str(index) / "piece.mid", index)
    folder = tmp_path / "music"
    folder.mkdir()
    for index in range(5):
        (folder / f"set {index}").symlink_to(tmp_path / "elsewhere" / str(index))
    (folder / "one.mid").symlink_to(tmp_path / "elsewhere" / "5" / "piece.mid")
    assert sum(map(Counter.total, pieces_of(folder).values())) == 6


@pytest.mark.parametrize("target", [".", "..", "../..", "sub", "sub/deeper"])
def test_a_link_to_a_folder_above_or_beside_reads_nothing_twice(
    tmp_path: Path, target: str
) -> None:
    folder = tmp_path / "music"
    write_pieces(tmp_path / "not music", 3, start=100)
    write_pieces(folder / "sub" / "deeper", 6)
    (folder / "a link").symlink_to(target)
    (folder / "sub" / "up").symlink_to(folder)
    files = find_files(folder, lambda path: path.suffix == ".mid")
    assert files == sorted((folder / "sub" / "deeper" / f"{i}.mid") for i in range(6))


def test_a_link_beside_split_folders_does_not_take_their_files(tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        write_pieces(tmp_path / split, 2, start=10 * number)
    (tmp_path / "all").symlink_to(tmp_path)
    (tmp_path / "best").symlink_to(tmp_path / "train")
    assert [len(read(tmp_path, 0.5)[0][split]) for split in SPLITS] == [2, 2, 2]


def test_split_folders_may_be_links(tmp_path: Path) -> None:
    folder = tmp_path / "music"
    folder.mkdir()
    (folder / "a").symlink_to(tmp_path / "elsewhere")
    for number, split in enumerate(SPLITS):
        write_pieces(tmp_path / "elsewhere" / split, 2, start=10 * number)
        (folder / split).symlink_to(tmp_path / "elsewhere" / split)
    assert [len(read(folder, 0.5)[0][split]) for split in SPLITS] == [2, 2, 2]


def test_a_link_that_leads_nowhere_is_reported(tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    (tmp_path / "lost.mid").symlink_to("nowhere.mid")
    (tmp_path / "round.mid").symlink_to("round.mid")
    remarks = remarks_on(tmp_path)
    assert f"{tmp_path / 'lost.mid'}: a link to a file that is missing" in remarks
    assert f"{tmp_path / 'round.mid'}: can't be read" in remarks
    assert "5 of 7 MIDI files" in remarks


def test_pipes_are_not_read(tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    os.mkfifo(tmp_path / "pipe.mid")
    assert "5 of 5 MIDI files" in remarks_on(tmp_path)


def test_a_file_or_folder_that_cannot_be_opened_is_reported(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(tmp_path, 5)
    locked = write_piece(tmp_path / "locked.mid", 5)
    closed = write_piece(tmp_path / "closed" / "a.mid", 6).parent
    read_bytes, scandir = Path.read_bytes, os.scandir

    # Permissions do not stop the superuser, as whom tests may run.
    def refuse_bytes(path: Path) -> bytes:
        if path == locked:
            raise PermissionError(13, "Permission denied")
        return read_bytes(path)

    def refuse_folder(path: Path) -> object:
        if path == closed:
            raise PermissionError(13, "Permission denied")
        return scandir(path)

    monkeypatch.setattr(Path, "read_bytes", refuse_bytes)
    monkeypatch.setattr(os, "scandir", refuse_folder)
    remarks = remarks_on(tmp_path)
    assert f"{locked}: can't be read (permission denied)" in remarks
    assert f"{closed}: a folder that can't be opened" in remarks
    assert "5 of 7 MIDI files" in remarks


# ---- splits by folders ---------------------------------------------------------------------------


@pytest.mark.parametrize("valid", ["valid", "val", "validation", "Validation", "VAL"])
@pytest.mark.parametrize("above", ["", "set", "set/deeper"])
def test_split_folders_are_found_under_their_usual_names_and_further_down(
    tmp_path: Path, valid: str, above: str
) -> None:
    for number, name in enumerate(("train", valid, "test")):
        write_pieces(tmp_path / above / name, number + 1, start=10 * number)
    splits, remarks = read(tmp_path, 0.5)
    assert [len(splits[split]) for split in SPLITS] == [1, 2, 3]
    assert any("the splits are those of" in remark for remark in remarks) == bool(above)


def test_split_folders_beside_other_music_are_named_and_not_merged(tmp_path: Path) -> None:
    for number, split in enumerate(SPLITS):
        write_pieces(tmp_path / "set" / split, 3, start=10 * number)
    write_piece(tmp_path / "other" / "a.mid", 50)
    message = refusal(tmp_path)
    assert f"--data {tmp_path / 'set'}" in message
    assert "other/a.mid" in message


def test_two_sets_with_splits_are_named_and_not_merged(tmp_path: Path) -> None:
    for number, name in enumerate(("one", "two")):
        for split in SPLITS:
            write_piece(tmp_path / name / split / "a.mid", number)
    message = refusal(tmp_path)
    assert "one/, two/" in message
    assert f"--data {tmp_path / 'one'}" in message


@pytest.mark.parametrize("above", ["", "set"])
def test_split_folders_without_one_of_the_three_are_refused(tmp_path: Path, above: str) -> None:
    for number, split in enumerate(("train", "test")):
        write_pieces(tmp_path / above / split, 5, start=10 * number)
    assert "has music in train/ test/ but none in valid/" in refusal(tmp_path)


def test_a_lone_folder_named_test_further_down_is_read_and_named(tmp_path: Path) -> None:
    write_pieces(tmp_path / "songs", 5)
    write_pieces(tmp_path / "songs" / "test", 5, start=5)
    splits, remarks = read(tmp_path, 0.5)
    assert sum(map(len, splits.values())) == 10
    assert f"{tmp_path}: songs/test/ is read like any other folder" in remarks


def test_copies_in_split_folders_stay_and_are_reported(tmp_path: Path) -> None:
    write_pieces(tmp_path / "train", 4)
    write_piece(tmp_path / "valid" / "a.mid", 10)
    write_piece(tmp_path / "test" / "a.mid", 11)
    write_piece(tmp_path / "test" / "b.mid", 2, transposed=-7)
    splits, remarks = read(tmp_path, 0.5)
    assert [len(splits[split]) for split in SPLITS] == [4, 1, 2]
    (remark,) = (remark for remark in remarks if "pieces of test that are in train too" in remark)
    assert "transposition: 1 of 2;" in remark


# ---- splits by content ---------------------------------------------------------------------------


@pytest.mark.parametrize("count", [3, 4, 5, 6, 10, 29])
def test_a_small_folder_leaves_no_split_empty(tmp_path: Path, count: int) -> None:
    write_pieces(tmp_path, count)
    splits, remarks = read(tmp_path, 0.5)
    sizes = {split: len(splits[split]) for split in SPLITS}
    assert sum(sizes.values()) == count
    assert min(sizes.values()) >= 1
    assert sizes["train"] >= count // 3
    assert any(f"only {count} different pieces" in remark for remark in remarks)


@pytest.mark.parametrize("copies", [1, 7])
def test_fewer_than_three_different_pieces_are_refused(tmp_path: Path, copies: int) -> None:
    for number in range(copies):
        write_piece(tmp_path / f"a{number}.mid", 0, transposed=number)
        write_piece(tmp_path / f"b{number}.mid", 1, transposed=number)
    assert "2 different pieces; 3 are needed" in refusal(tmp_path)


def test_copies_and_transpositions_never_are_in_two_splits(tmp_path: Path) -> None:
    for index in range(40):
        write_piece(tmp_path / f"{index}.mid", index)
        write_piece(tmp_path / "copies" / f"{index} (1).mid", index)
        write_piece(
            tmp_path / "keys" / f"other name {index}.mid", index, transposed=index % 23 - 11
        )
    found = pieces_of(tmp_path)
    assert sum(map(len, found.values())) == 40  # a melody of two splits would count twice
    assert all(count == 3 for melodies in found.values() for count in melodies.values())
    (remark,) = (line for line in remarks_on(tmp_path).splitlines() if "copies among" in line)
    assert remark.startswith(f"{tmp_path}: copies among 120 pieces") and remark.endswith(": 80")


def test_names_and_folders_do_not_decide_a_split(tmp_path: Path) -> None:
    write_pieces(tmp_path / "a", 30)
    for index in range(30):
        write_piece(tmp_path / "b" / "sub" / f"renamed {29 - index}.midi", index, transposed=3)
    assert pieces_of(tmp_path / "a") == pieces_of(tmp_path / "b")


def test_a_piece_stays_in_its_split_when_others_are_added(tmp_path: Path) -> None:
    write_pieces(tmp_path, 60)
    before = pieces_of(tmp_path)
    write_pieces(tmp_path, 200, start=60)
    after = pieces_of(tmp_path)
    for split in SPLITS:
        assert before[split].keys() <= after[split].keys()


hashes = st.lists(st.integers(0, 2**256 - 1).map("{:064x}".format), unique=True, max_size=80)


@given(known=hashes, added=hashes)
def test_dealing_fills_every_split_and_moves_few_pieces(known: list[str], added: list[str]) -> None:
    before, after = deal(known), deal([*known, *added])
    for pieces in (before, after):
        sizes = Counter(pieces.values())
        if len(pieces) >= 3:
            assert set(sizes) == set(SPLITS)
            assert sizes["train"] >= len(pieces) // 3
    shares = {digest: int(digest[:13], 16) / 16**13 for digest in known}
    by_share = {
        d: "train" if s < 0.8 else "valid" if s < 0.9 else "test" for d, s in shares.items()
    }
    if (
        Counter(by_share.values())["train"] >= len(by_share) / 2
        and len(set(by_share.values())) == 3
    ):
        assert before == by_share


def test_large_sets_are_split_80_10_10() -> None:
    rolls = [np.unpackbits(np.array([[n >> 8, n & 255] * 5], np.uint8)) for n in range(1, 10_001)]
    sizes = Counter(deal([content_hash(roll[None].astype(bool)) for roll in rolls]).values())
    total = sum(sizes.values())
    # Three standard deviations of a binomial distribution are 1.2 % and 0.9 %.
    assert abs(sizes["train"] / total - 0.8) < 0.012
    assert abs(sizes["valid"] / total - 0.1) < 0.009
    assert abs(sizes["test"] / total - 0.1) < 0.009


def test_silence_around_a_piece_does_not_change_its_hash() -> None:
    roll = np.zeros((9, 88), dtype=bool)
    roll[[2, 3, 5], [30, 34, 37]] = True
    assert content_hash(roll) == content_hash(np.roll(roll[2:6], 4, axis=1))
    assert content_hash(roll) != content_hash(roll[::-1])


# Literal, so that no version moves a user's piece to another split.
def test_the_hash_of_a_piece_never_changes() -> None:
    roll = np.zeros((2, 88), dtype=bool)
    roll[[0, 1], [39, 43]] = True
    assert content_hash(roll)[:16] == "deef8e5d236be6d7"


# ---- what is left out ----------------------------------------------------------------------------


def test_files_without_music_are_left_out_by_their_reason_and_no_damage(tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    write_midi(tmp_path / "drums.mid", line((35, 38), channel=9))
    write_midi(tmp_path / "silent.mid", [])
    write_midi(tmp_path / "long.mid", [*line(SCALE), (TICKS * 5000, on(60)), (TICKS, off(60))])
    write_midi(tmp_path / "grace.mid", line(SCALE, 10))
    write_midi(tmp_path / "high.mid", line([120]))
    write_midi(tmp_path / "short.mid", line([60], TICKS // 2))
    (tmp_path / "smpte.mid").write_bytes(smf(track(*line(SCALE)), division=0xE728))
    (tmp_path / "empty.mid").write_bytes(b"")
    splits, remarks = read(tmp_path, 0.5, max_minutes=30)
    assert sum(map(len, splits.values())) == 5
    assert remarks[0] == f"{tmp_path}: 5 of 13 MIDI files read"
    for words in (
        "drums only: drums.mid",
        "no notes: silent.mid",
        "longer than 30 minutes (--max_minutes): long.mid",
        "every note too short: grace.mid",
        "no note within the 88 pitches: high.mid",
        "shorter than two frames: short.mid",
        "time in SMPTE frames: smpte.mid",
        "no bytes: empty.mid",
    ):
        assert f"{tmp_path}: left out, {words}" in remarks
    assert "damaged" not in "\n".join(remarks)


def test_one_damaged_file_never_stops_a_small_folder(tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    (tmp_path / "cut.mid").write_bytes(smf(track(*line(SCALE)))[:-20])
    assert f"{tmp_path / 'cut.mid'}: damaged: track 1 of 1 is cut off" in remarks_on(tmp_path)
    (tmp_path / "cut2.mid").write_bytes(b"{}")
    assert "2 of 7 MIDI files are damaged" in refusal(tmp_path)


def test_a_folder_without_any_music_says_why(tmp_path: Path) -> None:
    for number in range(3):
        write_midi(tmp_path / f"{number}.mid", line(SCALE, 10))
    message = refusal(tmp_path)
    assert "100 % of the notes" in message
    assert "--min_frames 1" in message


def test_what_became_of_the_notes_is_summed_over_the_folder(tmp_path: Path) -> None:
    write_pieces(tmp_path, 5)
    write_midi(tmp_path / "a.mid", [*line([60, 10, 64], TICKS), *line((35, 38), channel=9)])
    write_midi(tmp_path / "b.mid", [*line([60, 110, 67], TICKS), (0, on(50)), (0, on(51))])
    write_midi(tmp_path / "c.mid", [*line([60, 60, 60], 20), *line([60, 70])])
    remarks = remarks_on(tmp_path)
    for words in (
        "left out: 2 notes outside the 88 pitches",
        "left out: 2 notes without an end",
        "left out: drums, 2 notes",
        "left out: 3 notes too short for a frame",
    ):
        assert words in remarks
    write_midi(tmp_path / "d.mid", [*line([60] * 30, 20), *line([60, 70])])
    assert "% of the notes (" in remarks_on(tmp_path)
    assert "--min_frames 1" in remarks_on(tmp_path)


@pytest.mark.parametrize("name", ["a.rmi", "a.kar", "a", "A.MIDI"])
def test_midi_files_are_recognised_under_any_name(tmp_path: Path, name: str) -> None:
    write_pieces(tmp_path, 4)
    data = smf(track(*line([60, 64, 67])))
    riff = b"RIFF" + (len(data) + 12).to_bytes(4, "little") + b"RMIDdata"
    riff += len(data).to_bytes(4, "little") + data
    (tmp_path / name).write_bytes(riff if name == "a.rmi" else data)
    (tmp_path / "sound.wav").write_bytes(b"RIFF\0\0\0\0WAVEfmt ")
    assert "5 of 5 MIDI files" in remarks_on(tmp_path)


def test_a_type_2_file_gives_its_pieces(tmp_path: Path) -> None:
    write_pieces(tmp_path, 4)
    tracks = [track(*line(melody(index))) for index in (50, 51, 52)]
    (tmp_path / "album.mid").write_bytes(smf(*tracks, kind=2))
    assert "5 of 5 MIDI files read, 7 pieces" in remarks_on(tmp_path)
    assert sum(map(Counter.total, pieces_of(tmp_path).values())) == 7


def test_several_processes_give_the_same_splits_and_remarks(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write_pieces(tmp_path, 6)
    (tmp_path / "cut.mid").write_bytes(b"MThd")
    one = read(tmp_path, 0.5)
    monkeypatch.setattr(midi_folder, "_PARALLEL_FILES", 2)
    monkeypatch.setattr(os, "cpu_count", lambda: 2)
    two = read(tmp_path, 0.5)
    assert one[1] == two[1]
    for split in SPLITS:
        assert [*map(bytes, one[0][split])] == [*map(bytes, two[0][split])]


# ---- options and the cache -----------------------------------------------------------------------


def test_each_option_is_read_anew_and_not_from_the_cache_of_another(tmp_path: Path) -> None:
    music, cache = tmp_path / "music", tmp_path / "cache"
    write_pieces(music, 5)
    short = [(0, on(72)), (10, off(72)), (0, bytes((0xB0, 64, 127)))]
    write_midi(music / "short.mid", [*short, *line([60, 62]), (TICKS * 4, bytes((0xB0, 64, 0)))])

    def cells(**options: float) -> int:
        splits, _ = read(music, 0.5, cache, **options)
        again, _ = read(music, 0.5, cache, **options)
        totals = [
            sum(int(roll.sum()) for s in SPLITS for roll in found[s]) for found in (splits, again)
        ]
        assert totals[0] == totals[1]
        return totals[0]

    plain = cells()
    assert cells(min_frames=1) == plain + 1
    assert cells(sustain=True) > plain
    assert cells(frame_seconds=0.125) == 2 * plain
    assert cells() == plain
