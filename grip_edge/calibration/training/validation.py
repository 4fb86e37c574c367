"""Kept accuracy: exact match on a slice of held-out questions when only the chosen tokens are seen."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from grip_edge.budget import Budget
from grip_edge.calibration.data import AskedData, AskedQuestion
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.scenes import exact_match
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.selection import gather_tokens, keep_best
from grip_edge.calibration.training.batches import Batch, BatchSource
from grip_edge.calibration.training.cached_vlm import CachedVlm
from grip_edge.errors import UserError

_IMAGES_PER_BATCH = 8


@dataclass(frozen=True)
class ValidationSettings:
    """The first ``images`` of the validation data, at these budgets (ratios); no images, no validation."""

    images: int = 32
    budgets: tuple[float, ...] = (0.1, 0.25)

    def __post_init__(self) -> None:
        if self.images < 0:
            raise UserError(f"validation.images counts images; got {self.images}.")
        for budget in self.budgets:
            Budget(ratio=budget)


class Validation:
    def __init__(
        self, cached: CachedVlm, data: AskedData, questions_per_image: int, settings: ValidationSettings
    ) -> None:
        self.source = BatchSource(cached, data, questions_per_image)
        self.settings = settings
        self.images = min(settings.images, len(data))

    def __call__(self, scorer: Scorer) -> dict[str, float]:
        """``accuracy@<budget>`` for every budget, in [0, 1], of the scorer as it is in use."""
        training = scorer.training
        scorer.train(False)
        try:
            return self._accuracy(scorer)
        finally:
            scorer.train(training)

    def _accuracy(self, scorer: Scorer) -> dict[str, float]:
        verdicts: dict[float, list[Tensor]] = {budget: [] for budget in self.settings.budgets}
        for batch in self._batches():
            for budget, found in verdicts.items():
                kept = Budget(ratio=budget).kept_tokens(self.source.vlm.visual_tokens)
                with torch.no_grad():
                    indices = keep_best(batch.scores(scorer, kept), kept)
                found.append(right_answers(self.source.vlm, batch, gather_tokens(batch.visual, indices)))
        return {f"accuracy@{budget}": float(torch.cat(found).mean()) for budget, found in verdicts.items() if found}

    def unpruned(self) -> tuple[float, int]:
        """Accuracy with all tokens (0 without questions), and the number of questions."""
        verdicts = [right_answers(self.source.vlm, batch, batch.visual) for batch in self._batches()]
        right = torch.cat([torch.zeros(0), *verdicts])
        return float(right.sum()) / max(1, len(right)), len(right)

    def _batches(self) -> Iterator[Batch]:
        for start in range(0, self.images, _IMAGES_PER_BATCH):
            yield self.source.batch(self.source.data.take(range(start, min(start + _IMAGES_PER_BATCH, self.images))))


def right_answers(vlm: FrozenVlm, batch: Batch, visual: Tensor) -> Tensor:
    """1 where the greedy answer over the kept tokens visual [R,K,D] is accepted, else 0: fp32 [R]."""
    longest = max(len(answer) for answer in batch.prompts.answers)
    texts = vlm.answers(visual, batch.prompts, max_new_tokens=longest + 1)
    return torch.tensor([float(accepted(text, q)) for text, q in zip(texts, batch.questions, strict=True)])


def accepted(answer: str, question: AskedQuestion) -> bool:
    """Exact match with any of the reference answers."""
    return any(exact_match(answer, reference) for reference in question.references)
