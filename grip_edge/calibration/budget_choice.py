"""The smallest budget that keeps a promise, chosen from data with a guarantee.

Learn then Test (2110.01052): a budget is accepted when the hypothesis "less than A of the answers agree with the
unpruned ones" is rejected at level 1 - confidence. Budgets are tested from the largest to the smallest and the first
that is not rejected ends it (fixed sequence testing, ibid., section 4.2), so that the level holds for the choice as a
whole, without correction. The p-value is that of a bet (2010.09686, section 4) over images: questions about one image
are not independent, so an image counts once, with the share of its answers that disagree.

Not here: measuring (``grip_edge.cli.budget_choice``), the record in the manifest (``grip_edge.budget_record``).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

from grip_edge.errors import UserError

METHOD = "Learn then Test, fixed sequence, betting over images"
_HALVINGS = 40


@dataclass(frozen=True)
class Measured:
    """A budget: the share of agreeing answers of each image [images], and times to first token [requests].

    ``unpruned`` keeps all tokens, and agrees by definition.
    """

    kept_tokens: int
    agreement: NDArray[np.float64]
    ttft_ms: NDArray[np.float64]
    unpruned: bool = False

    @property
    def ttft_p90_ms(self) -> float:
        return float(np.percentile(self.ttft_ms, 90))


def choose(
    measured: Sequence[Measured], min_agreement: float | None, target_ttft_ms: float | None, confidence: float
) -> Measured:
    """With ``min_agreement``, the smallest budget that keeps it; with a time alone, the largest that is fast enough.

    UserError, with what was measured, where no budget keeps the promise.
    """
    rising = sorted(measured, key=lambda one: one.kept_tokens)
    fast = [one for one in rising if target_ttft_ms is None or one.ttft_p90_ms <= target_ttft_ms]
    if not fast:
        raise UserError(
            f"No budget answers within {target_ttft_ms:g} ms: keeping {rising[0].kept_tokens} tokens takes "
            f"{rising[0].ttft_p90_ms:.1f} ms here (90th percentile). Choose a later --target-ttft-ms."
        )
    if min_agreement is None:
        return fast[-1]
    agreeing = accepted(rising, min_agreement, confidence)
    if not agreeing:
        raise UserError(_not_sure(rising[-1], min_agreement, confidence))
    both = [one for one in agreeing if one in fast]
    if not both:
        raise UserError(
            f"To agree in {min_agreement:.1%} of the answers takes {agreeing[0].kept_tokens} tokens and "
            f"{agreeing[0].ttft_p90_ms:.1f} ms (90th percentile), more than {target_ttft_ms:g} ms. Give way."
        )
    return both[0]


def _not_sure(largest: Measured, min_agreement: float, confidence: float) -> str:
    images, low = len(largest.agreement), lower_bound(largest.agreement, confidence)
    return (
        f"No budget is sure to agree in {min_agreement:.1%} of the answers: with {largest.kept_tokens} tokens "
        f"{largest.agreement.mean():.1%} do, at least {low:.1%} with confidence {confidence:g} from {images} images. "
        "Ask for less, or measure more --images."
    )


def accepted(rising: Sequence[Measured], min_agreement: float, confidence: float) -> list[Measured]:
    """Those of ``rising`` (smallest budget first) that are sure to agree in ``min_agreement`` of the answers."""
    found: list[Measured] = []
    for one in reversed(rising):
        if not one.unpruned and p_value(1 - one.agreement, 1 - min_agreement, 1 - confidence) > 1 - confidence:
            break
        found.insert(0, one)
    return found


def p_value(losses: NDArray[np.float64], limit: float, level: float) -> float:
    """Of the hypothesis that the mean of losses in [0, 1] is at least ``limit``, from independent ones.

    Somebody bets on each loss being below the limit, a part of the wealth that the losses before it suggest for
    rejecting at ``level``. If the hypothesis holds, wealth is not expected to grow, so it ever reaches w with a chance
    of at most 1 / w (Ville). Any level gives a p-value that is valid at all levels.
    """
    if not 0 < limit < 1:  # every mean reaches 0, and to ask for no agreement at all is to ask for nothing
        return float(limit <= 0)
    n, counts = len(losses), np.arange(1, len(losses) + 1)
    means = (0.5 + losses.cumsum()) / (counts + 1)
    variances = (0.25 + ((losses - means) ** 2).cumsum()) / (counts + 1)
    known = np.concatenate([[0.25], variances[:-1]])
    stakes = np.minimum(np.sqrt(-2 * math.log(level) / (n * known)), 1.0)
    wealth = np.log1p(stakes * (limit - losses)).cumsum()
    return math.exp(-max(0.0, float(wealth.max())))


def lower_bound(agreement: NDArray[np.float64], confidence: float) -> float:
    """The largest share of agreement that this budget alone would be accepted for."""
    low, high = 0.0, float(agreement.mean())
    for _ in range(_HALVINGS):
        middle = (low + high) / 2
        if p_value(1 - agreement, 1 - middle, 1 - confidence) <= 1 - confidence:
            low = middle
        else:
            high = middle
    return low
