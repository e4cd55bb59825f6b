"""The page of samples: its content, its links, escaping, and how a browser plays it."""

import shutil
import wave
from collections.abc import Iterator
from html.parser import HTMLParser
from pathlib import Path
from typing import Any, NamedTuple
from urllib.parse import unquote

import numpy as np
import pytest

from helpers import roll_from
from pianolstm.outputs.page import Sample, write_page

VOID = {"meta", "img"}  # elements without an end tag
FILES = ("samples/sample-7-1.mid", "samples/sample-7-1.wav", "samples/sample-7-1.png")
ROLL = roll_from({60, 64}, {60, 64}, {67}, set(), {60})
HOSTILE = "</title><script>alert('1')</script>\"&amp;<b>"


class Element(NamedTuple):
    tag: str
    attributes: dict[str, str]
    ancestors: tuple[int, ...]  # indices of the elements around it, outermost first
    text: list[str]


class Page(HTMLParser):
    """A page as a list of its elements; elements that overlap are an error."""

    def __init__(self, path: Path) -> None:
        super().__init__()
        self.elements: list[Element] = []
        self.open: list[int] = []
        self.source = path.read_text(encoding="utf-8")
        self.feed(self.source)
        self.close()
        assert self.open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        attributes = {name: value or "" for name, value in attrs}
        assert len(attributes) == len(attrs)
        self.elements.append(Element(tag, attributes, tuple(self.open), []))
        if tag not in VOID:
            self.open.append(len(self.elements) - 1)

    def handle_startendtag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.handle_starttag(tag, attrs)
        self.handle_endtag(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.elements[self.open.pop()].tag == tag

    def handle_data(self, data: str) -> None:
        for number in self.open:
            self.elements[number].text.append(data)

    def all(self, tag: str, **wanted: str) -> list[Element]:
        """Return the elements with this tag and these attributes."""
        return [e for e in self.elements if e.tag == tag and wanted.items() <= e.attributes.items()]

    def texts(self, *tags: str) -> list[str]:
        return ["".join(e.text).strip() for e in self.elements if e.tag in tags]

    def within(self, outer: Element, tag: str) -> list[Element]:
        (number,) = [i for i, e in enumerate(self.elements) if e is outer]
        return [e for e in self.all(tag) if number in e.ancestors]


def make(**values: Any) -> Sample:
    defaults = {"title": "Seed 1", "roll": ROLL, "seconds": 2.5, "audio": FILES[1], "files": FILES}
    return Sample(**{**defaults, **values})


def page_of(folder: Path, *samples: Sample, title: str = "Samples", **values: Any) -> Page:
    write_page(folder / "index.html", title=title, samples=samples, **values)
    return Page(folder / "index.html")


def full_page(folder: Path) -> Page:
    return page_of(
        folder,
        make(),
        make(title="Seed 2", warnings=("Half of it is silent.",)),
        numbers=[("NLL (nats per frame)", "0.87", "0.94"), ("accuracy", "71 %", "70 %")],
        picture="loss.png",
        settings={"seed": 7, "train": {"lr": 0.0025, "steps": 9200}},
    )


# ---- rolls ---------------------------------------------------------------------------------------


def bars_of(page: Page) -> list[tuple[int, ...]]:
    """Return (x, y, width, height) of every note."""
    wanted = ("x", "y", "width", "height")
    return sorted(tuple(int(bar.attributes[name]) for name in wanted) for bar in page.all("rect"))


def test_a_roll_has_a_rectangle_for_each_held_note(tmp_path: Path) -> None:
    page = page_of(tmp_path, make())
    # The top row is A4, 69, two above the highest note; the bottom row A#3, 58, two below the
    # lowest.
    assert bars_of(page) == [(0, 5, 2, 1), (0, 9, 2, 1), (2, 2, 1, 1), (4, 9, 1, 1)]
    (svg,) = page.all("svg")
    assert svg.attributes["viewbox"] == "0 0 5 12"


@pytest.mark.parametrize(("note", "box", "y"), [(21, "0 0 1 3", 2), (108, "0 0 1 3", 0)])
def test_a_roll_shows_no_pitches_beyond_the_piano(
    note: int, box: str, y: int, tmp_path: Path
) -> None:
    page = page_of(tmp_path, make(roll=roll_from({note})))
    assert page.all("svg")[0].attributes["viewbox"] == box
    assert bars_of(page) == [(0, y, 1, 1)]


@pytest.mark.parametrize(
    ("roll", "names"),
    [
        (roll_from({60}, {79}), {"C4": "89.58%", "C5": "39.58%"}),  # 21.5 and 9.5 rows of 24
        (roll_from({65}), {"F4": "50.00%"}),
        (roll_from(set()), {"C4": "85.29%", "C5": "14.71%"}),
    ],
    ids=["C", "no C", "silent"],
)
def test_every_c_is_named_or_else_the_lowest_note(
    roll: np.ndarray, names: dict[str, str], tmp_path: Path
) -> None:
    page = page_of(tmp_path, make(roll=roll))
    shown = {"".join(e.text): e.attributes["style"] for e in page.all("span")}
    assert shown == {name: f"top:{place}" for name, place in names.items()}


@pytest.mark.parametrize(
    ("roll", "text"),
    [
        (ROLL, "Piano-roll of Seed 1: 4 notes from C4 to G4, 0:02"),
        (roll_from({21}), "Piano-roll of Seed 1: 1 note from A0 to A0, 0:02"),
        (roll_from(set(), set()), "Piano-roll of Seed 1: silence, 0:02"),
        (ROLL[:0], "Piano-roll of Seed 1: silence, 0:02"),
    ],
    ids=["notes", "one", "silent", "empty"],
)
def test_a_roll_has_a_text_alternative(roll: np.ndarray, text: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, make(roll=roll))
    (svg,) = page.all("svg", role="img")
    assert int(svg.attributes["viewbox"].split()[2]) > 0  # SVG of no width is not rendered
    (title,) = page.within(svg, "title")
    assert title.attributes["id"] == svg.attributes["aria-labelledby"]
    assert "".join(title.text) == text


# ---- content -------------------------------------------------------------------------------------


def test_every_sample_has_audio_and_a_focusable_slider(tmp_path: Path) -> None:
    page = full_page(tmp_path)
    sections = page.all("section", **{"class": "sample"})
    assert len(sections) == 2
    for number, section in enumerate(sections, start=1):
        (audio,) = page.within(section, "audio")
        assert "controls" in audio.attributes
        assert audio.attributes["preload"] == "none"
        assert audio.attributes["src"] == FILES[1]
        (slider,) = [e for e in page.within(section, "div") if e.attributes.get("role") == "slider"]
        assert slider.attributes["tabindex"] == "0"
        assert slider.attributes["aria-label"] == f"Position in Seed {number}"
        values = {name: slider.attributes[f"aria-value{name}"] for name in ("min", "now", "max")}
        assert values == {"min": "0", "now": "0", "max": "2.5"}
        assert slider.attributes["aria-valuetext"] == "0:00 of 0:02"


def test_a_sample_without_audio_is_a_roll_and_its_files(tmp_path: Path) -> None:
    page = page_of(tmp_path, make(audio=None, files=FILES[:1]))
    assert len(bars_of(page)) == 4
    assert page.all("audio") + page.all("div", role="slider") + page.all("line") == []
    assert page.texts("a") == ["sample-7-1.mid"]


def test_warnings_scores_settings_and_the_loss_curve_are_shown(tmp_path: Path) -> None:
    page = full_page(tmp_path)
    assert "Half of it is silent." in page.texts("li")
    scores, settings = page.all("table")
    cells = ["".join(e.text) for e in page.within(scores, "td")]
    assert cells == ["", "0.87", "0.94", "71 %", "70 %"]
    heads = ["".join(e.text) for e in page.within(scores, "th")]
    assert heads == ["valid", "test", "NLL (nats per frame)", "accuracy"]
    names = ["".join(e.text) for e in page.within(settings, "th")]
    values = ["".join(e.text) for e in page.within(settings, "td")]
    assert list(zip(names, values, strict=True)) == [
        ("seed", "7"),
        ("train.lr", "0.0025"),
        ("train.steps", "9200"),
    ]
    assert page.within(page.all("details")[0], "table") == [settings]
    (picture,) = page.all("img", src="loss.png")
    assert "loss" in picture.attributes["alt"]


def test_a_page_without_samples_states_it(tmp_path: Path) -> None:
    page = page_of(tmp_path)
    assert "No samples." in page.texts("p")
    assert page.texts("h1", "h2") == ["Samples"]


def test_a_page_has_language_encoding_headings_in_order_and_unique_ids(tmp_path: Path) -> None:
    page = full_page(tmp_path)
    assert page.source.startswith("<!doctype html>\n")
    assert page.all("html", lang="en")
    assert page.all("meta", charset="utf-8")
    assert page.all("meta", name="viewport", content="width=device-width, initial-scale=1")
    headings = [e.tag for e in page.elements if e.tag in ("h1", "h2", "h3")]
    assert headings == ["h1", "h2", "h2", "h2"]
    assert page.texts("h1", "h2")[:3] == ["Samples", "Seed 1", "Seed 2"]
    ids = [e.attributes["id"] for e in page.elements if "id" in e.attributes]
    assert len(set(ids)) == len(ids)
    for element in page.elements:
        for name in ("aria-labelledby", "aria-describedby"):
            assert element.attributes.get(name, ids[0]) in ids


# ---- links and escaping --------------------------------------------------------------------------


def links_of(page: Page) -> list[str]:
    return [e.attributes[n] for e in page.elements for n in ("src", "href") if n in e.attributes]


def test_a_page_links_to_the_given_files_and_nowhere_else(tmp_path: Path) -> None:
    page = full_page(tmp_path)
    assert sorted(links_of(page)) == sorted([*FILES, FILES[1]] * 2 + ["loss.png"])
    for word in ("http", "://", '"//', "@import", "url(", "fetch"):
        assert word not in page.source, word


@pytest.mark.parametrize("name", ["a b&c?d#e%41.wav", "é\"'<.wav", "javascript:alert(1)", "\udcff"])
def test_links_are_quoted_paths_of_their_files(name: str, tmp_path: Path) -> None:
    page = page_of(tmp_path, make(audio=name, files=(name,)), picture=name)
    links = links_of(page)
    assert len(links) == 3
    for link in links:
        assert unquote(link, errors="surrogateescape") == name
        assert not set(link) & set(" :?#\"'<&")


@pytest.mark.parametrize("values", [{"audio": "/x.wav"}, {"files": ("//host/x.wav",)}])
def test_an_absolute_path_is_refused_and_nothing_is_written(
    values: dict[str, Any], tmp_path: Path
) -> None:
    with pytest.raises(ValueError, match="not relative to the page"):
        page_of(tmp_path, make(**values))
    assert list(tmp_path.iterdir()) == []


def test_text_is_escaped_everywhere(tmp_path: Path) -> None:
    page = page_of(
        tmp_path,
        make(title=HOSTILE, files=(HOSTILE,), warnings=(HOSTILE,)),
        title=HOSTILE,
        numbers=[(HOSTILE, HOSTILE, HOSTILE)],
        settings={HOSTILE: {HOSTILE: HOSTILE}},
    )
    harmless = full_page(tmp_path)
    assert len(page.all("script")) == len(harmless.all("script")) == 1
    assert page.all("b") == []
    for tag in ("h1", "h2", "li", "td", "th"):
        assert HOSTILE in page.texts(tag)
    assert page.texts("title")[0] == HOSTILE
    assert page.texts("title")[1].startswith(f"Piano-roll of {HOSTILE}: ")
    assert page.all("audio", **{"aria-label": f"Audio of {HOSTILE}"})


def test_invalid_unicode_is_replaced(tmp_path: Path) -> None:
    assert page_of(tmp_path, title="a\udcffb").texts("h1") == ["a?b"]


def test_equal_arguments_give_equal_bytes(tmp_path: Path) -> None:
    first = full_page(tmp_path / "first")
    assert full_page(tmp_path / "second").source == first.source
    assert [path.name for path in (tmp_path / "first").iterdir()] == ["index.html"]


# ---- in a browser --------------------------------------------------------------------------------


def write_beep(path: Path, seconds: float) -> None:
    samples = (8000 * np.sin(np.arange(int(8000 * seconds)) / 3)).astype("<i2")
    with wave.open(str(path), "wb") as file:
        file.setparams((1, 2, 8000, 0, "NONE", ""))
        file.writeframes(samples.tobytes())


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Start a headless Chromium; skip, and state why, if it is missing or does not start."""
    reason = "playwright is not installed, so no browser can be driven"
    playwright = pytest.importorskip("playwright.sync_api", reason=reason)
    names = ("chromium", "chromium-browser", "google-chrome")
    installed = next(filter(None, map(shutil.which, names)), None)
    with playwright.sync_playwright() as driver:
        program = installed or driver.chromium.executable_path
        if not Path(program).is_file():
            pytest.skip(f"no browser: neither {', '.join(names)} nor playwright's own")
        flags = ["--autoplay-policy=no-user-gesture-required", "--mute-audio"]
        try:
            chromium = driver.chromium.launch(executable_path=program, args=flags)
        except playwright.Error as error:
            pytest.skip(f"the browser {program} does not start ({error.message.splitlines()[0]})")
        yield chromium
        chromium.close()


def playhead_of(page: Any) -> float:
    """Return the frame of the first sample's playhead."""
    transform = page.locator(".playhead").first.get_attribute("transform")
    return float(transform.removeprefix("translate(").removesuffix(")"))


def test_a_browser_plays_and_seeks_and_the_page_fits_its_window(
    browser: Any, tmp_path: Path
) -> None:
    write_beep(tmp_path / "a b.wav", 2)
    long = make(title="T" * 90, roll=np.tile(ROLL, (50, 1)), seconds=90, audio="a b.wav", files=())
    short = make(seconds=2, audio="a b.wav", roll=roll_from({60}, {60}, {64}, {64}))
    page_of(tmp_path, short, long, numbers=[("score", "1.25 nats", "1.5 nats")])
    page = browser.new_page(viewport={"width": 1280, "height": 800})
    messages: list[str] = []
    page.on("console", lambda message: messages.append(message.text))
    page.on("pageerror", lambda error: messages.append(str(error)))
    page.on(
        "request", lambda request: messages.extend([request.url] * ("file:" not in request.url))
    )
    page.goto((tmp_path / "index.html").as_uri())
    slider = page.get_by_role("slider", name="Position in Seed 1", exact=True)

    slider.press("Space")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.1")
    page.wait_for_function("document.querySelectorAll('rect.playing').length > 0")
    positions = page.evaluate(
        "async () => { const seen = new Set(); for (let i = 0; i < 20; i++) {"
        " await new Promise(requestAnimationFrame);"
        " seen.add(document.querySelector('.playhead').getAttribute('transform')); }"
        " return seen.size; }"
    )
    assert positions > 5  # it moves smoothly; "timeupdate" fires only four times a second
    slider.press("Space")
    assert page.evaluate("document.querySelector('audio').paused")

    slider.press("Home")
    slider.press("ArrowRight")
    assert playhead_of(page) == 2  # one second of two, so frame 2 of 4
    assert slider.get_attribute("aria-valuetext") == "0:01 of 0:02"
    assert slider.get_attribute("aria-valuenow") == "1"
    playing = page.locator("rect").evaluate_all("all => all.map(rect => rect.matches('.playing'))")
    assert playing[:2] == [False, True]
    box = slider.bounding_box()
    slider.click(position={"x": box["width"] / 4, "y": 5})
    assert playhead_of(page) == pytest.approx(1, abs=0.05)
    page.mouse.down()
    page.mouse.move(box["x"] + box["width"] / 2, box["y"] + 5)
    assert playhead_of(page) == pytest.approx(2, abs=0.05)
    page.mouse.up()

    # On a busy machine two seconds may pass before the next check.
    page.evaluate("document.querySelectorAll('audio').forEach(audio => { audio.loop = true; })")
    for number in (1, 0):  # one plays at a time
        page.get_by_role("slider").nth(number).press("Space")
        page.wait_for_function(
            "number => [...document.querySelectorAll('audio')].every("
            "(audio, i) => audio.paused === (i !== number))",
            arg=number,
        )
    for scheme, background in (("light", "rgb(246, 245, 242)"), ("dark", "rgb(18, 21, 24)")):
        page.emulate_media(color_scheme=scheme)
        for width in (360, 1280):
            page.set_viewport_size({"width": width, "height": 800})
            assert page.evaluate("document.documentElement.scrollWidth") == width
        assert page.evaluate("getComputedStyle(document.body).backgroundColor") == background
    assert messages == []


def test_a_browser_scrolls_a_wide_roll_and_respects_reduced_motion(
    browser: Any, tmp_path: Path
) -> None:
    write_beep(tmp_path / "long.wav", 90)
    page_of(tmp_path, make(roll=np.tile(ROLL, (50, 1)), seconds=90, audio="long.wav"))
    page = browser.new_page(viewport={"width": 360, "height": 800}, reduced_motion="reduce")
    page.goto((tmp_path / "index.html").as_uri())
    page.get_by_role("slider").press("Space")
    page.wait_for_function("document.querySelector('audio').currentTime > 0.1")
    page.get_by_role("slider").press("Space")
    for _ in range(7):
        page.get_by_role("slider").press("PageUp")
    edges = page.evaluate(
        "[document.querySelector('.playhead'), document.querySelector('.viewport')]"
        ".map(e => e.getBoundingClientRect()).map(box => [box.left, box.right])"
    )
    assert edges[1][0] < edges[0][0] < edges[1][1]
    assert playhead_of(page) == int(playhead_of(page)) > 90  # whole frames


def test_a_browser_reports_missing_audio(browser: Any, tmp_path: Path) -> None:
    page_of(tmp_path, make(audio="missing.wav"))
    page = browser.new_page()
    page.goto((tmp_path / "index.html").as_uri())
    assert not page.get_by_role("alert").is_visible()
    page.get_by_role("slider").press("Space")
    page.get_by_text("The audio can't be played.").wait_for()
