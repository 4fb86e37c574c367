"""A judge with a known answer: a question names a kind of token, and only tokens of that kind help to answer it.

Stands in for the frozen model and its data, so that training can be checked against what it must find.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

import numpy as np
import torch
from PIL import Image
from torch import Tensor

from grip_edge.calibration.data import AskedImages, AskedQuestion
from grip_edge.calibration.frozen_vlm import Prompts
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.selection import keep_best
from grip_edge.calibration.training.batches import Batch, BatchSource
from grip_edge.calibration.training.setup import Setup

GRID = (4, 4)
TOKENS = 16
KINDS = 4
PLANTED = 4
"""Tokens of each kind in every image; so a budget of 4 can hold all that matter, and chance holds one of them."""
WIDTH = 8


@dataclass
class PlantedVlm:
    """The log-probability of the answer is minus the share of the named kind's tokens that are missing."""

    grid: tuple[int, int] = GRID
    visual_tokens: int = TOKENS
    vision_width: int = WIDTH
    text_width: int = KINDS
    device: torch.device = field(default_factory=lambda: torch.device("cpu"))

    def answer_log_prob(self, visual: Tensor | Sequence[Tensor], prompts: Prompts) -> Tensor:
        found = [(kept[:, kind] > 0.5).sum() for kept, kind in zip(visual, prompts.question_ids[:, 0], strict=True)]
        return torch.stack(found) / PLANTED - 1


class SummaryVlm(PlantedVlm):
    """Here tokens of the last kind are summaries: one tells half of what the details that are missing would.

    With one token a summary is the best choice (0.5 against 0.25), with four the details are (1 against 0.875): no one
    ranking serves both budgets.
    """

    def answer_log_prob(self, visual: Tensor | Sequence[Tensor], prompts: Prompts) -> Tensor:
        details = super().answer_log_prob(visual, prompts) + 1
        summary = torch.stack([(kept[:, KINDS - 1] > 0.5).any() for kept in visual]).float()
        return details + 0.5 * summary * (1 - details) - 1


class PlantedSource:
    """Images of four kinds of tokens at random places, a question about one kind for each."""

    def __init__(self, informed: float, vlm: PlantedVlm) -> None:
        """``informed`` is the weight of the truth in what stands for the frozen model's attention."""
        self.vlm = vlm
        self.asked_kinds = KINDS - 1 if isinstance(vlm, SummaryVlm) else KINDS
        self.cached: Any = self
        self.data: Any = self
        self.informed = informed

    def __len__(self) -> int:
        return 1000

    def take(self, indices: Sequence[int]) -> AskedImages:
        images = tuple(Image.new("L", (1, 1), int(index) % 256) for index in indices)
        return AskedImages(images, (), ())

    def features(self, images: Sequence[Image.Image]) -> tuple[Tensor, tuple[str, ...]]:
        seeds = [image.getpixel((0, 0)) for image in images]
        return torch.stack([self._tokens(np.random.default_rng([int(cast(int, seed))])) for seed in seeds]), ()

    def draw(self, images: int, rng: np.random.Generator) -> Batch:
        features = torch.stack([self._tokens(rng) for _ in range(images)])
        kinds = torch.from_numpy(rng.integers(0, self.asked_kinds, size=(images, 1)))
        prompts = Prompts(((1,),) * images, ((2,),) * images, kinds, torch.ones_like(kinds, dtype=torch.bool))
        questions = (AskedQuestion("?", "!", ("!",), "all"),) * images
        embeds = torch.nn.functional.one_hot(kinds, KINDS).float()
        return Batch(questions, prompts, features, features, embeds, ("",) * images)

    def attention_target(self, visual: Tensor, prompts: Prompts, *_: object) -> Tensor:
        truth = torch.stack(
            [(tokens[:, kind] > 0.5).float() for tokens, kind in zip(visual, prompts.question_ids[:, 0], strict=True)]
        )
        return self.informed * truth / PLANTED + (1 - self.informed) / TOKENS

    def _tokens(self, rng: np.random.Generator) -> Tensor:
        kind = rng.permutation(np.repeat(np.arange(KINDS), PLANTED))
        values = 0.1 * rng.normal(size=(TOKENS, WIDTH))
        values[np.arange(TOKENS), kind] += 1.0
        return torch.from_numpy(values).float()


def planted_setup(folder: Path, informed: float, vlm: PlantedVlm | None = None) -> Setup:
    return Setup(cast(BatchSource, PlantedSource(informed, vlm or PlantedVlm())), folder, seed=0)


@torch.no_grad()
def share_found(setup: Setup, scorer: Scorer, kept: int = PLANTED) -> float:
    """How much of the answer the ``kept`` best tokens hold, over fresh images. Of a ``PlantedVlm``: the share of the
    tokens that matter among them; chance is kept / 16.
    """
    batch = setup.source.draw(200, np.random.default_rng(12345))
    indices = keep_best(batch.scores(scorer, kept), kept)
    chosen = batch.visual.gather(1, indices[..., None].expand(-1, -1, WIDTH))
    return float(setup.vlm.answer_log_prob(chosen, batch.prompts).mean()) + 1
