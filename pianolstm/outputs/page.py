"""A self-contained HTML page that shows and plays the samples of a run.

The page opens from its folder without a server or a network: style and script (page.css, page.js)
are part of it, and all links are relative. Rolls are SVG; a playhead follows the audio. Sources:
the HTML Standard on media elements; WAI-ARIA 1.2 on sliders.
"""

import dataclasses
import math
import os
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path
from typing import Any
from urllib.parse import quote

import numpy as np
import pretty_midi

from pianolstm.files import atomic_write
from pianolstm.parts import all_notes, complete, generated_notes
from pianolstm.piece import Metre, Note, Piece
from pianolstm.rolls import LOWEST_PITCH, PITCHES

_MARGIN = 2  # semitones shown above the highest note and below the lowest
_NOTE_GAP = 0.06  # beats
_LEVELS = (0.1, 0.7, 1.6, 3.0)  # nats between the colours: probability 0.9, 0.5, 0.2, 0.05
_BLACK_KEYS = (1, 3, 6, 8, 10)  # pitch classes


@dataclass(frozen=True)
class Sample:
    """A sample on the page. Paths are relative to the page, with `/` and without URL quoting."""

    title: str
    piece: Piece
    audio: str | None  # path of the .wav, if there is one
    files: tuple[str, ...]  # paths of all its files, to download
    warnings: tuple[str, ...] = ()
    facts: tuple[str, ...] = ()  # what is to be known before it is played: key, metre, tempo ...
    score: str | None = None  # path of the engraved score, an .svg, if there is one
    nats: np.ndarray | None = None  # (T, 88), surprise of each note, which colours the roll
    text: tuple[str, ...] = ()  # lines below the title

    @property
    def seconds(self) -> float:
        """Duration of the music, without the last notes' ringing."""
        return self.piece.beats * 60 / self.piece.bpm


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
    facts = [*sample.facts, _format_time(sample.seconds)]
    items = "".join(f"<li>{escape(fact)}</li>" for fact in facts)
    lines.append(f'<ul class="facts" aria-label="About {title}">{items}</ul>')
    if sample.warnings:
        items = "".join(f"<li>{escape(warning)}</li>" for warning in sample.warnings)
        lines.append(f'<ul class="warnings">{items}</ul>')
    lines.append(_roll_html(sample, element_id))
    if sample.audio:
        lines.append(f"""\
<audio controls preload="none" src="{_url(sample.audio)}" aria-label="Audio of {title}"></audio>
<p class="audio-error" role="alert"></p>""")
    if sample.score:
        lines.append(f"""\
<details class="score" open><summary>Score</summary>
<img src="{_url(sample.score)}" alt="Score of {title}" loading="lazy"></details>""")
    if sample.files:
        items = "".join(
            f'<li><a href="{_url(file)}" download>{escape(Path(file).name)}</a></li>'
            for file in sample.files
        )
        lines.append(f'<ul class="files" aria-label="Files of {title}">{items}</ul>')
    return "\n".join([*lines, "</section>"])


def _roll_html(sample: Sample, element_id: str) -> str:
    """Return a sample's roll with names of pitches and, if it has audio, a slider over it."""
    lowest, highest = _pitch_range(sample.piece)
    # No further than the piano, but for given notes beyond it.
    low = max(lowest - _MARGIN, min(lowest, LOWEST_PITCH))
    high = min(highest + _MARGIN, max(highest, LOWEST_PITCH + PITCHES - 1))
    pitches = high - low + 1
    named = [pitch for pitch in range(low, high + 1) if pitch % 12 == 0]
    named = named or [lowest]  # every C, else the lowest note
    names = "".join(
        f'<span style="top:{(high - pitch + 0.5) / pitches:.2%}">{escape(_note_name(pitch))}</span>'
        for pitch in named
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
    """Return pitches `low` to `high` of a piece as SVG, with a `rect` for each held note.

    One unit is one beat horizontally and one semitone vertically.
    """
    piece, pitches = complete(sample.piece), range(low, high + 1)
    beats, metre = _number(max(piece.beats, piece.frame_beats)), piece.metre or Metre()
    black = [high - pitch for pitch in pitches if pitch % 12 in _BLACK_KEYS]
    octaves = [high - pitch + 1 for pitch in pitches if pitch % 12 == 0]  # below every C
    count = max(0, math.ceil((piece.beats - metre.upbeat) / metre.bar_beats - 1e-6))
    bars = [_number(metre.upbeat + i * metre.bar_beats) for i in range(count)]
    playhead = f'<line class="playhead" y2="{len(pitches)}"/>\n'
    notes = "".join(
        f'<rect x="{_number(note.start)}" y="{high - note.pitch}"'
        f' width="{_number(note.end - note.start - _gap(note))}" height="1"{kind}/>\n'
        for kind, group in _groups(sample, piece)
        for note in group
    )
    return f"""\
<svg role="img" aria-labelledby="{title_id}" viewBox="0 0 {beats} {len(pitches)}" \
preserveAspectRatio="none">
<title id="{title_id}">{escape(_describe(sample))}</title>
<path class="black-keys" d="{"".join(f"M0 {y}h{beats}v1H0z" for y in black)}"/>
<path class="octaves" d="{"".join(f"M0 {y}h{beats}" for y in octaves)}"/>
<path class="bar-lines" d="{"".join(f"M{x} 0v{len(pitches)}" for x in bars)}"/>
{notes}{playhead if sample.audio else ""}</svg>"""


def _groups(sample: Sample, piece: Piece) -> Iterator[tuple[str, Iterable[Note]]]:
    """Yield the class attribute and the notes of each colour of a roll.

    With surprises, the frames of a note that have one colour are a rectangle.
    """
    if sample.nats is None:
        yield "", generated_notes(piece)
        yield ' class="given"', piece.given
        return
    levels = np.digitize(sample.nats, _LEVELS)
    for level in range(len(_LEVELS) + 1):
        part = dataclasses.replace(piece, roll=piece.roll & (levels == level))
        yield f' class="surprise-{level}"', generated_notes(part)


def _gap(note: Note) -> float:
    """Return the beats by which a note is drawn shorter, so that the next one stands apart."""
    return min(_NOTE_GAP, 0.2 * (note.end - note.start))


def _number(value: float) -> str:
    """Return a number of beats for SVG, without needless digits."""
    return f"{round(value, 4):g}" if value < 1e5 else f"{value:.4f}"


def _describe(sample: Sample) -> str:
    """Return the text alternative of a sample's roll."""
    low, high = map(_note_name, _pitch_range(sample.piece))
    notes = len(all_notes(sample.piece))
    content = f"{notes} note{'s' * (notes != 1)} from {low} to {high}" if notes else "silence"
    return f"Piano-roll of {sample.title}: {content}, {_format_time(sample.seconds)}"


def _pitch_range(piece: Piece) -> tuple[int, int]:
    """Return the lowest and the highest pitch that sounds; C4 and C5 for silence."""
    pitches = [note.pitch for note in all_notes(piece)] or [60, 72]
    return min(pitches), max(pitches)


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


def _note_name(pitch: int) -> str:
    """Return the name of a MIDI number, "C4" for 60."""
    return str(pretty_midi.note_number_to_name(pitch))
