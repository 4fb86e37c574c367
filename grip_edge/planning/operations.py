"""FLOPs of a request by stage, in closed form; a test holds them to what ``export.flops`` counts in the graphs.

A multiplication and an addition are two operations; norms, activations and softmax are left out. Products with weights
and products of attention are kept apart, since devices do them at different speeds.
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.planning.layers import (
    ScorerShape,
    decoder_matrices,
    elements,
    lm_head,
    patch_kernel,
    projector_matrices,
    vision_matrices,
    visual_scorer_matrices,
    word_scorer_matrices,
)
from grip_edge.planning.shape import ModelShape, TextShape


@dataclass(frozen=True)
class StageOperations:
    """``weights``: products with weights of the model's linear layers; ``other``: attention, scorer, patches."""

    weights: int
    other: int
    lm_head: int = 0

    @property
    def total(self) -> int:
        return self.weights + self.other + self.lm_head


def vision_operations(model: ModelShape) -> StageOperations:
    """Of all tiles."""
    vision = model.vision
    tokens = vision.tokens
    attention = 4 * vision.layers * tokens * tokens * vision.width
    patches = 2 * vision.patches * patch_kernel(vision).elements
    products = 2 * tokens * elements(vision_matrices(vision))
    return StageOperations(model.tiles * products, model.tiles * (attention + patches))


def select_operations(
    model: ModelShape, kept_tokens: int, question_tokens: int, scorer: ScorerShape = ScorerShape()
) -> StageOperations:
    """Scoring of all visual tokens, projection of the kept ones."""
    visual, words, width = model.visual_tokens, question_tokens + 1, scorer.width
    budget, question = width, question_tokens * model.text.width * width
    cross_attention = 2 * 4 * scorer.rounds * visual * words * width
    scoring = 2 * (
        visual * elements(visual_scorer_matrices(model, scorer))
        + words * elements(word_scorer_matrices(scorer))
        + budget
        + question
    )
    return StageOperations(2 * kept_tokens * elements(projector_matrices(model)), scoring + cross_attention)


def decoder_operations(text: TextShape, tokens: int, cache_slots: int) -> StageOperations:
    """``tokens`` at once over a cache of ``cache_slots``: a prompt, or one new token. Behind the last attention only
    the last one goes on.
    """
    attention = 4 * text.layers * tokens * cache_slots * text.query_width
    behind = text.query_width * text.width + 3 * text.width * text.mlp_width
    weights = tokens * elements(decoder_matrices(text)) - (tokens - 1) * behind
    return StageOperations(2 * weights, attention, 2 * lm_head(text).elements)
