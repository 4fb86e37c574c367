"""The report: Markdown for people, CSV for tables, JSON with everything; the picture is made by ``plot``."""

from __future__ import annotations

import csv
import dataclasses
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from benchmarks.peers.bars import OURS, Bar
from benchmarks.peers.contestants import Work
from benchmarks.peers.summary import Row, Summary
from benchmarks.peers.workers.common import prompt_ids

SCHEMA = "grip-edge-peers/1"
MIB = 2**20


@dataclass(frozen=True)
class Report:
    """``machine`` is what stands above the tables; ``probe`` the summaries of what the machine gave."""

    work: Work
    machine: str
    rows: Sequence[Row]
    bars: Sequence[Bar]
    probe: dict[str, Summary]
    rounds: int


def write_report(report: Report, folder: Path) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "peers.md").write_text(markdown(report), encoding="utf-8")
    (folder / "peers.json").write_text(json.dumps(document(report), indent=2) + "\n", encoding="utf-8")
    with (folder / "peers.csv").open("w", encoding="utf-8", newline="") as file:
        cells = [_csv_cells(report.work, row) for row in report.rows]
        writer = csv.DictWriter(file, list(cells[0]) if cells else [])
        writer.writeheader()
        writer.writerows(cells)


def markdown(report: Report) -> str:
    full, pruned = report.work.budgets
    probes = "; ".join(f"{name} {_range(summary)}" for name, summary in _probe_values(report.probe))
    lines = [
        "# grip-edge beside its peers",
        "",
        f"{report.machine}; {report.work.threads} threads; {report.rounds} rounds, every other one backwards. Beside "
        f"each turn the machine gave: {probes}.",
        "",
        f"Median [smallest, largest]. TTFT at {full} and {pruned} visual tokens, image work included; `text`: the peer "
        "reads no images, and its TTFT is a prefill of as many tokens of text; `by hand`: its runtime is driven by the "
        "benchmark. Share of limit: linear layers of the prefill over the measured int8 peak, and bytes read per new "
        "token over the measured bandwidth.",
        "",
        *_ceilings(report),
    ]
    lines += _table(report)
    lines += ["", "## Agreement with transformers in fp32", "", *_agreement_table(report.rows)]
    lines += ["", "## Aims", "", "| aim | limit | measured | |", "| --- | --- | --- | --- |"]
    lines += [f"| {bar.title} | {bar.aim} | {bar.measured} | {bar.verdict} |" for bar in report.bars]
    notes = [f"* {row.name}: {row.contestant.note}" for row in report.rows if row.contestant.note]
    if notes:
        lines += ["", "## Notes", "", *notes]
    versions: dict[str, dict[str, str]] = {}
    for row in report.rows:
        versions.setdefault(row.peer, {}).update(row.versions)
    lines += ["", "## Versions", ""]
    lines += [
        f"* {peer}: " + ", ".join(f"{name} {text}" for name, text in of.items()) for peer, of in versions.items() if of
    ]
    return "\n".join(lines) + "\n"


def _ceilings(report: Report) -> list[str]:
    """What the machine allows, before what was measured."""
    read, peak = (report.probe.get(key) for key in ("read_bytes_per_sec", "int8_operations_per_sec"))
    if read is None or peak is None:
        return []
    tokens = report.work.budgets[0] + sum(map(len, prompt_ids()))
    prefill_ms = 1000 * report.work.shape.prefill_linear_operations(tokens) / peak.median
    decoders = [row for row in report.rows if row.decoder_bytes is not None and row.peer == OURS]
    rates = ", ".join(f"{row.name} {read.median / (row.decoder_bytes or 1):.0f} tokens/s" for row in decoders)
    return [
        f"At these medians, the linear layers of a prefill of {tokens} tokens take {prefill_ms:.0f} ms in int8, and "
        f"reading the weights for each new token allows: {rates}.",
        "",
    ]


def _table(report: Report) -> list[str]:
    full, pruned = report.work.budgets
    lines = [
        f"| | weights | TTFT {full} ms | TTFT {pruned} ms | vision ms | decode {full} tokens/s | decode {pruned} "
        "tokens/s | cold start ms | load s | peak RSS MiB | prefill share | decode share |",
        "| --- | --- |" + " ---: |" * 10,
    ]
    for row in report.rows:
        kind = "" if row.contestant.sees else " (text)"
        kind += " (by hand)" if row.contestant.by_hand else ""
        start = f"| {row.name}{kind} | {row.contestant.weights} |"
        if row.failure is not None:
            lines.append(f"{start} {_cell_text(row.failure)} |" + " |" * 9)
            continue
        cells = [
            _cell(row.ttft_ms.get(full)),
            _cell(row.ttft_ms.get(pruned)),
            _cell(row.vision_ms),
            _cell(row.decode_tokens_per_sec.get(full), 1),
            _cell(row.decode_tokens_per_sec.get(pruned), 1),
            _cell(row.cold_start_ms),
            _cell(row.load_s, 2),
            _cell(row.peak_rss_bytes, 0, MIB),
            _cell(row.prefill_share, 2),
            _cell(row.decode_share, 2),
        ]
        lines.append(f"{start} " + " | ".join(cells) + " |")
    return lines


def _agreement_table(rows: Sequence[Row]) -> list[str]:
    lines = ["| | features: cosine | logits: cosine | first tokens equal |", "| --- | ---: | ---: | ---: |"]
    for row in rows:
        found = row.agreement
        if found is not None:
            cosines = " | ".join(
                "" if value is None else f"{value:.4f}" for value in (found.features_cosine, found.logits_cosine)
            )
            lines.append(f"| {row.name} | {cosines} | {found.tokens_equal} of {found.tokens_compared} |")
    return lines


def document(report: Report) -> dict[str, Any]:
    """Everything, units in the names; unknown is null."""
    return {
        "schema": SCHEMA,
        "machine": report.machine,
        "threads": report.work.threads,
        "rounds": report.rounds,
        "shape": dataclasses.asdict(report.work.shape),
        "probe": {name: dataclasses.asdict(summary) for name, summary in report.probe.items()},
        "rows": [_row_document(row) for row in report.rows],
        "bars": [dataclasses.asdict(bar) for bar in report.bars],
    }


def _row_document(row: Row) -> dict[str, Any]:
    values = {field.name: getattr(row, field.name) for field in dataclasses.fields(row) if field.name != "contestant"}
    contestant = row.contestant
    about = {name: getattr(contestant, name) for name in ("name", "weights", "bits", "sees", "by_hand", "note")}
    return about | {name: _plain(value) for name, value in values.items()}


def _plain(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _plain(inner) for key, inner in value.items()}
    return dataclasses.asdict(value) if dataclasses.is_dataclass(value) and not isinstance(value, type) else value


def _csv_cells(work: Work, row: Row) -> dict[str, Any]:
    contestant = row.contestant
    cells: dict[str, Any] = {"name": row.name, "peer": row.peer, "weights": contestant.weights, "bits": contestant.bits}
    cells |= {"sees": contestant.sees, "by_hand": contestant.by_hand, "failure": row.failure}
    summaries = {f"ttft_{kept}_ms": row.ttft_ms.get(kept) for kept in work.budgets}
    summaries |= {f"decode_{kept}_tokens_per_sec": row.decode_tokens_per_sec.get(kept) for kept in work.budgets}
    names = (
        "vision_ms",
        "cold_start_ms",
        "load_s",
        "loaded_rss_bytes",
        "peak_rss_bytes",
        "prefill_share",
        "decode_share",
        "flops_ratio",
    )
    summaries |= {name: getattr(row, name) for name in names}
    for name, summary in summaries.items():
        for part in ("median", "low", "high", "count"):
            cells[f"{name}_{part}"] = None if summary is None else getattr(summary, part)
    return cells


def _probe_values(probe: dict[str, Summary]) -> list[tuple[str, Summary]]:
    scaled = (("read_bytes_per_sec", "GB/s read"), ("int8_operations_per_sec", "int8 GOP/s"))
    return [
        (name, Summary(found.median / 1e9, found.low / 1e9, found.high / 1e9, found.count))
        for key, name in scaled
        if (found := probe.get(key)) is not None
    ]


def _cell(summary: Summary | None, digits: int = 0, scale: float = 1.0) -> str:
    if summary is None:
        return ""
    middle, low, high = (f"{value / scale:.{digits}f}" for value in (summary.median, summary.low, summary.high))
    return f"{middle} [{low}, {high}]"


def _range(summary: Summary) -> str:
    return f"{summary.median:.0f} [{summary.low:.0f}, {summary.high:.0f}]"


def _cell_text(text: str) -> str:
    return text.replace("|", "/")


def machine_line() -> str:
    from grip_edge.runtime.machine import machine

    found = machine(None)
    memory = "" if found.memory_bytes is None else f", {found.memory_bytes / 2**30:.0f} GiB"
    return f"{found.cpu_model} with {len(os.sched_getaffinity(0))} cores{memory}; {found.operating_system}"
