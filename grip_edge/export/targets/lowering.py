"""Which passes bring a traced graph to its target, in their order: precision, arithmetic, operators, opset.

The reference is always the same network; every lowered form equals it on ONNX Runtime's CPU (tests/export).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace

import onnx_ir as ir

from grip_edge.export.passes.block_weights import BlockWeights
from grip_edge.export.passes.dynamic_int8 import DynamicInt8
from grip_edge.export.passes.plan import precision_passes
from grip_edge.export.targets.block_products import FuseBlockProducts
from grip_edge.export.targets.budget_select import CarryBudgetSelect
from grip_edge.export.targets.cached_attention import FuseCachedAttention
from grip_edge.export.targets.check import check_graph
from grip_edge.export.targets.column_weights import ColumnWeights
from grip_edge.export.targets.decompose_attention import DecomposeAttention
from grip_edge.export.targets.decompose_rms_norm import DecomposeRmsNorm
from grip_edge.export.targets.decompose_rotary import DecomposeRotary
from grip_edge.export.targets.formats import computes_in_half, plain_scheme, without_halves
from grip_edge.export.targets.greedy_token import AddGreedyToken
from grip_edge.export.targets.half_cache import HalfCache
from grip_edge.export.targets.half_compute import HalfCompute
from grip_edge.export.targets.older_opset import OlderOpset
from grip_edge.export.targets.plain_attention import PlainAttention
from grip_edge.export.targets.scatter_cache import ScatterCache
from grip_edge.export.targets.static_int8 import StaticInt8
from grip_edge.export.targets.table import Target
from grip_edge.export.targets.tower_attention import FuseTowerAttention, PlainTowerAttention
from grip_edge.manifest import WeightFormats

# What decides on tokens stays exact; what a caller feeds and reads as fp32 stays so.
_EXACT_OUTPUTS = ("scores", "kept_indices")
_WIDE_BORDERS = ("pixels", "cls_attention", "logits")

# The scorer, in select.onnx, has attention of the same form; it is small, and it decides.
_TOWER = "vision.onnx"


@dataclass(frozen=True)
class LayerChoices:
    """Of single matrices, by name: formats other than that of their part of the model, and the largest magnitude of
    the inputs of those that are int8 with fixed scales.
    """

    kept: Mapping[str, str] = field(default_factory=dict)
    largest_inputs: Mapping[str, float] = field(default_factory=dict)


def lower(
    model: ir.Model, file_name: str, target: Target, formats: WeightFormats, layers: LayerChoices = LayerChoices()
) -> None:
    """Rewrites ``model`` in place; TargetError if it then still holds what the target does not have."""
    half = computes_in_half(formats, target)
    if half:
        formats = without_halves(formats)
        layers = replace(layers, kept={name: plain_scheme(scheme) for name, scheme in layers.kept.items()})
    for rewrite in _precision_passes(model, file_name, target, formats, layers):
        rewrite(model)
    for rewrite in _target_passes(target, half, file_name, formats.cache):
        rewrite(model)
    check_graph(model, file_name, target)


def _precision_passes(
    model: ir.Model, file_name: str, target: Target, formats: WeightFormats, layers: LayerChoices
) -> list[ir.passes.InPlacePass]:
    """With fixed scales, weight-only int8 is per output, not in blocks."""
    passes = precision_passes(model, file_name, formats, layers.kept)
    if not target.has_fixed_scales(file_name):
        return passes
    return [_with_fixed_scales(rewrite, layers.largest_inputs) for rewrite in passes]


def _with_fixed_scales(rewrite: ir.passes.InPlacePass, largest_inputs: Mapping[str, float]) -> ir.passes.InPlacePass:
    if isinstance(rewrite, BlockWeights) and rewrite.format.bits == 8:
        return ColumnWeights(rewrite.names)
    if isinstance(rewrite, DynamicInt8):
        return StaticInt8({name: largest_inputs[name] for name in rewrite.names})
    return rewrite


def _target_passes(target: Target, half: bool, file_name: str, cache: str | None) -> list[ir.passes.InPlacePass]:
    passes: list[ir.passes.InPlacePass] = []
    if not target.cached_attention:
        passes.append(PlainAttention())
    if not target.tower_attention:
        passes.append(PlainTowerAttention())
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
    if target.tower_attention and file_name == _TOWER:
        passes.append(FuseTowerAttention())
    if target.cache_choice and cache == "fp16":
        passes.append(HalfCache())
    if target.block_products:
        passes.append(FuseBlockProducts())
    if target.with_budget_select:
        passes.append(CarryBudgetSelect())
    if not target.is_compiled:
        passes.append(AddGreedyToken())
    return [*passes, OlderOpset(target.opset)]
