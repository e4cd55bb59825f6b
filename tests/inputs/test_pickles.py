"""Pickles: every form of a piano-roll is read, and no code of the file is ever run."""

import copyreg
import io
import pickle
import re
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from helpers import (
    ROOT,
    Splits,
    assert_same,
    names_in,
    one_line_naming,
    refusal,
    steps_of,
    write_pickle,
)
from pianolstm.files import InputError
from pianolstm.inputs import pickles
from pianolstm.inputs.frames import to_splits
from pianolstm.inputs.pickles import load_pickle
from pianolstm.rolls import SPLITS, PackedRolls

# Three splits of one piece each: a chord, one note, silence.
PLAIN = {split: [[(60, 64), (62,), ()]] for split in SPLITS}
PLAIN_STEPS = [[60, 64], [62], []]
PROTOCOLS = range(pickle.HIGHEST_PROTOCOL + 1)


def read_pickle(path: Path) -> dict[str, PackedRolls]:
    return to_splits(load_pickle(path), path)[0]


def read_steps(path: Path) -> list[list[list[int]]]:
    """Return the MIDI numbers of every frame of every piece."""
    splits = read_pickle(path)
    return [steps_of(roll) for split in SPLITS for roll in splits[split]]


# ---- forms of a piano-roll -----------------------------------------------------------------------


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize(
    "frame",
    [
        tuple,
        list,
        lambda pitches: [np.int64(pitch) for pitch in pitches],
        lambda pitches: tuple(np.uint8(pitch) for pitch in pitches),
        lambda pitches: np.array(pitches, dtype=np.int32) if pitches else (),
        lambda pitches: np.array(pitches, dtype=np.uint8) if pitches else np.array([]),
    ],
    ids=["tuple", "list", "int64", "uint8", "int32-array", "uint8-array"],
)
def test_frames_are_read_in_all_forms_and_protocols(
    tmp_path: Path,
    tiny_pieces: Any,
    tiny_splits: Splits,
    frame: Callable[[Any], Any],
    protocol: int,
) -> None:
    content = {
        split: [[frame(pitches) for pitches in piece] for piece in pieces]
        for split, pieces in tiny_pieces.items()
    }
    path = write_pickle(tmp_path / "a.pickle", content, protocol)
    assert_same(read_pickle(path), tiny_splits)


@pytest.mark.parametrize("protocol", PROTOCOLS)
@pytest.mark.parametrize("dtype", ["bool", "uint8", ">i4", "float64"])
def test_a_piece_may_be_one_array_of_frames_and_pitches(
    tmp_path: Path, tiny_splits: Splits, dtype: str, protocol: int
) -> None:
    content = {split: [roll.astype(dtype) for roll in tiny_splits[split]] for split in SPLITS}
    path = write_pickle(tmp_path / "a.pickle", content, protocol)
    assert_same(read_pickle(path), tiny_splits)


def test_arrays_in_fortran_order_are_read(tmp_path: Path, tiny_splits: Splits) -> None:
    content = {split: [np.asfortranarray(r) for r in tiny_splits[split]] for split in SPLITS}
    assert_same(read_pickle(write_pickle(tmp_path / "a.pickle", content)), tiny_splits)


def test_pieces_may_be_a_tuple_or_an_object_array(tmp_path: Path) -> None:
    piece = np.empty(3, dtype=object)
    piece[:] = [(60, 64), (62,), ()]
    content = {"train": (piece,), "valid": (tuple(piece),), "test": [list(piece)]}
    assert read_steps(write_pickle(tmp_path / "a.pickle", content)) == [PLAIN_STEPS] * 3


def test_a_pitch_named_twice_in_a_frame_sounds_once(tmp_path: Path) -> None:
    path = write_pickle(tmp_path / "a.pickle", {**PLAIN, "train": [[(60, 60), (108, 21)]]})
    assert read_steps(path)[0] == [[60], [21, 108]]


# What Python 2 wrote: opcodes by hand, with `str` for the dict's keys and for NumPy's buffers.
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
    assert read_steps(write_pickle(tmp_path / "a.pickle", content)) == [PLAIN_STEPS] * 3


def test_high_bytes_of_a_python_2_buffer_are_not_lost(tmp_path: Path) -> None:
    # Any decoding other than latin1 would change 0x80 and above. 0xfe as int8 is -2.
    content = PYTHON_2["numpy-array"].replace(b"U\x02u1", b"U\x02i1").replace(b"<@tb", b"\xfe@tb")
    message = refusal(write_pickle(tmp_path / "a.pickle", content))
    assert "MIDI numbers -2 to 64" in message


def test_pickles_of_numpy_1_and_2_are_read(tmp_path: Path, tiny_splits: Splits) -> None:
    content = pickle.dumps(tiny_splits, protocol=2)
    old, new = b"numpy.core", b"numpy._core"
    for name in (old, new):
        path = write_pickle(tmp_path / "a.pickle", content.replace(new, old).replace(old, name))
        assert_same(read_pickle(path), tiny_splits)


# ---- other contents ------------------------------------------------------------------------------


def with_train(pieces: Any) -> Any:
    """Return PLAIN with another train split."""
    return {**PLAIN, "train": pieces}


@pytest.mark.parametrize(
    "content",
    [
        with_train([[(-60,), (60,)]]),
        with_train([[(2**70,), (60,)]]),
        with_train([[(60, 62.5), (62,)]]),
        with_train([[("C4",), ("D4",)]]),
        with_train([["C4", "D4"]]),
        with_train(["C4 D4"]),
        with_train([[(True,), (False,)]]),
        with_train([[None, (60,)]]),
        with_train([[60, 62]]),
        with_train([60, 62]),
        with_train([[((60,),), ((62,),)]]),
        with_train(None),
        with_train(60),
        with_train("train"),
        with_train([np.zeros((3, 87))]),
        with_train([np.zeros((3, 88, 1))]),
        with_train([np.full((3, 88), 2)]),
        with_train([np.full((3, 88), np.nan)]),
        with_train([np.full((3, 88), "1")]),
        with_train([np.zeros((3, 88), dtype=complex)]),
        {"train": PLAIN["train"], "valid": PLAIN["valid"]},
        {split.encode(): PLAIN[split] for split in SPLITS},
        [PLAIN["train"]] * 3,
        "train",
        None,
        {},
    ],
)
def test_what_is_not_a_piano_roll_is_refused(tmp_path: Path, content: Any) -> None:
    refusal(write_pickle(tmp_path / "a.pickle", content))


@pytest.mark.parametrize("pitches", [(20, 88), (60, 109)])
def test_a_pitch_out_of_range_is_named_with_the_range(
    tmp_path: Path, pitches: tuple[int, int]
) -> None:
    message = refusal(write_pickle(tmp_path / "a.pickle", with_train([[pitches, (60,)]])))
    assert re.search(r"\b{}\b.*\b{}\b.*\b21\b.*\b108\b".format(*pitches), message)


def test_a_truncated_pickle_is_refused(tmp_path: Path) -> None:
    whole = pickle.dumps(PLAIN, protocol=4)
    for size in range(len(whole)):
        refusal(write_pickle(tmp_path / "a.pickle", whole[:size]))


@given(data=st.data())
def test_a_damaged_pickle_gives_rolls_or_is_refused(tmp_path: Path, data: st.DataObject) -> None:
    # Opcodes that build a large memo from a few bytes are not part of the promise.
    damaged = bytearray(pickle.dumps(PLAIN, protocol=data.draw(st.integers(3, 5))))
    position = data.draw(st.integers(0, len(damaged) - 1))
    damaged[position] = data.draw(st.integers(0, 255).filter(lambda byte: byte not in b"rp"))
    path = write_pickle(tmp_path / "a.pickle", bytes(damaged))
    try:
        read_pickle(path)
    except InputError as error:
        assert one_line_naming(path, error)


def test_a_pickle_above_the_size_limit_is_not_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(pickles, "MAX_BYTES", 2**20)
    path = write_pickle(tmp_path / "a.pickle", pickle.dumps(PLAIN) + bytes(2**20))
    assert "larger than 1 MB" in refusal(path)


# ---- hostile pickles -----------------------------------------------------------------------------

# Each of these, loaded by pickle.load, makes a file "marker" in the current folder.
HOSTILE = {
    "global-reduce": b"cos\nsystem\n(S'touch marker'\ntR.",
    "stack-global": b"\x80\x04\x8c\x05posix\x8c\x06system\x93\x8c\x0ctouch marker\x85R.",
    "inst": b"(S'touch marker'\nios\nsystem\n.",
    "obj": b"(cos\nsystem\nS'touch marker'\no.",
    "eval": b'cbuiltins\neval\n(S\'open("marker", "w").close()\'\ntR.',
    "python-2-eval": b'c__builtin__\neval\n(S\'open("marker", "w").close()\'\ntR.',
    "getattr": b"cbuiltins\ngetattr\n(cbuiltins\n__import__\n(S'os'\ntRS'system'\ntR"
    b"(S'touch marker'\ntR.",
    "partial": b"cfunctools\npartial\n(cos\nsystem\nS'touch marker'\ntR(tR.",
    "dotted-name": b"\x80\x04\x8c\x07pathlib\x8c\x0aPath.touch\x93"
    b"(cpathlib\nPath\n(S'marker'\ntRtR.",
    "numpy-save": b"cnumpy\nsave\n(S'marker'\nI0\ntR.",
    "numpy-memmap": b"cnumpy\nmemmap\n(S'marker'\nS'u1'\nS'w+'\nI0\n(I4\nttR.",
    "numpy-method": b"\x80\x04\x8c\x05numpy\x8c\x0endarray.tofile\x93cnumpy\nndarray\nK\x01\x85"
    b"\x85R\x8c\x06marker\x86R.",
    "inside-a-piece": b"(dS'train'\n(l(l(I60\nta(cos\nsystem\n(S'touch marker'\ntRtaas.",
    "after-the-splits": b"(d"
    + b"".join(b"S'%s'\n(l(l(I60\nta(I62\ntaas" % split.encode() for split in SPLITS)
    + b"S'more'\ncos\nsystem\n(S'touch marker'\ntRs.",
}

# These make no file, but name what a piano-roll does not need.
FORBIDDEN = {
    "newobj": b"\x80\x02ccollections\nOrderedDict\n)\x81.",
    "build": b"\x80\x02ctypes\nSimpleNamespace\n)\x81}U\x01aK\x01sb.",
    "copyreg": b"ccopyreg\n_reconstructor\n(cbuiltins\nobject\ncbuiltins\nobject\nNtR.",
    "copyreg-extension": b"ccopyreg\nadd_extension\n(S'os'\nS'system'\nI240\ntR.",
    "numpy-load": b"cnumpy\nload\n(S'marker.npy'\nNI01\ntR.",
    "numpy-fromfile": b"cnumpy._core.multiarray\nfromfile\n(S'marker'\ntR.",
    "codecs-lookup": b"c_codecs\nlookup\n(S'zlib'\ntR.",
    "torch": b"ctorch\nload\n(S'marker'\ntR.",
    "our-own": b"cpianolstm.rolls\nwrite_npz\n(S'marker'\n(dtR.",
    "type-alone": b"cbuiltins\ntype\n.",
}


@pytest.mark.parametrize("content", HOSTILE.values(), ids=HOSTILE)
def test_a_hostile_pickle_runs_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    refusal(write_pickle(tmp_path / "a.pickle", content))
    assert names_in(tmp_path) == ["a.pickle"]
    pickle.load(io.BytesIO(content))  # noqa: S301  (it is as hostile as it claims to be)
    assert any(name.startswith("marker") for name in names_in(tmp_path))


@pytest.mark.parametrize("content", FORBIDDEN.values(), ids=FORBIDDEN)
def test_a_pickle_may_name_only_numpys_arrays(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, content: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    assert "is not allowed" in refusal(write_pickle(tmp_path / "a.pickle", content))
    assert names_in(tmp_path) == ["a.pickle"]


@pytest.mark.parametrize(
    "code", [b"\x82\xf0", b"\x83\xf0\x00", b"\x84\xf0\x00\x00\x00"], ids=["ext1", "ext2", "ext4"]
)
def test_an_extension_code_names_nothing_else_either(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, code: bytes
) -> None:
    monkeypatch.chdir(tmp_path)
    path = write_pickle(tmp_path / "a.pickle", b"\x80\x02" + code + b"U\x0ctouch marker\x85R.")
    copyreg.add_extension("os", "system", 0xF0)
    try:
        assert "os.system" in refusal(path)
    finally:
        copyreg.remove_extension("os", "system", 0xF0)
    assert names_in(tmp_path) == ["a.pickle"]


@pytest.mark.parametrize("content", [b"Pmarker\n.", b"S'marker'\nQ."], ids=["persid", "binpersid"])
def test_a_persistent_id_is_refused(tmp_path: Path, content: bytes) -> None:
    refusal(write_pickle(tmp_path / "a.pickle", content))


def test_an_array_too_large_for_ram_is_refused(tmp_path: Path) -> None:
    content = b"cnumpy\nndarray\n((I1000000000\nI1000000000\nttR."
    refusal(write_pickle(tmp_path / "a.pickle", content))


def test_an_array_without_a_state_is_refused(tmp_path: Path) -> None:
    empty = b"](cnumpy.core.multiarray\n_reconstruct\n(tRe"
    splits = b"".join(
        b"X%c\x00\x00\x00%s" % (len(split), split.encode()) + empty for split in SPLITS
    )
    refusal(write_pickle(tmp_path / "a.pickle", b"\x80\x02}(" + splits + b"u."))


def test_a_hostile_pickle_changes_no_function(tmp_path: Path) -> None:
    numpys = np._core.numeric._frombuffer  # type: ignore[attr-defined]
    ours = pickles._ALLOWED["numpy._core.numeric", "_frombuffer"]
    before = numpys.__defaults__, dict(vars(ours))
    content = (
        b"\x80\x02cnumpy._core.numeric\n_frombuffer\n"
        b"}U\x01aK\x01s}U\x0c__defaults__K\x01\x85s\x86b."
    )
    refusal(write_pickle(tmp_path / "a.pickle", content))
    assert (numpys.__defaults__, dict(vars(ours))) == before
    assert ours.__defaults__ is None


# An object array over bytes of the file is an array of pointers of the file's choice: reading one
# can crash. `(V2` makes dtype('V8'), which BUILD then turns into a struct of objects.
POINTERS = b"AAAAAAAABBBBBBBB"
CORRUPTING = {
    "object-buffer": b"\x80\x04cnumpy\nndarray\n(K\x02\x85X\x01\x00\x00\x00OC\x10"
    + POINTERS + b"tR",
    "object-state": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
    b"C\x01btR(K\x01K\x02\x85cnumpy\ndtype\n(X\x01\x00\x00\x00OtR\x89C\x10" + POINTERS + b"tb",
    "short-list": b"\x80\x04cnumpy._core.multiarray\n_reconstruct\n(cnumpy\nndarray\nK\x00\x85"
    b"C\x01btR(K\x01M\xd0\x07\x85cnumpy\ndtype\n(X\x01\x00\x00\x00OtR\x89]K\x01atb",
    "changed-dtype": b"\x80\x04cnumpy\ndtype\n(X\x02\x00\x00\x00V8\x89\x88tRq\x000"
    b"cnumpy._core.numeric\n_frombuffer\n(C\x10" + POINTERS + b"h\x00K\x02\x85X\x01\x00\x00\x00Ct"
    b"Rq\x010h\x00(K\x03X\x01\x00\x00\x00|N(X\x01\x00\x00\x00at}X\x01\x00\x00\x00a(cnumpy\ndtype\n"
    b"(X\x01\x00\x00\x00O\x89\x88tRK\x00tsK\x08K\x01K?tb0h\x01",
    "byte-order": b"\x80\x04cnumpy._core.multiarray\nscalar\n(cnumpy\ndtype\n(X\x02\x00\x00\x00i8tR"
    b"(K\x03X\x02\x00\x00\x00O,NNNtbC\x10" + POINTERS + b"tR",
}  # fmt: skip

READ_EACH = """
import resource, sys
from pathlib import Path
resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
from pianolstm.files import InputError
from pianolstm.inputs.frames import to_splits
from pianolstm.inputs.pickles import load_pickle
for path in map(Path, sys.argv[1:]):
    try:
        to_splits(load_pickle(path), path)
    except InputError:
        print(path)
"""


def test_object_arrays_over_raw_buffers_crash_nothing(tmp_path: Path) -> None:
    rest = b"".join(
        b"X%c\x00\x00\x00%s](](K<\x85K<\x85ee" % (len(split), split.encode())
        for split in SPLITS[1:]
    )
    start = b"\x80\x04}(X\x05\x00\x00\x00train]("
    paths = [
        write_pickle(tmp_path / name, made.replace(b"\x80\x04", start, 1) + b"e" + rest + b"u.")
        for name, made in CORRUPTING.items()
    ]
    command = [sys.executable, "-c", READ_EACH, *map(str, paths)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == [str(path) for path in paths]  # each is refused
