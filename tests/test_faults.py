"""The promises of the README's "What you can rely on", each tried a few times by faults.py."""

import subprocess
import sys
from pathlib import Path

import pytest

HOME = Path(__file__).parent.parent
TRIALS = ("kill", "stop", "weights", "pickle", "midi", "folder", "flags", "servers")


@pytest.mark.skipif(sys.platform == "win32", reason="faults.py forks")
def test_a_few_faults_of_every_kind_are_survived(tmp_path: Path) -> None:
    command = [sys.executable, str(HOME / "benchmarks" / "faults.py"), "--share=0.02", "--only"]
    ended = subprocess.run(
        [*command, *TRIALS], cwd=tmp_path, capture_output=True, text=True, check=False
    )
    lines = [line.strip("| ").split(" | ") for line in ended.stdout.splitlines()[2:]]
    counts = {promise: (count, held) for promise, count, held, _ in lines}
    assert len(counts) == len(TRIALS)
    assert all(count == held != "0" for count, held in counts.values()), ended.stderr[-2000:]
    assert ended.returncode == 0
