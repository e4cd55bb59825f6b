"""The documentation: its commands run, its flags exist, its links lead somewhere."""

import dataclasses
import re
import runpy
import shlex
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import generate
import main
from helpers import ROOT, call, roll_from, write_pieces
from helpers_sampling import train_small_run
from pianolstm.checkpoint import PRETRAINED
from pianolstm.midi import roll_to_midi
from settings import GROUPS, PRESETS, PlaySettings

README, *DOCS = [ROOT / "README.md", *sorted((ROOT / "docs").glob("*.md"))]
TEXTS = {path: path.read_text(encoding="utf-8") for path in (README, *DOCS)}
FLAGS = {
    field.name for group in (*GROUPS.values(), PlaySettings) for field in dataclasses.fields(group)
} | {"preset", "resume", "evaluate", "inspect", "json", "help"}
OTHER_PROGRAMS = {  # flags of pipenv, torchrun, tensorboard and the benchmarks
    "dev", "gap", "jobs", "large", "logdir", "nnodes", "nproc_per_node", "only", "rdzv_backend",
    "rdzv_endpoint", "rounds",
}  # fmt: skip

# ---- commands ------------------------------------------------------------------------------------


def fences(path: Path, language: str = "") -> list[str]:
    """Return the fenced blocks of a language in a file."""
    return re.findall(rf"^```{language}\n(.*?)^```", TEXTS[path], re.MULTILINE | re.DOTALL)


def commands(program: str) -> list[str]:
    """Return the commands in fenced blocks, without comments, each once."""
    guides = [README, ROOT / "docs" / "training.md", ROOT / "docs" / "generation.md"]
    lines = "".join(block for path in guides for block in fences(path)).splitlines()
    start = f"python {program}"
    lines = [line.removeprefix("pipenv run ") for line in lines]
    found = [line[len(start) :].split(" #")[0].strip() for line in lines if line.startswith(start)]
    return list(dict.fromkeys(found))


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return train_small_run(tmp_path_factory.mktemp("trained"))


@pytest.fixture(scope="module")
def named(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder with the music that the commands name."""
    home = tmp_path_factory.mktemp("named")
    write_pieces(home)
    melody = roll_from(*[{55 + i % 5, 71 + i % 7} for i in range(80)])
    folder = [f"path/to/folder-of-midi/{i}.mid" for i in range(30)]
    for i, name in enumerate(["my.mid", "samples/sample-7-1.mid", *folder]):
        path = home / name
        path.parent.mkdir(parents=True, exist_ok=True)
        # Each file is another piece: copies are in one split.
        roll_to_midi(np.insert(melody, i % 24, melody[0], axis=0), 0.5).write(str(path))
    return home


@pytest.fixture
def here(trained: Path, named: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Return the current folder, in which all files that the commands name exist."""
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)
    shutil.copytree(named, tmp_path, dirs_exist_ok=True)
    shutil.copytree(trained, "runs/NAME")
    Path("pretrained").symlink_to(PRETRAINED)
    return tmp_path


@pytest.mark.parametrize("command", commands("main.py"))
def test_the_documented_commands_of_main_run(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if "--resume" not in words and "--data" not in words:
        words.append("--data=small set.pickle")  # in place of a named set
    if not {"--resume", "--evaluate", "--inspect"} & set(words):
        small = ["--epochs=1", "--num_samples=1", "--seconds=4"]
        small += [] if "--init_from" in words else ["--embed_size=8", "--hidden_size=8"]
        words += [flag for flag in small if flag.split("=")[0] not in command]
    assert call(main, *words) == 0, capsys.readouterr().err


@pytest.mark.parametrize("command", commands("generate.py"))
def test_the_documented_commands_of_generate_run(
    here: Path, command: str, capsys: pytest.CaptureFixture[str]
) -> None:
    words = shlex.split(command)
    if "--evaluate_samples" in words:  # with the data of the small run, and few samples
        words = ["runs/NAME", *words[1:], "--evaluate_samples=3"]
    elif not {"--seconds", "--beats", "--bars", "--infill", "--harmonize"} & set(words):
        words.append("--seconds=10")
    assert call(generate, *words, "--num_samples=1") == 0, capsys.readouterr().err


def test_the_documented_commands_of_torchrun_have_flags_of_main() -> None:
    text = "".join(TEXTS.values())
    launches = re.findall(r"^torchrun .* main\.py (.*)$", text, re.MULTILINE)
    assert launches
    for words in launches:
        main.parse_flags(shlex.split(words))


def test_the_documented_python_code_runs(here: Path) -> None:
    (code,) = fences(ROOT / "docs" / "generation.md", "python")
    played: list[Any] = []
    exec(code.replace("play(piece)", "played.append(piece)"), {"played": played})  # noqa: S102, ours
    assert [piece.roll.shape for piece in played] == [(64, 88)] * 2


# ---- flags and figures ---------------------------------------------------------------------------


def test_the_table_of_flags_is_that_of_the_settings(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv("PIANO_DATA_DIR", raising=False)  # the default of --data_dir
    script = runpy.run_path(str(ROOT / ".ci" / "flags"))
    assert TEXTS[ROOT / "docs" / "flags.md"] == script["flags_markdown"](), "run .ci/flags"


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_flag_that_is_mentioned_exists(path: Path) -> None:
    mentioned = re.findall(r"(?<![\w-])--(?:no-)?([a-z][\w-]*)", TEXTS[path])
    assert set(mentioned) <= FLAGS | OTHER_PROGRAMS


def test_the_documented_values_of_the_best_preset_are_those_of_the_two_sets() -> None:
    recipes = [PRESETS["best"](frames) for frames in (176_561, 13_807)]  # Nottingham, JSB
    for name in ("attention_dropout", "dropout", "transpose_prob", "max_steps"):
        (row,) = re.findall(rf"^\| `--{name}` \|.*$", TEXTS[ROOT / "docs" / "training.md"], re.M)
        cells = [cell.split(" (")[0] for cell in row.strip("| ").split(" | ")[2:]]
        assert [float(cell.replace(",", "")) for cell in cells] == [r[name] for r in recipes]


# ---- links ---------------------------------------------------------------------------------------


def anchors(path: Path) -> set[str]:
    """Return the anchors that GitHub gives the headings of a file."""
    text = re.sub(r"^```.*?^```", "", path.read_text("utf-8"), flags=re.MULTILINE | re.DOTALL)
    headings = re.findall(r"^#+ (.*)$", text, re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: path.name)
def test_every_relative_link_leads_to_a_file_and_a_heading_in_it(path: Path) -> None:
    for link in re.findall(r"\]\(([^)\s]+)\)", TEXTS[path]):
        if not link.startswith("http"):
            name, _, anchor = link.partition("#")
            target = path.parent / name if name else path
            assert target.exists(), link
            assert not anchor or anchor in anchors(target), link


def test_the_readme_links_to_every_document() -> None:
    assert {path.name for path in DOCS} <= set(re.findall(r"\]\(docs/([\w.]+)", TEXTS[README]))


def test_the_tree_of_the_readme_has_every_module() -> None:
    modules = [*ROOT.glob("*.py"), *(ROOT / "pianolstm").rglob("*.py")]
    names = {path.name for path in modules} - {"__init__.py"}
    assert not {name for name in names if name not in TEXTS[README].split("## The tree")[1]}


# ---- docstrings ----------------------------------------------------------------------------------


def test_every_name_in_backticks_in_the_code_exists() -> None:
    modules = [*ROOT.glob("*.py"), *(ROOT / "pianolstm").rglob("*.py")]
    code = "".join(path.read_text(encoding="utf-8") for path in modules)
    words = set(re.findall(r"\w+", re.sub(r"`[^`\n]*`", "", code)))
    quoted = set(re.findall(r"`(\w+_\w+)`", code))
    assert len(quoted) > 50
    assert quoted <= words
