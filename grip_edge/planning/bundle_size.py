"""Bytes of a bundle, file by file, before it exists.

Weights are counted; the text of the graphs around them (names, shapes, nodes), which matters in small models only, is
estimated from what exports of every precision were seen to need per layer.
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.manifest import WeightFormats
from grip_edge.planning.formats import Matrix, float_bytes, matrix_bytes, table_bytes
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
from grip_edge.planning.shape import ModelShape, TextShape, VisionShape

# Bytes of a graph without its weights: fixed, and per layer for float formats; each quantised format adds nodes.
_VISION_GRAPH, _DECODER_GRAPH = (2_000, 6_900), (3_000, 6_300)
_SELECT_GRAPH_BYTES, _EMBED_GRAPH_BYTES = 17_000, 500
_QUANTISED_LAYER_BYTES = {"int8": 5_000, "int8-weight": 2_000, "int4": 3_500}
_MANIFEST_BYTES = 4_000
# Of Llama's vocabulary of 32,000, in Hugging Face's form; per entry.
_TOKENIZER_ENTRY_BYTES = 113


@dataclass(frozen=True)
class BundleBytes:
    """``vision`` to ``decoder`` are weights as stored; ``lm_head`` is part of ``decoder.onnx``'s data."""

    vision: int
    projector: int
    scorer: int
    embedding: int
    decoder: int
    lm_head: int
    graphs: int
    tokenizer: int

    @property
    def weights(self) -> int:
        return self.vision + self.projector + self.scorer + self.embedding + self.decoder + self.lm_head

    @property
    def total(self) -> int:
        return self.weights + self.graphs + self.tokenizer


def bundle_bytes(
    model: ModelShape,
    formats: WeightFormats,
    tokenizer_bytes: int | None = None,
    scorer: ScorerShape = ScorerShape(),
) -> BundleBytes:
    """``tokenizer_bytes`` None: estimated from the vocabulary."""
    text = model.text

    def stored(matrices: tuple[Matrix, ...], scheme: str) -> int:
        return sum(matrix_bytes(matrix, scheme, formats) for matrix in matrices)

    projector_biases = 4 * 2 * text.width * model.projector_bias
    return BundleBytes(
        vision=stored(vision_matrices(model.vision), formats.vision) + _vision_small(model.vision, formats.vision),
        projector=stored(projector_matrices(model), formats.vision) + projector_biases,
        scorer=4 * _scorer_parameters(model, scorer),
        embedding=table_bytes(text.vocab_size, text.width, formats.embedding),
        decoder=stored(decoder_matrices(text), formats.decoder) + _decoder_small(text),
        lm_head=matrix_bytes(lm_head(text), formats.lm_head, formats),
        graphs=_graph_bytes(model, formats),
        tokenizer=text.vocab_size * _TOKENIZER_ENTRY_BYTES if tokenizer_bytes is None else tokenizer_bytes,
    )


def _vision_small(vision: VisionShape, scheme: str) -> int:
    """Patch kernel, positions, CLS token, norms and biases."""
    kernel = patch_kernel(vision).elements * float_bytes(scheme)
    vectors = (vision.tokens + 1 + 2) * vision.width
    layer = 4 * vision.width + 5 * vision.width + vision.mlp_width
    return kernel + 4 * (vectors + vision.layers * layer)


def _decoder_small(text: TextShape) -> int:
    """Norms, biases, and the tables of the rotary embedding (cosine and sine)."""
    biases = (text.query_width + 2 * text.cache_width) * text.qkv_bias + text.width * text.out_bias
    biases += (2 * text.mlp_width + text.width) * text.mlp_bias
    rotary = text.max_positions * text.head_dim
    return 4 * (text.layers * (2 * text.width + biases) + text.width + rotary)


def _scorer_parameters(model: ModelShape, scorer: ScorerShape) -> int:
    """Places of rows and columns are stored folded, one vector per visual token."""
    width = scorer.width
    matrices = elements(visual_scorer_matrices(model, scorer)) + elements(word_scorer_matrices(scorer))
    question = model.text.width * (width + 2)
    vectors = 2 * width + scorer.rounds * (8 + 9 + scorer.mlp_ratio) * width
    return matrices + question + vectors + model.visual_tokens * width


def _graph_bytes(model: ModelShape, formats: WeightFormats) -> int:
    total = _MANIFEST_BYTES + _SELECT_GRAPH_BYTES + _EMBED_GRAPH_BYTES
    for (fixed, per_layer), layers, scheme in (
        (_VISION_GRAPH, model.vision.layers, formats.vision),
        (_DECODER_GRAPH, model.text.layers, formats.decoder),
    ):
        total += fixed + layers * (per_layer + _QUANTISED_LAYER_BYTES.get(scheme, 0))
    return total
