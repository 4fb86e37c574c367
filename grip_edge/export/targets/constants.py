"""Small constants that passes add to a graph."""

from __future__ import annotations

from typing import Any

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

NUMPY_TYPES: dict[ir.DataType | None, type[np.floating[Any]]] = {
    ir.DataType.FLOAT: np.float32,
    ir.DataType.FLOAT16: np.float16,
}


def add_constant(graph: ir.Graph, name: str, array: NDArray[Any]) -> ir.Value:
    """An initializer of the graph; ``name`` must be new."""
    tensor = ir.tensor(array, name=name)
    value = ir.Value(name=name, type=ir.TensorType(tensor.dtype), shape=ir.Shape(array.shape), const_value=tensor)
    graph.register_initializer(value)
    return value


def fixed_size(value: ir.Value, axis: int) -> int:
    """The length along ``axis``; PreconditionError if only a run decides it."""
    size = None if value.shape is None else value.shape[axis]
    if not isinstance(size, int):
        raise ir.passes.PreconditionError(f"'{value.name}' has no fixed length along axis {axis}; found {value.shape}")
    return size
