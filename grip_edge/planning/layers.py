"""The linear layers of each part of a LLaVA model, from which bytes and operations are counted."""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.planning.formats import Matrix
from grip_edge.planning.shape import ModelShape, TextShape, VisionShape


@dataclass(frozen=True)
class ScorerShape:
    """The GRIP scorer as training makes it by default (``calibration.scorer``)."""

    width: int = 48
    rounds: int = 1
    mlp_ratio: int = 2


def vision_matrices(vision: VisionShape) -> tuple[Matrix, ...]:
    width, mlp = vision.width, vision.mlp_width
    return (
        Matrix(width, width, 4 * vision.layers),
        Matrix(width, mlp, vision.layers),
        Matrix(mlp, width, vision.layers),
    )


def patch_kernel(vision: VisionShape) -> Matrix:
    return Matrix(3 * vision.patch_px**2, vision.width)


def projector_matrices(model: ModelShape) -> tuple[Matrix, ...]:
    return Matrix(model.vision.width, model.text.width), Matrix(model.text.width, model.text.width)


def decoder_matrices(text: TextShape) -> tuple[Matrix, ...]:
    """Without the LM head."""
    return (
        Matrix(text.width, text.query_width, text.layers),
        Matrix(text.width, text.cache_width, 2 * text.layers),
        Matrix(text.query_width, text.width, text.layers),
        Matrix(text.width, text.mlp_width, 2 * text.layers),
        Matrix(text.mlp_width, text.width, text.layers),
    )


def lm_head(text: TextShape) -> Matrix:
    return Matrix(text.width, text.vocab_size)


def visual_scorer_matrices(model: ModelShape, scorer: ScorerShape) -> tuple[Matrix, ...]:
    """Those that every visual token goes through: in, key-value-query, out, MLP, score."""
    width, inner = scorer.width, scorer.width * scorer.mlp_ratio
    return (
        Matrix(model.vision.width, width),
        Matrix(width, 3 * width, scorer.rounds),
        Matrix(width, width, scorer.rounds),
        Matrix(width, inner, scorer.rounds),
        Matrix(inner, width, scorer.rounds),
        Matrix(width, 1),
    )


def word_scorer_matrices(scorer: ScorerShape) -> tuple[Matrix, ...]:
    """Those that every word goes through, the budget's too: query, out, key-value."""
    width = scorer.width
    return Matrix(width, width, 2 * scorer.rounds), Matrix(width, 2 * width, scorer.rounds)


def elements(matrices: tuple[Matrix, ...]) -> int:
    return sum(matrix.elements for matrix in matrices)
