"""Several processes as one: `torchrun --nproc_per_node=N main.py ...`.

Each takes its share of every batch, and PyTorch's own engine averages their gradients
(DistributedDataParallel; Li et al. 2020, arXiv:2006.15704), over gloo on CPUs and NCCL on GPUs.
Only the first writes files and prints.
"""

import os
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import torch
from torch import Tensor, distributed

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """The processes that train together, and which of them this one is."""

    rank: int = 0
    size: int = 1

    @property
    def first(self) -> bool:
        """Whether this is the process that writes."""
        return self.rank == 0

    def agree(self, value: T | None) -> T:
        """Return the first process's value, in every one."""
        box = [value]
        if self.size > 1:
            distributed.broadcast_object_list(box)
        return box[0]  # type: ignore[return-value]

    def sum(self, values: Tensor) -> Tensor:
        """Return the sum over the processes, in every one."""
        if self.size > 1:
            distributed.all_reduce(values)
        return values

    @contextmanager
    def first_goes_first(self) -> Iterator[None]:
        """Let the others follow when the first has done it: what it downloads, they find."""
        if self.size > 1 and not self.first:
            distributed.barrier()
        yield
        if self.size > 1 and self.first:
            distributed.barrier()


ALONE = World()


@contextmanager
def joined(device: torch.device) -> Iterator[tuple[World, torch.device]]:
    """Join the processes that torchrun started, if any; give them, and the device of this one."""
    size = int(os.environ.get("WORLD_SIZE", "1"))
    if size == 1:
        yield ALONE, device
        return
    if device.type == "cuda":
        device = torch.device("cuda", int(os.environ["LOCAL_RANK"]))
        torch.cuda.set_device(device)
    distributed.init_process_group("nccl" if device.type == "cuda" else "gloo")
    world, stdout = World(distributed.get_rank(), size), sys.stdout
    try:
        with Path(os.devnull).open("w", encoding="utf-8") as nowhere:
            sys.stdout = stdout if world.first else nowhere
            yield world, device
    finally:
        sys.stdout = stdout
        distributed.destroy_process_group()
