"""Which budget a bundle should be used with on this machine: measured on the user's questions, then chosen.

Every question is answered with all tokens and at every budget; then some are asked again with nothing cached, budgets
taking turns, for the times. Not here: the choice itself (``calibration.budget_choice``).
"""

from __future__ import annotations

import dataclasses
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grip_edge.budget_record import BudgetEvidence, RecommendedBudget, SliceEvidence
from grip_edge.bundle import Bundle, replace_manifest
from grip_edge.calibration.budget_choice import METHOD, Measured, choose, lower_bound
from grip_edge.calibration.data import AskedData, AskedQuestion, open_data
from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.cli.evaluation.bundles import BundleAnswerer
from grip_edge.cli.progress import OnStep, progress
from grip_edge.errors import UserError
from grip_edge.runtime import Pipeline
from grip_edge.runtime.machine import machine

WARMUPS = 2
# Where none are given: the ends of the range and what lies between them, each 1.35 times the one before.
_STEP = 1.35


@dataclass(frozen=True)
class BudgetRequest:
    """``min_agreement`` is kept with ``confidence``. ``budgets`` empty: spread over the bundle's range."""

    min_agreement: float | None
    target_ttft_ms: float | None
    confidence: float
    budgets: tuple[str, ...]
    data: str
    split: str
    images: int
    questions_per_image: int
    requests: int
    new_tokens: int

    def __post_init__(self) -> None:
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise UserError(f"--min-agreement is a share in (0, 1]; got {self.min_agreement:g}.")
        if self.target_ttft_ms is not None and self.target_ttft_ms <= 0:
            raise UserError(f"--target-ttft-ms is more than 0; got {self.target_ttft_ms:g}.")
        if not 0.5 <= self.confidence < 1:
            raise UserError(f"--confidence is in [0.5, 1), as 0.95; got {self.confidence:g}.")
        if min(self.images, self.questions_per_image, self.requests, self.new_tokens) < 1:
            raise UserError("--images, --questions-per-image, --requests and --max-new-tokens are at least 1.")

    @property
    def promise(self) -> dict[str, float]:
        asked = {"min_agreement": self.min_agreement, "target_ttft_ms": self.target_ttft_ms}
        return {name: value for name, value in asked.items() if value is not None}


@dataclass(frozen=True)
class _Answered:
    """Questions [R] with the image of each, and one row of answers per case, the unpruned first."""

    questions: tuple[AskedQuestion, ...]
    owners: NDArray[np.int64]
    answers: tuple[tuple[str, ...], ...]

    def agreement(self, row: int) -> NDArray[np.float64]:
        """1 where the answer is the unpruned one, else 0: [R]."""
        return np.array([float(own == other) for own, other in zip(self.answers[row], self.answers[0], strict=True)])

    def by_image(self, scores: NDArray[np.float64]) -> NDArray[np.float64]:
        """Means over the questions of each image: [R] -> [images], without images that have none."""
        counts = np.bincount(self.owners)
        asked = counts > 0
        means: NDArray[np.float64] = np.bincount(self.owners, weights=scores)[asked] / counts[asked]
        return means

    def accuracy(self, row: int) -> float:
        """Share of exact matches."""
        pairs = zip(self.answers[row], self.questions, strict=True)
        return float(np.mean([RULES["exact"].score(text, question.references) for text, question in pairs]))

    def of_group(self, group: str) -> _Answered:
        """The questions of one skill or other group."""
        chosen = [index for index, question in enumerate(self.questions) if str(question.group) == group]
        answers = tuple(tuple(row[index] for index in chosen) for row in self.answers)
        return _Answered(tuple(self.questions[index] for index in chosen), self.owners[chosen], answers)


def recommend_budget(bundle: Bundle, request: BudgetRequest) -> RecommendedBudget:
    """Measures, chooses, and writes the choice into the bundle's manifest."""
    manifest = bundle.manifest
    if manifest.image.tiling is not None:
        raise UserError(f"'{bundle.folder}' cuts images into tiles; its number of visual tokens is no fixed one.")
    vision = manifest.model.vision
    data = open_data(request.data, request.split, vision.image_side_px, request.questions_per_image)
    images = min(request.images, len(data))
    answerer = BundleAnswerer("bundle", bundle, _budgets(bundle, request.budgets), request.new_tokens)
    kept = [case.kept_tokens for case in answerer.cases]
    with progress() as on_step:
        answered = _answer(answerer, data, images, on_step)
        ttft_ms = _times(bundle, data, images, kept, request, on_step)
    measured = [
        Measured(count, answered.by_image(answered.agreement(row)), ttft_ms[count], count == vision.visual_tokens)
        for row, count in enumerate(kept)
    ]
    chosen = choose(measured, request.min_agreement, request.target_ttft_ms, request.confidence)
    record = RecommendedBudget(
        kept_tokens=chosen.kept_tokens,
        promise=request.promise,
        confidence=request.confidence,
        method=METHOD,
        data=data.name,
        images=images,
        questions=len(answered.questions),
        processor=machine(None).cpu_model or "unknown",
        evidence=tuple(_evidence(measured[row], answered, row, request.confidence) for row in np.argsort(kept)),
    )
    replace_manifest(bundle, dataclasses.replace(manifest, recommended_budget=record))
    return record


def _budgets(bundle: Bundle, wanted: tuple[str, ...]) -> tuple[str, ...]:
    allowed = bundle.manifest.budget_range
    if wanted:
        return tuple(str(allowed.resolve(budget)) for budget in wanted)
    spread, count = [], float(allowed.min_tokens)
    while round(count) < allowed.max_tokens:
        spread.append(round(count))
        count = max(count * _STEP, count + 1)
    return tuple(str(count) for count in dict.fromkeys([*spread, allowed.max_tokens]))


def _answer(answerer: BundleAnswerer, data: AskedData, images: int, on_step: OnStep) -> _Answered:
    questions: list[AskedQuestion] = []
    owners: list[int] = []
    rows: list[list[str]] = [[] for _ in answerer.cases]
    for number in range(images):
        on_step("Answering at every budget", number, images)
        asked = data.take([number])
        questions += asked.questions
        owners += [number] * len(asked.questions)
        for row, texts in zip(rows, answerer.answers(asked, number), strict=True):
            row += texts
    return _Answered(tuple(questions), np.array(owners), tuple(tuple(row) for row in rows))


def _times(
    bundle: Bundle, data: AskedData, images: int, kept: Sequence[int], request: BudgetRequest, on_step: OnStep
) -> dict[int, NDArray[np.float64]]:
    """Times to first token by budget; all budgets in every round, in an order of its own."""
    pipeline = Pipeline(bundle, cached_images=0)
    samples: dict[int, list[float]] = {count: [] for count in kept}
    rounds = WARMUPS + request.requests
    for number in range(rounds):
        on_step("Timing every budget", number, rounds)
        asked = data.take([number % images])
        question = asked.questions[number % len(asked.questions)]
        for index in np.random.default_rng([number, 43]).permutation(len(kept)):
            result = pipeline.generate(asked.images[0], question.text, kept[index], max_new_tokens=1)
            samples[kept[index]].append(result.timings.ttft_ms)
    return {count: np.array(values[WARMUPS:]) for count, values in samples.items()}


def _evidence(one: Measured, answered: _Answered, row: int, confidence: float) -> BudgetEvidence:
    groups = sorted({str(question.group) for question in answered.questions})
    return BudgetEvidence(
        kept_tokens=one.kept_tokens,
        agreement=float(answered.agreement(row).mean()),
        agreement_low=1.0 if one.unpruned else lower_bound(one.agreement, confidence),
        accuracy=answered.accuracy(row),
        slices={group: _slice(answered.of_group(group), row, confidence, one.unpruned) for group in groups},
        ttft_p50_ms=float(np.median(one.ttft_ms)),
        ttft_p90_ms=one.ttft_p90_ms,
    )


def _slice(answered: _Answered, row: int, confidence: float, unpruned: bool) -> SliceEvidence:
    same = answered.agreement(row)
    low = 1.0 if unpruned else lower_bound(answered.by_image(same), confidence)
    return SliceEvidence(len(same), float(same.mean()), low, answered.accuracy(row))
