"""A page to listen to: index.html, beside the sounds, scores and pictures of a run.

It opens from its folder, without a server or a network: what it does not hold itself is in files
whose addresses are relative to it. Rolls are drawn as SVG; a line moves over them in time with the
sound. Sources: the HTML Standard on media elements; WAI-ARIA 1.2 on sliders.
"""

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pretty_midi

from files import whole_file
from midi import held_notes
from settings import LOWEST, K

MARGIN = 2  # keys that are drawn above the highest note and below the lowest
BLACK = (1, 3, 6, 8, 10)  # semitones above C


@dataclass(frozen=True)
class Tune:
    """A tune of a page; addresses are relative to the page, as paths are written, unquoted."""

    title: str
    roll: np.ndarray  # (T, 88) bool, row = one frame, column 0 = MIDI 21 (A0)
    seconds: float  # of the whole
    sound: str | None  # the address of the .wav, if there is one
    files: tuple[str, ...]  # the addresses of all its files, to download
    remarks: tuple[str, ...] = ()  # what a listener should know, a line each


STYLE = """
:root { color-scheme: light dark; --paper: #f6f5f2; --card: #fff; --ink: #1d2329; --soft: #56616b;
  --line: #d5dade; --black: #eff2f4; --note: #1f5f8b; --lit: #d4430c; --warn: #fdf0d5; }
@media (prefers-color-scheme: dark) {
  :root { --paper: #121518; --card: #1c2126; --ink: #e7e9eb; --soft: #a3adb6;
    --line: #3a424a; --black: #161a1e; --note: #6aaedb; --lit: #ffb454; --warn: #3b2f14; } }
* { box-sizing: border-box; }
body { margin: 0; background: var(--paper); color: var(--ink); overflow-wrap: anywhere;
  font: 1rem/1.5 system-ui, sans-serif; }
main { max-width: 72rem; margin: auto; padding: 1.5rem 1rem 3rem; }
h1 { font-size: 1.7rem; line-height: 1.2; margin: 0 0 .5rem; }
h2 { font-size: 1.15rem; margin: 0 0 .6rem; }
a { color: var(--note); }
.soft, figcaption, caption { color: var(--soft); font-size: .875rem; }
section { background: var(--card); border: 1px solid var(--line); border-radius: .6rem;
  padding: 1rem; margin-top: 1.25rem; }
.remarks { list-style: none; margin: 0 0 .75rem; padding: .4rem .75rem; border-radius: .4rem;
  background: var(--warn); font-size: .9rem; }
.roll { display: grid; grid-template-columns: 2.2rem minmax(0, 1fr);
  --height: clamp(7rem, var(--keys) * .45rem, 26rem); }
.names { position: relative; height: var(--height); color: var(--soft); font-size: .75rem; }
.names span { position: absolute; right: .4rem; transform: translateY(-50%); line-height: 1; }
.window { overflow-x: auto; outline: 1px solid var(--line); border-radius: .25rem; }
.window:has(:focus-visible) { outline: 3px solid var(--lit); }
.sheet { position: relative; height: var(--height); min-width: calc(var(--seconds) * 40px); }
svg { display: block; width: 100%; height: 100%; }
svg * { vector-effect: non-scaling-stroke; }
rect { fill: var(--note); stroke: var(--card); }
rect.lit { fill: var(--lit); }
.black { fill: var(--black); }
.octaves { stroke: var(--line); fill: none; }
.playhead { stroke: var(--lit); stroke-width: 2; }
[role=slider] { position: absolute; inset: 0; cursor: pointer; outline: none; }
audio { display: block; width: 100%; height: 2.5rem; margin-top: .75rem; }
.lost:empty { display: none; }
.files { display: flex; flex-wrap: wrap; gap: .25rem 1rem; margin: .75rem 0 0; padding: 0;
  list-style: none; font-size: .9rem; }
figure { margin: 0 0 1rem; max-width: 48rem; }
img { display: block; max-width: 100%; height: auto; border-radius: .4rem; background: #fff; }
figcaption { margin-top: .4rem; }
table { border-collapse: collapse; margin-bottom: 1rem; font-variant-numeric: tabular-nums; }
caption { text-align: left; padding-bottom: .4rem; }
th, td { text-align: left; vertical-align: top; padding: .25rem 1.25rem .25rem 0;
  border-bottom: 1px solid var(--line); }
th { font-weight: 500; overflow-wrap: normal; }
.numbers { overflow-x: auto; }
.numbers td { white-space: nowrap; }
thead th { color: var(--soft); }
summary { cursor: pointer; }
details table { margin: .75rem 0 0; font-size: .875rem; }
@media (prefers-reduced-motion: no-preference) { rect { transition: fill .12s; } }
"""

SCRIPT = """
"use strict";
const still = matchMedia("(prefers-reduced-motion: reduce)");
const clock = (s) => Math.floor(s / 60) + ":" + String(Math.floor(s % 60)).padStart(2, "0");

function bring(tune, audio) {
  const slider = tune.querySelector("[role=slider]"), view = tune.querySelector(".window");
  const playhead = tune.querySelector(".playhead"), seconds = Number(slider.ariaValueMax);
  const frames = tune.querySelector("svg").viewBox.baseVal.width;
  const notes = [...tune.querySelectorAll("rect")].map((bar) => {
    const start = bar.x.baseVal.value;
    return { bar, start, end: start + bar.width.baseVal.value };
  });
  let shown = -1, told = "";

  function draw() {
    const at = Math.min(audio.currentTime / seconds, 1) * frames, frame = Math.floor(at);
    playhead.setAttribute("transform", `translate(${still.matches ? frame : at})`);
    if (frame !== shown) {
      for (const { bar, start, end } of notes) {
        bar.classList.toggle("lit", start <= frame && frame < end);
      }
      shown = frame;
    }
    const text = `${clock(audio.currentTime)} of ${clock(seconds)}`;
    if (text !== told) {  // once a second: a screen reader says each change
      slider.ariaValueText = told = text;
      slider.ariaValueNow = Math.floor(audio.currentTime);
    }
  }

  function follow() {  // turns the page before the playhead leaves it
    const x = (audio.currentTime / seconds) * slider.clientWidth, left = view.scrollLeft;
    if (x < left || x > left + 0.95 * view.clientWidth) {
      view.scrollLeft = x - 0.1 * view.clientWidth;
    }
  }

  function run() {
    draw();
    follow();
    if (!audio.paused) requestAnimationFrame(run);
  }

  function seek(to) {
    audio.currentTime = Math.min(Math.max(to, 0), seconds);
    draw();
  }

  function seekUnder(event) {
    const box = slider.getBoundingClientRect();
    seek(((event.clientX - box.left) / box.width) * seconds);
  }

  // A finger drags the roll along and seeks by tapping; all others seek by dragging as well.
  const drags = (event) => event.pointerType !== "touch" && event.buttons & 1;
  slider.addEventListener("pointerdown", (event) => {
    if (drags(event)) slider.setPointerCapture(event.pointerId);
  });
  slider.addEventListener("pointermove", (event) => drags(event) && seekUnder(event));
  slider.addEventListener("click", seekUnder);
  const steps = { ArrowLeft: -1, ArrowDown: -1, ArrowRight: 1, ArrowUp: 1,
    PageDown: -5, PageUp: 5, Home: -Infinity, End: Infinity };  // seconds
  slider.addEventListener("keydown", (event) => {
    if (event.ctrlKey || event.altKey || event.metaKey) return;
    if (event.key === " ") {
      if (audio.paused) audio.play().catch(() => {});  // "error" below says what there is to say
      else if (!event.repeat) audio.pause();
    } else if (event.key in steps) {
      seek(audio.currentTime + steps[event.key]);
      follow();
    } else return;
    event.preventDefault();
  });
  audio.addEventListener("play", () => {
    for (const other of document.querySelectorAll("audio")) if (other !== audio) other.pause();
    run();
  });
  for (const name of ["seeking", "timeupdate", "ended"]) audio.addEventListener(name, draw);
  audio.addEventListener("error", () => {
    tune.querySelector(".lost").textContent = "The sound can't be played. Is its file still there?";
  });
}

for (const tune of document.querySelectorAll(".tune")) {
  const audio = tune.querySelector("audio");
  if (audio) bring(tune, audio);
}
"""


def address(path: str) -> str:
    """Return a relative path as an address for an attribute.

    Raises:
        ValueError: it starts at a root, so the page could not be moved along with its files.
    """
    if path.startswith("/"):
        raise ValueError(f"{path}: not relative to the page")
    # Names of files are bytes, not always UTF-8. A quoted colon can't end the name of a scheme.
    return quote(os.fsencode(path))


def clock(seconds: float) -> str:
    """Return whole seconds as minutes and seconds, 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def note_name(key: int) -> str:
    """Return the name of a column of a roll, "A0" for 0."""
    return str(pretty_midi.note_number_to_name(key + LOWEST))


def sounding_range(roll: np.ndarray) -> tuple[int, int]:
    """Return the lowest and the highest key of a roll, (T, 88) bool; C4 and C5 if it is silent."""
    keys = np.flatnonzero(roll.any(axis=0)).tolist()
    return (keys[0], keys[-1]) if keys else (39, 51)


def describe(tune: Tune) -> str:
    """Return what a tune's picture shows, in words."""
    low, high = map(note_name, sounding_range(tune.roll))
    notes = sum(1 for _ in held_notes(tune.roll))
    said = f"{notes} note{'s' * (notes != 1)} from {low} to {high}" if notes else "silence"
    return f"Piano-roll of {tune.title}: {said}, {clock(tune.seconds)}"


def draw_svg(tune: Tune, low: int, high: int, name: str) -> str:
    """Return the keys from `low` to `high` of a roll as SVG, a frame wide and a key high by 1.

    Args:
        tune: whose roll, (T, 88) bool, is drawn, a `rect` for each note held.
        low: the key at the bottom.
        high: the key at the top.
        name: the id of the picture's title.
    """
    frames, keys = max(len(tune.roll), 1), range(low, high + 1)
    black = [high - key for key in keys if (key + LOWEST) % 12 in BLACK]
    octaves = [high - key + 1 for key in keys if (key + LOWEST) % 12 == 0]  # below every C
    playhead = f'<line class="playhead" y2="{len(keys)}"/>\n'
    bars = "".join(
        f'<rect x="{start}" y="{high - key}" width="{end - start}" height="1"/>\n'
        for key, start, end in held_notes(tune.roll)
    )
    return f"""\
<svg role="img" aria-labelledby="{name}" viewBox="0 0 {frames} {len(keys)}" \
preserveAspectRatio="none">
<title id="{name}">{escape(describe(tune))}</title>
<path class="black" d="{"".join(f"M0 {y}h{frames}v1H0z" for y in black)}"/>
<path class="octaves" d="{"".join(f"M0 {y}h{frames}" for y in octaves)}"/>
{bars}{playhead if tune.sound else ""}</svg>"""


def show_roll(tune: Tune, name: str) -> str:
    """Return a tune's roll with the names of its keys and, if it has sound, a slider over it."""
    lowest, highest = sounding_range(tune.roll)
    low, high = max(lowest - MARGIN, 0), min(highest + MARGIN, K - 1)
    keys = high - low + 1
    named = [key for key in range(low, high + 1) if (key + LOWEST) % 12 == 0] or [lowest]
    names = "".join(
        f'<span style="top:{(high - key + 0.5) / keys:.2%}">{escape(note_name(key))}</span>'
        for key in named
    )
    slider = f"""
<div role="slider" tabindex="0" aria-label="Position in {escape(tune.title)}" \
aria-describedby="hint" aria-valuemin="0" aria-valuemax="{round(tune.seconds, 3)}" \
aria-valuenow="0" aria-valuetext="0:00 of {clock(tune.seconds)}"></div>"""
    return f"""\
<div class="roll" style="--keys:{keys};--seconds:{round(tune.seconds, 3)}">
<div class="names" aria-hidden="true">{names}</div>
<div class="window"><div class="sheet">
{draw_svg(tune, low, high, f"{name}-roll")}{slider if tune.sound else ""}
</div></div>
</div>"""


def show_tune(tune: Tune, name: str) -> str:
    """Return the section of a tune."""
    title = escape(tune.title)
    lines = [f'<section class="tune" aria-labelledby="{name}">\n<h2 id="{name}">{title}</h2>']
    if tune.remarks:
        remarks = "".join(f"<li>{escape(remark)}</li>" for remark in tune.remarks)
        lines.append(f'<ul class="remarks">{remarks}</ul>')
    lines.append(show_roll(tune, name))
    if tune.sound:
        source = address(tune.sound)
        lines.append(f"""\
<audio controls preload="none" src="{source}" aria-label="Sound of {title}"></audio>
<p class="lost" role="alert"></p>""")
    if tune.files:
        links = "".join(
            f'<li><a href="{address(file)}" download>{escape(Path(file).name)}</a></li>'
            for file in tune.files
        )
        lines.append(f'<ul class="files" aria-label="Files of {title}">{links}</ul>')
    return "\n".join([*lines, "</section>"])


def flat(settings: Mapping[str, Any], group: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the value of every setting, "train.lr" for `lr` in a mapping `train`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from flat(value, f"{group}{name}.")
        else:
            yield f"{group}{name}", str(value)


def show_training(
    numbers: Sequence[tuple[str, str, str]], picture: str | None, settings: Mapping[str, Any] | None
) -> str:
    """Return the section of what a run came to and what it was made from; "" if none is given."""
    parts = []
    if picture is not None:
        parts.append(f"""\
<figure><img src="{address(picture)}" alt="Curves of the training and validation loss by epoch">
<figcaption>Loss by epoch</figcaption></figure>""")
    if numbers:
        rows = "\n".join(
            f'<tr><th scope="row">{escape(label)}</th><td>{escape(valid)}</td>'
            f"<td>{escape(test)}</td></tr>"
            for label, valid, test in numbers
        )
        parts.append(f"""\
<div class="numbers"><table><caption>Scores of the best weights</caption>
<thead><tr><td></td><th scope="col">valid</th><th scope="col">test</th></tr></thead>
<tbody>\n{rows}\n</tbody></table></div>""")
    if settings:
        rows = "\n".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
            for name, value in flat(settings)
        )
        parts.append(f"<details><summary>Settings</summary>\n<table>\n{rows}\n</table></details>")
    if not parts:
        return ""
    heading = '<section aria-labelledby="made">\n<h2 id="made">How this was made</h2>'
    return "\n".join([heading, *parts, "</section>\n"])


def write_page(
    path: Path,
    *,
    title: str,
    tunes: Sequence[Tune],
    numbers: Sequence[tuple[str, str, str]] = (),
    picture: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a page of tunes and, if given, of the run they are from; equal arguments, equal bytes.

    Args:
        path: the page, most often index.html.
        title: its heading.
        tunes: in their order on the page.
        numbers: rows of a table: a label, its values on the valid and on the test split.
        picture: the address of the loss curve, relative to the page.
        settings: by name, or mappings of them by group.

    Raises:
        InputError: the place can't be written to.
        ValueError: an address is not relative.
    """
    sounds = any(tune.sound for tune in tunes)
    hint = "Click a roll to move there. From the keyboard, arrows move and space plays or pauses."
    shown = "\n".join(show_tune(tune, f"tune-{i}") for i, tune in enumerate(tunes, start=1))
    page = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>{STYLE}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="soft" id="hint">{hint if sounds else "There is no sound to play."}</p>
{shown or "<p>No tunes.</p>"}
{show_training(numbers, picture, settings)}</main>
<script>{SCRIPT}</script>
</body>
</html>
"""
    with whole_file(path) as temporary:
        # Text may come from names of files, which need not be Unicode.
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")
