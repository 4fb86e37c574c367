"""A bundle's graph as a build reads it: the cache's length fixed, the likeliest token chosen inside, and selection left
to the plugin where one is used.

Weights stay where they are, beside the graph; only the graph itself is in memory and is changed there.
"""

from __future__ import annotations

from pathlib import Path

import onnx

from grip_edge.engines import GREEDY_TOKEN
from grip_edge.plugin import interface

_CAPACITY_AXIS = "C"
_LOGITS = "logits"


def read_graph(path: Path, cache_capacity: int, with_plugin: bool) -> bytes:
    """The model as TensorRT's parser wants it, without its weights."""
    model = onnx.load(path, load_external_data=False)
    for value in (*model.graph.input, *model.graph.output, *model.graph.value_info):
        for axis in value.type.tensor_type.shape.dim:
            if axis.dim_param == _CAPACITY_AXIS:
                axis.dim_value = cache_capacity
    if any(output.name == _LOGITS for output in model.graph.output):
        add_greedy_token(model)
    if with_plugin:
        _leave_to_plugin(model)
    return bytes(model.SerializeToString())


def selects_in_one_node(path: Path) -> bool:
    """Whether a plugin can take over the graph's selection."""
    graph = onnx.load(path, load_external_data=False).graph
    return any((node.domain, node.op_type) == (interface.NAMESPACE, interface.NAME) for node in graph.node)


def add_greedy_token(model: onnx.ModelProto) -> None:
    """logits [1,V] -> next_token int64 [1,1], so that a greedy step never leaves the device."""
    model.graph.node.append(onnx.helper.make_node("ArgMax", [_LOGITS], [GREEDY_TOKEN], axis=-1, keepdims=1))
    model.graph.output.append(onnx.helper.make_tensor_value_info(GREEDY_TOKEN, onnx.TensorProto.INT64, [1, 1]))


def _leave_to_plugin(model: onnx.ModelProto) -> None:
    """Without the function's body the parser has to ask for the plugin."""
    kept = [
        function
        for function in model.functions
        if (function.domain, function.name) != (interface.NAMESPACE, interface.NAME)
    ]
    del model.functions[:]
    model.functions.extend(kept)
