"""The committed Pipfile.lock: one for every supported system, without an index or a local file.

`.ci/relock` makes the lock and has a function for each promise; here they check what is committed.
The working copy is not checked, because `pipenv install` may have rewritten it. `.ci/run` also
checks, with `pipenv verify`, that the lock belongs to the Pipfile.
"""

import json
import runpy
import shutil
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest

from helpers import ROOT

relock = SimpleNamespace(**runpy.run_path(str(ROOT / ".ci" / "relock")))

GOOD_PIPFILE = '[packages]\ntorch = "==2.13.0"\npretty_midi = "~=0.2"\n'


def committed(name: str) -> str:
    """Return the text of a file as it is committed; skip the test if it is not."""
    if shutil.which("git") is None:
        pytest.skip("git is not installed")
    show = ["git", "show", f"HEAD:./{name}"]
    shown = subprocess.run(show, cwd=ROOT, capture_output=True, text=True, check=False)
    if shown.returncode != 0:
        pytest.skip(f"no committed {name}: {shown.stderr.strip()}")
    return shown.stdout


@pytest.fixture(scope="module")
def lock() -> dict[str, Any]:
    return json.loads(committed("Pipfile.lock"))


def good_lock() -> dict[str, Any]:
    """Return a small lock that keeps every promise."""
    return {
        "_meta": {"sources": []},
        "default": {
            "torch": {"version": "==2.13.0", "hashes": ["sha256:01"]},
            "pretty-midi": {"version": "==0.2.11", "hashes": ["sha256:02"]},
            "triton": {
                "version": "==3.7.1",
                "hashes": ["sha256:03"],
                "markers": "platform_system == 'Linux'",
            },
        },
        "develop": {},
    }


PROMISES = [
    "without_version",
    "without_hashes",
    "local_builds",
    "addresses",
    "bound_to_an_index",
    "cuda_outside_linux",
]


@pytest.mark.parametrize("promise", PROMISES)
def test_no_package_of_the_committed_lock_breaks_a_promise(
    promise: str, lock: dict[str, Any]
) -> None:
    assert getattr(relock, promise)(lock) == []


def test_every_package_of_the_pipfile_is_locked(lock: dict[str, Any]) -> None:
    assert relock.not_locked(lock, committed("Pipfile")) == []


def test_a_good_lock_is_accepted() -> None:
    assert relock.broken_promises(good_lock(), GOOD_PIPFILE) == []


@pytest.mark.parametrize(
    ("package", "change", "promise"),
    [
        ("torch", {"version": ""}, "no version: torch"),
        ("torch", {"version": "*"}, "no version: torch"),
        ("torch", {"hashes": []}, "no hashes: torch"),
        ("torch", {"version": "==2.13.0+cpu"}, "a local build: torch"),
        ("torch", {"file": "torch-2.13.0.whl"}, "an address: .whl"),
        ("torch", {"git": "ssh://somewhere"}, "an address: ://"),
        ("torch", {"index": "pypi"}, "bound to an index: torch"),
        ("triton", {"markers": "python_version >= '3'"}, "CUDA outside Linux: triton"),
    ],
)
def test_a_lock_that_breaks_a_promise_is_refused(
    package: str, change: dict[str, Any], promise: str
) -> None:
    lock = good_lock()
    lock["default"][package] |= change
    assert relock.broken_promises(lock, GOOD_PIPFILE) == [promise]


def test_a_lock_without_a_package_of_the_pipfile_is_refused() -> None:
    pipfile = GOOD_PIPFILE + '[dev-packages]\npytest = "*"\n'
    assert relock.broken_promises(good_lock(), pipfile) == ["in the Pipfile only: pytest"]


def test_what_pipenv_gets_wrong_is_corrected() -> None:
    lock = good_lock()
    lock["_meta"]["sources"] = [{"name": "pypi"}]
    lock["default"]["torch"]["index"] = "pypi"
    lock["default"]["triton"]["markers"] = "python_version < '3.15' or extra == 'x'"
    lock["default"]["nvidia-nvtx"] = {"version": "==13.0.85", "hashes": ["sha256:04"]}
    relock.mend(lock)
    assert relock.broken_promises(lock, GOOD_PIPFILE) == []
    assert lock["default"]["triton"]["markers"] == (
        "platform_system == 'Linux' and (python_version < '3.15' or extra == 'x')"
    )
    assert lock["default"]["nvidia-nvtx"]["markers"] == "platform_system == 'Linux'"


def test_a_refused_lock_leaves_the_old_one(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "Pipfile").write_text(GOOD_PIPFILE)
    (tmp_path / "Pipfile.lock").write_text("the old lock")
    bad = good_lock()
    bad["default"]["torch"]["hashes"] = []
    namespace = relock.main.__globals__
    monkeypatch.setitem(namespace, "ROOT", tmp_path)
    monkeypatch.setitem(namespace, "lock_with_pipenv", lambda pipfile: bad)
    assert relock.main() == 2
    assert "no hashes: torch" in capsys.readouterr().err
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {
        "Pipfile": GOOD_PIPFILE,
        "Pipfile.lock": "the old lock",
    }
