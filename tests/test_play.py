"""`generate.py`, as its users call it: flags in, files and one-line errors out."""

import os
import re
import shlex
import shutil
from pathlib import Path

import pytest

import checkpoint
import generate
import main
from helpers import roll_from
from helpers_main import SMALL, call
from midi import midi_to_roll, roll_to_midi

HOME = Path(__file__).parent.parent


def test_it_plays_the_newest_run_without_any_model_flag(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=runs/old")
    call(main, "--data", small_set, *SMALL, "--run_dir=runs/new", "--hidden_size=9")
    os.utime("runs/old/model.safetensors", (0, 0))
    assert call(generate, "--num_samples=2", "--seconds=3", "--seed=7", "--output_dir=out") == 0
    assert f"runs{os.sep}new" in capsys.readouterr().out
    found = sorted(path.name for path in Path("out").iterdir())
    kinds = ("json", "mid", "png", "wav")
    assert found == ["index.html", *[f"sample-7-{i}.{kind}" for i in (1, 2) for kind in kinds]]
    roll, _ = midi_to_roll("out/sample-7-1.mid", frame_beats=0.5)
    assert len(roll) == 12  # 3 seconds of eighth notes at 120 beats a minute


def test_it_plays_the_model_that_comes_with_the_program_where_there_is_no_run(small_set, capsys):
    if not checkpoint.PRETRAINED.is_file():
        pytest.skip("pretrained/ is not in this checkout")
    assert call(generate, "--num_samples=1", "--seconds=2", "--seed=1") == 0
    assert "nottingham.safetensors" in capsys.readouterr().out


def test_it_writes_over_nothing_unless_forced(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    flags = ["run", "--num_samples=1", "--seconds=1", "--seed=3", "--output_dir=out"]
    assert call(generate, *flags) == 0
    before = Path("out/sample-3-1.mid").stat().st_mtime_ns
    assert call(generate, *flags) == 2
    assert "--force" in capsys.readouterr().err
    assert Path("out/sample-3-1.mid").stat().st_mtime_ns == before
    assert call(generate, *flags, "--force") == 0


def test_it_says_what_each_tune_is_like_and_what_of_it_is_copied(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    flags = ["run", "--num_samples=2", "--beats=40", "--seed=3", "--formats=mid"]
    capsys.readouterr()
    assert call(generate, *flags, "--output_dir=one") == 0
    said = capsys.readouterr().out.splitlines()
    lines = [line for line in said if line.startswith("one")]
    assert len(lines) == 2
    assert all(re.search(r"\d+ notes.*silence.*longest hold.*copied 0%$", line) for line in lines)
    assert said[-1] == "listen  one/index.html"
    Path(small_set).rename(
        "elsewhere"
    )  # the training set is not at hand: nothing is known of copies
    assert call(generate, *flags, "--output_dir=two") == 0
    assert "copied" not in capsys.readouterr().out


def test_it_measures_tunes_beside_the_test_split(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    capsys.readouterr()
    assert call(generate, "run", "--measure=3", "--seed=1", "--output_dir=out") == 0
    said = capsys.readouterr().out
    assert "# 3 sampled tunes beside the test split of small-set" in said
    assert sorted(path.name for path in Path("out").iterdir()) == ["measures.md", "measures.png"]
    Path(small_set).unlink()
    assert call(generate, "run", "--measure=3") == 2


def test_two_lengths_are_one_too_many(small_set, capsys):
    assert call(generate, "--beats=4", "--bars=1") == 2
    assert "--bars, --beats: give one of them" in capsys.readouterr().err


def test_it_draws_and_says_a_seed_when_none_is_given(small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=run")
    capsys.readouterr()
    assert call(generate, "run", "--num_samples=1", "--seconds=1", "--output_dir=out") == 0
    seed = re.search(r"seed (\d+)", capsys.readouterr().out).group(1)
    assert Path(f"out/sample-{seed}-1.mid").is_file()


@pytest.mark.parametrize(
    "flags",
    [["nowhere"], ["--temperature=-1"], ["--primer_notes=H9"], ["--primer_notes=C12"], ["--bpm=0"]],
)
def test_a_wrong_call_of_generate_gets_one_line_and_status_2(flags, small_set, capsys):
    call(main, "--data", small_set, *SMALL, "--run_dir=runs/run")
    capsys.readouterr()
    assert call(generate, *flags, "--output_dir=out") == 2
    said = capsys.readouterr().err
    assert said.count("\n") == 1, said
    assert not Path("out").exists()


# ---- README --------------------------------------------------------------------------------------


def test_the_examples_of_playing_run_as_the_readme_has_them(small_set, capsys):
    readme = (HOME / "README.md").read_text(encoding="utf-8")
    examples = re.findall(r"^python generate\.py(.*)$", readme, re.MULTILINE)
    assert len(examples) >= 10
    call(main, "--data", small_set, *SMALL, "--run_dir=runs/NAME")
    melody = roll_from(*[{55 + i % 5, 71 + i % 7} for i in range(24)])
    roll_to_midi(melody, 0.5).write("my.mid")
    Path("samples").mkdir()
    roll_to_midi(melody, 0.5).write("samples/sample-7-1.mid")
    shutil.copytree(HOME / "pretrained", "pretrained")
    for example in examples:
        words = shlex.split(example, comments=True)
        if "--measure" in words:  # most of a minute; test_pretrained.py runs it
            continue
        assert call(generate, *words) == 0, (example, capsys.readouterr().err)
        assert "index.html" in capsys.readouterr().out
