"""Which passes bring a graph to the number formats that are asked for, and which weights each of them gets.

Parts of the model are told by graph and name; of ``select.onnx`` only the projector is touched. See ``precision`` for
the formats.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from grip_edge.errors import UserError
from grip_edge.export.passes.block_weights import BlockFormat, BlockWeights
from grip_edge.export.passes.dynamic_int8 import DynamicInt8
from grip_edge.export.passes.editing import product_matrices
from grip_edge.export.passes.half_weights import READERS, HalfWeights
from grip_edge.export.passes.int8_embedding import Int8Embedding
from grip_edge.export.passes.packed_weights import PackedWeights
from grip_edge.export.unpacking import PackedWeight
from grip_edge.export.weights import FloatWeight
from grip_edge.manifest import WeightFormats
from grip_edge.weight_blocks import INT8_BLOCK

EMBEDDING = "embed_tokens.weight"
LM_HEAD = "lm_head.weight"
_PROJECTOR = "projector."

_HALF = {"fp16": ir.DataType.FLOAT16, "bf16": ir.DataType.BFLOAT16}


def precision_passes(
    model: ir.Model, file_name: str, formats: WeightFormats, kept: Mapping[str, str] | None = None
) -> list[ir.passes.InPlacePass]:
    """``kept`` names matrices that get another format than their part of the model."""
    if file_name == "embed.onnx":
        return _embedding_passes(formats.embedding)
    by_scheme: dict[str, list[str]] = {}
    for name, scheme in matrix_schemes(model, file_name, formats, kept).items():
        by_scheme.setdefault(scheme, []).append(name)
    packed = [name for name in by_scheme.get("int4", ()) if _is_packed(model, name)]
    if packed and formats.int4_symmetric:
        raise UserError(
            "The checkpoint's 4-bit weights have zero points, which this target does not take; choose --precision fp16."
        )
    passes: list[ir.passes.InPlacePass] = [PackedWeights(packed)] if packed else []
    for scheme, names in by_scheme.items():
        passes += _passes(scheme, [name for name in names if name not in packed], formats)
    return passes


def matrix_schemes(
    model: ir.Model, file_name: str, formats: WeightFormats, kept: Mapping[str, str] | None = None
) -> dict[str, str]:
    """The format of each matrix of a graph but the embeddings'."""
    names = product_matrices(model)
    if file_name == "decoder.onnx":
        schemes = {name: formats.lm_head if name == LM_HEAD else formats.decoder for name in names}
    else:
        if formats.vision in _HALF:
            names += _convolution_kernels(model)
        if file_name == "select.onnx":
            names = [name for name in names if name.startswith(_PROJECTOR)]
        schemes = dict.fromkeys(names, formats.vision)
    return schemes | {name: scheme for name, scheme in (kept or {}).items() if name in schemes}


def _is_packed(model: ir.Model, name: str) -> bool:
    """It came in 4 bits, which nobody can improve on."""
    return isinstance(model.graph.initializers[name].const_value, PackedWeight)


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
