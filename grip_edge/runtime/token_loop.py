"""From a prefill to an answer's tokens: choose one, run the decoder over it, choose the next.

Not here: the prefill, and where the decoder runs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, Protocol

from numpy.typing import NDArray

from grip_edge.runtime.sampling import Sampler


class Chooser(Protocol):
    """A decoder after a run. ``logits`` [V] is one array, whose numbers each run replaces."""

    logits: NDArray[Any]

    def likeliest_token(self) -> int: ...


def answer_tokens(
    decoder: Chooser, step: Callable[[int, int], None], sampler: Sampler, last_position: int, count: int
) -> Iterator[int]:
    """Up to ``count`` token ids behind the prompt's ``last_position``. ``step`` takes a token and its position."""
    choose = decoder.likeliest_token if sampler.is_greedy else partial(sampler.choose, decoder.logits)
    token = choose()
    yield token
    for position in range(last_position + 1, last_position + count):
        step(token, position)
        token = choose()
        yield token
