"""Event files of a run for TensorBoard, which need the package tensorboard.

Source: torch.utils.tensorboard, which writes them (https://pytorch.org/docs/stable/tensorboard.html).
"""

from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Protocol

from pianolstm.files import InputError


class EpochLosses(Protocol):
    """The losses of an epoch, in nats per frame."""

    @property
    def epoch(self) -> int:
        """Number of the epoch, from 1."""

    @property
    def train(self) -> float:
        """NLL of the training split."""

    @property
    def valid(self) -> float:
        """NLL of the validation split."""


class TimedEpoch(EpochLosses, Protocol):
    """The losses of an epoch, and its speed."""

    @property
    def frames_per_second(self) -> float:
        """Frames trained in a second."""


def load_summary_writer() -> Any:
    """Return the class `SummaryWriter`.

    Raises:
        InputError: the package tensorboard is not installed.
    """
    try:
        from torch.utils.tensorboard import SummaryWriter  # takes a second, and is rarely there
    except ImportError:
        raise InputError(
            "--tensorboard: the package tensorboard is not installed; get it with"
            " `pip install tensorboard`, or leave the flag out"
        ) from None
    return SummaryWriter


@contextmanager
def epoch_log(folder: Path | None) -> Iterator[Callable[[TimedEpoch], None]]:
    """Yield a function that adds an epoch to an event file.

    Args:
        folder: the run's folder, which gets a new event file; None = write nothing.

    Raises:
        InputError: the package tensorboard is not installed.
    """
    if folder is None:
        yield lambda epoch: None
        return
    writer = load_summary_writer()(str(folder))

    def add(epoch: TimedEpoch) -> None:
        writer.add_scalar("nll/train", epoch.train, epoch.epoch)
        writer.add_scalar("nll/valid", epoch.valid, epoch.epoch)
        writer.add_scalar("frames_per_second", epoch.frames_per_second, epoch.epoch)
        writer.flush()

    try:
        yield add
    finally:
        writer.close()
