"""Folders of MusicXML, ABC and Humdrum are read as they sound."""

import io
import zipfile
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from helpers import names_in, refusal, steps_of
from pianolstm.files import InputError
from pianolstm.inputs import scores
from pianolstm.inputs.formats import read
from pianolstm.inputs.scores import notes_to_roll, score_format
from pianolstm.midi import ReadOptions, roll_to_midi
from pianolstm.rolls import SPLITS

ABC = """%abc-2.1

X: {number}
T:Scale
M:4/4
L:1/4
K:C
{music}
"""

HUMDRUM = """!!!OTL: two voices
**kern\t**kern
*M4/4\t*M4/4
4C\t4cc 4ee
4D\t4r
2E\t[2gg
=1\t=1
2F\t2gg]
2r\t4bb
.\t8aa
.\t8gg
==\t==
*-\t*-
"""
HUMDRUM_STEPS = [[48, 72, 76], [50], [52, 79], [52, 79], [53, 79], [53, 79], [83], [81]]

MUSICXML = """<?xml version="1.0" encoding="UTF-8"?>
<!DOCTYPE score-partwise PUBLIC "-//Recordare//DTD MusicXML 3.1 Partwise//EN"
 "http://www.musicxml.org/dtds/partwise.dtd">
<score-partwise version="3.1">
<part-list><score-part id="P1"><part-name>Clarinet in B flat</part-name></score-part></part-list>
<part id="P1"><measure number="1">
<attributes><divisions>1</divisions><time><beats>4</beats><beat-type>4</beat-type></time>
<transpose><diatonic>-1</diatonic><chromatic>-2</chromatic></transpose></attributes>
<harmony><root><root-step>C</root-step></root><kind>major</kind></harmony>
<note><pitch><step>C</step><octave>4</octave></pitch><duration>1</duration><voice>1</voice></note>
<note><chord/><pitch><step>E</step><octave>4</octave></pitch><duration>1</duration><voice>1</voice>
</note>
<note><grace/><pitch><step>B</step><octave>5</octave></pitch><voice>1</voice></note>
<note><pitch><step>D</step><octave>4</octave></pitch><duration>3</duration><voice>1</voice></note>
</measure></part></score-partwise>
"""
MUSICXML_STEPS = [[58, 62], [60], [60], [60]]


def write(path: Path, content: str | bytes) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_bytes(content if isinstance(content, bytes) else content.encode())
    return path


def abc(music: str, number: int = 1) -> str:
    return ABC.format(music=music, number=number)


def mxl(score: str) -> bytes:
    file = io.BytesIO()
    root = '<container><rootfiles><rootfile full-path="a.xml"/></rootfiles></container>'
    with zipfile.ZipFile(file, "w") as archive:
        archive.writestr("META-INF/container.xml", root)
        archive.writestr("a.xml", score)
    return file.getvalue()


def read_one(folder: Path, content: str | bytes, **options: Any) -> tuple[Any, list[str]]:
    """Return the frames of a score, quarter notes, and remarks."""
    for split in SPLITS:
        write(folder / split / "score", content)
    splits, remarks = read(folder, 1.0, **options)
    return steps_of(splits["train"][0]), remarks


# ---- one score -----------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        (abc("C D [EG]2 | z ^F, B, c' |"), [[60], [62], [64, 67], [64, 67], [], [54], [59], [84]]),
        (HUMDRUM, HUMDRUM_STEPS),
        (MUSICXML, MUSICXML_STEPS),
        (mxl(MUSICXML), MUSICXML_STEPS),
        (MUSICXML.replace("UTF-8", "UTF-16").encode("utf-16"), MUSICXML_STEPS),
    ],
    ids=["abc", "humdrum", "musicxml", "mxl", "utf-16"],
)
def test_scores_are_recognised_by_content_and_read_as_they_sound(
    tmp_path: Path, content: str | bytes, expected: list[list[int]]
) -> None:
    assert read_one(tmp_path, content)[0] == expected


@pytest.mark.parametrize(
    ("music", "expected"),
    [
        ("|: C4 | D4 :| E4 |", "CDCDE"),
        ("C4 | D4 :| E4 |", "CDCDE"),
        ("C4 |: D4 |1 E4 :|2 F4 | G4 |", "CDEDFG"),
        ("|: C4 | D4 :|\n|: E4 | F4 :|", "CDCDEFEF"),
        ("C4 | D4 :|\nE4 | F4 :|", "CDCDEFEF"),
        ("C4 |1 D4 :|2 E4 |\nF4 | G4 :|", "CDCEFGFG"),
        ("C4 | D4 |", "CD"),
    ],
)
def test_repeats_and_endings_are_played(tmp_path: Path, music: str, expected: str) -> None:
    frames, remarks = read_one(tmp_path, abc(music))
    pitches = {60: "C", 62: "D", 64: "E", 65: "F", 67: "G"}
    assert "".join(pitches[pitch] for (pitch,) in frames[::4]) == expected
    assert not any("contradict" in remark for remark in remarks)


def test_repeats_that_contradict_one_another_are_said(tmp_path: Path) -> None:
    frames, remarks = read_one(tmp_path, abc("|: C4 | D4 |: E4 :| F4 |"))
    assert [pitch for (pitch,) in frames[::4]] == [60, 62, 64, 65]
    assert any(remark.endswith("contradict one another: 3") for remark in remarks)


def test_chord_symbols_are_left_out_and_counted(tmp_path: Path) -> None:
    frames, remarks = read_one(tmp_path, abc('"Am"C D "G7"E F |'))
    assert frames == [[60], [62], [64], [65]]
    assert f"{tmp_path}: left out: 6 chord symbols, which are not notes" in remarks


def test_notes_outside_the_piano_are_counted(tmp_path: Path) -> None:
    frames, remarks = read_one(tmp_path, abc("C D c'''' F |"))
    assert frames == [[60], [62], [], [65]]
    assert f"{tmp_path}: left out: 3 notes outside the 88 pitches" in remarks


def test_short_notes_vanish_unless_min_frames_keeps_them(tmp_path: Path) -> None:
    music = abc("C/4 D/4 E/4 F/4 C D E |")
    frames, remarks = read_one(tmp_path, music)
    assert frames == [[62], [60], [62], [64]]
    assert any("43 % of the notes" in remark and "--min_frames 1" in remark for remark in remarks)
    assert read_one(tmp_path, music, min_frames=1)[0][0] == [60, 62, 64, 65]


def test_triplets_round_to_their_own_frames() -> None:
    notes = [(60 + i, i / 3, (i + 1) / 3) for i in range(60)]
    roll, _ = notes_to_roll(notes, ReadOptions(1 / 3))
    assert steps_of(roll) == [[60 + i] if i < 49 else [] for i in range(49)]


def test_a_piece_of_too_many_frames_is_refused() -> None:
    with pytest.raises(InputError, match="too long"):
        notes_to_roll([(60, 0.0, 1e9)], ReadOptions(0.5))


# ---- folders -------------------------------------------------------------------------------------


@pytest.mark.parametrize("parallel", [1, 1000])
def test_every_tune_of_an_abc_file_is_a_piece(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, parallel: int
) -> None:
    monkeypatch.setattr(scores, "_PARALLEL_FILES", parallel)
    book = "\n\n".join(abc(f"{c} D E F |", i + 1) for i, c in enumerate("CGABcdefgab"))
    write(tmp_path / "book", book)
    write(tmp_path / "sub" / "one.krn", HUMDRUM)
    splits, remarks = read(tmp_path, 1.0)
    assert f"{tmp_path}: 2 of 2 scores read, 12 pieces" in remarks
    assert sum(map(len, splits.values())) == 12
    assert all(len(splits[split]) for split in SPLITS)


def test_transposed_copies_share_a_split(tmp_path: Path) -> None:
    for i, music in enumerate(["C D E F", "D E ^F G", "C E D F", "C E G c", "G E D C"]):
        write(tmp_path / f"{i}.abc", abc(f"{music} |"))
    splits, remarks = read(tmp_path, 1.0)
    first = {s: [np.diff([p for (p,) in steps_of(r)]).tolist() for r in splits[s]] for s in SPLITS}
    assert sorted(pieces.count([2, 2, 1]) for pieces in first.values()) == [0, 0, 2]
    assert any("copies among 5 pieces" in remark for remark in remarks)
    assert any("only 4 different pieces" in remark for remark in remarks)


def test_copies_in_train_and_test_folders_are_said(tmp_path: Path) -> None:
    _, remarks = read_one(tmp_path, HUMDRUM)
    assert any("pieces of test that are in train too" in remark for remark in remarks)


def test_scores_beside_midi_files_are_left_out_and_named(tmp_path: Path) -> None:
    for i in range(5):
        roll = np.eye(5, 88, 40, dtype=bool)[::-1] if i % 2 else np.eye(5 + i, 88, 40, dtype=bool)
        roll_to_midi(roll, 0.5).write(str(tmp_path / f"{i}.mid"))
        write(tmp_path / f"{i}.abc", abc("CDEF|"))
    _, remarks = read(tmp_path, 0.5)
    assert (
        f"{tmp_path}: scores left out, as there are MIDI files: 0.abc, 1.abc, 2.abc and 2 more"
        in (remarks)
    )


def test_a_damaged_score_is_named_in_plain_words(tmp_path: Path) -> None:
    for i in range(20):
        write(tmp_path / f"{i}.abc", abc(f"C{'DEFG'[i % 4] * (1 + i)} |"))
    damaged = write(tmp_path / "a.xml", MUSICXML[:900])
    _, remarks = read(tmp_path, 1.0)
    assert f"{damaged}: damaged, or in a form that music21 can't read" in remarks
    other = write(tmp_path / "a.xml", "<html></html>")
    assert f"{other}: neither MusicXML, ABC nor Humdrum with **kern" in read(tmp_path, 1.0)[1]
    for name in ("b.krn", "c.mxl"):
        write(tmp_path / name, "no score")
    message = refusal(tmp_path, 1.0)
    assert "3 of 23 scores can't be read, the first: " in message


def test_what_a_compressed_score_unpacks_to_is_bounded(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scores, "_MAX_BYTES", 2**20)
    write(tmp_path / "a.mxl", mxl(MUSICXML + " " * 2**21))
    assert "2 MB; the limit is 1" in refusal(tmp_path)


def test_external_entities_are_not_read(tmp_path: Path) -> None:
    secret = write(tmp_path / "secret.txt", "C")
    doctype = f'<!DOCTYPE score-partwise [<!ENTITY e SYSTEM "{secret.as_uri()}">]>'
    start, end = MUSICXML.index("<!DOCTYPE"), MUSICXML.index("<score-partwise version")
    music = MUSICXML[:start] + doctype + MUSICXML[end:].replace("<step>D<", "<step>&e;<")
    for split in SPLITS:
        write(tmp_path / "data" / split / "a.xml", music)
    assert "can't be read" in refusal(tmp_path / "data")


def test_scores_are_parsed_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    read_one(tmp_path / "data", HUMDRUM, cache_dir=tmp_path / "cache")
    monkeypatch.setattr(scores, "_notes_of_file", None)
    splits, _ = read(tmp_path / "data", 1.0, tmp_path / "cache")
    assert steps_of(splits["train"][0]) == HUMDRUM_STEPS
    assert names_in(tmp_path) == ["cache", "data"]


@pytest.mark.parametrize(
    "content",
    [b"", b"text\nX: marks the spot\n", b"<xml></xml>", b"PK\3\4", bytes(100), b"**kern?"],
)
def test_other_files_are_no_scores(tmp_path: Path, content: bytes) -> None:
    assert score_format(write(tmp_path / "a", content)) is None
