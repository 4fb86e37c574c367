"""Which answer is meant: one policy at one budget, of one training run. The unpruned model is one more case."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from grip_edge.budget import Budget

UNPRUNED = "unpruned"
FULL_BUDGET = "1.0"


@dataclass(frozen=True)
class Case:
    """``budget`` as the user wrote it; ``run`` counts the training runs of a learned policy, 0 for the others."""

    policy: str
    budget: str
    kept_tokens: int
    run: int = 0


def pruning_budgets(budgets: Sequence[str], visual_tokens: int) -> dict[int, str]:
    """Tokens to keep -> the budget as first written. Keeping all is left out: that is the unpruned model."""
    written: dict[int, str] = {}
    for budget in budgets:
        written.setdefault(Budget.of(budget).kept_tokens(visual_tokens), str(Budget.of(budget)))
    written.pop(visual_tokens, None)
    return written


def case_grid(runs: dict[str, int], budgets: Sequence[str], visual_tokens: int) -> tuple[Case, ...]:
    """The unpruned model, then every policy at every budget; ``runs`` maps policies to numbers of training runs."""
    cases = [Case(UNPRUNED, FULL_BUDGET, visual_tokens)]
    for policy, count in runs.items():
        for kept, budget in pruning_budgets(budgets, visual_tokens).items():
            cases += [Case(policy, budget, kept, run) for run in range(count)]
    return tuple(cases)
