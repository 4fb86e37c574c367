"""The decoder's attention in standard operators again, where a graph was made for ONNX Runtime (``cached_attention``).

A bundle for ONNX Runtime is what calibration starts from, whatever target its result is for.

    needs    GroupQueryAttention as ``cached_attention`` leaves it: rotated query and key [1,S,heads*d]
    leaves   Attention with a boolean mask, RotaryEmbedding over [1,heads,S,d], TensorScatter along axis -2
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import RemoveUnusedNodesPass

from grip_edge.export.passes.editing import result
from grip_edge.export.targets.cached_attention import CACHED_ATTENTION, DOMAIN
from grip_edge.export.targets.constants import add_constant, fixed_size

_BOOL, _INT64 = ir.DataType.BOOL, ir.DataType.INT64


class PlainAttention(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if (node.domain, node.op_type) == (DOMAIN, CACHED_ATTENTION)]
        mask: ir.Value | None = None
        for node in found:
            mask = mask or _mask(model.graph, node)
            _replace(model.graph, node, mask)
        if found:
            RemoveUnusedNodesPass()(model)
            model.opset_imports.pop(DOMAIN, None)
        return ir.passes.PassResult(model, modified=bool(found))


def _replace(graph: ir.Graph, node: ir.Node, mask: ir.Value) -> None:
    query, key, value, key_cache, value_cache = (_required(node, index) for index in range(5))
    kv_heads, head_dim = fixed_size(key_cache, 1), fixed_size(key_cache, 3)
    heads = node.attributes["num_heads"].as_int()
    mixed, new_keys, new_values = node.outputs
    made: list[ir.Node] = []

    def op(op_type: str, inputs: list[ir.Value], like: ir.Value, **attributes: int | float | list[int]) -> ir.Value:
        output = result(f"{mixed.name}_{op_type.lower()}_{len(made)}", like.dtype or ir.DataType.FLOAT, None)
        made.append(ir.node(op_type, inputs, attributes, outputs=[output]))
        return output

    def cut(source: ir.Value, count: int) -> ir.Value:
        """[1,S,count*d] -> [1,count,S,d]."""
        shape = add_constant(graph, f"{mixed.name}_cut_{len(made)}", np.array([1, -1, count, head_dim]))
        heads_last = op("Reshape", [source, shape], source)
        turned = op("Transpose", [heads_last], source, perm=[0, 2, 1, 3])
        turned.shape = ir.Shape([1, count, "S", head_dim])
        return turned

    def rotated(flat: ir.Value, count: int) -> ir.Value:
        rotation = flat.producer()
        if rotation is None or rotation.op_type != "RotaryEmbedding":
            raise ir.passes.PreconditionError(f"'{flat.name}' is not rotated")
        source, *tables = (value for value in rotation.inputs if value is not None)
        turned = op("RotaryEmbedding", [cut(source, count), *tables], source)
        turned.shape = ir.Shape([1, count, "S", head_dim])
        return turned

    new_query = rotated(query, heads)
    start = _input(graph, "write_start")
    keys = op("TensorScatter", [key_cache, rotated(key, kv_heads), start], key_cache, axis=-2)
    values = op("TensorScatter", [value_cache, cut(value, kv_heads), start], value_cache, axis=-2)
    keys.shape, values.shape = new_keys.shape, new_values.shape
    scale = {"scale": node.attributes["scale"].as_float()} if "scale" in node.attributes else {}
    attended = op("Attention", [new_query, keys, values, mask], query, **scale)
    attended.shape = ir.Shape([1, heads, "S", head_dim])
    back = add_constant(graph, f"{mixed.name}_merged", np.array([1, -1, heads * head_dim]))
    merged = op("Reshape", [op("Transpose", [attended], query, perm=[0, 2, 1, 3]), back], query)
    merged.shape = mixed.shape
    graph.insert_before(node, made)
    for old, new in ((mixed, merged), (new_keys, keys), (new_values, values)):
        ir.convenience.replace_all_uses_with(old, new, replace_graph_outputs=True)
        if new.is_graph_output():
            new.name, old.name = old.name, f"{old.name}_before"


def _mask(graph: ir.Graph, node: ir.Node) -> ir.Value:
    """bool [1,1,S,C]: a query in slot p sees the slots up to p."""
    cache = _required(node, 3)
    made: list[ir.Node] = []

    def op(op_type: str, inputs: list[ir.Value], dtype: ir.DataType = _INT64, **attributes: int) -> ir.Value:
        made.append(ir.node(op_type, inputs, attributes, outputs=[result(f"mask_{len(made)}", dtype, None)]))
        return made[-1].outputs[0]

    def constant(name: str, numbers: int | list[int]) -> ir.Value:
        return add_constant(graph, f"mask_{name}", np.array(numbers, np.int64))

    zero, one = constant("zero", 0), constant("one", 1)

    def counted(value: ir.Value, axis: int) -> ir.Value:
        """0, 1, ... up to the length of that axis."""
        return op("Range", [zero, op("Squeeze", [op("Shape", [value], start=axis, end=axis + 1)]), one])

    rows = op(
        "Unsqueeze",
        [op("Add", [_input(graph, "write_start"), counted(_input(graph, "embeds"), 1)]), constant("column", [1])],
    )
    seen = op("LessOrEqual", [counted(cache, 2), rows], _BOOL)
    mask = op("Unsqueeze", [seen, constant("axes", [0, 1])], _BOOL)
    graph.insert_before(node, made)
    return mask


def _input(graph: ir.Graph, name: str) -> ir.Value:
    return next(value for value in graph.inputs if value.name == name)


def _required(node: ir.Node, index: int) -> ir.Value:
    value = node.inputs[index]
    if value is None:
        raise ir.passes.PreconditionError(f"{node.op_type} '{node.name}' lacks input {index}")
    return value
