"""Which answer is meant: one policy at one budget, of one training run. The unpruned model is one more case."""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.budget import Budget
from grip_edge.errors import UserError

UNPRUNED = "unpruned"
FULL_BUDGET = "1.0"


@dataclass(frozen=True)
class Case:
    """``budget`` as the user wrote it; ``run`` counts the training runs of a learned policy, 0 for the others."""

    policy: str
    budget: str
    kept_tokens: int
    run: int = 0


def case_grid(policies: dict[str, int], budgets: tuple[str, ...], visual_tokens: int) -> tuple[Case, ...]:
    """``policies`` maps names to numbers of runs; the unpruned model comes first; equal budgets are one."""
    written: dict[int, str] = {}
    for budget in budgets:
        written.setdefault(Budget.of(budget).kept_tokens(visual_tokens), str(Budget.of(budget)))
    written.pop(visual_tokens, None)  # every policy keeps all tokens then: that is the unpruned model
    if policies and not written:
        raise UserError(f"--budgets {','.join(budgets)} prunes nothing; give at least one budget below 1.0.")
    cases = [Case(UNPRUNED, FULL_BUDGET, visual_tokens)]
    for policy, runs in policies.items():
        cases += [Case(policy, budget, kept, run) for kept, budget in written.items() for run in range(runs)]
    return tuple(cases)
