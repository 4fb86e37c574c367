"""Which passes bring a traced graph to its target, in their order: precision, arithmetic, operators, opset.

The reference is always the same network; every lowered form equals it on ONNX Runtime's CPU (tests/export).
"""

from __future__ import annotations

import onnx_ir as ir

from grip_edge.export.passes.block_weights import BlockWeights
from grip_edge.export.passes.plan import precision_passes
from grip_edge.export.targets.budget_select import CarryBudgetSelect
from grip_edge.export.targets.cached_attention import FuseCachedAttention
from grip_edge.export.targets.check import check_graph
from grip_edge.export.targets.column_weights import ColumnWeights
from grip_edge.export.targets.decompose_attention import DecomposeAttention
from grip_edge.export.targets.decompose_rms_norm import DecomposeRmsNorm
from grip_edge.export.targets.decompose_rotary import DecomposeRotary
from grip_edge.export.targets.formats import computes_in_half, without_halves
from grip_edge.export.targets.half_compute import HalfCompute
from grip_edge.export.targets.older_opset import OlderOpset
from grip_edge.export.targets.scatter_cache import ScatterCache
from grip_edge.export.targets.table import ONNX_RUNTIME, Target
from grip_edge.manifest import WeightFormats

# What decides on tokens stays exact; what a caller feeds and reads as fp32 stays so.
_EXACT_OUTPUTS = ("scores", "kept_indices")
_WIDE_BORDERS = ("pixels", "cls_attention", "logits")


def lower(model: ir.Model, file_name: str, target: Target, formats: WeightFormats) -> None:
    """Rewrites ``model`` in place; TargetError if it then still holds what the target does not have."""
    half = computes_in_half(formats, target)
    for rewrite in _precision_passes(model, file_name, target, without_halves(formats) if half else formats):
        rewrite(model)
    for rewrite in _target_passes(target, half):
        rewrite(model)
    check_graph(model, file_name, target)


def _precision_passes(
    model: ir.Model, file_name: str, target: Target, formats: WeightFormats
) -> list[ir.passes.InPlacePass]:
    """Weight-only int8 is per output on TensorRT, in blocks elsewhere."""
    passes = precision_passes(model, file_name, formats)
    if target.engine == ONNX_RUNTIME:
        return passes
    return [
        ColumnWeights(rewrite.names) if isinstance(rewrite, BlockWeights) and rewrite.format.bits == 8 else rewrite
        for rewrite in passes
    ]


def _target_passes(target: Target, half: bool) -> list[ir.passes.InPlacePass]:
    passes: list[ir.passes.InPlacePass] = []
    if half:
        passes.append(HalfCompute(_EXACT_OUTPUTS, _WIDE_BORDERS))
    if target.operators is not None:
        passes.append(DecomposeAttention(target.attention_types, target.attention_head_dims))
    if not target.has("RotaryEmbedding"):
        passes.append(DecomposeRotary())
    if not target.has("RMSNormalization"):
        passes.append(DecomposeRmsNorm())
    if not target.has("TensorScatter"):
        passes.append(ScatterCache())
    if target.cached_attention:
        passes.append(FuseCachedAttention())
    if target.with_budget_select:
        passes.append(CarryBudgetSelect())
    return [*passes, OlderOpset(target.opset)]
