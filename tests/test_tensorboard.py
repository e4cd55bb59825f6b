"""--tensorboard: event files of a run, where the package tensorboard is installed."""

import sys
from pathlib import Path
from types import ModuleType

import pytest

import main
from helpers import SMALL, call, names_in
from helpers_train import read_rows

SHORT = [*SMALL, "--tensorboard"]


def test_without_the_package_one_line_says_how_to_get_it_before_anything_is_trained(
    small_set: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", None)
    before = names_in(Path())
    assert call(main, "--data", small_set, *SHORT) == 2
    error = capsys.readouterr().err
    assert error.count("\n") == 1
    assert "pip install tensorboard" in error
    assert names_in(Path()) == before


class Writer:
    """Stands in for torch's SummaryWriter, and keeps what it is given."""

    written: list[tuple[str, str, float, int]] = []  # noqa: RUF012, one list for all writers

    def __init__(self, folder: str) -> None:
        self.folder = folder

    def add_scalar(self, name: str, value: float, step: int) -> None:
        self.written.append((self.folder, name, value, step))

    def flush(self) -> None: ...

    def close(self) -> None: ...


def test_each_epoch_is_written_once_also_by_a_resumed_run(
    small_set: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    module = ModuleType("torch.utils.tensorboard")
    module.SummaryWriter = Writer  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "torch.utils.tensorboard", module)
    monkeypatch.setattr(Writer, "written", [])
    assert call(main, "--data", small_set, *SHORT, "--run_dir=run") == 0
    assert call(main, "--resume=run", "--epochs=3") == 0
    rows = read_rows(Path("run/metrics.csv"))
    for name in ("train", "valid"):
        points = [point for point in Writer.written if point[1] == f"nll/{name}"]
        expected = [("run", f"nll/{name}", float(row[name]), int(row["epoch"])) for row in rows]
        assert points == expected


def test_event_files_go_to_the_runs_folder(small_set: Path) -> None:
    pytest.importorskip("tensorboard", reason="the package tensorboard is not installed")
    from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

    assert call(main, "--data", small_set, *SHORT, "--run_dir=run") == 0
    assert [name for name in names_in(Path("run")) if name.startswith("events.out.tfevents")]
    events = EventAccumulator("run").Reload()
    assert [event.step for event in events.Scalars("nll/valid")] == [1, 2]
    values = [event.value for event in events.Scalars("nll/valid")]
    rows = read_rows(Path("run/metrics.csv"))
    assert values == pytest.approx([float(row["valid"]) for row in rows], rel=1e-6)
