"""The latency report for people and spreadsheets: terminal table, Markdown, CSV.

The tables show medians, and the tail of the time to first token, in the columns that say something; the CSV and the
JSON hold every statistic. A p99 of fewer than 100 samples carries a mark. HTML is in ``reporting.html``.
"""

from __future__ import annotations

import csv
import io
from typing import TYPE_CHECKING

from grip_edge.machine_record import MachineState
from grip_edge.report import SAMPLES_FOR_P99, STAGES, TIMES, BudgetRow, LatencyReport, Statistics

if TYPE_CHECKING:
    from rich.console import RenderableType

_SHOWN_STAGES = STAGES[:-1]
_MIB = 2**20
FEW_SAMPLES_MARK = "~"
_CLIENTS = "clients"

COLUMNS = (
    "budget",
    "kept",
    _CLIENTS,
    *(f"{stage} ms" for stage in _SHOWN_STAGES),
    "TTFT p50",
    "p90",
    "p99",
    "x of 1.0",
    "TPOT ms",
    "ITL p99",
    "decode tok/s",
    "E2E ms",
    "peak MiB",
    "J/answer",
    "accuracy %",
)


def to_table(report: LatencyReport) -> RenderableType:
    """For a rich console."""
    from rich.console import Group
    from rich.table import Table
    from rich.text import Text

    table = Table(
        title=report_title(report), title_justify="left", title_style="bold", header_style="dim", padding=(0, 0)
    )
    columns, rows = columns_and_cells(report)
    for name in columns:
        table.add_column(name, justify="right", style="bold" if name == "TTFT p50" else "")
    for row in rows:
        table.add_row(*row)
    verdict = (Text(line, style="bold") for line in report.verdict)
    return Group(table, *verdict, *(Text(line, style="dim") for line in notes(report)))


def to_markdown(report: LatencyReport) -> str:
    lines = [f"**{report_title(report)}**", "", *report.verdict, *([""] if report.verdict else [])]
    columns, rows = columns_and_cells(report)
    lines += [f"| {' | '.join(columns)} |", "|" + " ---: |" * len(columns)]
    lines += [f"| {' | '.join(row)} |" for row in rows]
    return "\n".join([*lines, "", *(f"- {line}" for line in notes(report))]) + "\n"


def to_csv(report: LatencyReport) -> str:
    """One line per budget, concurrency and quantity."""
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    names = ("n", "mean", "min", "max", "std", "p50", "p90", "p95", "p99")
    writer.writerow(("budget", "kept_tokens", "visual_tokens", "concurrency", "quantity", *names))
    for row in report.rows:
        quantities = {f"{name}_ms": row.times_ms[name] for name in TIMES if name in row.times_ms}
        quantities["decode_tokens_per_sec"] = row.decode_tokens_per_sec
        for quantity, statistics in quantities.items():
            values = (getattr(statistics, name) for name in names)
            writer.writerow((row.budget, row.kept_tokens, row.visual_tokens, row.concurrency, quantity, *values))
    return text.getvalue()


def report_title(report: LatencyReport) -> str:
    work = report.workload
    return f"{work.model} {work.precision} on {report.machine.backend}: {work.repeats} requests per budget"


def columns_and_cells(report: LatencyReport) -> tuple[tuple[str, ...], list[tuple[str, ...]]]:
    """The columns that say something here, and each row's cells in them."""
    full = [dict(zip(COLUMNS, _cells(row), strict=True)) for row in report.rows]
    silent = {name for name in COLUMNS if not any(row[name] for row in full)}
    if all(row.concurrency == 1 for row in report.rows):
        silent.add(_CLIENTS)
    columns = tuple(name for name in COLUMNS if name not in silent)
    return columns, [tuple(row[name] for name in columns) for row in full]


def _cells(row: BudgetRow) -> tuple[str, ...]:
    """As in ``COLUMNS``; what is not known is empty."""
    ttft, memory, accuracy = row.times_ms["ttft"], row.memory, row.accuracy
    peak = None if memory is None else memory.peak_host_bytes
    return (
        row.budget,
        f"{row.kept_tokens}/{row.visual_tokens}",
        str(row.concurrency),
        *(f"{row.times_ms[stage].p50:.2f}" for stage in _SHOWN_STAGES),
        f"{ttft.p50:.2f}",
        f"{ttft.p90:.2f}",
        _p99(ttft),
        "" if row.ttft_ratio is None else f"{row.ttft_ratio:.3f}",
        f"{row.times_ms['tpot'].p50:.2f}",
        _p99(row.times_ms["itl"]),
        f"{row.decode_tokens_per_sec.p50:.1f}",
        f"{row.times_ms['total'].p50:.2f}",
        "" if peak is None else f"{peak / _MIB:.0f}",
        "" if row.energy is None else f"{row.energy.joules_per_answer:.3f}",
        "" if accuracy is None else f"{100 * accuracy.share:.1f}",
    )


def _p99(statistics: Statistics) -> str:
    return f"{FEW_SAMPLES_MARK if statistics.n < SAMPLES_FOR_P99 else ''}{statistics.p99:.2f}"


def notes(report: LatencyReport) -> list[str]:
    """The conditions behind the table, a line each."""
    machine, work, memory = report.machine, report.workload, report.memory
    lines = [
        f"medians in ms; TTFT is from the request to the first token, image work included; {work.new_tokens} tokens "
        f"per answer, stop token ignored; {work.warmups} warm-up requests per budget apart; budgets interleaved",
        f"cold start: load {report.load_ms:.0f} ms, first TTFT {report.first_ttft_ms:.1f} ms",
        f"peak host memory of the whole run {_mib(memory.peak_host_bytes)} ({memory.metric}){_row_memory(report)}",
        _inputs(report),
        _machine(report),
        f"before: {_state(report.state_before)}",
    ]
    if any(row.times_ms["ttft"].n < SAMPLES_FOR_P99 for row in report.rows):
        lines.insert(
            1,
            f"{FEW_SAMPLES_MARK} p99 of fewer than {SAMPLES_FOR_P99} samples is nearly their maximum "
            f"(here {min(row.times_ms['ttft'].n for row in report.rows)})",
        )
    if any(row.accuracy for row in report.rows):
        lines.append(_accuracy_source(report))
    if machine.gpu_model:
        lines.append(f"GPU: {machine.gpu_model}")
    return lines


def _row_memory(report: LatencyReport) -> str:
    """The metrics of the column ``peak MiB``."""
    known = [row.memory for row in report.rows if row.memory is not None]
    if not known:
        return ""
    device = max((one.peak_device_bytes for one in known if one.peak_device_bytes is not None), default=None)
    host_metrics = ", ".join(sorted({one.host_metric for one in known}))
    device_metrics = ", ".join(sorted({one.device_metric for one in known}))
    return (
        f"; peak MiB by budget in a process of its own ({host_metrics}); "
        f"device memory {_mib(device)} ({device_metrics})"
    )


def _inputs(report: LatencyReport) -> str:
    asked = report.workload.inputs
    if len(asked) == 1:
        return f"image: {asked[0].image}; question: {asked[0].question}"
    return f"{len(asked)} questions about {len({one.image for one in asked})} images took turns"


def _machine(report: LatencyReport) -> str:
    machine = report.machine
    versions = ", ".join(f"{name} {version}" for name, version in machine.versions.items())
    threads = "default" if machine.threads is None else str(machine.threads)
    board = "" if machine.board is None else f"{machine.board}; "
    return (
        f"{board}{machine.cpu_model or 'unknown CPU'}, {machine.cpu_count or 'unknown'} logical cores, "
        f"threads: {threads}; {machine.operating_system}; {versions}"
    )


def _state(state: MachineState | None) -> str:
    if state is None:
        return "state unknown"
    load = "unknown" if state.load_average is None else f"{state.load_average:.2f}"
    return (
        f"power mode {state.power_mode or 'unknown'}, governor {state.cpu_governor or 'unknown'}, "
        f"load average {load}, free memory {_mib(state.available_bytes)}"
    )


def _accuracy_source(report: LatencyReport) -> str:
    known = next(row.accuracy for row in report.rows if row.accuracy is not None)
    return f"accuracy: the scorer's record, {known.questions} questions; not measured here"


def _mib(value: int | None) -> str:
    return "unknown" if value is None else f"{value / _MIB:.0f} MiB"
