"""The three plots of a latency report, as SVG: stages by budget, distribution of TTFT, accuracy against TTFT."""

from __future__ import annotations

from collections.abc import Sequence

from grip_edge.report import STAGES, BudgetRow, LatencyReport
from grip_edge.reporting.chart import COLOURS, FAINT, WIDTH, Chart

_TTFT_STAGES = STAGES[:-1]
_BAR_PX, _STEP_PX = 24, 36
_HEADROOM = 1.06


def plots(report: LatencyReport) -> dict[str, str]:
    """SVG by title; a plot whose numbers are not known is left out."""
    drawn = {"stages": stage_bars(report.rows), "ttft": ttft_distribution(report.rows)}
    if any(row.accuracy is not None for row in report.rows):
        drawn["accuracy"] = accuracy_frontier(report.rows)
    return drawn


def row_name(row: BudgetRow) -> str:
    clients = "" if row.concurrency == 1 else f", {row.concurrency} clients"
    return f"{row.budget} ({row.kept_tokens}){clients}"


def stage_bars(rows: Sequence[BudgetRow]) -> str:
    longest = max(row.times_ms["ttft"].mean for row in rows)
    height = 106 + _STEP_PX * len(rows)
    left = 46 + round(7.5 * max(len(row_name(row)) for row in rows))
    chart = Chart(
        "Where the time to the first token goes",
        "ms (means, which add up)",
        (0, 1.12 * longest),
        height=height,
        left=left,
    )
    chart.legend(list(zip(_TTFT_STAGES, COLOURS, strict=False)))
    for index, row in enumerate(rows):
        top, start = 58.0 + _STEP_PX * index, 0.0
        chart.text(left - 8, top + _BAR_PX / 2 + 4, row_name(row), "end")
        for stage, colour in zip(_TTFT_STAGES, COLOURS, strict=False):
            taken = row.times_ms[stage].mean
            chart.bar(start, start + taken, top, _BAR_PX, colour, f"{row_name(row)}: {stage} {taken:.2f} ms")
            start += taken
        chart.text(chart.x(start) + 6, top + _BAR_PX / 2 + 4, f"{start:.1f}", colour=FAINT)
    return chart.svg()


def ttft_distribution(rows: Sequence[BudgetRow]) -> str:
    """The share of requests whose first token was there by then, one step line per row."""
    high = _HEADROOM * max(row.times_ms["ttft"].max for row in rows)
    low = 0.9 * min(row.times_ms["ttft"].min for row in rows)
    chart = Chart("Requests that had their first token by then", "TTFT, ms", (low, high), (0, 100), "% of requests")
    chart.legend([(row_name(row), COLOURS[index % len(COLOURS)]) for index, row in enumerate(rows)])
    for index, row in enumerate(rows):
        times = sorted(sample.ttft_ms for sample in row.samples)
        points, share = [(low, 0.0)], 0.0
        for number, time_ms in enumerate(times, 1):
            points += [(time_ms, share), (time_ms, share := 100 * number / len(times))]
        chart.line([*points, (high, 100)], COLOURS[index % len(COLOURS)])
    return chart.svg()


def accuracy_frontier(rows: Sequence[BudgetRow]) -> str:
    """Accuracy with its interval against the median TTFT; the line joins what no other point beats in both."""
    known = [row for row in rows if row.accuracy is not None]
    shares = [100 * value for row in known if row.accuracy for value in (row.accuracy.low, row.accuracy.high)]
    margin = max(0.5, 0.15 * (max(shares) - min(shares)))
    times = [row.times_ms["ttft"] for row in known]
    across = (0.92 * min(one.p50 for one in times), 1.08 * max(one.p90 for one in times))
    up = (min(shares) - margin, min(max(shares) + margin, 100.0) if max(shares) < 100 else 100.0)
    chart = Chart("Accuracy against time to first token", "TTFT, ms (median; line to p90)", across, up, "accuracy, %")
    points = [(row.times_ms["ttft"].p50, 100 * row.accuracy.share) for row in known if row.accuracy]
    chart.line(frontier(points), FAINT, dashed=True)
    for index, row in enumerate(known):
        if row.accuracy is None:
            continue
        ttft, share, colour = row.times_ms["ttft"], 100 * row.accuracy.share, COLOURS[index % len(COLOURS)]
        chart.line([(ttft.p50, 100 * row.accuracy.low), (ttft.p50, 100 * row.accuracy.high)], colour)
        chart.line([(ttft.p50, share), (ttft.p90, share)], colour, width=1)
        chart.dot(ttft.p50, share, colour, f"{row_name(row)}: {ttft.p50:.1f} ms, {share:.1f} %")
        side, anchor = (-10, "end") if chart.x(ttft.p50) > 0.75 * WIDTH else (10, "start")
        chart.text(chart.x(ttft.p50) + side, chart.y(share) + 20, row_name(row), anchor)
    return chart.svg()


def frontier(points: Sequence[tuple[float, float]]) -> list[tuple[float, float]]:
    """Points (time, accuracy) that no other one beats, from fast to slow."""
    best: list[tuple[float, float]] = []
    for point in sorted(points, key=lambda point: (point[0], -point[1])):
        if not best or point[1] > best[-1][1]:
            best.append(point)
    return best
