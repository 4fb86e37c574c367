"""Which passes bring a graph to the number formats that are asked for, and which weights each of them gets.

Parts of the model are told by graph and name; of ``select.onnx`` only the projector is touched. See ``precision`` for
the formats.
"""

from __future__ import annotations

from collections.abc import Sequence

import onnx_ir as ir

from grip_edge.export.passes.block_weights import BlockFormat, BlockWeights
from grip_edge.export.passes.dynamic_int8 import DynamicInt8
from grip_edge.export.passes.editing import product_matrices
from grip_edge.export.passes.half_weights import READERS, HalfWeights
from grip_edge.export.passes.int8_embedding import Int8Embedding
from grip_edge.export.precision import INT8_BLOCK
from grip_edge.export.weights import FloatWeight
from grip_edge.manifest import WeightFormats

EMBEDDING = "embed_tokens.weight"
LM_HEAD = "lm_head.weight"
_PROJECTOR = "projector."

_HALF = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


def precision_passes(model: ir.Model, file_name: str, formats: WeightFormats) -> list[ir.passes.InPlacePass]:
    if file_name == "embed.onnx":
        return _embedding_passes(formats.embedding)
    if file_name == "decoder.onnx":
        layers = [name for name in product_matrices(model) if name != LM_HEAD]
        return [*_passes(formats.decoder, layers, formats), *_passes(formats.lm_head, [LM_HEAD], formats)]
    chosen = product_matrices(model) + (_convolution_kernels(model) if formats.vision in _HALF else [])
    if file_name == "select.onnx":
        chosen = [name for name in chosen if name.startswith(_PROJECTOR)]
    return _passes(formats.vision, chosen, formats)


def _passes(scheme: str, names: Sequence[str], formats: WeightFormats) -> list[ir.passes.InPlacePass]:
    if scheme == "fp32" or not names:
        return []
    if scheme in _HALF:
        return [HalfWeights(names, _HALF[scheme])]
    if scheme == "int8":
        return [DynamicInt8(names)]
    if scheme == "int8-weight":
        return [BlockWeights(names, BlockFormat(8, INT8_BLOCK, symmetric=True))]
    if scheme == "int4" and formats.int4_block is not None:
        return [BlockWeights(names, BlockFormat(4, formats.int4_block, symmetric=bool(formats.int4_symmetric)))]
    raise ValueError(f"no passes for weights in '{scheme}'")


def _embedding_passes(scheme: str) -> list[ir.passes.InPlacePass]:
    if scheme == "fp32":
        return []
    if scheme in _HALF:
        return [HalfWeights([EMBEDDING], _HALF[scheme])]
    return [Int8Embedding(EMBEDDING, INT8_BLOCK)]


def _convolution_kernels(model: ir.Model) -> list[str]:
    return [
        name
        for name, value in model.graph.initializers.items()
        if isinstance(value.const_value, FloatWeight)
        and len(value.const_value.shape) > 2
        and value.consumers()
        and all(node.op_type in READERS for node in value.consumers())
    ]
