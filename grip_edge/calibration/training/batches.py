"""One step's batch: some images with their questions, as the frozen model sees them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from torch import Tensor

from grip_edge.calibration.data import AskedData, AskedImages, AskedQuestion
from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.training.cached_vlm import CachedVlm


@dataclass(frozen=True)
class Batch:
    """R questions: ``features`` [R,N,Dv] fp32, ``visual`` [R,N,D] after the projector, ``question_embeds`` [R,T,D]
    fp32, and the cache's key of each question's image.
    """

    questions: tuple[AskedQuestion, ...]
    prompts: Prompts
    features: Tensor
    visual: Tensor
    question_embeds: Tensor
    image_keys: tuple[str, ...]

    def scores(self, scorer: Scorer, kept: int | Tensor) -> Tensor:
        """[R,N]; ``kept`` is of all questions, or int64 [R] of each."""
        budget = torch.as_tensor(kept, device=self.features.device).reshape(-1)
        scores: Tensor = scorer(self.features, self.question_embeds, budget, self.prompts.question_mask)
        return scores


@dataclass(frozen=True)
class BatchSource:
    """Draws batches; of an image with more than ``questions_per_image`` questions, that many at random."""

    cached: CachedVlm
    data: AskedData
    questions_per_image: int

    @property
    def vlm(self) -> FrozenVlm:
        return self.cached.vlm

    def draw(self, images: int, rng: np.random.Generator) -> Batch:
        asked = self.data.take(rng.integers(0, len(self.data), size=images).tolist())
        return self.batch(at_most(asked, self.questions_per_image, rng))

    def batch(self, asked: AskedImages) -> Batch:
        vlm = self.vlm
        features, keys = self.cached.features(asked.images)
        visual = vlm.visual_embeds(features)
        prompts = vlm.prompts([q.text for q in asked.questions], [q.answer for q in asked.questions])
        rows = torch.tensor(asked.image_of)
        return Batch(
            asked.questions,
            prompts,
            features[rows].float(),
            visual[rows],
            vlm.question_embeds(prompts).float(),
            tuple(keys[row] for row in asked.image_of),
        )


def at_most(asked: AskedImages, questions_per_image: int, rng: np.random.Generator) -> AskedImages:
    """Without the surplus questions, drawn at random where an image has more than ``questions_per_image``."""
    kept: list[int] = []
    for image in range(len(asked.images)):
        own = [row for row, owner in enumerate(asked.image_of) if owner == image]
        if len(own) > questions_per_image:
            own = sorted(rng.choice(own, size=questions_per_image, replace=False).tolist())
        kept += own
    return AskedImages(
        asked.images, tuple(asked.questions[row] for row in kept), tuple(asked.image_of[row] for row in kept)
    )
