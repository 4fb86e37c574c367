"""One question about one image, with every option checked. Nothing is read or computed yet."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, TypedDict

from grip_edge.budget import Budget, BudgetRange
from grip_edge.errors import UserError
from grip_edge.runtime.image import ImageSource
from grip_edge.runtime.result import BudgetUse
from grip_edge.runtime.sampling import Sampling
from grip_edge.tiles import TilePlan


class AnswerOptions(TypedDict, total=False):
    """How tokens are chosen: greedily, unless there is a temperature (``Sampling``); and ``Request.ignore_stop``."""

    temperature: float
    top_p: float
    seed: int | None
    ignore_stop: bool


@dataclass(frozen=True)
class EncodedImage:
    """An image behind the vision tower: the features of all its patches, in the backend's kind of array."""

    features: Any
    plan: TilePlan | None


@dataclass(frozen=True)
class Request:
    """``ignore_stop`` goes on to ``max_new_tokens`` whatever the model says, for timing."""

    image: ImageSource | EncodedImage
    question: str
    budget: Budget
    max_new_tokens: int
    sampling: Sampling
    ignore_stop: bool

    def __post_init__(self) -> None:
        if self.max_new_tokens < 1:
            raise UserError(f"max-new-tokens is at least 1; got {self.max_new_tokens}.")


def budget_use(wanted: Budget | float | int | str, allowed: BudgetRange) -> BudgetUse:
    """The budget in tokens, beside the number that was asked for."""
    budget = Budget.of(wanted)
    requested = budget.ratio if budget.tokens is None else budget.tokens
    assert requested is not None  # Budget sets exactly one of the two
    return BudgetUse(requested, allowed.resolve(budget), allowed.visual_tokens)
