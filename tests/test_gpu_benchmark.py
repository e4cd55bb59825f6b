"""The script for GPUs computes every row on a CPU, and a row that fails is one row."""

import time
from pathlib import Path

import pytest

from benchmarks import gpu


def rows_of(path: Path) -> dict[str, str]:
    """Return the result of each row of a table, by its name."""
    lines = path.read_text(encoding="utf-8").splitlines()[2:]
    return dict(line.strip("| ").split(" | ")[:2] for line in lines)


def test_every_row_has_a_result(small_set: Path, tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    assert gpu.main(["--device=cpu", "--quick", f"--output={output}"]) == 0
    rows = rows_of(output)
    names = {name for part, rows_ in gpu.PARTS.items() if part != "full" for name in rows_}
    assert rows.keys() == names
    assert rows["main.py"].startswith("test ")
    assert "of the bare loop's" in rows["training, chord head, float32"]


def test_a_row_that_fails_or_takes_too_long_is_one_row(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    def fails(bench: gpu.Bench) -> str:
        raise RuntimeError("first line\nlast | line")

    def takes_long(bench: gpu.Bench) -> str:
        time.sleep(60)
        return "done"

    rows = {"fails": fails, "works": lambda bench: "fine", "long": takes_long, "late": fails}
    monkeypatch.setattr(gpu, "PARTS", {"checks": rows})
    output = tmp_path / "gpu.md"
    assert gpu.main(["--device=cpu", "--budget=0.5", f"--output={output}"]) == 1
    assert rows_of(output) == {
        "fails": "FAILED: last / line",
        "works": "fine",
        "long": "FAILED: TimeoutError: stopped by the budget",
        "late": "skipped: the budget is spent",
    }


def test_parts_are_processes_whose_rows_are_collected(tmp_path: Path) -> None:
    output = tmp_path / "gpu.md"
    flags = ["--device=cpu", "--budget=0", f"--output={output}", f"--data_dir={tmp_path}"]
    assert gpu.main([*flags, "--only", "preset", "large"]) == 0
    assert rows_of(output) == {
        name: "skipped: the budget is spent"
        for part in ("preset", "large")
        for name in gpu.PARTS[part]
    }
    assert (tmp_path / "gpu.large.log").is_file()
