"""Do the exported graphs equal the reference? Features, logits, greedy tokens and kept sets, at several budgets.

The check runs at the end of every export, on the files as written; too large a difference fails the export. With fp32
weights nothing may differ but rounding. With fewer bits the agreement is recorded, and only a difference that rounding
of weights cannot explain fails: the directions of features and logits, about their means, must stay close.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray
from torch import Tensor

from grip_edge.budget import BudgetRange
from grip_edge.errors import ParityError
from grip_edge.export.graph_runner import GraphRunner
from grip_edge.export.reference import Answer, GraphChoice, Request
from grip_edge.manifest import ParityResult, WeightFormats

# Largest absolute difference allowed in fp32, for vision features and for logits.
TOLERANCE = 1e-3

# Smallest cosine allowed between found and expected, by the coarsest format of weights and cache, coarsest first. A
# wrong graph gives about zero; 32 layers of random weights in int4, the worst that rounding was seen to do, give 0.69.
LEAST_COSINE = {"int4": 0.5, "int8": 0.9, "int8-weight": 0.97, "bf16": 0.99, "fp16": 0.999}


# Gets what is compared, and the share of the comparison that is done.
Say = Callable[[str, float], None]


class ReferenceModel(Protocol):
    def new_tokens(self, smallest_budget: bool) -> int: ...
    def features(self, request: Request) -> Tensor: ...
    def cls_attention(self, request: Request) -> Tensor: ...
    def answer(self, request: Request, kept: int, new_tokens: int, graph: GraphChoice | None = None) -> Answer: ...


def check_parity(
    runner: GraphRunner,
    reference: ReferenceModel,
    request: Request,
    budgets: BudgetRange,
    formats: WeightFormats,
    say: Say = lambda what, share: None,
) -> tuple[ParityResult, ...]:
    """Results at the smallest, the largest and the full budget; ParityError names the first difference.

    ``budgets`` are those of the request's image.
    """
    say("vision features", 0.0)
    least_of_vision, least_of_all = LEAST_COSINE.get(formats.vision), _least_cosine(formats)
    vision = runner.encode(request)
    _require_close("Vision features differ", vision["features"], reference.features(request).numpy(), least_of_vision)
    if "cls_attention" in vision:
        found, expected = vision["cls_attention"], reference.cls_attention(request).numpy()
        _require_close("CLS attention differs", found / expected.max(), expected / expected.max(), least_of_vision)
    results: list[ParityResult] = []
    compared = sorted({budgets.min_tokens, budgets.max_tokens, budgets.visual_tokens})
    for kept in compared:
        say(f"{kept} visual tokens", (len(results) + 1) / (len(compared) + 1))
        new_tokens = reference.new_tokens(smallest_budget=kept == budgets.min_tokens)
        answer = runner.answer(request, vision, kept, new_tokens)
        graph = None if answer.scores is None else GraphChoice(vision, answer.scores)
        wanted = reference.answer(request, kept, new_tokens, graph)
        results.append(_compare(kept, budgets.visual_tokens, answer, wanted, least_of_all))
    return tuple(results)


def _least_cosine(formats: WeightFormats) -> float | None:
    """None where everything is fp32: then nothing but rounding is allowed."""
    used = {formats.vision, formats.decoder, formats.lm_head, formats.embedding, formats.cache}
    return next((cosine for scheme, cosine in LEAST_COSINE.items() if scheme in used), None)


def _compare(
    kept: int, visual_tokens: int, found: Answer, expected: Answer, least_cosine: float | None
) -> ParityResult:
    at = f"at {kept} visual tokens"
    common = set(found.kept_indices) & set(expected.kept_indices)
    kept_sets_equal = found.kept_indices == expected.kept_indices
    exact = least_cosine is None
    if exact and not kept_sets_equal:
        odd = sorted(set(found.kept_indices) ^ set(expected.kept_indices))
        raise ParityError(f"Kept tokens differ {at}: {odd} are in one set only; the export is not usable.")
    _require_close(f"Logits differ {at}", found.logits, expected.logits, least_cosine)
    if exact and found.tokens != expected.tokens:
        raise ParityError(f"Greedy tokens differ {at}: {list(found.tokens)}, expected {list(expected.tokens)}.")
    difference = np.abs(found.logits - expected.logits)
    return ParityResult(
        budget_tokens=kept,
        logits_max_difference=float(difference.max()),
        logits_mean_difference=float(difference.mean()),
        tokens_equal=found.tokens == expected.tokens,
        kept_sets_equal=kept_sets_equal,
        logits_cosine=_cosine(found.logits, expected.logits),
        tokens_agreeing=_agreeing(found.tokens, expected.tokens),
        tokens_compared=len(expected.tokens),
        kept_overlap=len(common) / kept,
        visual_tokens=visual_tokens,
    )


def _agreeing(found: tuple[int, ...], expected: tuple[int, ...]) -> int:
    """How many tokens are the same before the first that differs."""
    same = [one == other for one, other in zip(found, expected, strict=False)]
    return same.index(False) if False in same else len(same)


def _require_close(what: str, found: NDArray[Any], expected: NDArray[np.float32], least_cosine: float | None) -> None:
    if found.shape != expected.shape:
        raise ParityError(f"{what} in shape: {list(found.shape)}, expected {list(expected.shape)}.")
    difference = np.abs(found - expected)
    cosine = _cosine(found, expected)
    # Written so that NaN fails too.
    good = difference.max() <= TOLERANCE if least_cosine is None else cosine >= least_cosine
    if not good:
        allowed = f"at most {TOLERANCE:.3g}" if least_cosine is None else f"a cosine of at least {least_cosine}"
        raise ParityError(
            f"{what}: largest {difference.max():.3g}, mean {difference.mean():.3g}, cosine {cosine:.4f}; allowed is "
            f"{allowed}. The export is not usable and was removed; please report the model."
        )


def _cosine(found: NDArray[Any], expected: NDArray[Any]) -> float:
    """Of the directions about their means, which common offsets do not flatter."""
    one, other = (array.astype(np.float64).ravel() for array in (found, expected))
    one, other = one - one.mean(), other - other.mean()
    size = float(np.linalg.norm(one) * np.linalg.norm(other))
    return float(one @ other) / size if size else float("nan")
