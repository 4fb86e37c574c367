"""Accuracy per policy, budget and skill for programs that train: policies as objects in, a small table out.

The measuring is that of ``grip-edge evaluate`` (package ``evaluation``); nothing is kept on disk here.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from rich.progress import track

from grip_edge.calibration.data import SceneData
from grip_edge.calibration.evaluation.answering import TorchAnswerer
from grip_edge.calibration.evaluation.cases import FULL_BUDGET, UNPRUNED, case_grid
from grip_edge.calibration.evaluation.collecting import by_image
from grip_edge.calibration.evaluation.contestants import Contestant, always
from grip_edge.calibration.evaluation.intervals import Bootstrap
from grip_edge.calibration.evaluation.records import ImageRecord
from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.calibration.evaluation.tables import ScoredAnswers, accuracy_rows
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.policies import Policy
from grip_edge.calibration.scenes import SKILLS

__all__ = ["FULL_BUDGET", "UNPRUNED", "Accuracy", "accuracies", "answer_all", "markdown"]

_IMAGES_PER_BATCH = 16
_NEW_TOKENS = 8


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
) -> ScoredAnswers:
    """Ask the first ``images`` scenes of ``data`` unpruned and under every policy and budget."""
    contestants = [Contestant(policy.name, policy.name, (always(policy),)) for policy in policies]
    cases = case_grid({one.name: one.runs for one in contestants}, budgets, vlm.visual_tokens)
    answerer = TorchAnswerer(vlm, contestants, cases, _NEW_TOKENS)
    records: list[ImageRecord] = []
    for start in track(range(0, images, _IMAGES_PER_BATCH), f"questions of {data.split} scenes"):
        asked = data.take(range(start, min(start + _IMAGES_PER_BATCH, images)))
        records += by_image(asked, answerer.answers(asked, start), start)
    return ScoredAnswers(cases, records, RULES["exact"])


def accuracies(answers: ScoredAnswers, seed: int = 0) -> list[Accuracy]:
    """Overall and per skill, for every policy and budget."""
    rows = accuracy_rows(answers, Bootstrap(answers.image, seed))
    return [Accuracy(row.policy, row.budget, row.group, row.accuracy, row.low, row.high, row.questions) for row in rows]


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
