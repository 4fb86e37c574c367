"""The static check of a lowered graph: proves that it uses only what its target has, or names the node that does not.

Checked of every node, those of functions and loops included: the operator is one of the target's; it, its attributes
and its inputs exist in the target's opset; attention is in a type that has a kernel and in the form that is not
silently changed; no top-k can exceed the target's limit. Not checked: types of tensors in general (ONNX Runtime does
that when the export is compared), sizes that only a request decides.
"""

from __future__ import annotations

from collections.abc import Iterator

import onnx
import onnx_ir as ir

from grip_edge.errors import GripEdgeError
from grip_edge.export.targets.block_products import BLOCK_PRODUCT
from grip_edge.export.targets.budget_select import BUDGET_SELECT, DOMAIN
from grip_edge.export.targets.cached_attention import CACHED_ATTENTION
from grip_edge.export.targets.cached_attention import DOMAIN as FUSED_DOMAIN
from grip_edge.export.targets.table import Target
from grip_edge.export.targets.tower_attention import TOWER_ATTENTION
from grip_edge.export.weights import Weight

# TensorRT reads the first four inputs of Attention and ignores the others without a word.
_ATTENTION_INPUTS = 4


class TargetError(GripEdgeError):
    """A graph holds what its target does not have: this version of grip-edge cannot lower it."""


def check_graph(model: ir.Model, graph_file: str, target: Target) -> None:
    """TargetError naming the first node that breaks the target's rules."""
    for node in _nodes(model):
        problem = _problem(node, target)
        if problem is not None:
            name = node.name or node.outputs[0].name
            raise TargetError(f"{graph_file}: node '{name}' ({node.op_type}): {problem}, for target {target.name}.")
    declared = model.opset_imports.get("", 0)
    if declared > target.opset:
        raise TargetError(f"{graph_file} declares opset {declared}, target {target.name} takes {target.opset}.")


def _nodes(model: ir.Model) -> Iterator[ir.Node]:
    yield from model.graph.all_nodes()
    for function in model.functions.values():
        yield from function.all_nodes()


def _problem(node: ir.Node, target: Target) -> str | None:
    if node.domain == DOMAIN:
        known = node.op_type == BUDGET_SELECT and target.with_budget_select
        return None if known else "expected no operator of this domain"
    if (node.domain, node.op_type) in _own_operators(target):
        return None
    if node.domain:
        return f"expected standard operators, found the domain '{node.domain}'"
    if not target.has(node.op_type):
        return "the operator is not among those that the parser has"
    return _schema_problem(node, target.opset) or _form_problem(node, target)


def _own_operators(target: Target) -> set[tuple[str, str]]:
    """Of ONNX Runtime alone."""
    own = {
        CACHED_ATTENTION: target.cached_attention,
        TOWER_ATTENTION: target.tower_attention,
        BLOCK_PRODUCT: target.block_products,
    }
    return {(FUSED_DOMAIN, name) for name, there in own.items() if there}


def _schema_problem(node: ir.Node, opset: int) -> str | None:
    try:
        schema = onnx.defs.get_schema(node.op_type, max_inclusive_version=opset)
    except onnx.defs.SchemaError:
        return f"the operator is not in opset {opset}"
    unknown = sorted(set(node.attributes) - set(schema.attributes))
    if unknown:
        return f"opset {opset} has no attribute {', '.join(unknown)} here"
    if len(node.inputs) > schema.max_input:
        return f"opset {opset} has {schema.max_input} inputs here, found {len(node.inputs)}"
    return None


def _form_problem(node: ir.Node, target: Target) -> str | None:
    if target.operators is None:
        return None
    if node.op_type == "Attention":
        return _attention_problem(node, target)
    if node.op_type == "TopK" and target.top_k_limit is not None:
        axis = node.inputs[0].shape[-1] if node.inputs[0] is not None and node.inputs[0].shape else None
        if isinstance(axis, int) and axis > target.top_k_limit:
            return f"it can be asked for {axis} elements, the limit is {target.top_k_limit}"
    if node.op_type == "TensorScatter":
        return _cache_problem(node)
    if node.op_type in ("QuantizeLinear", "DequantizeLinear") and not all(map(_is_zero, node.inputs[2:])):
        return "zero points other than zero are refused; found some"
    return None


def _is_zero(value: ir.Value | None) -> bool:
    """Zero points of weights that are still to be made are not known to be zero."""
    if value is None:
        return True
    constant = value.const_value
    return constant is not None and not isinstance(constant, Weight) and not constant.numpy().any()


def _attention_problem(node: ir.Node, target: Target) -> str | None:
    query = node.inputs[0]
    found = "unknown" if query is None or query.dtype is None else query.dtype.name
    if found not in target.attention_types:
        return f"there is no kernel in {found}"
    width = None if query is None or query.shape is None else query.shape[-1]
    if target.attention_head_dims is not None and width not in target.attention_head_dims:
        return f"there is no kernel for heads of width {width}"
    if any(value is not None for value in node.inputs[_ATTENTION_INPUTS:]) or len(node.outputs) > 1:
        return "only query, key, value and mask may go in, and one output may come out"
    softcap = node.attributes.get("softcap")
    return "softcap is refused" if softcap is not None and softcap.as_float() != 0.0 else None


def _cache_problem(node: ir.Node) -> str | None:
    cache, output = node.inputs[0], node.outputs[0]
    if cache is None or not cache.is_graph_input() or not output.is_graph_output():
        return "a cache has to be an input of the graph, and its update an output"
    return None
