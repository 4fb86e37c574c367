"""Two pictures of a report: accuracy against budget, and accuracy against time with the Pareto frontier.

matplotlib comes with the extra ``report`` and is imported when a picture is drawn.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grip_edge.calibration.evaluation.cases import FULL_BUDGET
from grip_edge.calibration.evaluation.pareto import frontier, points
from grip_edge.calibration.evaluation.report import EvaluationReport
from grip_edge.calibration.evaluation.tables import EVERYTHING
from grip_edge.errors import MissingExtraError

_SIZE_INCHES = (8.0, 5.0)
_DPI = 150
_MARKERS = "osD^vP*Xp<>h"


def check_matplotlib() -> None:
    """MissingExtraError unless pictures can be drawn."""
    try:
        import matplotlib  # noqa: F401
    except ModuleNotFoundError:
        raise MissingExtraError("matplotlib", "report") from None


def draw_accuracy(report: EvaluationReport, path: Path) -> None:
    """Accuracy against the share of tokens kept; intervals as bands."""
    figure, axes = _new_figure()
    rows = [row for row in report.accuracy if row.group == EVERYTHING]
    for row in rows:
        if row.budget == FULL_BUDGET:
            axes.axhline(100 * row.accuracy, color="black", linewidth=1, linestyle="--", label=row.policy)
            axes.axhspan(100 * row.low, 100 * row.high, color="black", alpha=0.08, linewidth=0)
    for name, look in _looks(report).items():
        own = sorted((row for row in rows if row.policy == name and row.budget != FULL_BUDGET), key=_kept)
        if own:
            share = [row.kept_tokens / report.visual_tokens for row in own]
            axes.plot(share, [100 * row.accuracy for row in own], label=name, **look)
            low, high = [100 * row.low for row in own], [100 * row.high for row in own]
            axes.fill_between(share, low, high, color=look["color"], alpha=0.15, linewidth=0)
    axes.set_xlabel(f"visual tokens kept, share of {report.visual_tokens}")
    _finish(figure, axes, report, path)


def draw_pareto(report: EvaluationReport, path: Path) -> None:
    """Accuracy against the median end-to-end time of a request through the runtime."""
    figure, axes = _new_figure()
    measured = points(report)
    for name, look in _looks(report).items():
        own = sorted((point for point in measured if point.policy == name), key=lambda point: point.kept_tokens)
        if own:
            times = [point.total_ms for point in own]
            axes.plot(times, [100 * point.accuracy for point in own], label=name, **look)
    best = frontier(measured)
    if best:
        axes.step(
            [point.total_ms for point in best],
            [100 * point.accuracy for point in best],
            where="post",
            color="black",
            linewidth=1,
            linestyle=":",
            label="Pareto frontier",
        )
    axes.set_xlabel("end-to-end time of a request, median, ms")
    _finish(figure, axes, report, path)


def _kept(row: Any) -> int:
    kept: int = row.kept_tokens
    return kept


def _new_figure() -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=_SIZE_INCHES, layout="constrained")
    axes = figure.subplots()
    axes.grid(alpha=0.3)
    return figure, axes


def _looks(report: EvaluationReport) -> dict[str, dict[str, Any]]:
    """A colour and a marker of its own for each participant; learned policies are drawn thicker, and the one that the
    others are compared with in red, on top.
    """
    from matplotlib import colormaps

    colours = [colormaps["tab20"](index) for index in range(20)]
    others = [*colours[0:6:2], *colours[8::2], *colours[1:7:2], *colours[9::2]]  # dark ones first, without the reds
    compared = report.setting.against
    return {
        one.name: {
            "color": "crimson" if one.name == compared else others[index % len(others)],
            "marker": _MARKERS[index % len(_MARKERS)],
            "markersize": 5,
            "linewidth": 2.4 if one.runs else 1.2,
            "zorder": 4 if one.name == compared else 3 if one.runs else 2,
        }
        for index, one in enumerate(report.participants)
    }


def _finish(figure: Any, axes: Any, report: EvaluationReport, path: Path) -> None:
    work = report.setting
    axes.set_ylabel(f"accuracy, % ({work.scoring})")
    axes.set_title(f"{work.model}: {work.questions:,} questions, {work.data}", fontsize=10)
    axes.legend(fontsize=8, ncols=2)
    figure.savefig(path, dpi=_DPI, format="png")
