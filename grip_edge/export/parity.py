"""Do the exported graphs equal the reference? Features, logits, greedy tokens and kept sets, at several budgets.

The check runs at the end of every export, on the files as written; a difference fails the export.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grip_edge.budget import BudgetRange
from grip_edge.errors import ParityError
from grip_edge.export.graph_runner import GraphRunner
from grip_edge.export.reference import Answer, Reference, Request
from grip_edge.manifest import ParityResult

# Largest absolute difference allowed in fp32, for vision features and for logits.
TOLERANCE = 1e-3


def check_parity(
    runner: GraphRunner, reference: Reference, request: Request, budgets: BudgetRange
) -> tuple[ParityResult, ...]:
    """Results at the smallest, the largest and the full budget; ParityError names the first difference."""
    features = runner.features(request)
    _require_close("Vision features differ", features, reference.features(request).numpy())
    results = []
    for kept in sorted({budgets.min_tokens, budgets.max_tokens, budgets.visual_tokens}):
        found, expected = runner.answer(request, features, kept), reference.answer(request, kept)
        results.append(_compare(kept, found, expected))
    return tuple(results)


def _compare(kept: int, found: Answer, expected: Answer) -> ParityResult:
    at = f"at {kept} visual tokens"
    if found.kept_indices != expected.kept_indices:
        odd = sorted(set(found.kept_indices) ^ set(expected.kept_indices))
        raise ParityError(f"Kept tokens differ {at}: {odd} are in one set only; the export is not usable.")
    _require_close(f"Logits differ {at}", found.logits, expected.logits)
    if found.tokens != expected.tokens:
        raise ParityError(f"Greedy tokens differ {at}: {list(found.tokens)}, expected {list(expected.tokens)}.")
    difference = np.abs(found.logits - expected.logits)
    return ParityResult(
        budget_tokens=kept,
        logits_max_difference=float(difference.max()),
        logits_mean_difference=float(difference.mean()),
        tokens_equal=True,
        kept_sets_equal=True,
    )


def _require_close(what: str, found: NDArray[np.float32], expected: NDArray[np.float32]) -> None:
    if found.shape != expected.shape:
        raise ParityError(f"{what} in shape: {list(found.shape)}, expected {list(expected.shape)}.")
    difference = np.abs(found - expected)
    if not difference.max() <= TOLERANCE:  # also refuses NaN
        raise ParityError(
            f"{what}: largest {difference.max():.3g}, mean {difference.mean():.3g}; allowed {TOLERANCE:.3g}. "
            "The export is not usable and was removed; please report the model."
        )
