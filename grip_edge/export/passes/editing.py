"""What the passes share: looking up weights, finding their readers and makers, adding weights and nodes."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import onnx_ir as ir

from grip_edge.export.weights import FloatWeight, Weight


def float_weight(model: ir.Model, name: str) -> FloatWeight:
    """The weight of that name; PreconditionError if it is not there or no plain matrix any more."""
    value = model.graph.initializers.get(name)
    if value is None or not isinstance(value.const_value, FloatWeight):
        raise ir.passes.PreconditionError(f"'{name}' is no weight of the graph in floating point")
    return value.const_value


def product_matrices(model: ir.Model) -> list[str]:
    """Names of the matrices that are read as right-hand side of matrix products and nowhere else."""
    return [name for name, value in model.graph.initializers.items() if is_product_matrix(value)]


def is_product_matrix(value: ir.Value) -> bool:
    uses = list(value.uses())
    return (
        isinstance(value.const_value, FloatWeight)
        and len(value.const_value.shape) == 2
        and bool(uses)
        and all(use.node.op_type == "MatMul" and use.idx == 1 for use in uses)
    )


def require_product_matrices(model: ir.Model, names: Iterable[str]) -> None:
    for name in names:
        float_weight(model, name)
        if not is_product_matrix(model.graph.initializers[name]):
            raise ir.passes.PreconditionError(f"'{name}' is not only the right-hand side of matrix products")


def set_weight(value: ir.Value, weight: Weight) -> None:
    """Gives an initializer new contents; type and shape follow."""
    weight.name = value.name
    value.const_value = weight
    value.type = ir.TensorType(weight.dtype)
    value.shape = ir.Shape(weight.shape)


def add_weight(model: ir.Model, name: str, weight: Weight) -> ir.Value:
    value = ir.Value(name=name)
    set_weight(value, weight)
    model.graph.register_initializer(value)
    return value


def result(name: str, dtype: ir.DataType, shape: Sequence[int | ir.SymbolicDim] | ir.Shape | None) -> ir.Value:
    """A value for a new node to make."""
    return ir.Value(name=name, type=ir.TensorType(dtype), shape=None if shape is None else ir.Shape(shape))


def maker(value: ir.Value | None, op_type: str) -> ir.Node | None:
    """The node that makes ``value``, if it is such a node."""
    node = None if value is None else value.producer()
    return node if node is not None and node.op_type == op_type else None


def replace_node(graph: ir.Graph, node: ir.Node, new: Sequence[ir.Node]) -> None:
    """Puts ``new`` in the place of ``node``; the output of the last takes over readers and name."""
    old, made = node.outputs[0], new[-1].outputs[0]
    graph.insert_before(node, new)
    ir.convenience.replace_all_uses_with(old, made, replace_graph_outputs=True)
    graph.remove(node, safe=True)
    made.name, old.name = old.name, f"{old.name}_before"
