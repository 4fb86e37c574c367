"""How many of the worst layers must stay in more bits: the fewest that meet the limits.

The order is given (by measured error); the number is found by measuring whole models: 0, then 1, 2, 4, ... until the
limits are met, then halving the gap. More kept layers are taken to cost less, which noise may contradict by a few.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import TypeVar

from grip_edge.errors import ParityError

Measured = TypeVar("Measured")


def fewest_kept(
    layers: int, measure: Callable[[int], Measured], met: Callable[[Measured], bool], tell: Callable[[Measured], str]
) -> tuple[int, Measured]:
    """The number and what was measured there; ParityError, with what ``tell`` says, if even all are not enough."""
    failed, kept = -1, 0
    while not met(measured := measure(kept)):
        if kept == layers:
            raise ParityError(
                f"With all layers in more bits it is still {tell(measured)}; allow more, or choose a finer --precision."
            )
        failed, kept = kept, min(max(1, 2 * kept), layers)
    while kept - failed > 1:
        middle = (failed + kept) // 2
        candidate = measure(middle)
        if met(candidate):
            kept, measured = middle, candidate
        else:
            failed = middle
    return kept, measured
