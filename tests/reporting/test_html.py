"""The page. References: an HTML parser, an SVG renderer's pixels, and a real browser where the machine has one."""

from __future__ import annotations

import importlib.util
import io
import os
import re
import shutil
import subprocess
import sys
from html.parser import HTMLParser
from pathlib import Path
from xml.etree import ElementTree

import numpy as np
import pytest
import resvg_py
from PIL import Image

from grip_edge.reporting.chart import COLOURS, ticks
from grip_edge.reporting.html import to_html
from grip_edge.reporting.plots import frontier, plots, stage_bars, ttft_distribution
from tests.reporting.made_up import report, rows

_BROWSERS = ("chromium", "chromium-browser", "google-chrome", "chrome")
_VOID = {"meta", "br", "link", "img"}


class _Reader(HTMLParser):
    """Open tags as a stack, texts, and whatever a page would load."""

    def __init__(self) -> None:
        super().__init__()
        self.open: list[str] = []
        self.texts: list[str] = []
        self.loaded: list[str] = []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.loaded += [value or "" for name, value in attrs if name in ("src", "href", "xlink:href")]
        if tag not in _VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        assert self.open.pop() == tag

    def handle_data(self, data: str) -> None:
        self.texts.append(data)


def test_the_page_is_well_formed_whole_and_loads_nothing() -> None:
    reader = _Reader()
    page = to_html(report(target_ttft_ms=60.0))
    reader.feed(page)
    reader.close()
    assert reader.open == []
    assert reader.loaded == []
    assert "@import" not in page
    assert "url(" not in page
    text = " ".join(reader.texts)
    for expected in ("use budget 0.25", "36/144", "VmHWM", "1.500 J (VDD_IN", "NVIDIA Jetson <Orin>", "rates measured"):
        assert expected in text


def test_names_from_outside_are_escaped() -> None:
    page = to_html(report())
    assert "<Orin>" not in page
    assert "&lt;Orin&gt;" in page


def test_plots_that_lack_numbers_are_left_out() -> None:
    from dataclasses import replace

    made = report()
    assert set(plots(made)) == {"stages", "ttft", "accuracy"}
    assert set(plots(replace(made, rows=tuple(replace(row, accuracy=None) for row in made.rows)))) == {"stages", "ttft"}


def _pixels(svg: str) -> np.ndarray:
    drawn = resvg_py.svg_to_bytes(svg_string=svg)
    return np.asarray(Image.open(io.BytesIO(bytes(drawn))).convert("RGB")).astype(int)


def _colour(text: str) -> tuple[int, ...]:
    return tuple(int(text[place : place + 2], 16) for place in (1, 3, 5))


@pytest.mark.parametrize("name", ["stages", "ttft", "accuracy"])
def test_plots_are_drawn_as_xml_says(name: str) -> None:
    svg = plots(report())[name]
    ElementTree.fromstring(svg)
    found = _pixels(svg)
    height = int(re.findall(r"height='(\d+)'", svg)[0])
    assert found.shape == (height, 760, 3)
    assert (found < 250).any(axis=-1).mean() > 0.01  # not an empty sheet


def test_bars_are_as_long_as_the_means() -> None:
    """Pixels of each stage's colour, row by row, against the means' shares."""
    drawn = rows()
    found = _pixels(stage_bars(drawn))
    for stage, colour in zip(("vision", "prefill"), (COLOURS[1], COLOURS[3]), strict=True):
        hits = (np.abs(found - _colour(colour)).max(axis=-1) < 3).sum(axis=1)
        small, large = (hits[58 + 36 * index + 12] for index in range(2))
        expected = drawn[0].times_ms[stage].mean / drawn[1].times_ms[stage].mean
        assert small / large == pytest.approx(expected, abs=0.03)


def test_the_distribution_reaches_the_top_in_every_colour() -> None:
    found = _pixels(ttft_distribution(rows()))
    for colour in COLOURS[:2]:
        lines = np.nonzero((np.abs(found - _colour(colour)).max(axis=-1) < 3).sum(axis=1))[0]
        assert lines.max() - lines[lines > 45].min() > 200


def test_a_frontier_keeps_what_nothing_beats() -> None:
    assert frontier([(3, 90), (1, 80), (2, 79), (4, 89), (5, 95)]) == [(1, 80), (3, 90), (5, 95)]


def test_ticks_are_round_and_within() -> None:
    assert ticks(0, 100) == [0, 20, 40, 60, 80, 100]
    assert ticks(0.013, 0.047) == [0.02, 0.03, 0.04]
    assert len(ticks(91.3, 98.2)) >= 3


def _browser(page: Path, shot: Path) -> list[str] | None:
    """The command that takes a screenshot with a browser of this machine."""
    named = os.environ.get("GRIP_EDGE_BROWSER")
    browser = named or next((path for name in _BROWSERS if (path := shutil.which(name))), None)
    if browser is not None:
        flags = ["--headless", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1100,2200"]
        return [browser, *flags, f"--screenshot={shot}", page.as_uri()]
    if importlib.util.find_spec("PyQt6") and importlib.util.find_spec("PyQt6.QtWebEngineWidgets"):
        return [sys.executable, "-m", "tests.reporting.qt_browser", str(page), str(shot)]
    return None


def test_a_browser_shows_the_page(tmp_path: Path) -> None:
    """A screenshot holds the bars' colours and the verdict's green."""
    page, shot = tmp_path / "report.html", tmp_path / "shot.png"
    command = _browser(page, shot)
    if command is None:
        pytest.skip(
            f"no browser here: none of {', '.join(_BROWSERS)}, no GRIP_EDGE_BROWSER; or  pip install PyQt6-WebEngine"
        )
    page.write_text(to_html(report()), encoding="utf-8")
    subprocess.run(command, check=True, capture_output=True, timeout=200)
    found = np.asarray(Image.open(shot).convert("RGB")).astype(int)
    for colour in (*COLOURS[:4], "#e7f5ee"):
        assert (np.abs(found - _colour(colour)).max(axis=-1) < 3).sum() > 50, colour
