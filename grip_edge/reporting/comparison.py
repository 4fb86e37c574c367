"""Two latency reports: were they taken under the same conditions, and what is the ratio of their times.

Conditions whose difference makes a comparison meaningless unless it is meant (``CONDITIONS``) must be equal or be named
by the caller. What is usually the reason for comparing (precision, backend, versions, the bundle) may differ, and is
listed. Not here: reading files, and what to do about a regression (``cli.compare``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grip_edge.errors import UserError
from grip_edge.report import BudgetRow, LatencyReport, Sample
from grip_edge.reporting.bootstrap import Ratio, median_ratio
from grip_edge.reporting.disturbance import other_load

# Times that one wants to be short.
METRICS = ("ttft", "vision", "select", "prefill", "tpot", "total")

Facts = dict[str, Callable[[LatencyReport], object]]

CONDITIONS: Facts = {
    "model": lambda report: report.workload.model,
    "inputs": lambda report: report.workload.inputs_sha256[:16],
    "tokens": lambda report: report.workload.new_tokens,
    "budgets": lambda report: sorted({f"{row.kept_tokens}/{row.visual_tokens}" for row in report.rows}),
    "concurrency": lambda report: sorted({row.concurrency for row in report.rows}),
    "machine": lambda report: (report.machine.board, report.machine.cpu_model, report.machine.gpu_model),
    "power-mode": lambda report: None if report.state_before is None else report.state_before.power_mode,
    "other-load": other_load,
}
_MENTIONED: Facts = {
    "bundle": lambda report: report.workload.bundle_sha256[:16],
    "precision": lambda report: report.workload.precision,
    "target": lambda report: report.workload.target,
    "backend": lambda report: report.machine.backend,
    "threads": lambda report: report.machine.threads,
    "versions": lambda report: sorted(report.machine.versions.items()),
    "governor": lambda report: None if report.state_before is None else report.state_before.cpu_governor,
}


@dataclass(frozen=True)
class Difference:
    name: str
    first: str
    second: str

    def __str__(self) -> str:
        return f"{self.name}: {self.first} against {self.second}"


@dataclass(frozen=True)
class ComparedRow:
    """``ratios`` by metric: the second report's median over the first's, so above 1 is slower."""

    budget: str
    kept_tokens: int
    visual_tokens: int
    concurrency: int
    ratios: dict[str, Ratio]
    medians_ms: dict[str, tuple[float, float]]
    peak_host_ratio: float | None


@dataclass(frozen=True)
class Comparison:
    """``despite``: conditions that differ and were allowed to."""

    despite: tuple[Difference, ...]
    mentioned: tuple[Difference, ...]
    rows: tuple[ComparedRow, ...]


def compare(first: LatencyReport, second: LatencyReport, allowed: Sequence[str] = ()) -> Comparison:
    """UserError where conditions differ that are not in ``allowed``, or where no row is in both."""
    differing = tuple(_differences(first, second, CONDITIONS))
    refused = [one for one in differing if one.name not in allowed]
    if refused:
        options = " ".join(f"--despite {one.name}" for one in refused)
        raise UserError(
            f"These reports were not taken under the same conditions ({'; '.join(map(str, refused))}); "
            f"measure again, or compare them all the same with  {options}"
        )
    others = {_place(row): row for row in second.rows}
    rows = tuple(_compared(row, others[_place(row)]) for row in first.rows if _place(row) in others)
    if not rows:
        raise UserError("These reports have no budget and concurrency in common; measure with the same --budgets.")
    return Comparison(differing, tuple(_differences(first, second, _MENTIONED)), rows)


def regressions(comparison: Comparison, limit: float, metrics: Sequence[str]) -> tuple[str, ...]:
    """What got slower by more than ``limit`` (0.05 is 5 %), the interval being above 1 as a whole."""
    found = []
    for row in comparison.rows:
        for metric in metrics:
            ratio = row.ratios[metric]
            if ratio.value > 1 + limit and ratio.low > 1:
                found.append(
                    f"{metric} at budget {row.budget}, concurrency {row.concurrency}: {100 * (ratio.value - 1):+.1f} % "
                    f"({100 * (ratio.low - 1):+.1f} to {100 * (ratio.high - 1):+.1f})"
                )
    return tuple(found)


def _differences(first: LatencyReport, second: LatencyReport, facts: Facts) -> Iterator[Difference]:
    for name, fact in facts.items():
        before, after = fact(first), fact(second)
        if before != after:
            yield Difference(name, _shown(before), _shown(after))


def _shown(value: object) -> str:
    if isinstance(value, (list, tuple)):
        return ", ".join(_shown(one) for one in value if one is not None) or "unknown"
    return "unknown" if value is None else str(value)


def _place(row: BudgetRow) -> tuple[int, int, int]:
    return row.kept_tokens, row.visual_tokens, row.concurrency


def _compared(first: BudgetRow, second: BudgetRow) -> ComparedRow:
    ratios = {metric: median_ratio(_strata(first, metric), _strata(second, metric)) for metric in METRICS}
    medians = {metric: (first.times_ms[metric].p50, second.times_ms[metric].p50) for metric in METRICS}
    before, after = (None if row.memory is None else row.memory.peak_host_bytes for row in (first, second))
    memory = None if before is None or after is None else after / before
    return ComparedRow(first.budget, first.kept_tokens, first.visual_tokens, first.concurrency, ratios, medians, memory)


def _strata(row: BudgetRow, metric: str) -> list[NDArray[np.float64]]:
    by_input: dict[int, list[Sample]] = {}
    for sample in row.samples:
        by_input.setdefault(sample.asked, []).append(sample)
    if not by_input:
        raise UserError(f"The report has no raw samples at budget {row.budget}; measure again with this version.")
    return [np.array([getattr(one, f"{metric}_ms") for one in samples]) for samples in by_input.values()]
