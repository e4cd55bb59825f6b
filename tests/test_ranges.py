"""The ranges of the settings: what is out of one is refused in a line that names the flag."""

import math
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from helpers import parse
from settings import (
    DataSettings,
    Group,
    MachineSettings,
    ModelSettings,
    PlaySettings,
    RunSettings,
    SampleSettings,
    TrainSettings,
)

REFUSED: list[tuple[type[Group], str, str]] = [
    (DataSettings, "dataset", "bach"),
    (DataSettings, "frame_beats", "0"),
    (DataSettings, "frame_beats", "-0.5"),
    (DataSettings, "frame_beats", "17"),
    (DataSettings, "frame_beats", "nan"),
    (ModelSettings, "embed_size", "0"),
    (ModelSettings, "hidden_size", "0"),
    (ModelSettings, "hidden_size", "65537"),
    (ModelSettings, "hidden_size", "256.0"),
    (ModelSettings, "layers", "0"),
    (ModelSettings, "layers", "65"),
    (ModelSettings, "latent_size", "-1"),
    (ModelSettings, "dropout", "1"),
    (ModelSettings, "dropout", "-0.1"),
    (ModelSettings, "dropout", "nan"),
    (ModelSettings, "dropout", "half"),
    (ModelSettings, "input_dropout", "1"),
    (ModelSettings, "memory", "-1"),
    (ModelSettings, "memory", "65537"),
    (ModelSettings, "heads", "0"),
    (ModelSettings, "heads", "65"),
    (ModelSettings, "head_size", "0"),
    (ModelSettings, "head_size", "1025"),
    (ModelSettings, "match", "0"),
    (ModelSettings, "match", "257"),
    (ModelSettings, "transpose", "-0.1"),
    (ModelSettings, "transpose", "1.1"),
    (TrainSettings, "batch_size", "0"),
    (TrainSettings, "batch_size", "many"),
    (TrainSettings, "lr", "0"),
    (TrainSettings, "lr", "-0.001"),
    (TrainSettings, "lr", "nan"),
    (TrainSettings, "lr", "inf"),
    (TrainSettings, "epochs", "0"),
    (TrainSettings, "epochs", "2.5"),
    (TrainSettings, "bptt", "-1"),
    (TrainSettings, "clip", "-1"),
    (TrainSettings, "clip", "nan"),
    (TrainSettings, "steps", "-1"),
    (TrainSettings, "steps", "1.5"),
    (TrainSettings, "warmup", "1"),
    (TrainSettings, "warmup", "-0.1"),
    (TrainSettings, "precision", "float16"),
    (RunSettings, "seed", "-1"),
    (RunSettings, "seed", str(2**63)),
    (MachineSettings, "device", "tpu"),
    (MachineSettings, "threads", "-1"),
    (SampleSettings, "num_samples", "0"),
    (SampleSettings, "seconds", "0"),
    (SampleSettings, "seconds", "3601"),
    (SampleSettings, "temperature", "-1"),
    (SampleSettings, "temperature", "nan"),
    (SampleSettings, "bpm", "9"),
    (SampleSettings, "bpm", "nan"),
    (SampleSettings, "velocity", "0"),
    (SampleSettings, "velocity", "128"),
    (PlaySettings, "seed", "-1"),
    (PlaySettings, "seed", "one"),
]


@pytest.mark.parametrize(("group", "name", "text"), REFUSED)
def test_bad_flag_is_refused_in_one_line_that_names_it(
    group: type[Group], name: str, text: str, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as stopped:
        parse(group, f"--{name}={text}")
    printed = capsys.readouterr()
    assert stopped.value.code == 2
    assert printed.out == ""
    assert printed.err.startswith("program.py: ")
    assert printed.err.count("\n") == 1
    assert printed.err.endswith("\n")
    assert f"--{name}" in printed.err
    assert text in printed.err


def test_refusal_says_what_is_allowed() -> None:
    with pytest.raises(ValueError, match=r"--dropout.*at least 0 and below 1"):
        ModelSettings(dropout=1.0)
    with pytest.raises(ValueError, match=r"--device.*auto, cpu, cuda, mps"):
        MachineSettings(device="tpu")


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (DataSettings, "frame_beats", 16),
        (ModelSettings, "embed_size", 1),
        (ModelSettings, "hidden_size", 16384),
        (ModelSettings, "layers", 64),
        (ModelSettings, "latent_size", 0),
        (ModelSettings, "dropout", 0),
        (ModelSettings, "dropout", 0.999),
        (ModelSettings, "memory", 2**16),
        (ModelSettings, "transpose", 1),
        (TrainSettings, "steps", 10**9),
        (TrainSettings, "lr", 10),
        (TrainSettings, "lr", 1e-12),
        (TrainSettings, "bptt", 0),
        (TrainSettings, "clip", 0),
        (RunSettings, "seed", 2**63 - 1),
        (RunSettings, "seed", 0),
        (SampleSettings, "temperature", 0),
        (SampleSettings, "seconds", 3600),
        (SampleSettings, "bpm", 10),
        (SampleSettings, "velocity", 1),
        (PlaySettings, "seed", None),
    ],
)
def test_the_ends_of_a_range_are_allowed(group: type[Group], name: str, value: Any) -> None:
    assert getattr(group(**{name: value}), name) == value


@pytest.mark.parametrize(
    ("group", "name", "value"),
    [
        (ModelSettings, "hidden_size", 256.0),
        (ModelSettings, "hidden_size", "256"),
        (ModelSettings, "layers", True),
        (ModelSettings, "layers", None),
        (ModelSettings, "dropout", "0.1"),
        (ModelSettings, "dropout", False),
        (ModelSettings, "dropout", math.nan),
        (TrainSettings, "lr", None),
        (TrainSettings, "lr", [0.1]),
        (DataSettings, "data", 3),
        (DataSettings, "dataset", None),
        (PlaySettings, "force", 1),
        (PlaySettings, "seed", 1.0),
    ],
)
def test_value_of_the_wrong_type_is_refused(group: type[Group], name: str, value: Any) -> None:
    with pytest.raises(ValueError, match=rf"^--{name}: [^\n]+$"):
        group(**{name: value})


@settings(deadline=None, derandomize=True, max_examples=200)
@given(st.floats())
def test_learning_rate_is_allowed_exactly_in_its_range(lr: float) -> None:
    allowed = not math.isnan(lr) and 0 < lr <= 10
    try:
        TrainSettings(lr=lr)
    except ValueError as error:
        assert not allowed
        assert str(error).startswith("--lr: ")
    else:
        assert allowed
