"""Runs main.py in a process of its own and measures its start, its speed and its RAM.

For speed.py and scale.py. The process runs this file as

    python benchmarks/measured_run.py START SECONDS [a flag of main.py ...]

where START is the time at which it was launched, and ends SECONDS after the first optimizer step,
or with main.py.
"""

import json
import os
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

HOME = Path(__file__).resolve().parent.parent
RESULT = "measured: "  # begins the line with the result


def measure(flags: Sequence[str], seconds: float, folder: Path) -> dict[str, float]:
    """Run main.py and return its measurements.

    Args:
        flags: of main.py.
        seconds: how long to train after the first optimizer step; infinity = to the end.
        folder: the current folder of the process.

    Returns:
        "torch" and "first_step": seconds from the launch until torch was imported, and until the
        first optimizer step was taken. "frames_per_second": training speed after it. "peak_mib":
        the largest RAM.
    """
    import subprocess  # not in the process that is measured

    command = [sys.executable, __file__, repr(time.time()), str(seconds), *flags]
    ended = subprocess.run(command, cwd=folder, check=True, stdout=subprocess.PIPE, text=True)
    [line] = [line for line in ended.stdout.splitlines() if line.startswith(RESULT)]
    measured: dict[str, float] = json.loads(line.removeprefix(RESULT))
    return measured


def peak_mib() -> float:
    """Return the peak of this process's RAM in MiB."""
    status = Path("/proc/self/status")
    if status.is_file():
        # Unlike getrusage, it does not include the process that launched this one.
        peak = status.read_text(encoding="utf-8").partition("VmHWM:")[2]
        return int(peak.split()[0]) / 1024
    import resource

    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 2**20  # macOS counts bytes


def main(start: float, seconds: float, flags: Sequence[str]) -> None:
    """Run main.py in this process, measure it, and print the measurements."""
    import torch
    from torch.nn.modules.module import register_module_forward_hook
    from torch.optim.optimizer import register_optimizer_step_post_hook

    measured = {"torch": time.time() - start}
    sys.path.insert(0, str(HOME))
    import main
    from train import Objective

    frames, warm = 0, 0.0  # trained on since the first step; the time of that step

    def report() -> None:
        measured["peak_mib"] = peak_mib()
        measured["frames_per_second"] = frames / max(time.time() - warm, 1e-9)
        print(RESULT + json.dumps(measured), flush=True)

    def count_frames(module: torch.nn.Module, inputs: Any, _: Any) -> None:
        nonlocal frames
        if isinstance(module, Objective) and warm:
            frames += inputs[0].total

    def after_step(*_: Any) -> None:
        nonlocal warm
        if not warm:
            warm = time.time()
            measured["first_step"] = warm - start
        if time.time() - warm >= seconds:
            report()
            os._exit(0)  # training can't be ended from here otherwise

    register_module_forward_hook(count_frames)
    register_optimizer_step_post_hook(after_step)
    main.main(flags)
    report()


if __name__ == "__main__":
    main(float(sys.argv[1]), float(sys.argv[2]), sys.argv[3:])
