"""FLOPs of an ONNX Loop, turn by turn: what it carries from turn to turn may grow, as the rows of a factor do.

A body has no shapes noted where it depends on carried values. So it is taken out as a graph of its own with the sizes
of this turn, and ONNX's own shape inference fills it in; what comes out is the next turn's input. Turns whose carried
values no longer change in size are counted once and multiplied.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence

import onnx
import onnx_ir as ir

Shape = tuple[int, ...]

_CARRIED = 2  # a body's inputs are the turn, the condition, and then what is carried; its outputs lack the turn


def loop_flops(
    node: ir.Node,
    turns: int,
    shape_of: Callable[[ir.Value], Shape],
    graph_flops: Callable[[ir.Graph], int],
) -> int:
    """``shape_of`` gives the size of a value outside the body."""
    body = node.attributes["body"].as_graph()
    seen, opsets = _captured(body), {} if node.graph is None else node.graph.opset_imports
    outer = [value for value in node.inputs[_CARRIED:] if value is not None]
    carried = [shape_of(value) for value in outer]
    total = 0
    for turn in range(turns):
        graph = _with_shapes(body, seen, outer, carried, shape_of, opsets)
        flops = graph_flops(graph)
        next_carried = [_known(value) for value in graph.outputs[1 : 1 + len(carried)]]
        if next_carried == carried:
            return total + flops * (turns - turn)
        total, carried = total + flops, next_carried
    return total


def _captured(body: ir.Graph) -> list[ir.Value]:
    """Values of the graph around, which the body reads by name."""
    own = {value.name for value in body.inputs} | {out.name for node in body for out in node.outputs}
    read = {value.name: value for node in body for value in node.inputs if value is not None}
    return [value for name, value in read.items() if name not in own]


def _with_shapes(
    body: ir.Graph,
    captured: Sequence[ir.Value],
    outer: Sequence[ir.Value],
    carried: Sequence[Shape],
    shape_of: Callable[[ir.Value], Shape],
    opsets: Mapping[str, int],
) -> ir.Graph:
    proto = ir.serde.serialize_graph(body)
    del proto.input[:]
    scalars = (onnx.TensorProto.INT64, onnx.TensorProto.BOOL)
    for value, dtype in zip(body.inputs[:_CARRIED], scalars, strict=True):
        proto.input.append(onnx.helper.make_tensor_value_info(value.name or "", dtype, ()))
    for inner, around, shape in zip(body.inputs[_CARRIED:], outer, carried, strict=True):
        proto.input.append(_info(inner.name, around.dtype, shape))
    for value in captured:
        constant = ir.convenience.get_const_tensor(value)
        if constant is None:
            proto.input.append(_info(value.name, value.dtype, shape_of(value)))
        else:
            proto.initializer.append(onnx.numpy_helper.from_array(constant.numpy(), value.name))
    model = onnx.helper.make_model(proto, opset_imports=[onnx.helper.make_opsetid(*item) for item in opsets.items()])
    return ir.serde.deserialize_model(onnx.shape_inference.infer_shapes(model, data_prop=True)).graph


def _info(name: str | None, dtype: ir.DataType | None, shape: Shape) -> onnx.ValueInfoProto:
    return onnx.helper.make_tensor_value_info(name or "", int(dtype or ir.DataType.FLOAT), shape)


def _known(value: ir.Value) -> Shape:
    axes = () if value.shape is None else tuple(axis for axis in value.shape if isinstance(axis, int))
    if value.shape is None or len(axes) < len(value.shape):
        raise ValueError(f"a Loop carries '{value.name}', whose size cannot be told")
    return axes
