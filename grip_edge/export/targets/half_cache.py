"""Keys and values in fp16, half the memory, where ONNX Runtime's own attention writes and reads them.

    query fp32 ─ Mul(scale) ─ Cast ─▶ GroupQueryAttention over caches in fp16 ─ Cast ─▶ fp32
    key, value fp32 ───────── Cast ─▶

    needs    GroupQueryAttention as ``cached_attention`` leaves it, in all layers: the runtime has one type for all
    leaves   inputs cache_* and outputs new_cache_* in fp16; graphs of another form as they were

They are widened as attention reads them on x86: no more time for a prompt, a third more for one token (docs/log.md).
Processors with products in fp16 hold the scores in it, so queries are scaled before, not the scores after them. A key
or value beyond 65504 would become infinite. Not here: who gets such a cache (``precision``, ``targets.formats``).
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from grip_edge.export.passes.editing import maker, result
from grip_edge.export.targets.cached_attention import CACHED_ATTENTION, DOMAIN
from grip_edge.export.targets.constants import add_constant, fixed_size

_CACHE, _SCALE = "cache_", "query_scale"
_FLOAT, _HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16

# Of the operator: query, key and value; then the caches, whose updates are outputs behind the first.
_NEW, _CACHES = range(3), slice(3, 5)


class HalfCache(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        attentions = _attentions(model)
        held = {value for value in model.graph.inputs if (value.name or "").startswith(_CACHE)}
        fits = bool(held) and held == {value for node in attentions for value in node.inputs[_CACHES]}
        scales: dict[float, ir.Value] = {}
        for node in attentions if fits else ():
            _scale_query(model.graph, node, scales)
            _narrow(model.graph, node)
        return ir.passes.PassResult(model, modified=fits)


def drop_half_cache(model: ir.Model) -> None:
    """The graph as it was before the pass."""
    for node in _attentions(model):
        cache = node.inputs[_CACHES][0]
        if cache is not None and cache.dtype == _HALF:
            _widen(model.graph, node)
            _scale_scores(model.graph, node)


def _attentions(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, CACHED_ATTENTION)]


def _scale_query(graph: ir.Graph, node: ir.Node, scales: dict[float, ir.Value]) -> None:
    query, cache = node.inputs[0], node.inputs[_CACHES.start]
    assert query is not None
    assert cache is not None
    scale = node.attributes["scale"].as_float() if "scale" in node.attributes else 0.0
    if scale == 0.0:  # the operator's default
        scale = float(1 / np.sqrt(np.float32(fixed_size(cache, axis=3))))
    if scale not in scales:
        scales[scale] = add_constant(graph, f"{_SCALE}_{len(scales)}", np.array(scale, np.float32))
    scaled = result(f"{query.name}_scaled", _FLOAT, query.shape)
    graph.insert_before(node, ir.node("Mul", [query, scales[scale]], outputs=[scaled]))
    node.replace_input_with(0, scaled)
    node.attributes["scale"] = ir.AttrFloat32("scale", 1.0)


def _scale_scores(graph: ir.Graph, node: ir.Node) -> None:
    multiply = maker(node.inputs[0], "Mul")
    assert multiply is not None
    value = multiply.inputs[1]
    assert value is not None
    assert value.const_value is not None
    factor = float(value.const_value.numpy())
    node.replace_input_with(0, multiply.inputs[0])
    node.attributes["scale"] = ir.AttrFloat32("scale", factor)
    graph.remove(multiply, safe=True)
    if not value.uses():
        del graph.initializers[str(value.name)]


def _narrow(graph: ir.Graph, node: ir.Node) -> None:
    for index in _NEW:
        wide = node.inputs[index]
        assert wide is not None
        half = result(f"{wide.name}_half", _HALF, wide.shape)
        graph.insert_before(node, ir.node("Cast", [wide], {"to": _HALF}, outputs=[half]))
        node.replace_input_with(index, half)
    mixed, name = node.outputs[0], node.outputs[0].name
    mixed.name = f"{name}_half"
    wide = result(name or "", _FLOAT, mixed.shape)
    ir.convenience.replace_all_uses_with(mixed, wide, replace_graph_outputs=True)
    graph.insert_after(node, ir.node("Cast", [mixed], {"to": _FLOAT}, outputs=[wide]))
    _set_types(node, _HALF)


def _widen(graph: ir.Graph, node: ir.Node) -> None:
    for index in _NEW:
        cast = maker(node.inputs[index], "Cast")
        assert cast is not None
        node.replace_input_with(index, cast.inputs[0])
        graph.remove(cast, safe=True)
    mixed = node.outputs[0]
    (back,) = (use.node for use in mixed.uses())
    ir.convenience.replace_all_uses_with(back.outputs[0], mixed, replace_graph_outputs=True)
    name = back.outputs[0].name
    graph.remove(back, safe=True)
    mixed.name = name
    _set_types(node, _FLOAT)


def _set_types(node: ir.Node, dtype: ir.DataType) -> None:
    for value in (*node.inputs[_CACHES], *node.outputs):
        assert value is not None
        value.type = ir.TensorType(dtype)
