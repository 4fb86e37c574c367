"""From finished turns to tables, sentences and a JSON document.

A value of a point is the median over its requests, without turns that others disturbed where there are calm ones.
Sentences are made from the fits alone.
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass
from math import floor, log10
from pathlib import Path
from statistics import median
from typing import Any

from benchmarks.peers.report import machine_line
from benchmarks.scaling.axes import Axis, Fit, Point
from benchmarks.scaling.growth import Growth, grow
from benchmarks.scaling.rounds import Turn, turns_of

Row = dict[str, float]

PICTURE = "scaling.png"
TITLES = {
    "preprocess_ms": "image ms",
    "vision_ms": "vision ms",
    "select_ms": "select ms",
    "prefill_ms": "prefill ms",
    "ttft_ms": "TTFT ms",
    "token_ms": "decode ms/token",
    "tokens_per_sec": "tokens/s",
    "all_ms": "all answers ms",
    "each_ms": "per answer ms",
    "peak_rss_mb": "peak RSS MB",
}
_DIGITS = {"preprocess_ms": 1, "vision_ms": 1, "select_ms": 1, "token_ms": 1, "tokens_per_sec": 1}
_POWERS = {1: "", 2: " squared"}


@dataclass(frozen=True)
class Measured:
    """One axis: a row and its turns for each point that has any; a growth for each fit."""

    axis: Axis
    rows: tuple[tuple[Point, Row], ...]
    turns: tuple[Turn, ...]
    growths: tuple[tuple[Fit, Growth], ...]

    def xy(self, quantity: str, line: str | None) -> tuple[list[float], list[float]]:
        chosen = [(point, row) for point, row in self.rows if line is None or point.line == line]
        return [point.at for point, _ in chosen], [row[quantity] for _, row in chosen]


def measured(folder: Path, axis: Axis, others: float) -> Measured:
    """``others`` is the share of the machine that others may have had in a turn that counts as calm."""
    turns = {point: _calm(turns_of(folder, axis, point), others) for point in axis.points}
    rows = tuple((point, _row(found)) for point, found in turns.items() if found)
    whole = Measured(axis, rows, tuple(turn for found in turns.values() for turn in found), ())
    lines = {None, *(point.line for point, _ in rows)} if rows else set()
    fits = [fit for fit in axis.fits if fit.line in lines]
    growths = tuple((fit, grow(*whole.xy(fit.quantity, fit.line), fit.degree)) for fit in fits)
    return Measured(axis, rows, whole.turns, growths)


def _calm(turns: Sequence[Turn], others: float) -> Sequence[Turn]:
    return [turn for turn in turns if turn["others_share"] <= others] or turns


def _row(turns: Sequence[Turn]) -> Row:
    requests = [request for turn in turns for request in turn["requests"]]
    row = {name: median(request[name] for request in requests) for name in requests[0]}
    times = [request["ttft_ms"] for request in requests]
    row["ttft_spread"] = (max(times) - min(times)) / row["ttft_ms"]
    row["tokens_per_sec"] = 1000 / row["token_ms"]
    return row | {"peak_rss_mb": median(turn["peak_rss_mb"] for turn in turns)}


def write_report(folder: Path, found: Sequence[Measured]) -> None:
    (folder / "scaling.md").write_text(markdown(found), encoding="utf-8")
    (folder / "scaling.json").write_text(json.dumps([_document(one) for one in found], indent=1), encoding="utf-8")


def markdown(found: Sequence[Measured]) -> str:
    return "\n".join([machine_line(), "", f"![How it scales]({PICTURE})", "", *(_section(one) for one in found)])


def _section(found: Measured) -> str:
    axis = found.axis
    lines = [f"### {axis.title[0].upper()}{axis.title[1:]}", ""]
    lines.append(f"| {axis.title} | " + " | ".join(TITLES[column] for column in axis.columns) + " |")
    lines.append("| ---: |" + " ---: |" * len(axis.columns))
    for point, row in found.rows:
        place = f"{point.at:.3g}" if axis.logarithmic else f"{point.at:g}"
        cells = [f"{row[column]:.{_DIGITS.get(column, 0)}f}" for column in axis.columns]
        lines.append("| " + " | ".join([f"{place}, {point.line}" if point.line else place, *cells]) + " |")
    lines += ["", *(f"- {sentence(axis, fit, growth)}" for fit, growth in found.growths), "", _spread(found), ""]
    return "\n".join(lines)


def sentence(axis: Axis, fit: Fit, growth: Growth) -> str:
    name, unit = TITLES[fit.quantity].rsplit(" ", 1)
    unit = unit.removesuffix("/token")
    where = f", {fit.line}" if fit.line else ""
    low, high = min(growth.values), max(growth.values)
    if growth.degree == 0:
        return (
            f"{name}{where}: {_number(growth.coefficients[0])} {unit} ({_number(low)} to {_number(high)}); no growth "
            "that these points show."
        )
    terms = [f"{_with_range(growth, 0)} {unit}"]
    terms += [
        f"{_with_range(growth, power)} {unit} per {axis.of}{_POWERS[power]}" for power in range(1, growth.degree + 1)
    ]
    return (
        f"{name}{where}: {' + '.join(terms)}; off by {_number(growth.largest_residual)} {unit} "
        f"({growth.largest_share:.1%}) at most."
    )


def _with_range(growth: Growth, power: int) -> str:
    return f"({_number(growth.coefficients[power])} ± {_number(growth.uncertainties[power], 2)})"


def _number(value: float, digits: int = 3) -> str:
    """Significant digits, and never an exponent."""
    if value == 0:
        return "0"
    return f"{value:.{max(0, digits - 1 - floor(log10(abs(value))))}f}"


def _spread(found: Measured) -> str:
    """How far the measurements of one point lie apart, and whether the machine was calm."""
    requests = sum(len(turn["requests"]) for turn in found.turns)
    spread = median([row["ttft_spread"] for _, row in found.rows] or [0.0])
    share = max((turn["others_share"] for turn in found.turns), default=0.0)
    return (
        f"{requests} requests in {len(found.turns)} processes; from a point's fastest to its slowest TTFT {spread:.0%} "
        f"in the median; other processes took {share:.0%} of the machine at most."
    )


def _document(found: Measured) -> dict[str, Any]:
    return {
        "axis": found.axis.name,
        "points": [asdict(point) | row for point, row in found.rows],
        "fits": [asdict(fit) | asdict(growth) for fit, growth in found.growths],
    }
