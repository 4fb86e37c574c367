"""RMS normalisation from elementary operators in fp32, where the target has no such operator.

x ─ Cast ─ x / sqrt(mean(x * x) + epsilon) ─ Cast back ─ * weight

needs    normalisation over the last axis
leaves   no RMSNormalization
"""

from __future__ import annotations

import numpy as np
import onnx_ir as ir

from grip_edge.export.passes.editing import replace_node, result
from grip_edge.export.targets.constants import add_constant

_EPSILON = 1e-5  # the operator's default


class DecomposeRmsNorm(ir.passes.InPlacePass):
    def requires(self, model: ir.Model) -> None:
        for node in _norms(model):
            axis = node.attributes.get("axis")
            if axis is not None and axis.as_int() != -1:
                raise ir.passes.PreconditionError(f"RMSNormalization '{node.name}' is over axis {axis.as_int()}")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = _norms(model)
        if found:
            last = add_constant(model.graph, "rms_norm_axis", np.array([-1], np.int64))
            for node in found:
                _decompose(model.graph, node, last)
        return ir.passes.PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        if _norms(model):
            raise ir.passes.PostconditionError("RMSNormalization is left")


def _norms(model: ir.Model) -> list[ir.Node]:
    return [node for node in model.graph if node.op_type == "RMSNormalization"]


def _decompose(graph: ir.Graph, node: ir.Node, last: ir.Value) -> None:
    x, weight = node.inputs[0], node.inputs[1]
    output = node.outputs[0]
    if x is None or weight is None or x.dtype is None:
        raise ir.passes.PreconditionError(f"RMSNormalization '{node.name}' lacks an input or its type")
    made: list[ir.Node] = []

    def op(op_type: str, inputs: list[ir.Value], dtype: ir.DataType, **attributes: int) -> ir.Value:
        made.append(
            ir.node(
                op_type,
                inputs,
                attributes,
                outputs=[result(f"{output.name}_{op_type.lower()}_{len(made)}", dtype, None)],
            )
        )
        return made[-1].outputs[0]

    wide = ir.DataType.FLOAT
    epsilon = node.attributes["epsilon"].as_float() if "epsilon" in node.attributes else _EPSILON
    epsilon_value = add_constant(graph, f"{output.name}_epsilon", np.array(epsilon, np.float32))
    source = x if x.dtype == wide else op("Cast", [x], wide, to=wide)
    mean = op("ReduceMean", [op("Mul", [source, source], wide), last], wide, keepdims=1)
    root = op("Sqrt", [op("Add", [mean, epsilon_value], wide)], wide)
    normed = op("Div", [source, root], wide)
    if x.dtype != wide:
        normed = op("Cast", [normed], x.dtype, to=x.dtype)
    op("Mul", [normed, weight], x.dtype).shape = output.shape
    replace_node(graph, node, made)
