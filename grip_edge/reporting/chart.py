"""A plot area with axes as SVG text, small enough to need no plotting package on the device.

Coordinates given to ``x`` and ``y`` are in the data's units; everything is placed by absolute numbers and styled by
attributes, so that any SVG renderer shows the same picture. Not here: what is drawn (``plots``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from html import escape

WIDTH, HEIGHT = 760, 340
INK, FAINT, GRID = "#1f2933", "#5f6c7b", "#dde3ea"
# Distinguishable with the common colour deficiencies (Okabe and Ito).
COLOURS = ("#0072b2", "#e69f00", "#009e73", "#cc79a7", "#56b4e9", "#d55e00", "#8c8c3a", "#000000")
_FONT = "font-family='system-ui, sans-serif'"
_LEFT, _RIGHT, _TOP, _BOTTOM = 70, 24, 52, 46
_TITLE_PX, _LEGEND_PX = 16, 36  # base lines


@dataclass
class Chart:
    """``across`` and ``up`` are the ends of the axes; without ``up`` there is no vertical axis, only places."""

    title: str
    x_label: str
    across: tuple[float, float]
    up: tuple[float, float] | None = None
    y_label: str = ""
    height: int = HEIGHT
    left: int = _LEFT
    marks: list[str] = field(default_factory=list)

    def x(self, value: float) -> float:
        low, high = self.across
        return self.left + (value - low) / (high - low) * (WIDTH - _RIGHT - self.left)

    def y(self, value: float) -> float:
        low, high = self.up or (0.0, 1.0)
        return self.height - _BOTTOM - (value - low) / (high - low) * (self.height - _BOTTOM - _TOP)

    def bar(self, start: float, end: float, top_px: float, height_px: float, colour: str, hint: str) -> None:
        x, width = self.x(start), max(self.x(end) - self.x(start), 0.0)
        self.marks.append(
            f"<rect x='{x:.1f}' y='{top_px:.1f}' width='{width:.1f}' height='{height_px:.1f}' fill='{colour}'>"
            f"<title>{escape(hint)}</title></rect>"
        )

    def line(self, points: Sequence[tuple[float, float]], colour: str, dashed: bool = False, width: float = 2) -> None:
        path = " ".join(f"{self.x(x):.1f},{self.y(y):.1f}" for x, y in points)
        dash = " stroke-dasharray='3 4'" if dashed else ""
        self.marks.append(f"<polyline points='{path}' fill='none' stroke='{colour}' stroke-width='{width}'{dash}/>")

    def dot(self, x: float, y: float, colour: str, hint: str) -> None:
        place = f"cx='{self.x(x):.1f}' cy='{self.y(y):.1f}'"
        self.marks.append(f"<circle {place} r='5' fill='{colour}'><title>{escape(hint)}</title></circle>")

    def text(
        self, x_px: float, y_px: float, text: str, anchor: str = "start", colour: str = INK, size: int = 13
    ) -> None:
        self.marks.append(
            f"<text x='{x_px:.1f}' y='{y_px:.1f}' text-anchor='{anchor}' fill='{colour}' font-size='{size}' {_FONT}>"
            f"{escape(text)}</text>"
        )

    def legend(self, entries: Sequence[tuple[str, str]]) -> None:
        """Names and colours, in a row under the title."""
        place = float(self.left)
        for name, colour in entries:
            self.marks.append(f"<rect x='{place:.1f}' y='{_LEGEND_PX - 10}' width='11' height='11' fill='{colour}'/>")
            self.text(place + 16, _LEGEND_PX, name, colour=FAINT, size=12)
            place += 34 + 7.2 * len(name)

    def svg(self) -> str:
        body = "\n".join([*self._axes(), *self.marks])
        return (
            f"<svg xmlns='http://www.w3.org/2000/svg' viewBox='0 0 {WIDTH} {self.height}' width='{WIDTH}' "
            f"height='{self.height}' role='img' aria-label='{escape(self.title, quote=True)}'>\n"
            f"<rect width='{WIDTH}' height='{self.height}' fill='#ffffff'/>\n{body}\n</svg>"
        )

    def _axes(self) -> list[str]:
        outer = Chart(self.title, "", self.across, self.up, height=self.height, left=self.left)
        outer.text(self.left, _TITLE_PX, self.title, size=14)
        floor = self.height - _BOTTOM
        for tick in ticks(*self.across):
            x = self.x(tick)
            outer.marks.append(f"<line x1='{x:.1f}' x2='{x:.1f}' y1='{_TOP}' y2='{floor}' stroke='{GRID}'/>")
            outer.text(x, floor + 17, f"{tick:g}", "middle", FAINT, 12)
        outer.text((self.left + WIDTH - _RIGHT) / 2, self.height - 8, self.x_label, "middle", FAINT, 12)
        if self.up is not None:
            for tick in ticks(*self.up):
                y = self.y(tick)
                outer.marks.append(
                    f"<line x1='{self.left}' x2='{WIDTH - _RIGHT}' y1='{y:.1f}' y2='{y:.1f}' stroke='{GRID}'/>"
                )
                outer.text(self.left - 8, y + 4, f"{tick:g}", "end", FAINT, 12)
            middle = (_TOP + floor) / 2
            outer.marks.append(f"<g transform='rotate(-90 16 {middle:.0f})'>")
            outer.text(16, middle, self.y_label, "middle", FAINT, 12)
            outer.marks.append("</g>")
        return outer.marks


def ticks(low: float, high: float, wanted: int = 6) -> list[float]:
    """Round numbers from ``low`` to ``high``, about as many as wanted."""
    rough = (high - low) / wanted
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough * 0.999)
    first = math.ceil(low / step - 1e-9)
    count = math.floor(high / step + 1e-9) - first + 1
    return [round((first + index) * step, 12) for index in range(count)]
