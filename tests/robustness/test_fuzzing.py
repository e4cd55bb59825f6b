"""Whatever bytes of a file are replaced, it is read or refused (hypothesis chooses the bytes)."""

import pickle
from collections.abc import Callable
from pathlib import Path
from typing import Any

import hypothesis
from hypothesis import strategies as st
from trials import FinishedRun, failures, forms, memory_limit

from model import PianoLSTM
from pianolstm.inputs.formats import read
from pianolstm.midi import read_midi, roll_to_midi
from pianolstm.rolls import SPLITS, read_npz


@st.composite
def damaged(draw: st.DrawFn, originals: list[bytes]) -> bytes:
    """Replace up to six short parts of one of the originals by other bytes, fewer or more."""
    content = bytearray(draw(st.sampled_from(originals)))
    for _ in range(draw(st.integers(1, 6))):
        start = draw(st.integers(0, max(len(content) - 1, 0)))
        content[start : start + draw(st.integers(0, 9))] = draw(st.binary(max_size=9))
    return bytes(content)


def fuzz(reader: Callable[[Path], Any], originals: list[bytes], path: Path, count: int) -> None:
    """Let a reader read `count` damaged copies of the originals, written to `path`."""
    tried = 0

    @hypothesis.settings(
        max_examples=count,
        phases=[hypothesis.Phase.generate],
        suppress_health_check=list(hypothesis.HealthCheck),
    )
    @hypothesis.given(damaged(originals))
    def check(content: bytes) -> None:
        nonlocal tried
        tried += 1
        assert not failures(reader, [("fuzzed", content)], path, seconds=5, memory=500)

    check()
    assert tried == count


@forms(300, 44_740)
def test_a_fuzzed_pickle_is_read_or_refused(count: int, tmp_path: Path) -> None:
    pieces = {split: [[(60, 64), (), (62,)]] * 2 for split in SPLITS}
    originals = [pickle.dumps(pieces, protocol) for protocol in range(6)]

    def read_within_limit(path: Path) -> None:
        with memory_limit(400):  # a pickle can unfold; it is refused then
            read(path, 0.5)

    fuzz(read_within_limit, originals, tmp_path / "a.pickle", count)


@forms(300, 40_058)
def test_a_fuzzed_midi_file_is_read_or_refused(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    path = tmp_path / "a.mid"
    roll_to_midi(read_npz(finished_run.data)["test"][0], 0.5).write(str(path))
    fuzz(lambda path: read_midi(path, 0.5), [path.read_bytes()], path, count)


@forms(100, 5_280)
def test_fuzzed_weights_are_read_or_refused(
    count: int, finished_run: FinishedRun, tmp_path: Path
) -> None:
    originals = [finished_run.weights.read_bytes()]
    fuzz(PianoLSTM.load, originals, tmp_path / "a.safetensors", count)
