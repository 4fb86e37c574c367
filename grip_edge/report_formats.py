"""The latency report for people and spreadsheets: terminal table, Markdown, CSV.

The tables show medians, and the tail of the time to first token; the CSV and the JSON hold every statistic.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from grip_edge.report import STAGES, TIMES, BudgetRow, LatencyReport

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_STAGES = STAGES[:-1]
_MIB = 2**20

COLUMNS = (
    "budget",
    "kept",
    *(f"{stage} ms" for stage in _SHOWN_STAGES),
    "TTFT p50",
    "p90",
    "p99",
    "x of 1.0",
    "TPOT ms",
    "decode tok/s",
    "total ms",
)


def to_table(report: LatencyReport) -> RenderableType:
    """For a rich console."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(title=_title(report), title_justify="left", title_style="bold", header_style="dim")
    for name in COLUMNS:
        table.add_column(name, justify="right", style="bold" if name == "TTFT p50" else "")
    for row in report.rows:
        table.add_row(*_cells(row))
    return Group(table, *(Text(line, style="dim") for line in _notes(report)))


def to_markdown(report: LatencyReport) -> str:
    lines = [f"**{_title(report)}**", "", f"| {' | '.join(COLUMNS)} |", "|" + " ---: |" * len(COLUMNS)]
    lines += [f"| {' | '.join(_cells(row))} |" for row in report.rows]
    return "\n".join([*lines, "", *(f"- {line}" for line in _notes(report))]) + "\n"


def to_csv(report: LatencyReport) -> str:
    """One line per budget and quantity."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("n", "mean", "min", "max", "std", "p50", "p90", "p95", "p99")
    writer.writerow(("budget", "kept_tokens", "visual_tokens", "quantity", *names))
    for row in report.rows:
        quantities = {f"{name}_ms": row.times_ms[name] for name in TIMES if name in row.times_ms}
        quantities["decode_tokens_per_sec"] = row.decode_tokens_per_sec
        for quantity, statistics in quantities.items():
            values = (getattr(statistics, name) for name in names)
            writer.writerow((row.budget, row.kept_tokens, row.visual_tokens, quantity, *values))
    return text.getvalue()


def _title(report: LatencyReport) -> str:
    work = report.workload
    return f"{work.model} {work.precision} on {report.machine.backend}: {work.repeats} requests per budget"


def _cells(row: BudgetRow) -> tuple[str, ...]:
    ttft = row.times_ms["ttft"]
    return (
        row.budget,
        f"{row.kept_tokens}/{row.visual_tokens}",
        *(f"{row.times_ms[stage].p50:.2f}" for stage in _SHOWN_STAGES),
        f"{ttft.p50:.2f}",
        f"{ttft.p90:.2f}",
        f"{ttft.p99:.2f}",
        "" if row.ttft_ratio is None else f"{row.ttft_ratio:.3f}",
        f"{row.times_ms['tpot'].p50:.2f}",
        f"{row.decode_tokens_per_sec.p50:.1f}",
        f"{row.times_ms['total'].p50:.2f}",
    )


def _notes(report: LatencyReport) -> list[str]:
    machine, work, memory = report.machine, report.workload, report.memory
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    peak = "unknown" if memory.peak_host_bytes is None else f"{memory.peak_host_bytes / _MIB:.0f} MiB"
    threads = "default" if machine.threads is None else str(machine.threads)
    notes = [
        f"medians in ms; TTFT is from the request to the first token, image work included; {work.new_tokens} tokens "
        f"per answer, stop token ignored; {work.warmups} warm-up requests per budget apart; budgets interleaved",
        f"cold start: load {report.load_ms:.0f} ms, first TTFT {report.first_ttft_ms:.1f} ms",
        f"peak host memory {peak} ({memory.metric})",
        f"image: {work.image}; question: {work.question}",
        f"{machine.cpu_model or 'unknown CPU'}, {machine.cpu_count or 'unknown'} logical cores, threads: {threads}; "
        f"{machine.operating_system}; {versions}",
    ]
    if work.repeats < 100:
        notes.insert(1, f"p99 of {work.repeats} samples is nearly their maximum; a claim needs 100 or more")
    return notes
