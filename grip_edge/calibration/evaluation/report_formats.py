"""The evaluation report for people and spreadsheets: Markdown and CSV. Shares are shown in percent."""

from __future__ import annotations

import csv
import io
from collections.abc import Iterable, Sequence

from grip_edge.calibration.evaluation.pareto import equal_accuracy, frontier, points
from grip_edge.calibration.evaluation.report import AccuracyRow, EvaluationReport, Participant
from grip_edge.calibration.evaluation.tables import EVERYTHING

_CSV_COLUMNS = (
    "policy", "budget", "kept_tokens", "visual_tokens", "group", "questions", "accuracy", "low", "high", "run_std",
    "runs", "agreement", "agreement_low", "agreement_high", "ttft_p50_ms", "total_p50_ms", "saved_flops_share",
)  # fmt: skip


def to_csv(report: EvaluationReport) -> str:
    """One line per policy, budget and group; benchmarks' own metrics in further columns."""
    times = {(row.policy, row.budget): row.p50_ms for row in report.latency}
    saved = {(row.policy, row.budget): row.saved_share for row in report.flops}
    metrics = list(dict.fromkeys(name for row in report.accuracy for name in row.metrics))
    text = io.StringIO()
    writer = csv.writer(text, lineterminator="\n")
    writer.writerow((*_CSV_COLUMNS, *metrics))
    for row in report.accuracy:
        key = row.policy, row.budget
        line = (
            row.policy, row.budget, row.kept_tokens, report.visual_tokens, row.group, row.questions, row.accuracy,
            row.low, row.high, row.run_std, " ".join(f"{run:.6f}" for run in row.runs), row.agreement,
            row.agreement_low, row.agreement_high, times.get(key, {}).get("ttft"), times.get(key, {}).get("total"),
            saved.get(key),
        )  # fmt: skip
        writer.writerow((*line, *(row.metrics.get(name) for name in metrics)))
    return text.getvalue()


def to_markdown(report: EvaluationReport) -> str:
    sections = [
        _title(report),
        _accuracy(report),
        _differences(report),
        _bundles(report),
        _latency(report),
        _equal_accuracy(report),
        _flops(report),
        _notes(report),
    ]
    return "\n".join(section for section in sections if section)


def _title(report: EvaluationReport) -> str:
    work = report.setting
    return (
        f"**{work.model}, {work.questions:,} questions about {work.images:,} images ({work.data}), "
        f"scoring '{work.scoring}'**\n"
    )


def _accuracy(report: EvaluationReport) -> str:
    groups = list(dict.fromkeys(row.group for row in report.accuracy))
    metrics = list(dict.fromkeys(name for row in report.accuracy for name in row.metrics))
    cells = {(row.policy, row.budget, row.group): row for row in report.accuracy}
    rows = []
    for policy, budget in dict.fromkeys((row.policy, row.budget) for row in report.accuracy):
        whole = cells[policy, budget, EVERYTHING]
        rows.append(
            (
                policy,
                f"{budget} ({whole.kept_tokens}/{report.visual_tokens})",
                _percent(whole.accuracy, whole.low, whole.high),
                _runs(whole),
                _percent(whole.agreement, whole.agreement_low, whole.agreement_high),
                *(_shown(cells[policy, budget, group].accuracy) for group in groups if group != EVERYTHING),
                *(_shown(whole.metrics.get(name)) for name in metrics),
            )
        )
    head = ("policy", "budget", "accuracy", "runs", "as unpruned", *(g for g in groups if g != EVERYTHING), *metrics)
    return _table("Accuracy", head, rows)


def _differences(report: EvaluationReport) -> str:
    rows = [
        (f"{row.policy} - {row.against}", row.budget, _percent(row.difference, row.low, row.high, sign="+"))
        for row in report.differences
    ]
    return _table("Differences in points, paired by question", ("policies", "budget", "difference"), rows)


def _bundles(report: EvaluationReport) -> str:
    rows = [
        (row.bundle, row.policy, row.budget, _percent(row.agreement, row.low, row.high)) for row in report.agreement
    ]
    head = ("bundle", "PyTorch", "budget", "same answers")
    return _table("Bundles against the PyTorch model", head, rows)


def _latency(report: EvaluationReport) -> str:
    best = {(point.policy, point.budget) for point in frontier(points(report))}
    stages = list(dict.fromkeys(stage for row in report.latency for stage in row.p50_ms))
    rows = [
        (
            row.policy,
            f"{row.budget} ({row.kept_tokens}/{report.visual_tokens})",
            *(f"{row.p50_ms[stage]:.2f}" for stage in stages),
            "yes" if (row.policy, row.budget) in best else "",
        )
        for row in report.latency
    ]
    return _table("Latency, medians in ms", ("policy", "budget", *stages, "on the frontier"), rows)


def _equal_accuracy(report: EvaluationReport) -> str:
    against = report.setting.against
    if against is None:
        return ""
    rows = [
        (
            f"{found.rival.policy} {found.rival.budget}",
            f"{100 * found.rival.accuracy:.1f}",
            f"{found.rival.total_ms:.2f}",
            f"{against} {found.fastest.budget}",
            f"{100 * found.fastest.accuracy:.1f}",
            f"{found.fastest.total_ms:.2f}",
            f"{100 * found.saved_share:+.1f} %",
        )
        for found in equal_accuracy(points(report), against)
    ]
    head = ("rival", "accuracy", "ms", f"fastest {against} that is as accurate", "accuracy", "ms", "time saved")
    return _table("Equal accuracy", head, rows)


def _flops(report: EvaluationReport) -> str:
    rows = [
        (
            row.policy,
            f"{row.budget} ({row.kept_tokens}/{report.visual_tokens})",
            *(f"{flops / 1e9:.4g}" for flops in (row.vision_flops, row.select_flops, row.prefill_flops)),
            f"{100 * row.saved_share:.1f} %",
        )
        for row in report.flops
    ]
    head = ("policy", "budget", "vision", "select", "prefill", "saved of vision + prefill")
    return _table("GFLOPs counted from the graphs", head, rows)


def _notes(report: EvaluationReport) -> str:
    work = report.setting
    lines = [
        f"in brackets: 95 % bootstrap intervals over images ({work.bootstrap_draws} draws), and over training runs "
        "where there are several; accuracies in percent",
        f"greedy answers of at most {work.new_tokens} tokens; PyTorch in {work.precision or 'no part'}",
        "'as unpruned': share of answers equal to those of the unpruned model",
        *(_participant_note(one) for one in report.participants),
        *_measurement_notes(report),
        ", ".join(f"{name} {version}" for name, version in work.versions.items()),
    ]
    return "\n".join(f"- {line}" for line in lines) + "\n"


def _participant_note(one: Participant) -> str:
    runs = f"; runs: {', '.join(one.runs)}" if one.runs else ""
    bundle = f"; bundle: {one.bundle}" if one.bundle else ""
    return f"{one.name}: {one.title}{runs}{bundle}"


def _measurement_notes(report: EvaluationReport) -> list[str]:
    notes = []
    if report.latency and report.machine is not None:
        machine, first = report.machine, report.latency[0]
        notes.append(
            f"latency: {first.requests} requests per policy and budget, interleaved, {first.new_tokens} tokens per "
            f"answer, every image encoded anew; {machine.cpu_model or 'unknown CPU'}, "
            f"{machine.cpu_count or 'unknown'} logical cores, {machine.backend}"
        )
    if report.flops:
        notes.append(
            "FLOPs: MatMul, Gemm, Conv and Attention, a multiplication and an addition are two; "
            f"{report.flops[0].prompt_tokens} text tokens in the prompt; saved: of vision and prefill unpruned, with "
            "select counted against it"
        )
    return notes


def _runs(row: AccuracyRow) -> str:
    if row.run_std is None:
        return ""
    return f"{' '.join(f'{100 * run:.1f}' for run in row.runs)}, std {100 * row.run_std:.2f}"


def _percent(value: float, low: float, high: float, sign: str = "") -> str:
    return f"{100 * value:{sign}.1f} ({100 * low:{sign}.1f} to {100 * high:{sign}.1f})"


def _shown(value: float | None) -> str:
    return "" if value is None else f"{100 * value:.1f}"


def _table(title: str, head: Sequence[str], rows: Iterable[Sequence[str]]) -> str:
    lines = [f"| {' | '.join(row)} |" for row in rows]
    if not lines:
        return ""
    aligned = "| --- |" + " ---: |" * (len(head) - 1)
    return "\n".join([f"### {title}", "", f"| {' | '.join(head)} |", aligned, *lines, ""])
