"""The latency report as one HTML file: verdict, plots, tables, conditions. Nothing is loaded from anywhere."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from html import escape

from grip_edge.machine_record import MachineState
from grip_edge.report import TIMES, LatencyReport
from grip_edge.report_formats import columns_and_cells, notes, report_title
from grip_edge.reporting.plots import plots, row_name

_STATISTICS = ("n", "mean", "std", "min", "p50", "p90", "p95", "p99", "max")
_MIB = 2**20
_STYLE = """
:root { color-scheme: light; }
body { font: 15px/1.5 system-ui, sans-serif; color: #1f2933; background: #f5f7fa; margin: 0; }
main { max-width: 1160px; margin: 0 auto; padding: 24px 20px 60px; }
h1 { font-size: 24px; margin: 8px 0 16px; } h2 { font-size: 18px; margin: 32px 0 8px; }
.verdict { background: #e7f5ee; border-left: 5px solid #009e73; padding: 10px 18px; }
.verdict p { margin: 6px 0; }
figure { margin: 16px 0; background: #fff; border: 1px solid #dde3ea; padding: 8px; overflow-x: auto; }
svg { max-width: 100%; height: auto; display: block; margin: 0 auto; }
.wide { overflow-x: auto; }
table { border-collapse: collapse; background: #fff; font-variant-numeric: tabular-nums; }
th, td { border: 1px solid #dde3ea; padding: 3px 7px; text-align: right; white-space: nowrap; }
th { background: #eef2f6; font-weight: 600; white-space: normal; } td:first-child, th:first-child { text-align: left; }
.facts td { text-align: left; white-space: normal; }
ul { padding-left: 20px; color: #5f6c7b; }
""".strip()


def to_html(report: LatencyReport) -> str:
    title = escape(report_title(report))
    parts = [
        f"<h1>{title}</h1>",
        "<section class='verdict'>",
        *(f"<p>{escape(line)}</p>" for line in report.verdict),
        "</section>",
        "<h2>Medians by budget</h2>",
        _table(*columns_and_cells(report)),
        "<ul>",
        *(f"<li>{escape(note)}</li>" for note in notes(report)),
        "</ul>",
        *(f"<figure id='{name}'>{svg}</figure>" for name, svg in plots(report).items()),
        *_resources(report),
        *_ceilings(report),
        "<h2>Every statistic, in ms</h2>",
        _table(("budget", "quantity", *_STATISTICS), _statistics(report)),
        "<h2>Machine</h2>",
        _facts(report),
    ]
    return (
        "<!doctype html>\n<html lang='en'>\n<head>\n<meta charset='utf-8'>\n"
        "<meta name='viewport' content='width=device-width, initial-scale=1'>\n"
        f"<title>{title}</title>\n<style>\n{_STYLE}\n</style>\n</head>\n<body>\n<main>\n"
        + "\n".join(parts)
        + "\n</main>\n</body>\n</html>\n"
    )


def _table(head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    top = "".join(f"<th scope='col'>{escape(name)}</th>" for name in head)
    body = "\n".join("<tr>" + "".join(f"<td>{escape(cell)}</td>" for cell in row) + "</tr>" for row in rows)
    return f"<div class='wide'><table>\n<thead><tr>{top}</tr></thead>\n<tbody>\n{body}\n</tbody>\n</table></div>"


def _resources(report: LatencyReport) -> list[str]:
    """Memory and energy, where they were measured."""
    rows = []
    for row in report.rows:
        memory, energy = row.memory, row.energy
        if memory is None and energy is None:
            continue
        rows.append(
            (
                row_name(row),
                "" if memory is None else f"{_mib(memory.peak_host_bytes)} ({memory.host_metric})",
                "" if memory is None else f"{_mib(memory.peak_device_bytes)} ({memory.device_metric})",
                "unknown" if energy is None else f"{energy.joules_per_answer:.3f} J ({energy.rail}, {energy.source})",
            )
        )
    if not rows:
        return []
    head = ("budget", "peak host memory", "peak device memory", "energy per answer")
    return ["<h2>Memory and energy</h2>", _table(head, rows)]


def _ceilings(report: LatencyReport) -> list[str]:
    rows = [
        (
            row_name(row),
            one.stage,
            f"{one.flops / 1e9:.3g}",
            f"{one.bytes / 1e6:.3g}",
            f"{one.ceiling_ms:.2f}",
            f"{one.measured_ms:.2f}",
            f"{one.ratio:.2f}",
        )
        for row in report.rows
        for one in row.ceilings
    ]
    if not rows:
        return []
    head = ("budget", "stage", "GFLOP", "MB read", "least ms", "measured ms", "least / measured")
    basis = f"<p>{escape(report.ceiling_basis or '')}; decode is per token.</p>"
    return ["<h2>What this machine could do at best</h2>", basis, _table(head, rows)]


def _statistics(report: LatencyReport) -> Iterable[Sequence[str]]:
    for row in report.rows:
        for name in TIMES:
            values = (getattr(row.times_ms[name], one) for one in _STATISTICS)
            yield (row_name(row), name, *("" if value is None else f"{value:.4g}" for value in values))


def _facts(report: LatencyReport) -> str:
    machine, work = report.machine, report.workload
    facts = {
        "bundle": f"{work.bundle} (grip.json sha256 {work.bundle_sha256[:16]}…), target {work.target}",
        "command": work.command,
        "board": machine.board,
        "CPU": f"{machine.cpu_model or 'unknown'}, {machine.cpu_count or 'unknown'} logical cores",
        "GPU": machine.gpu_model,
        "memory": _mib(machine.memory_bytes),
        "operating system": machine.operating_system,
        "versions": ", ".join(f"{name} {version}" for name, version in machine.versions.items()),
        "state before": _state(report.state_before),
        "state after": _state(report.state_after),
    }
    rows = "\n".join(
        f"<tr><th scope='row'>{name}</th><td>{escape(value or 'unknown')}</td></tr>" for name, value in facts.items()
    )
    return f"<table class='facts'>\n{rows}\n</table>"


def _state(state: MachineState | None) -> str | None:
    if state is None:
        return None
    load = "unknown" if state.load_average is None else f"{state.load_average:.2f}"
    clocks = ", ".join(f"{name} {mhz:.0f}" for name, mhz in state.clocks_mhz.items()) or "unknown"
    heat = ", ".join(f"{name} {celsius:.0f}" for name, celsius in state.temperatures_celsius.items()) or "unknown"
    return (
        f"power mode {state.power_mode or 'unknown'}; governor {state.cpu_governor or 'unknown'}; "
        f"clocks in MHz: {clocks}; °C: {heat}; load {load}; "
        f"free memory {_mib(state.available_bytes)}; swap in use {_mib(state.swap_used_bytes)}"
    )


def _mib(value: int | None) -> str:
    return "unknown" if value is None else f"{value / _MIB:.0f} MiB"
