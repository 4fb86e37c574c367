"""Accuracy per policy, budget and skill on held-out questions, with 95 % bootstrap intervals over images.

All policies and budgets answer the same questions of the same images with the same frozen model, greedily.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track

from grip_edge.budget import Budget
from grip_edge.calibration.data import SceneData
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.calibration.scenes import SKILLS, exact_match
from grip_edge.calibration.selection import gather_tokens

UNPRUNED = "unpruned"
_IMAGES_PER_BATCH = 16
_BOOTSTRAP_DRAWS = 2000


@dataclass(frozen=True)
class Answers:
    """Right or wrong, per question: ``right[(policy, budget)]`` bool [Q]; ``skill`` [Q]; ``image`` [Q]."""

    right: dict[tuple[str, str], NDArray[np.bool_]]
    skill: NDArray[np.int64]
    image: NDArray[np.int64]


@dataclass(frozen=True)
class Accuracy:
    """A share of right answers with its 95 % interval, all in [0, 1]."""

    policy: str
    budget: str
    skill: str
    accuracy: float
    low: float
    high: float
    questions: int


def answer_all(
    vlm: FrozenVlm, data: SceneData, images: int, policies: Sequence[Policy], budgets: Sequence[str]
) -> Answers:
    """Ask the first ``images`` scenes of ``data`` unpruned and under every policy and budget."""
    right: dict[tuple[str, str], list[bool]] = {}
    skills: list[int] = []
    owners: list[int] = []
    starts = range(0, images, _IMAGES_PER_BATCH)
    for start in track(starts, f"questions of {data.split} scenes"):
        asked = data.take(range(start, min(start + _IMAGES_PER_BATCH, images)))
        features, cls_attention = vlm.features_and_cls_attention(vlm.pixels(asked.images))
        prompts = vlm.prompts([q.text for q in asked.questions])
        rows = torch.tensor(asked.image_of)
        visual = vlm.visual_embeds(features)[rows]
        evidence = Evidence(
            features=features[rows].float(),
            visual=visual.float(),
            cls_attention=cls_attention[rows],
            question_embeds=vlm.question_embeds(prompts).float(),
            question_mask=prompts.question_mask,
            grid=vlm.grid,
        )
        cases: list[tuple[tuple[str, str], torch.Tensor]] = [((UNPRUNED, "1.0"), visual)]
        for policy in policies:
            for budget in budgets:
                indices = policy.select(evidence, Budget.of(budget).kept_tokens(vlm.visual_tokens))
                cases.append(((policy.name, budget), gather_tokens(visual, indices)))
        for key, kept in cases:
            texts = vlm.answers(kept, prompts)
            verdicts = [exact_match(text, q.answer) for text, q in zip(texts, asked.questions, strict=True)]
            right.setdefault(key, []).extend(verdicts)
        skills += [SKILLS.index(q.group) for q in asked.questions]
        owners += [start + row for row in asked.image_of]
    return Answers({key: np.array(rows) for key, rows in right.items()}, np.array(skills), np.array(owners))


def accuracies(answers: Answers, seed: int = 0) -> list[Accuracy]:
    """Overall and per skill, for every policy and budget."""
    table = []
    for (policy, budget), right in answers.right.items():
        for skill in ("all", *SKILLS):
            asked = np.ones_like(right) if skill == "all" else answers.skill == SKILLS.index(skill)
            low, high = bootstrap_interval(right[asked], answers.image[asked], seed)
            table.append(Accuracy(policy, budget, skill, float(right[asked].mean()), low, high, int(asked.sum())))
    return table


def bootstrap_interval(right: NDArray[np.bool_], image: NDArray[np.int64], seed: int) -> tuple[float, float]:
    """95 % percentile interval, resampling images: questions about one image are not independent."""
    _, owner = np.unique(image, return_inverse=True)
    hits = np.bincount(owner, weights=right)
    asked = np.bincount(owner)
    draws = np.random.default_rng(seed).integers(0, len(hits), size=(_BOOTSTRAP_DRAWS, len(hits)))
    shares = hits[draws].sum(axis=1) / asked[draws].sum(axis=1)
    low, high = np.percentile(shares, [2.5, 97.5])
    return float(low), float(high)


def markdown(table: Sequence[Accuracy]) -> str:
    """One row per policy and budget, one column per skill."""
    columns = ("all", *SKILLS)
    lines = [
        "| policy | budget | " + " | ".join(columns) + " |",
        "| --- | ---: | " + " | ".join("---:" for _ in columns) + " |",
    ]
    cells = {(row.policy, row.budget, row.skill): row for row in table}
    for policy, budget in dict.fromkeys((row.policy, row.budget) for row in table):
        shown = [_cell(cells[policy, budget, column], with_interval=column == "all") for column in columns]
        lines.append(f"| {policy} | {budget} | " + " | ".join(shown) + " |")
    return "\n".join(lines) + "\n"


def _cell(row: Accuracy, with_interval: bool) -> str:
    share = f"{100 * row.accuracy:.1f}"
    return f"{share} ({100 * row.low:.1f} to {100 * row.high:.1f})" if with_interval else share
