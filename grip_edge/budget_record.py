"""The budget that ``grip-edge calibrate`` recommends for a bundle, and the evidence: part of ``grip.json``.

Agreement is the share of questions whose answer equals the unpruned one. Times are those of the named machine.
"""

from __future__ import annotations

from dataclasses import dataclass

AUTO_BUDGET = "auto"
"""In place of a budget: the recommended one."""


@dataclass(frozen=True)
class SliceEvidence:
    """Questions of one skill or other group. ``agreement_low`` holds for this slice alone, at the same confidence."""

    questions: int
    agreement: float
    agreement_low: float
    accuracy: float


@dataclass(frozen=True)
class BudgetEvidence:
    """One budget, measured. ``agreement_low`` is where the test of ``method`` still holds; ``accuracy`` is the
    share of exact matches; ``slices`` are by skill or other group of questions.
    """

    kept_tokens: int
    agreement: float
    agreement_low: float
    accuracy: float
    slices: dict[str, SliceEvidence]
    ttft_p50_ms: float
    ttft_p90_ms: float


@dataclass(frozen=True)
class RecommendedBudget:
    """``promise`` holds what was asked: ``min_agreement``, ``target_ttft_ms``. ``confidence`` is that of the agreement;
    the time is promised of nine requests in ten, as measured on ``processor``.
    """

    kept_tokens: int
    promise: dict[str, float]
    confidence: float
    method: str
    data: str
    images: int
    questions: int
    processor: str
    evidence: tuple[BudgetEvidence, ...]
