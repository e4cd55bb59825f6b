"""The machine: where to compute, on how many threads, in what precision."""

import ctypes
import sys

import torch

from files import InputError
from settings import MachineSettings

# Of glibc's malloc.h.
M_TRIM_THRESHOLD, M_MMAP_THRESHOLD = -1, -3
MOST = 2**25  # bytes, the largest threshold for mmap that there is


def use_machine(settings: MachineSettings) -> torch.device:
    """Set up memory and CPU threads, and return the device that the settings name.

    Raises:
        InputError: this machine has no such device.
    """
    keep_freed_memory()
    if settings.threads:
        torch.set_num_threads(settings.threads)
    there = {
        "cuda": torch.cuda.is_available(),
        "mps": torch.backends.mps.is_available(),
        "cpu": True,
    }
    name = settings.device
    if name == "auto":
        name = next(name for name, available in there.items() if available)
    if not there[name]:
        raise InputError(f"--device {name}: not on this machine; use --device auto or cpu")
    return torch.device(name)


def choose_precision(wanted: str, device: torch.device) -> str:
    """Return what to train in, "float32" or "bfloat16": as wanted, or what suits the device.

    Args:
        wanted: the setting `precision`.
        device: that training is on.
    """
    if wanted != "auto":
        return wanted
    if device.type == "cuda":
        fast = torch.cuda.is_bf16_supported(including_emulation=False)
    else:
        fast = device.type == "cpu" and bool(torch.cpu.get_capabilities().get("amx_bf16"))
    return "bfloat16" if fast else "float32"


def keep_freed_memory() -> None:
    """Keep the memory of tensors that are gone for those of the next step, on Linux.

    glibc gives pieces of some MB back to the system as soon as they are free, and at the next step
    gets them anew, page by page: of a default run's training, up to an eighth of the time.
    """
    if sys.platform == "linux":
        mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # musl has none
        if mallopt is not None:
            mallopt(M_MMAP_THRESHOLD, MOST)
            mallopt(M_TRIM_THRESHOLD, 2**31 - 1)
