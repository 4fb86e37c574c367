"""What the bundle's scorer was found to be worth at each budget, as its training record says.

The record's rows are those of the evaluation: policy, budget, skill, accuracy, low, high, questions. Only rows of this
scorer over all skills count; the unpruned model's row stands for all tokens kept.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from grip_edge.budget import Budget
from grip_edge.errors import BudgetError
from grip_edge.manifest import Manifest
from grip_edge.report import Accuracy, LatencyReport

_UNPRUNED = "unpruned"
_ALL_SKILLS = "all"


def with_accuracy(report: LatencyReport, manifest: Manifest) -> LatencyReport:
    known = recorded_accuracy(manifest)
    return replace(report, rows=tuple(replace(row, accuracy=known.get(row.kept_tokens)) for row in report.rows))


def recorded_accuracy(manifest: Manifest) -> dict[int, Accuracy]:
    """By tokens kept; empty where the scorer was never evaluated, or where token counts depend on the image."""
    if manifest.image.tiling is not None:
        return {}
    found: dict[int, Accuracy] = {}
    for row in manifest.scorer.training.get("accuracy", ()):
        own = row.get("policy") in (_UNPRUNED, manifest.scorer.name) and row.get("skill") == _ALL_SKILLS
        kept = _kept_tokens(row, manifest.budget_range.visual_tokens) if own else None
        if kept is not None:
            found[kept] = Accuracy(row["accuracy"], row["low"], row["high"], row["questions"])
    return found


def _kept_tokens(row: dict[str, Any], visual_tokens: int) -> int | None:
    try:
        return Budget.of(row["budget"]).kept_tokens(visual_tokens)
    except BudgetError:
        return None
