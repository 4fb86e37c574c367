"""The Pareto frontier of accuracy against time, and how much faster equal accuracy is."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grip_edge.calibration.evaluation.report import EvaluationReport
from grip_edge.calibration.evaluation.tables import EVERYTHING


@dataclass(frozen=True)
class Point:
    """A policy at a budget: its accuracy, and the median end-to-end time of a request."""

    policy: str
    budget: str
    kept_tokens: int
    accuracy: float
    total_ms: float


@dataclass(frozen=True)
class EqualAccuracy:
    """``fastest`` is at least as accurate as ``rival``. ``saved_share`` of the rival's time; negative where slower."""

    rival: Point
    fastest: Point

    @property
    def saved_share(self) -> float:
        return 1 - self.fastest.total_ms / self.rival.total_ms


def points(report: EvaluationReport) -> list[Point]:
    """Every policy and budget that was both answered and timed."""
    accuracy = {(row.policy, row.budget): row.accuracy for row in report.accuracy if row.group == EVERYTHING}
    return [
        Point(row.policy, row.budget, row.kept_tokens, accuracy[row.policy, row.budget], row.p50_ms["total"])
        for row in report.latency
        if (row.policy, row.budget) in accuracy
    ]


def frontier(candidates: Sequence[Point]) -> list[Point]:
    """The points that no other beats by being faster and at least as accurate; from the fastest to the slowest."""
    best: list[Point] = []
    for point in sorted(candidates, key=lambda point: (point.total_ms, -point.accuracy)):
        if not best or point.accuracy > best[-1].accuracy:
            best.append(point)
    return best


def equal_accuracy(candidates: Sequence[Point], policy: str) -> list[EqualAccuracy]:
    """For each point of a rival, the fastest measured point of ``policy`` that is at least as accurate, if any."""
    own = [point for point in candidates if point.policy == policy]
    found = []
    for rival in candidates:
        enough = [point for point in own if point.accuracy >= rival.accuracy]
        if rival.policy != policy and enough:
            found.append(EqualAccuracy(rival, min(enough, key=lambda point: point.total_ms)))
    return found
