"""Weights, training state and the folder of a run, written whole or not at all.

The folder of a run:

    settings.json      every setting, the versions of the libraries, the data's fingerprint
    metrics.csv        train and valid NLL of each epoch
    times.csv          duration of each epoch
    loss.png           the curves of metrics.csv
    model.safetensors  the weights with the lowest valid NLL, with all that sampling needs
    state.pt           weights, Adam's moments and history, for --resume
    results.json       the final evaluation
    samples/           pieces sampled from the best weights
    index.html         a page with the loss curve, the results and the samples

Weights are kept as safetensors (Hugging Face 2022), a JSON header and raw numbers, because people
pass them on: loading them runs no code. The format does not detect flipped bits, so the header
holds a SHA-256 of everything else.
"""

import hashlib
import io
import json
import math
import platform
import subprocess
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor, nn

from pianolstm.ending import EndCalibration
from pianolstm.files import InputError, atomic_write, make_folder, one_line, read_json, write_json

HOME = Path(__file__).parent.parent  # of the program
RUNS = Path("runs")
PRETRAINED = HOME / "pretrained"
DEFAULT_WEIGHTS = "nottingham.safetensors"
FORMAT = 6  # of weights and states; incremented when names or meanings change

Metadata = dict[str, Any]


# ---- weights -------------------------------------------------------------------------------------


def write_weights(path: Path, tensors: dict[str, Tensor], metadata: Metadata) -> None:
    """Write tensors, and metadata that JSON can hold, to a safetensors file with a checksum."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    metadata = {"format": FORMAT, **metadata}
    # One metadata entry: safetensors writes several in random order, and the same weights should
    # give the same bytes.
    header = {"pianolstm": json.dumps({**metadata, "sha256": _digest(contiguous, metadata)})}
    with atomic_write(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=header)
        except SafetensorError as error:  # a full disk, for example
            raise OSError(f"{path}: can't be written ({one_line(error)})") from None


def read_weights(path: Path) -> tuple[dict[str, Tensor], Metadata]:
    """Read a file of `write_weights`.

    Raises:
        InputError: the file is missing, damaged, of another program or of another version.
    """
    try:
        with safe_open(path, framework="pt") as file:
            metadata = json.loads((file.metadata() or {})["pianolstm"])
            written_as = int(metadata["format"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    except (KeyError, TypeError):
        raise InputError(f"{path}: not weights of this program (no settings in the file)") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable weights file ({one_line(error)})") from None
    _check_format(path, written_as)
    if metadata.pop("sha256", None) != _digest(tensors, metadata):
        raise InputError(f"{path}: damaged (wrong checksum); copy it or train it again")
    return tensors, metadata


def check_metadata(metadata: Metadata) -> None:
    """Check that the metadata of weights has what sampling and evaluation need.

    Raises:
        KeyError, ValueError: an entry is missing or has the wrong type.
    """
    frame_beats = metadata["frame_beats"]
    if not isinstance(frame_beats, (int, float)) or not 0 < frame_beats <= 16:
        raise ValueError("frame_beats is not a number of beats")
    seconds = metadata.get("frame_seconds", 1.0)
    if not isinstance(seconds, (int, float)) or not 0 < seconds <= 8:
        raise ValueError("frame_seconds is not a number of seconds")
    if not isinstance(metadata.get("min_frames", 0), int):
        raise ValueError("min_frames is not a number of frames")
    if not isinstance(metadata.get("sustain", False), bool):
        raise ValueError("sustain is neither true nor false")
    nlls = metadata.get("test_nlls") or {"values": [], "pieces": 0}
    if not all(isinstance(value, (int, float)) for value in [*nlls["values"], nlls["pieces"]]):
        raise ValueError("test_nlls are not numbers")
    if not all(math.isfinite(value) for value in EndCalibration.of_metadata(metadata)):
        raise ValueError("end_calibration is not finite")
    if not all(isinstance(metadata[name], str) for name in ("dataset", "fingerprint")):
        raise ValueError("dataset and fingerprint are not text")


def _digest(tensors: dict[str, Tensor], metadata: Metadata) -> str:
    """Return the SHA-256 of the metadata and of the tensors' names, types, shapes and bytes."""
    digest = hashlib.sha256(json.dumps(metadata, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _check_format(path: Path, written_as: int) -> None:
    if written_as > FORMAT:
        raise InputError(f"{path}: written by a newer version of this program; update it")
    if written_as < FORMAT:
        raise InputError(f"{path}: written by an older version of this program; train it again")


# ---- training state ------------------------------------------------------------------------------


def save_training_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer, history: list[dict[str, Any]]
) -> None:
    """Write the weights, the optimizer's state and the history of epochs."""
    state = {
        "format": FORMAT,
        "model": model.state_dict(),
        "optimizer": optimizer.state_dict(),
        "history": history,
    }
    buffer = io.BytesIO()  # torch.save writes the name of a file into it, but not that of a buffer
    torch.save(state, buffer)
    with atomic_write(path) as temporary:
        temporary.write_bytes(buffer.getbuffer())


def load_training_state(
    path: Path, model: nn.Module, optimizer: torch.optim.Optimizer
) -> list[dict[str, Any]]:
    """Restore model and optimizer from `save_training_state`; return the history.

    Raises:
        InputError: the file is damaged, of another version, or of another model.
    """
    try:
        state = torch.load(path, map_location="cpu", weights_only=True)
        written_as, history = int(state["format"]), list(state["history"])
    except Exception as error:  # torch.load raises many types on damaged files
        raise InputError(f"{path}: not a readable training state ({one_line(error)})") from None
    _check_format(path, written_as)
    try:
        model.load_state_dict(state["model"])
        optimizer.load_state_dict(state["optimizer"])
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: belongs to another run ({one_line(error)})") from None
    return history


# ---- the folder of a run -------------------------------------------------------------------------


def new_run_dir(wanted: str | None, dataset: str) -> Path:
    """Make the folder of a new run and return its path.

    Args:
        wanted: the folder the user named; None = runs/<date>-<time>-<dataset>.
        dataset: name of the data set.

    Raises:
        InputError: `wanted` exists and is not empty, or can't be made.
    """
    if wanted is not None:
        folder = Path(wanted)
        if not wanted.isprintable():
            raise InputError(f"--run_dir {wanted!r}: contains characters that can't be printed")
        try:
            make_folder(folder)
        except InputError as error:
            raise InputError(f"--run_dir {error}") from None
        if any(folder.iterdir()):
            raise InputError(f"--run_dir {folder}: not an empty folder; name a new one")
        return folder
    stem = f"{time.strftime('%Y%m%d-%H%M%S')}-{dataset}"
    make_folder(RUNS)
    for attempt in range(1, 1000):
        folder = RUNS / (stem if attempt == 1 else f"{stem}-{attempt}")
        try:
            folder.mkdir()
        except FileExistsError:  # another run started within the same second
            continue
        return folder
    raise InputError(f"{RUNS}/{stem}: a thousand runs have this name; give --run_dir")


def reopen_run(folder: Path, fingerprint: str) -> Path:
    """Prepare the folder of a stopped run for resuming and return its path.

    Raises:
        InputError: the run was trained on other data.
    """
    for leftover in folder.rglob(".*.tmp"):  # written in part when the run was killed
        leftover.unlink(missing_ok=True)
    if read_json(folder / "settings.json").get("fingerprint") != fingerprint:
        raise InputError(f"--resume {folder}: trained on other data; name them with --data")
    return folder


def write_run_settings(folder: Path, settings: dict[str, Any], details: Metadata) -> None:
    """Write `settings.json`: every setting, and whatever else decides the numbers of a run."""
    names = ("torch", "numpy", "scipy", "pretty_midi", "music21")
    versions = {name: version(name) for name in names}
    write_json(
        folder / "settings.json",
        {
            "settings": settings,
            **details,
            "versions": {"python": platform.python_version(), **versions},
            "threads": torch.get_num_threads(),
            "git_revision": git_revision(),
        },
    )


def find_weights(where: str | None) -> Path:
    """Return the weights file of a run's folder, or the file itself.

    Args:
        where: a run's folder, a weights file, or the name of weights in pretrained/, such as
            "jsb"; a run or file of that name comes first. None is the newest run in runs/; without
            any run, it is the pretrained model.

    Raises:
        InputError: there are no weights.
    """
    if where is not None:
        path = Path(where)
        if path.is_dir():
            path /= "model.safetensors"
        if path.is_file():
            return path
        if where in (shipped := pretrained_names()):
            return PRETRAINED / f"{where}.safetensors"
        names = "".join(f", or {name}" for name in shipped)
        raise InputError(
            f"{path}: no such weights file; name a run's folder or a weights file{names}"
        )
    runs = sorted(RUNS.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if runs:
        return runs[-1]
    if (PRETRAINED / DEFAULT_WEIGHTS).is_file():
        return PRETRAINED / DEFAULT_WEIGHTS
    raise InputError(f"no run in {RUNS}/ to sample from; train one with `python main.py`")


def pretrained_names() -> list[str]:
    """Return the names of the weights that come with the program."""
    return sorted(path.stem for path in PRETRAINED.glob("*.safetensors"))


def git_revision() -> str | None:
    """Return the program's git commit, with a "+" if files have changed since; None without git."""
    try:
        described = subprocess.run(
            ["git", "describe", "--always", "--abbrev=40", "--match=", "--dirty=+"],  # noqa: S607, git
            cwd=HOME,
            capture_output=True,
            text=True,
            check=True,
        )
    except (OSError, subprocess.CalledProcessError):
        return None
    return described.stdout.strip()
