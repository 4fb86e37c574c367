"""The picture: a panel per axis, with each fitted time; points measured, lines fitted."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import cycle
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks.scaling.report import TITLES, Measured

_COLUMNS = 3


def write_plot(found: Sequence[Measured], path: Path) -> None:
    """Needs matplotlib (extra ``report``)."""
    import matplotlib

    matplotlib.use("Agg")
    from matplotlib import pyplot

    rows = -(-len(found) // _COLUMNS)
    figure, panels = pyplot.subplots(rows, _COLUMNS, figsize=(4.2 * _COLUMNS, 3.5 * rows), squeeze=False)
    for number, axes in enumerate(panels.flat):
        if number < len(found):
            _draw(axes, found[number])
        else:
            axes.set_axis_off()
    figure.tight_layout()
    figure.savefig(path, dpi=110)
    pyplot.close(figure)


def _draw(axes: Any, found: Measured) -> None:
    colours = cycle(["tab:green", "tab:blue", "tab:orange", "tab:red"])
    for fit, growth in found.growths:
        if not fit.quantity.endswith("_ms"):
            continue
        x, y = found.xy(fit.quantity, fit.line)
        colour = next(colours)
        axes.plot(x, y, "o", color=colour, markersize=4)
        fine = np.linspace(min(x), max(x), 200)
        label = TITLES[fit.quantity].replace(" ms", "") + (f", {fit.line}" if fit.line else "")
        axes.plot(fine, growth(fine), color=colour, label=label)
    if found.axis.logarithmic:
        axes.loglog()
        places = [point.at for point, _ in found.rows]
        axes.set_xticks(places, [f"{place:.2g}" for place in places])
        axes.set_xticks([], minor=True)
    else:
        axes.set_xlim(left=0)
        axes.set_ylim(bottom=0)
    axes.set_xlabel(found.axis.title)
    axes.set_ylabel("ms")
    axes.grid(alpha=0.3)
    axes.legend(fontsize=8)
