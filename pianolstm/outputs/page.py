"""A self-contained HTML page that shows and plays the samples of a run.

The page opens from its folder without a server or a network: style and script (page.css, page.js)
are part of it, and all links are relative. Rolls are SVG; a playhead follows the audio. Sources:
the HTML Standard on media elements; WAI-ARIA 1.2 on sliders.
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

from pianolstm.files import atomic_write
from pianolstm.midi import roll_to_notes
from pianolstm.rolls import LOWEST_PITCH, PITCHES

_MARGIN = 2  # semitones shown above the highest note and below the lowest
_BLACK_KEYS = (1, 3, 6, 8, 10)  # pitch classes
_LEVELS = (0.1, 0.7, 1.6, 3.0)  # nats between the colours: probability 0.9, 0.5, 0.2, 0.05
_C4, _C5 = 60 - LOWEST_PITCH, 72 - LOWEST_PITCH  # columns


@dataclass(frozen=True)
class Sample:
    """A sample on the page. Paths are relative to the page, with `/` and without URL quoting."""

    title: str
    roll: np.ndarray  # (T, 88) bool, row = one frame, column 0 = MIDI 21 (A0)
    seconds: float  # duration
    audio: str | None  # path of the .wav, if there is one
    files: tuple[str, ...]  # paths of all its files, to download
    warnings: tuple[str, ...] = ()
    nats: np.ndarray | None = None  # (T, 88), surprise of each note, which colours the roll
    text: tuple[str, ...] = ()  # lines below the title


def write_page(
    path: Path,
    *,
    title: str,
    samples: Sequence[Sample],
    numbers: Sequence[tuple[str, str, str]] = (),
    picture: str | None = None,
    settings: Mapping[str, Any] | None = None,
) -> None:
    """Write a page of samples and, if given, of the run that made them.

    Equal arguments give equal bytes.

    Args:
        path: the page, usually index.html.
        title: heading of the page.
        samples: the samples, in the order of the page.
        numbers: rows of the table of scores: label, value on valid, value on test.
        picture: path of the loss curve, relative to the page.
        settings: settings by name, or groups of them by the group's name.

    Raises:
        InputError: the path is not writable.
        ValueError: a path of a sample or of the picture is not relative.
    """
    style = Path(__file__).with_name("page.css").read_text(encoding="utf-8")
    script = Path(__file__).with_name("page.js").read_text(encoding="utf-8")
    hint = "There is no audio to play."
    if any(sample.audio for sample in samples):
        hint = "Click a roll to move there. On the keyboard, arrows move, space plays and pauses."
    sections = "\n".join(
        _sample_html(sample, f"sample-{i}") for i, sample in enumerate(samples, start=1)
    )
    page = f"""\
<!doctype html>
<html lang="en">
<head>
<meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>{escape(title)}</title>
<style>
{style}</style>
</head>
<body>
<main>
<h1>{escape(title)}</h1>
<p class="hint" id="hint">{hint}</p>
{sections or "<p>No samples.</p>"}
{_run_html(numbers, picture, settings)}</main>
<script>
{script}</script>
</body>
</html>
"""
    with atomic_write(path) as temporary:
        # "replace": text may come from file names, which are not always valid Unicode.
        temporary.write_text(page, encoding="utf-8", errors="replace", newline="\n")


# ---- a sample ------------------------------------------------------------------------------------


def _sample_html(sample: Sample, element_id: str) -> str:
    """Return the section of a sample."""
    title = escape(sample.title)
    lines = [
        f'<section class="sample" aria-labelledby="{element_id}">\n'
        f'<h2 id="{element_id}">{title}</h2>'
    ]
    lines += [f"<p>{escape(line)}</p>" for line in sample.text]
    if sample.warnings:
        items = "".join(f"<li>{escape(warning)}</li>" for warning in sample.warnings)
        lines.append(f'<ul class="warnings">{items}</ul>')
    lines.append(_roll_html(sample, element_id))
    if sample.audio:
        lines.append(f"""\
<audio controls preload="none" src="{_url(sample.audio)}" aria-label="Audio of {title}"></audio>
<p class="audio-error" role="alert"></p>""")
    if sample.files:
        items = "".join(
            f'<li><a href="{_url(file)}" download>{escape(Path(file).name)}</a></li>'
            for file in sample.files
        )
        lines.append(f'<ul class="files" aria-label="Files of {title}">{items}</ul>')
    return "\n".join([*lines, "</section>"])


def _roll_html(sample: Sample, element_id: str) -> str:
    """Return a sample's roll with names of pitches and, if it has audio, a slider over it."""
    lowest, highest = _column_range(sample.roll)
    low, high = max(lowest - _MARGIN, 0), min(highest + _MARGIN, PITCHES - 1)
    pitches = high - low + 1
    named = [column for column in range(low, high + 1) if (column + LOWEST_PITCH) % 12 == 0]
    named = named or [lowest]  # every C, else the lowest note
    names = "".join(
        f'<span style="top:{(high - column + 0.5) / pitches:.2%}">{escape(_note_name(column))}'
        "</span>"
        for column in named
    )
    slider = f"""
<div role="slider" tabindex="0" aria-label="Position in {escape(sample.title)}" \
aria-describedby="hint" aria-valuemin="0" aria-valuemax="{round(sample.seconds, 3)}" \
aria-valuenow="0" aria-valuetext="0:00 of {_format_time(sample.seconds)}"></div>"""
    return f"""\
<div class="roll" style="--pitches:{pitches};--seconds:{round(sample.seconds, 3)}">
<div class="pitch-names" aria-hidden="true">{names}</div>
<div class="viewport"><div class="canvas">
{_roll_svg(sample, low, high, f"{element_id}-roll")}{slider if sample.audio else ""}
</div></div>
</div>"""


def _roll_svg(sample: Sample, low: int, high: int, title_id: str) -> str:
    """Return columns `low` to `high` of a roll as SVG, with a `rect` for each held note.

    One unit is one frame horizontally and one semitone vertically.
    """
    frames, columns = max(len(sample.roll), 1), range(low, high + 1)
    black = [high - c for c in columns if (c + LOWEST_PITCH) % 12 in _BLACK_KEYS]
    octaves = [high - c + 1 for c in columns if (c + LOWEST_PITCH) % 12 == 0]  # below every C
    playhead = f'<line class="playhead" y2="{len(columns)}"/>\n'
    notes = "".join(
        f'<rect{level} x="{start}" y="{high - column}" width="{end - start}" height="1"/>\n'
        for column, start, end, level in _rects(sample)
    )
    return f"""\
<svg role="img" aria-labelledby="{title_id}" viewBox="0 0 {frames} {len(columns)}" \
preserveAspectRatio="none">
<title id="{title_id}">{escape(_describe(sample))}</title>
<path class="black-keys" d="{"".join(f"M0 {y}h{frames}v1H0z" for y in black)}"/>
<path class="octaves" d="{"".join(f"M0 {y}h{frames}" for y in octaves)}"/>
{notes}{playhead if sample.audio else ""}</svg>"""


def _rects(sample: Sample) -> Iterator[tuple[int, int, int, str]]:
    """Yield column, first frame, frame after the last and class of each rectangle of a roll.

    That is a note; or, with surprises, the frames of a note that have one colour.
    """
    if sample.nats is None:
        yield from ((*note, "") for note in roll_to_notes(sample.roll))
        return
    levels = np.digitize(sample.nats, _LEVELS)
    for level in range(len(_LEVELS) + 1):
        for note in roll_to_notes(sample.roll & (levels == level)):
            yield (*note, f' class="surprise-{level}"')


def _describe(sample: Sample) -> str:
    """Return the text alternative of a sample's roll."""
    low, high = map(_note_name, _column_range(sample.roll))
    notes = sum(1 for _ in roll_to_notes(sample.roll))
    content = f"{notes} note{'s' * (notes != 1)} from {low} to {high}" if notes else "silence"
    return f"Piano-roll of {sample.title}: {content}, {_format_time(sample.seconds)}"


def _column_range(roll: np.ndarray) -> tuple[int, int]:
    """Return the lowest and the highest column that sounds; C4 and C5 for silence."""
    columns = np.flatnonzero(roll.any(axis=0)).tolist()
    return (columns[0], columns[-1]) if columns else (_C4, _C5)


# ---- the run -------------------------------------------------------------------------------------


def _run_html(
    numbers: Sequence[tuple[str, str, str]], picture: str | None, settings: Mapping[str, Any] | None
) -> str:
    """Return the section with a run's loss curve, scores and settings; "" if none is given."""
    parts = []
    if picture is not None:
        parts.append(f"""\
<figure><img src="{_url(picture)}" alt="Curves of the training and validation loss by epoch">
<figcaption>Loss by epoch</figcaption></figure>""")
    if numbers:
        rows = "\n".join(
            f'<tr><th scope="row">{escape(label)}</th><td>{escape(valid)}</td>'
            f"<td>{escape(test)}</td></tr>"
            for label, valid, test in numbers
        )
        parts.append(f"""\
<div class="scores"><table><caption>Scores of the best weights</caption>
<thead><tr><td></td><th scope="col">valid</th><th scope="col">test</th></tr></thead>
<tbody>\n{rows}\n</tbody></table></div>""")
    if settings:
        rows = "\n".join(
            f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>'
            for name, value in _flatten(settings)
        )
        parts.append(f"<details><summary>Settings</summary>\n<table>\n{rows}\n</table></details>")
    if not parts:
        return ""
    heading = '<section aria-labelledby="run">\n<h2 id="run">How this was made</h2>'
    return "\n".join([heading, *parts, "</section>\n"])


def _flatten(settings: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, str]]:
    """Yield the name and the value of each setting, "train.lr" for `lr` of the group `train`."""
    for name, value in settings.items():
        if isinstance(value, Mapping):
            yield from _flatten(value, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", str(value)


# ---- text ----------------------------------------------------------------------------------------


def _url(path: str) -> str:
    """Return a relative path as a URL for an HTML attribute.

    Raises:
        ValueError: the path is absolute, so the page could not be moved along with its files.
    """
    if path.startswith("/"):
        raise ValueError(f"{path}: not relative to the page")
    # fsencode: file names are bytes, not always UTF-8. Quoting ":" prevents a URL scheme.
    return quote(os.fsencode(path))


def _format_time(seconds: float) -> str:
    """Return a duration as minutes and whole seconds, 1:05."""
    return f"{int(seconds) // 60}:{int(seconds) % 60:02}"


def _note_name(column: int) -> str:
    """Return the name of the pitch of a roll's column, "A0" for 0."""
    return str(pretty_midi.note_number_to_name(column + LOWEST_PITCH))
