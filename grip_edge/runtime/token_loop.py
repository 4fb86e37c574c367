"""From a prefill to an answer's tokens: choose one, run the decoder over it, choose the next.

After each run of a large decoder nothing of Python is left in the processor's caches, and a line of it then costs
microseconds, a call of a function several. So greedy decoding, where the decoder itself finds the likeliest token and
embeds it, is one run and a few lines in one place (``greedy_tokens``).
Not here: the prefill, and where the decoder runs.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Collection, Iterator
from typing import Any, NamedTuple, Protocol

from numpy.typing import NDArray

from grip_edge.runtime.sampling import Sampler, not_a_number


class Decoding(NamedTuple):
    """At most ``max_tokens``, chosen by ``sampler``, up to one of ``stops``, which is left out. ``note`` takes the
    moment at which each is there, that of the stop too, as ``time.perf_counter`` gives it.
    """

    max_tokens: int
    sampler: Sampler
    stops: Collection[int]
    note: Callable[[float], object]


class Chooser(Protocol):
    """A decoder after a run. ``logits`` [V] is one array, whose numbers each run replaces."""

    logits: NDArray[Any]

    def likeliest_token(self) -> int: ...


def chosen(decoder: Chooser, sampler: Sampler) -> int:
    """The token after the decoder's last run; BundleError if its logit is not a number."""
    return decoder.likeliest_token() if sampler.is_greedy else sampler.choose(decoder.logits)


def answer_tokens(
    choose: Callable[[], int], step: Callable[[int, int], None], last_position: int, decoding: Decoding
) -> Iterator[int]:
    """Token ids behind the prompt's ``last_position``. ``step`` takes a token and its position."""
    for position in range(last_position + 1, last_position + decoding.max_tokens + 1):
        token = choose()
        decoding.note(time.perf_counter())
        if token in decoding.stops:
            return
        yield token
        if position < last_position + decoding.max_tokens:
            step(token, position)


class GreedyStep(NamedTuple):
    """``run`` of ``argument`` reads the likeliest token, whose embedding the run before has left, at ``position`` into
    slot ``start``, and leaves the next one in ``likeliest``, beside all ``logits``. Plain views: numpy's indexing takes
    25 us where nothing of it is in the processor's caches.
    """

    run: Callable[[Any], object]
    argument: Any
    position: memoryview
    start: memoryview
    likeliest: memoryview
    logits: memoryview


BeginSteps = Callable[[int], tuple[GreedyStep, int]]
"""Takes a number of tokens, and gives the step for them and the slot of the first."""


def greedy_tokens(
    likeliest_token: Callable[[], int], begin_steps: BeginSteps, last_position: int, decoding: Decoding
) -> Iterator[int]:
    """As ``answer_tokens``, where each run embeds its choice."""
    max_tokens, _, stops, note = decoding
    now = time.perf_counter
    token = likeliest_token()
    note(now())
    if token in stops:
        return
    yield token
    (run, argument, positions, starts, likeliest, logits), slot = begin_steps(max_tokens - 1)
    to_slot = slot - last_position - 1
    for position in range(last_position + 1, last_position + max_tokens):
        positions[0], starts[0] = position, position + to_slot
        run(argument)
        token = likeliest[0]
        logit = logits[token]
        if logit != logit:  # NaN, in fewer instructions than a call
            raise not_a_number()
        note(now())
        if token in stops:
            return
        yield token
