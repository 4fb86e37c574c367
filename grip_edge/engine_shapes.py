"""The shapes that each engine is built for: from the budgets, the prompt and the cache.

The optimum lies at the expected budget, not at N: that is what most requests ask for. The decoder has two profiles,
the prompt (many tokens) and one token at a time; its cache has one fixed length, since TensorRT writes it in place.
Both allow all lengths and differ in what they are tuned for: with exactly one token in the second, TensorRT-RTX stores
fp16 weights twice, and with few it fails (docs/log.md).
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.budget import BudgetRange
from grip_edge.engines import ShapeRange
from grip_edge.errors import UserError
from grip_edge.manifest import Manifest

# Of an answer, where nothing else is asked for and the model has as many positions.
_USUAL_NEW_TOKENS = 256
_LONGEST_QUESTION = 256
_LIKELY_QUESTION = 24
# Text around image and question: system prompt, roles, separators.
_FRAME_TOKENS = 64


@dataclass(frozen=True)
class Shapes:
    """Token counts. ``expected`` is the budget that engines are tuned for."""

    budgets: BudgetRange
    expected: int
    cache_capacity: int

    @classmethod
    def plan(cls, manifest: Manifest, new_tokens: int | None = None, expected: str | None = None) -> Shapes:
        """Room for the longest question, all visual tokens and ``new_tokens`` of answer; None: 256, or what is left."""
        budgets, positions = manifest.budget_range, manifest.model.text.max_positions
        prompt = _FRAME_TOKENS + _LONGEST_QUESTION + budgets.visual_tokens
        room = positions - prompt
        if new_tokens is not None and not 1 <= new_tokens <= room:
            allowed = f"goes from 1 to {room}" if room > 0 else "has to be left out"
            raise UserError(
                f"--max-new-tokens {allowed}: the model has {positions} positions, a prompt takes up to {prompt}; got "
                f"{new_tokens}."
            )
        capacity = prompt + (_USUAL_NEW_TOKENS if new_tokens is None else new_tokens)
        kept = (budgets.min_tokens + budgets.max_tokens) // 2 if expected is None else budgets.resolve(expected)
        return cls(budgets, kept, min(capacity, positions))

    def axes(self, graph: str) -> tuple[dict[str, tuple[int, int, int]], ...]:
        """Per profile: smallest, likeliest and largest length of each named axis (K: the budget's value)."""
        text_longest = _LONGEST_QUESTION + _FRAME_TOKENS
        if graph == "embed.onnx":
            return ({"T": (1, 1, text_longest)},)
        if graph == "select.onnx":
            question = (1, _LIKELY_QUESTION, _LONGEST_QUESTION)
            return ({"T": question, "K": (self.budgets.min_tokens, self.expected, self.budgets.visual_tokens)},)
        if graph == "decoder.onnx":
            longest = min(text_longest + self.budgets.visual_tokens, self.cache_capacity)
            likely = min(self.expected + _FRAME_TOKENS + _LIKELY_QUESTION, longest)
            return ({"S": (1, likely, longest)}, {"S": (1, 1, longest)})
        return ({},)


def require_sound(ranges: tuple[ShapeRange, ...], visual_tokens: int, top_k_limit: int | None) -> None:
    """UserError where a profile asks for more tokens than there are, or than the target's top-k gives.

    TensorRT builds such engines without a word, and they fail on the device.
    """
    for found in ranges:
        if found.input != "budget":
            continue
        if found.largest[0] > visual_tokens:
            raise UserError(f"The profile keeps up to {found.largest[0]} of {visual_tokens} visual tokens.")
        if top_k_limit is not None and found.largest[0] > top_k_limit:
            raise UserError(
                f"The profile keeps up to {found.largest[0]} tokens, and TensorRT's own top-k ends at {top_k_limit}; "
                "build with --plugin."
            )
