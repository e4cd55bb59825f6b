"""The machine: where to compute, on how many threads, in what precision."""

import torch

from files import InputError
from settings import MachineSettings


def use_machine(settings: MachineSettings) -> torch.device:
    """Set the number of CPU threads and return the device that the settings name.

    Raises:
        InputError: this machine has no such device.
    """
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
