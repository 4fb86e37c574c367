"""Weights that are transposed before use are stored transposed.

PyTorch keeps a linear layer as [out,in]; MatMul reads [in,out]. The one Gemm that tracing makes, of a linear layer on
one row (the LM head), becomes a MatMul and an addition, so that all linear layers look alike to later passes.

    leaves   no Transpose of a weight; no Gemm
"""

from __future__ import annotations

import onnx_ir as ir

from grip_edge.export.passes.editing import replace_node, result, set_weight
from grip_edge.export.weights import FloatWeight


class FoldTransposes(ir.passes.InPlacePass):
    def call(self, model: ir.Model) -> ir.passes.PassResult:
        nodes = list(model.graph)
        for node in nodes:
            if node.op_type == "Gemm":
                _split_gemm(model.graph, node)
        folded = [value for value in model.graph.initializers.values() if _only_transposed(value)]
        for value in folded:
            _fold(model.graph, value)
        return ir.passes.PassResult(model, modified=bool(folded))

    def ensures(self, model: ir.Model) -> None:
        for node in model.graph:
            source = node.inputs[0] if node.inputs else None
            if node.op_type == "Gemm" or (node.op_type == "Transpose" and source and source.is_initializer()):
                raise ir.passes.PostconditionError(f"{node.op_type} '{node.name}' is left")


def _split_gemm(graph: ir.Graph, node: ir.Node) -> None:
    """x [M,in], weight [out,in], bias [out] -> Add(MatMul(x, Transpose(weight)), bias)."""
    attributes = {name: attribute.value for name, attribute in node.attributes.items()}
    wanted = {"alpha": 1.0, "beta": 1.0, "transA": 0, "transB": 1}
    if {**wanted, "transB": 0, **attributes} != wanted:
        raise ir.passes.PreconditionError(f"Gemm '{node.name}' has {attributes}; expected x @ weight.T + bias")
    inputs, weight, *bias = node.inputs
    if weight is None or weight.dtype is None or weight.shape is None:
        raise ir.passes.PreconditionError(f"Gemm '{node.name}' has a weight without type or shape")
    out = node.outputs[0]
    turned = result(f"{out.name}_weight", weight.dtype, list(reversed(weight.shape.dims)))
    new = [ir.node("Transpose", [weight], {"perm": [1, 0]}, outputs=[turned])]
    product = result(f"{out.name}_product", weight.dtype, out.shape)
    new.append(ir.node("MatMul", [inputs, turned], outputs=[product]))
    if bias:
        new.append(ir.node("Add", [product, bias[0]], outputs=[result(f"{out.name}_sum", weight.dtype, out.shape)]))
    replace_node(graph, node, new)


def _only_transposed(value: ir.Value) -> bool:
    consumers = value.consumers()
    return bool(consumers) and all(_is_matrix_transpose(node) for node in consumers)


def _is_matrix_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == (1, 0)


def _fold(graph: ir.Graph, value: ir.Value) -> None:
    weight = value.const_value
    if not isinstance(weight, FloatWeight):
        raise ir.passes.PreconditionError(f"'{value.name}' is no weight in floating point")
    for node in value.consumers():
        ir.convenience.replace_all_uses_with(node.outputs[0], value)
        graph.remove(node, safe=True)
    set_weight(value, weight.transposed())
