"""Arithmetic in fp16, for targets that have it: weights, intermediate values and most inputs and outputs become fp16.

What stays in fp32, with casts around it: everything that leads to the named outputs (scores decide which tokens are
kept, and rounding would make ties of them), the pixels that come in, and the logits that go out. Norms take fp16 but
are computed in fp32 by the operators' own definition (``stash_type``).

    needs    floats in fp32 only
    leaves   fp16 everywhere else
"""

from __future__ import annotations

from collections.abc import Collection

import onnx_ir as ir
import torch

from grip_edge.export.passes.editing import result, set_weight
from grip_edge.export.weights import FloatWeight, Weight

FLOAT, HALF = ir.DataType.FLOAT, ir.DataType.FLOAT16


class HalfCompute(ir.passes.InPlacePass):
    """``exact_outputs``: what these are made from stays in fp32. ``wide_borders``: inputs and outputs typed fp32."""

    def __init__(self, exact_outputs: Collection[str] = (), wide_borders: Collection[str] = ()) -> None:
        self._exact_outputs = frozenset(exact_outputs)
        self._wide_borders = frozenset(wide_borders)

    def requires(self, model: ir.Model) -> None:
        for node in model.graph:
            for value in node.outputs:
                if value.dtype in (HALF, ir.DataType.BFLOAT16, ir.DataType.DOUBLE):
                    raise ir.passes.PreconditionError(f"'{value.name}' is {value.dtype.name}, expected fp32 only")

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        graph = model.graph
        exact = _ancestors([value for value in graph.outputs if value.name in self._exact_outputs])
        self._halve_values(graph, exact)
        narrow: dict[ir.Value, ir.Value] = {}
        wide: dict[ir.Value, ir.Value] = {}
        for node in list(graph):
            for index, value in enumerate(node.inputs):
                if value is None or value.dtype not in (FLOAT, HALF):
                    continue
                if node in exact and value.dtype == HALF:
                    node.replace_input_with(index, _cast(graph, node, value, FLOAT, wide))
                elif node not in exact and value.dtype == FLOAT:
                    node.replace_input_with(index, _cast(graph, node, value, HALF, narrow))
        self._type_outputs(graph)
        return ir.passes.PassResult(model, modified=True)

    def ensures(self, model: ir.Model) -> None:
        for value in (*model.graph.inputs, *model.graph.outputs):
            expected = FLOAT if value.name in self._wide_borders | self._exact_outputs else HALF
            if value.dtype in (FLOAT, HALF) and value.dtype != expected:
                raise ir.passes.PostconditionError(f"'{value.name}' is {value.dtype.name}, expected {expected.name}")

    def _halve_values(self, graph: ir.Graph, exact: set[ir.Node]) -> None:
        """Retypes inputs, weights and results; casts come after."""
        for value in graph.inputs:
            if value.dtype == FLOAT and value.name not in self._wide_borders:
                value.type = ir.TensorType(HALF)
        for value in graph.initializers.values():
            if value.dtype == FLOAT and not any(node in exact for node in value.consumers()):
                _halve_weight(value)
        for node in graph:
            if node in exact:
                continue
            if node.op_type == "Cast" and node.attributes["to"].as_int() == FLOAT:
                node.attributes["to"] = ir.AttrInt64("to", HALF)
            for output in node.outputs:
                if output.dtype == FLOAT:
                    output.type = ir.TensorType(HALF)

    def _type_outputs(self, graph: ir.Graph) -> None:
        """Outputs that are to be fp32 get a cast behind them, exact ones that are to be fp16 too."""
        for index, value in enumerate(list(graph.outputs)):
            if value.dtype not in (FLOAT, HALF):
                continue
            expected = FLOAT if value.name in self._wide_borders | self._exact_outputs else HALF
            if value.dtype != expected:
                name = value.name
                value.name = f"{name}_{value.dtype.name.lower()}"
                output = result(str(name), expected, value.shape)
                graph.append(ir.node("Cast", [value], {"to": expected}, outputs=[output]))
                graph.outputs[index] = output


def _ancestors(values: Collection[ir.Value]) -> set[ir.Node]:
    """All nodes that these values are made by."""
    found: set[ir.Node] = set()
    waiting = [node for value in values if (node := value.producer()) is not None]
    while waiting:
        node = waiting.pop()
        if node not in found:
            found.add(node)
            waiting += [made for value in node.inputs if value is not None and (made := value.producer()) is not None]
    return found


def _halve_weight(value: ir.Value) -> None:
    weight = value.const_value
    if isinstance(weight, FloatWeight):
        set_weight(value, weight.cast(HALF))
    elif isinstance(weight, Weight):  # scales of quantised weights
        make = weight.make
        set_weight(value, Weight(HALF, weight.sizes, f"{weight.recipe} as {HALF.name}", lambda: make().to(torch.half)))
    elif weight is not None:  # constants that tracing made
        numbers = torch.from_numpy(weight.numpy().copy()).clamp(-65504.0, 65504.0)
        value.const_value = ir.tensor(numbers.half().numpy(), name=value.name)
        value.type = ir.TensorType(HALF)


def _cast(
    graph: ir.Graph, before: ir.Node, value: ir.Value, dtype: ir.DataType, known: dict[ir.Value, ir.Value]
) -> ir.Value:
    """``value`` in ``dtype``; one cast serves all readers, since the first of them comes first."""
    if value not in known:
        known[value] = result(f"{value.name}_{dtype.name.lower()}", dtype, value.shape)
        graph.insert_before(before, [ir.node("Cast", [value], {"to": dtype}, outputs=[known[value]])])
    return known[value]
