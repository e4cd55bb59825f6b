"""Weights, settings and run state, to disk and back, whole or not at all.

The folder of a run:

    settings.json      every setting, the versions of the libraries, the data's fingerprint
    metrics.csv        a line per epoch
    times.csv          how long each took
    loss.png           the same as a picture
    model.safetensors  the best weights so far, with all that is needed to play from them
    state.safetensors  where training stands, for --resume
    results.json       the scores, once training has ended
    samples/           what the best weights play

Tensors are kept as safetensors (Hugging Face 2022): a JSON header and raw numbers, so that reading
them runs no code of the file. The format itself does not notice a flipped bit: the header has a
SHA-256 of all the rest.
"""

import dataclasses
import hashlib
import json
import platform
import subprocess
import sys
import time
from importlib.metadata import version
from pathlib import Path
from typing import Any

import torch
from safetensors import SafetensorError, safe_open
from safetensors.torch import save_file
from torch import Tensor

from files import InputError, make_folder, one_line, whole_file
from model import PianoLSTM
from settings import ModelSettings, Settings

HOME = Path(__file__).parent
RUNS = Path("runs")
PRETRAINED = HOME / "pretrained" / "nottingham.safetensors"
FORMAT = 5  # of the files below; one more whenever an older program could not read them
OLDEST = 4  # that can still be read: the models before were others

# Settings of the recipe in older versions, and the value at which they did nothing.
GONE = {"weight_decay": 0.0, "average": 0.0}

Record = dict[str, Any]


def write_json(path: Path, values: Any) -> None:
    """Write values as JSON for people to read."""
    with whole_file(path) as temporary:
        temporary.write_text(json.dumps(values, indent=2) + "\n", encoding="utf-8")


def read_json(path: Path) -> Any:
    """Read what `write_json` wrote.

    Raises:
        InputError: the file is missing or no JSON.
    """
    try:
        return json.loads(path.read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise InputError(f"{path}: can't be read as JSON ({error})") from None


def write_tensors(path: Path, tensors: dict[str, Tensor], record: Record) -> None:
    """Write tensors and a record, anything JSON can hold, to one file."""
    contiguous = {name: tensor.detach().cpu().contiguous() for name, tensor in tensors.items()}
    record = {"format": FORMAT, **record}
    # One metadata key: safetensors writes several in random order, and the same seed should give
    # the same bytes.
    metadata = {"pianolstm": json.dumps({**record, "sha256": digest_of(contiguous, record)})}
    with whole_file(path) as temporary:
        try:
            save_file(contiguous, temporary, metadata=metadata)
        except SafetensorError as error:  # a full disk, say, which is not the tensors' fault
            raise OSError(f"{path}: can't be written ({one_line(error)})") from None


def digest_of(tensors: dict[str, Tensor], record: Record) -> str:
    """Return the SHA-256 of a record and of tensors, their names, types and shapes among it."""
    digest = hashlib.sha256(json.dumps(record, sort_keys=True).encode())
    for name, tensor in sorted(tensors.items()):
        digest.update(f"\n{name} {tensor.dtype} {tuple(tensor.shape)}\n".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def read_tensors(path: Path) -> tuple[dict[str, Tensor], Record]:
    """Read what `write_tensors` wrote.

    Raises:
        InputError: the file is missing, damaged, of another program, or of a newer version of ours.
            One of an older version is read, and what is to be said of that goes to stderr.
    """
    try:
        with safe_open(path, framework="pt") as file:
            record = json.loads((file.metadata() or {})["pianolstm"])
            version = int(record["format"])
            tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118, no dict
    except (KeyError, TypeError):
        raise InputError(f"{path}: not a file of this program (it has no settings in it)") from None
    except (SafetensorError, OSError, ValueError) as error:
        raise InputError(f"{path}: not a readable weights file ({error})") from None
    if version > FORMAT:
        raise InputError(f"{path}: written by a newer version of this program; update it")
    if version < OLDEST:
        raise InputError(f"{path}: a model of an older version of this program; train it again")
    if version < 5:
        print(f"note: {path}: of an older version, without a checksum", file=sys.stderr)
    elif record.pop("sha256", None) != digest_of(tensors, record):
        raise InputError(f"{path}: damaged, its checksum is another; get it or train it again")
    return tensors, record


def save_model(path: Path, model: PianoLSTM, record: Record) -> None:
    """Write the model's weights and settings, and a record of what it was trained on."""
    settings = dataclasses.asdict(model.settings)
    write_tensors(path, model.state_dict(), {"model": settings, **record})


def check_record(record: Record) -> None:
    """See that a model's record has what playing and scoring need.

    Raises:
        KeyError, ValueError: it has not.
    """
    if not isinstance(record["frame_beats"], (int, float)) or not 0 < record["frame_beats"] <= 16:
        raise ValueError("frame_beats is not a number of beats")
    if not all(isinstance(record[name], str) for name in ("dataset", "fingerprint")):
        raise ValueError("dataset and fingerprint are not names")


def load_model(path: Path, device: torch.device | str = "cpu") -> tuple[PianoLSTM, Record]:
    """Return the model of a weights file, ready to evaluate, and its record.

    Raises:
        InputError: the file can't be read or does not hold the weights its settings call for.
    """
    tensors, record = read_tensors(path)
    try:
        # No memory is taken for the sizes that a file claims before its tensors are seen to fit.
        with torch.device("meta"):
            model = PianoLSTM(ModelSettings.from_dict(record["model"]))
        check_record(record)
        model.load_state_dict(tensors, assign=True)
        for name, tensor in tensors.items():
            if tensor.dtype != torch.float32 or not tensor.isfinite().all():
                raise ValueError(f"{name} holds what are no float32 numbers")
    except (KeyError, TypeError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: settings and weights don't fit ({one_line(error)})") from None
    return model.to(device).eval(), record


def save_state(
    path: Path, model: PianoLSTM, optimizer: torch.optim.Optimizer, record: Record
) -> None:
    """Write where training stands: weights, Adam's moments, a record of the run."""
    tensors = {f"model.{name}": tensor for name, tensor in model.state_dict().items()}
    for index, moments in optimizer.state_dict()["state"].items():
        for name, tensor in moments.items():
            tensors[f"optimizer.{index}.{name}"] = tensor
    write_tensors(path, tensors, record)


def load_state(path: Path, model: PianoLSTM, optimizer: torch.optim.Optimizer) -> Record:
    """Put model and optimizer back to where `save_state` found them; return its record.

    Raises:
        InputError: the file can't be read or belongs to another model.
    """
    tensors, record = read_tensors(path)
    weights: dict[str, Tensor] = {}
    moments: dict[int, dict[str, Tensor]] = {}
    try:
        for name, tensor in tensors.items():
            kind, rest = name.split(".", 1)
            if kind == "model":
                weights[rest] = tensor
            else:
                index, moment = rest.split(".")
                moments.setdefault(int(index), {})[moment] = tensor
        model.load_state_dict(weights)
        parameters = dict(enumerate(model.parameters()))
        for number, kept in moments.items():
            shapes = {moment.shape for moment in kept.values() if moment.ndim}
            if shapes != {parameters[number].shape}:
                raise ValueError(f"the optimizer's moments of weight {number} have another shape")
        groups = optimizer.state_dict()["param_groups"]
        optimizer.load_state_dict({"state": moments, "param_groups": groups})
    except (KeyError, ValueError, RuntimeError) as error:
        raise InputError(f"{path}: does not belong to this run ({one_line(error)})") from None
    return record


# ---- runs ----------------------------------------------------------------------------------------


def new_run_dir(wanted: str | None, dataset: str) -> Path:
    """Make the folder of a new run.

    Raises:
        InputError: `wanted` is there already and not empty.
    """
    if wanted is not None:
        folder = Path(wanted)
        if not wanted.isprintable():
            raise InputError(f"--run_dir {wanted!r}: has characters that can't be printed")
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
        except FileExistsError:  # a run started within the same second has it
            continue
        return folder
    raise InputError(f"{RUNS}/{stem}: a thousand runs have this name; give --run_dir")


def write_settings(folder: Path, settings: Settings, record: Record) -> None:
    """Keep every setting, and what else decides the numbers, in the run's `settings.json`."""
    names = ("torch", "numpy", "scipy", "pretty_midi", "music21")
    versions = {name: version(name) for name in names}
    write_json(
        folder / "settings.json",
        {
            "settings": dataclasses.asdict(settings),
            **record,
            "versions": {"python": platform.python_version(), **versions},
            "threads": torch.get_num_threads(),
            "git_revision": git_revision(),
        },
    )


def read_settings(folder: Path) -> Settings:
    """Read the settings of a run.

    Raises:
        InputError: the folder is no run, or a setting of its is unknown or out of range.
    """
    path = folder / "settings.json"
    if not path.is_file():
        raise InputError(f"{folder}: not the folder of a run (it has no settings.json)")
    try:
        settings = read_json(path)["settings"]
        recipe = settings.get("train", {})
        for name, unused in GONE.items():
            if (value := recipe.pop(name, unused)) != unused:
                raise InputError(f"{path}: --{name} {value} is no more; train it again without")
        return Settings.from_dict(settings)
    except (KeyError, TypeError, ValueError, AttributeError) as error:
        raise InputError(f"{path}: not the settings of a run ({one_line(error)})") from None


def find_weights(where: str | None) -> Path:
    """Return the weights file meant by a run folder, a weights file or, for None, the newest run.

    Where there is no run yet, None is the model that comes with the program.

    Raises:
        InputError: there are no weights there.
    """
    if where is not None:
        path = Path(where)
        if path.is_dir():
            path /= "model.safetensors"
        if not path.is_file():
            raise InputError(f"{path}: no such weights file; name a run's folder or a weights file")
        return path
    runs = sorted(RUNS.glob("*/model.safetensors"), key=lambda path: path.stat().st_mtime)
    if runs:
        return runs[-1]
    if PRETRAINED.is_file():
        return PRETRAINED
    raise InputError(f"no run in {RUNS}/ to play from; train one with `python main.py`")


def git_revision() -> str | None:
    """Return the program's git commit, with a "+" if files have changed since; None without."""
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
