"""Pickles: every spelling of a piano-roll is read, and nothing that is in one is ever run."""

import copyreg
import gzip
import io
import pickle
import re
import tracemalloc
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from data import read
from files import InputError
from helpers import Splits, assert_same, assert_survives, refusal, steps_of, write_pickle
from rolls import SPLITS

# Three splits of one tune each: a chord, one note, silence.
PLAIN = {split: [[(60, 64), (62,), ()]] for split in SPLITS}
PLAIN_STEPS = [[60, 64], [62], []]


# ---- pickle --------------------------------------------------------------------------------------


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize(
    "step",
    [
        tuple,
        list,
        lambda notes: [np.int64(note) for note in notes],
        lambda notes: tuple(np.uint8(note) for note in notes),
        lambda notes: np.array(notes, dtype=np.int32) if notes else (),
        lambda notes: np.array(notes, dtype=np.uint8) if notes else [],
    ],
    ids=["tuple", "list", "int64", "uint8", "int32-array", "uint8-array"],
)
def test_steps_are_read_in_all_spellings_and_protocols(
    tmp_path: Path, tiny_steps: Any, tiny_splits: Splits, step: Callable[[Any], Any], protocol: int
) -> None:
    spelled = {
        split: [[step(notes) for notes in tune] for tune in tunes]
        for split, tunes in tiny_steps.items()
    }
    splits, remarks = read(write_pickle(tmp_path / "a.pickle", spelled, protocol), 0.5)
    assert_same(splits, tiny_splits)
    assert remarks == []


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["uint8", "int64", "float64"])  # float64 is numpy's default
def test_an_empty_array_is_a_silent_step(tmp_path: Path, dtype: str, protocol: int) -> None:
    spelled = {split: [[(60, 64), (62,), np.array([], dtype)]] for split in SPLITS}
    splits, _ = read(write_pickle(tmp_path / "a.pickle", spelled, protocol), 0.5)
    assert [steps_of(splits[split][0]) for split in SPLITS] == [PLAIN_STEPS] * 3


@pytest.mark.parametrize("protocol", range(pickle.HIGHEST_PROTOCOL + 1))
@pytest.mark.parametrize("dtype", ["bool", "uint8", "int64", ">i4", "float32", "float64"])
def test_a_tune_may_be_one_array_of_frames_by_keys(
    tmp_path: Path, tiny_splits: Splits, dtype: str, protocol: int
) -> None:
    spelled = {split: [roll.astype(dtype) for roll in tiny_splits[split]] for split in SPLITS}
    assert_same(read(write_pickle(tmp_path / "a.pickle", spelled, protocol), 0.5)[0], tiny_splits)


def test_arrays_in_column_order_are_read_right(tmp_path: Path, tiny_splits: Splits) -> None:
    spelled = {split: [np.asfortranarray(r) for r in tiny_splits[split]] for split in SPLITS}
    assert_same(read(write_pickle(tmp_path / "a.pickle", spelled), 0.5)[0], tiny_splits)


def test_tunes_may_be_a_tuple_or_an_array_of_objects(tmp_path: Path) -> None:
    tune = np.empty(3, dtype=object)
    tune[:] = [(60, 64), (62,), ()]
    spelled = {"train": (tune,), "valid": (tuple(tune),), "test": [list(tune)]}
    splits, _ = read(write_pickle(tmp_path / "a.pickle", spelled), 0.5)
    assert [steps_of(roll) for split in SPLITS for roll in splits[split]] == [PLAIN_STEPS] * 3


def test_a_note_named_twice_in_a_step_sounds_once(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pickle", {**PLAIN, "train": [[(60, 60), (108, 21)]]})
    assert steps_of(read(path, 0.5)[0]["train"][0]) == [[60], [21, 108]]


# What Python 2 wrote: opcodes by hand, with `str` for the keys and for numpy's buffers.
PYTHON_2 = {
    "protocol-0": b"(d"
    + b"".join(b"S'%s'\n(l(l(I60\nI64\nta(I62\nta(taas" % split.encode() for split in SPLITS)
    + b".",
    "protocol-2": b"\x80\x02}("
    + b"".join(b"U%c%s](](K<K@\x86K>\x85)ee" % (len(split), split.encode()) for split in SPLITS)
    + b"u.",
    "numpy-scalar": b"\x80\x02}("
    + b"".join(
        b"U%c%s](](cnumpy.core.multiarray\nscalar\ncnumpy\ndtype\nU\x02i8K\x00K\x01\x87R(K\x03U"
        b"\x01<NNNJ\xff\xff\xff\xffJ\xff\xff\xff\xffK\x00tbU\x08<\x00\x00\x00\x00\x00\x00\x00\x86R"
        b"K@\x86K>\x85)ee" % (len(split), split.encode())
        for split in SPLITS
    )
    + b"u.",
    "numpy-array": b"\x80\x02}("
    + b"".join(
        b"U%c%s](](cnumpy.core.multiarray\n_reconstruct\ncnumpy\nndarray\nK\x00\x85U\x01b\x87R(K"
        b"\x01K\x02\x85cnumpy\ndtype\nU\x02u1K\x00K\x01\x87R(K\x03U\x01|NNNJ\xff\xff\xff\xffJ"
        b"\xff\xff\xff\xffK\x00tb\x89U\x02<@tbK>\x85)ee" % (len(split), split.encode())
        for split in SPLITS
    )
    + b"u.",
}


@pytest.mark.parametrize("content", PYTHON_2.values(), ids=PYTHON_2)
def test_pickles_of_python_2_are_read(tmp_path: Path, content: bytes) -> None:
    splits, _ = read(write_pickle(tmp_path / "a.pickle", content), 0.5)
    assert [steps_of(roll) for split in SPLITS for roll in splits[split]] == [PLAIN_STEPS] * 3


def test_a_numpy_buffer_of_high_bytes_survives_python_2(tmp_path: Path) -> None:
    # 0x80 and above is where a decoding other than latin1 would lose bytes: -1 as int8, then abs.
    content = PYTHON_2["numpy-array"].replace(b"U\x02u1", b"U\x02i1").replace(b"<@tb", b"\xff@tb")
    assert "-1" in refusal(write_pickle(tmp_path / "a.pickle", content))


def refused_pickle(content: Any) -> Any:
    """Return the content with the train split replaced."""
    return {**PLAIN, "train": content}


@pytest.mark.parametrize(
    "content",
    [
        refused_pickle([[(20,), (60,)]]),
        refused_pickle([[(60,), (109,)]]),
        refused_pickle([[(-60,), (60,)]]),
        refused_pickle([[(2**70,), (60,)]]),
        refused_pickle([[(60.0,), (62.0,)]]),
        refused_pickle([[(60, 62.5), (62,)]]),
        refused_pickle([[("C4",), ("D4",)]]),
        refused_pickle([["C4", "D4"]]),
        refused_pickle(["C4 D4"]),
        refused_pickle([[(True,), (False,)]]),
        refused_pickle([[(None,), (60,)]]),
        refused_pickle([[None, (60,)]]),
        refused_pickle([[60, 62]]),
        refused_pickle([60, 62]),
        refused_pickle([[((60,),), ((62,),)]]),
        refused_pickle([[((60,),), (62,)]]),
        refused_pickle(None),
        refused_pickle(60),
        refused_pickle("train"),
        refused_pickle([np.zeros((3, 87))]),
        refused_pickle([np.zeros((3, 88, 1))]),
        refused_pickle([np.full((3, 88), 2)]),
        refused_pickle([np.full((3, 88), np.nan)]),
        refused_pickle([np.full((3, 88), "1")]),
        refused_pickle([np.zeros((3, 88), dtype=complex)]),
        {"train": PLAIN["train"], "valid": PLAIN["valid"]},
        {split.encode(): PLAIN[split] for split in SPLITS},
        [PLAIN["train"]] * 3,
        "train",
        None,
        {},
    ],
)
def test_what_is_no_piano_roll_is_refused(tmp_path: Path, content: Any) -> None:
    refusal(write_pickle(tmp_path / "a.pickle", content))


@pytest.mark.parametrize("note", [20, 109])
def test_an_out_of_range_note_is_named_with_the_range(tmp_path: Path, note: int) -> None:
    message = refusal(write_pickle(tmp_path / "a.pickle", refused_pickle([[(note,), (note,)]])))
    assert re.search(rf"\b{note}\b.*\b21\b.*\b108\b", message)


@pytest.mark.parametrize("empty", [[], [[]], [[(60,)]], [[], [(60,)]]])
def test_a_split_without_a_tune_of_two_frames_is_refused(tmp_path: Path, empty: Any) -> None:
    content = {**PLAIN, "valid": empty}
    assert "valid" in refusal(write_pickle(tmp_path / "a.pickle", content))


def test_tunes_of_less_than_two_frames_are_left_out_and_counted(tmp_path: Path) -> None:
    content = refused_pickle([[(60,)], [(60,), (62,)], [], [(), ()]])
    splits, remarks = read(write_pickle(tmp_path / "a.pickle", content), 0.5)
    assert [steps_of(roll) for roll in splits["train"]] == [[[60], [62]], [[], []]]
    (remark,) = remarks
    assert str(tmp_path / "a.pickle") in remark
    assert "2 tunes" in remark
    assert "train" in remark


def test_a_pickle_cut_off_anywhere_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(PLAIN, protocol=4)
    for size in range(len(whole)):
        refusal(write_pickle(tmp_path / "a.pickle", whole[:size]))


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"train: 60 64 67\n",
        b"\x00" * 1000,
        bytes(range(256)),
        "música\n".encode(),
        gzip.compress(pickle.dumps(PLAIN)),
        b"MATLAB 7.3 MAT-file, Platform: GLNXA64" + b" " * 90,
        b"\x89HDF\r\n\x1a\n" + b"\x00" * 100,
        b"PK\x03\x04 no archive",
        b"MATLAB 5.0 no matrices",
    ],
    ids=["empty", "text", "zeros", "all-bytes", "utf-8", "gzip", "mat-7.3", "hdf5", "zip", "mat"],
)
def test_a_file_of_something_else_is_refused(tmp_path: Path, content: bytes) -> None:
    refusal(write_pickle(tmp_path / "a.pickle", content))


def test_a_missing_path_is_refused(tmp_path: Path) -> None:
    refusal(tmp_path / "none.pickle")


@settings(max_examples=200)
@given(data=st.data())
def test_a_damaged_pickle_gives_rolls_or_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    damaged = bytearray(pickle.dumps(PLAIN, protocol=data.draw(st.integers(0, 5))))
    for _ in range(data.draw(st.integers(1, 4))):
        damaged[data.draw(st.integers(0, len(damaged) - 1))] = data.draw(st.integers(0, 255))
    try:
        read(write_pickle(tmp_path / "a.pickle", bytes(damaged)), 0.5)
    except InputError as error:
        assert "\n" not in str(error)


# ---- hostile pickles -----------------------------------------------------------------------------

# Each of these, loaded by pickle.load, makes a file "marker" in the current folder.
HOSTILE = {
    "global-reduce": b"cos\nsystem\n(S'touch marker'\ntR.",
    "stack-global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch marker\x85R.",
    "inst": b"(S'touch marker'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch marker'\no.",
    "eval": b'cbuiltins\neval\n(S\'open("marker", "w").close()\'\ntR.',
    "exec": b'cbuiltins\nexec\n(S\'open("marker", "w").close()\'\ntR.',
    "python-2-eval": b'c__builtin__\neval\n(S\'open("marker", "w").close()\'\ntR.',
    "open": b"cbuiltins\nopen\n(S'marker'\nS'w'\ntR.",
    "io-open": b"c_io\nopen\n(S'marker'\nS'w'\ntR.",
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
    b"(S'touch marker'\ntR.",
    "subprocess": b"csubprocess\ncheck_call\n((lS'touch'\naS'marker'\natR.",
    "partial": b"cfunctools\npartial\n(cos\nsystem\nS'touch marker'\ntR(tR.",
    "dotted-name": b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93"
    b"(cpathlib\nPath\n(S'marker'\ntRtR.",
    "numpy-save": b"cnumpy\nsave\n(S'marker'\nI0\ntR.",
    "numpy-savetxt": b"cnumpy\nsavetxt\n(S'marker'\n(lI0\natR.",
    "numpy-memmap": b"cnumpy\nmemmap\n(S'marker'\nS'u1'\nS'w+'\nI0\n(I4\nttR.",
    "numpy-method": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93cnumpy\nndarray\nK\x01\x85"
    b"\x85R\x8c\x06marker\x86R.",
    "inside-a-tune": b"(dS'train'\n(l(l(I60\nta(cos\nsystem\n(S'touch marker'\ntRtaas.",
    "after-a-good-one": b"(d"
    + b"".join(b"S'%s'\n(l(l(I60\nta(I62\ntaas" % split.encode() for split in SPLITS)
    + b"S'more'\ncos\nsystem\n(S'touch marker'\ntRs.",
}

# These make nothing of themselves, but hand out what a piano-roll has no use for.
FORBIDDEN = {
    "newobj": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "newobj-ex": b"\x80\x04ccollections\nOrderedDict\n)}\x92.",
    "build": b"\x80\x02ctypes\nSimpleNamespace\n)\x81}U\x01aK\x01sb.",
    "copyreg": b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.",
    "copy-reg": b"ccopy_reg\n_reconstructor\n(c__builtin__\nobject\nc__builtin__\nobject\nNtR.",
    "copyreg-extension": b"ccopyreg\nadd_extension\n(S'os'\nS'system'\nI240\ntR.",
    "numpy-load": b"cnumpy\nload\n(S'marker.npy'\nNI01\ntR.",
    "numpy-fromfile": b"cnumpy._core.multiarray\nfromfile\n(S'marker'\ntR.",
    "numpy-fromfile-1": b"cnumpy.core.multiarray\nfromfile\n(S'marker'\ntR.",
    "numpy-runstring": b"cnumpy.testing._private.utils\nrunstring\n(S''\n(dtR.",
    "numpy-ctypeslib": b"cnumpy.ctypeslib\nload_library\n(S'a'\nS'b'\ntR.",
    "codecs-lookup": b"c_codecs\nlookup\n(S'zlib'\ntR.",
    "codecs-open": b"ccodecs\nopen\n(S'marker'\ntR.",
    "torch": b"ctorch\nload\n(S'marker'\ntR.",
    "our-own": b"cdata\nwrite_npz\n(S'marker'\n(dtR.",
    "marshal": b"cmarshal\nloads\n(S'marker'\ntR.",
    "type-alone": b"cbuiltins\ntype\n.",
}


def load_unguarded(content: bytes) -> None:
    made = pickle.load(io.BytesIO(content))  # noqa: S301  (the danger is the point)
    if hasattr(made, "close"):
        made.close()


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(write_pickle(tmp_path / "a.pickle", content))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pickle"]
    load_unguarded(content)  # it is as hostile as it claims to be
    assert any(path.name.startswith("marker") for path in tmp_path.iterdir())


@pytest.mark.parametrize("content", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_pickle_may_name_nothing_but_makers_of_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "it asks for" in refusal(write_pickle(tmp_path / "a.pickle", content))
    assert [path.name for path in tmp_path.iterdir()] == ["a.pickle"]


@pytest.mark.parametrize(
    "code", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"], ids=["ext1", "ext2", "ext4"]
)
def test_an_extension_code_is_no_way_around(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    content = b"\x80\x02" + code + b"U\x0ctouch marker\x85R."
    path = write_pickle(tmp_path / "a.pickle", content)
    refusal(path)  # a code that nobody has registered
    copyreg.add_extension("os", "system", 0xF0)
    try:
        assert "os.system" in refusal(path)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert not (tmp_path / "marker").exists()


@pytest.mark.parametrize("content", [b"Pmarker\n.", b"S'marker'\nQ."], ids=["persid", "binpersid"])
def test_a_persistent_id_is_refused(tmp_path: Path, content: bytes) -> None:
    refusal(write_pickle(tmp_path / "a.pickle", content))


def laughing(levels: int, times: int) -> list[Any]:
    """Return a list of one list `times` over, and that of another, down to a note."""
    made: list[Any] = [60]
    for _ in range(levels):
        made = [made] * times
    return made


def split_of(tunes: Any) -> bytes:
    return pickle.dumps(dict.fromkeys(SPLITS, tunes))


BOMBS = {
    "memo-text": b"(dp4000000000\n.",
    "memo-binary": b"\x80\x02}r\xff\xff\xff\xff.",
    "bytes-over-and-over": b"\x80\x02(X\x40\x42\x0f\x00" + b"a" * 1_000_000 + b"q\x00(0"
    b"X\x06\x00\x00\x00latin1q\x01(" + b"c_codecs\nencode\nq\x02h\x00h\x01\x86R" * 3_000 + b"l.",
    "tunes": split_of([[[60]] * 10_000] * 1_000),
    "steps": split_of([[[60] * 1_000] * 1_000] * 100),
    "lists-of-lists": split_of([laughing(9, 10)]),
    "a-note-of-lists": split_of([[[laughing(30, 10)]]]),
}


@pytest.mark.parametrize("content", BOMBS.values(), ids=BOMBS)
def test_a_short_pickle_does_not_take_much_memory(tmp_path: Path, content: bytes) -> None:
    path = write_pickle(tmp_path / "a.pickle", content)
    tracemalloc.start()
    refusal(path)
    assert tracemalloc.get_traced_memory()[1] < 50e6 + 20 * len(content)
    tracemalloc.stop()


def test_steps_that_are_one_object_are_no_bomb(tmp_path: Path) -> None:
    step = (60, 64)
    splits, _ = read(write_pickle(tmp_path / "a.pickle", split_of([[step] * 40] * 3)), 0.5)
    assert [len(tune) for tune in splits["test"]] == [40] * 3


def test_an_array_too_large_for_memory_is_refused(tmp_path: Path) -> None:
    content = b"cnumpy\nndarray\n((I1000000000\nI1000000000\nttR."
    refusal(write_pickle(tmp_path / "a.pickle", content))


# An array of objects over bytes of the file's choice is an array of pointers of its choice: reading
# one is a crash at best. `(V2` makes dtype('V8'), which BUILD then turns into a struct of objects.
POINTERS = b"AAAAAAAABBBBBBBB"
CORRUPTING = {
    "object-buffer": b"\x80\x04cnumpy\nndarray\n(K\x02\x85X\x01\x00\x00\x00OC\x10"
    + POINTERS + b"tR",
    "short-list": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
    b"C\x01btR(K\x01M\xd0\x07\x85cnumpy\ndtype\n(X\x01\x00\x00\x00OtR\x89]K\x01atb",
    "changed-dtype": b"\x80\x04cnumpy\ndtype\n(X\x02\x00\x00\x00V8\x89\x88tRq\x000"
    b"cnumpy._core.numeric\n_frombuffer\n(C\x10" + POINTERS + b"h\x00K\x02\x85X\x01\x00\x00\x00Ct"
    b"Rq\x010h\x00(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00at}X\x01\x00\x00\x00a(cnumpy\ndtype\n"
    b"(X\x01\x00\x00\x00O\x89\x88tRK\x00tsK\x08K\x01K?tb0h\x01",
}  # fmt: skip


def test_a_hostile_array_does_not_reach_into_memory(tmp_path: Path) -> None:
    rest = b"".join(
        b"X%c\x00\x00\x00%s](](K<\x85K<\x85ee" % (len(split), split.encode())
        for split in SPLITS[1:]
    )
    start = b"\x80\x04}(X\x05\x00\x00\x00train]("
    paths = [
        write_pickle(tmp_path / name, made.replace(b"\x80\x04", start, 1) + b"e" + rest + b"u.")
        for name, made in CORRUPTING.items()
    ]
    assert_survives(*paths)


def test_a_hostile_pickle_leaves_numpy_as_it_was(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    maker = np._core.numeric._frombuffer  # type: ignore[attr-defined]
    monkeypatch.setattr(maker, "__defaults__", maker.__defaults__)  # put back at the end
    before = maker.__defaults__
    content = b"\x80\x02cnumpy._core.numeric\n_frombuffer\nN}U\x0c__defaults__K\x01\x85s\x86b."
    refusal(write_pickle(tmp_path / "a.pickle", content))
    assert maker.__defaults__ == before


def test_an_array_that_is_never_filled_is_refused(tmp_path: Path) -> None:
    unfilled = b"](cnumpy.core.multiarray\n_reconstruct\n(tRe"
    splits = b"".join(
        b"X%c\x00\x00\x00%s" % (len(split), split.encode()) + unfilled for split in SPLITS
    )
    refusal(write_pickle(tmp_path / "a.pickle", b"\x80\x02}(" + splits + b"u."))
