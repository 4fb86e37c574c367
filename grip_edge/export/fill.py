"""Weights into an exported graph, one tensor at a time, so that memory holds the biggest tensor and not the model.

The graph comes from a fake-tensor export: its initializers have names and shapes but no data. Linear weights are
stored transposed on the way ([in, out], as MatMul reads them), which removes their Transpose nodes.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx_ir as ir
from torch import Tensor

LoadTensor = Callable[[str], Tensor]


def fold_transposes(model: ir.Model) -> set[str]:
    """Removes Transpose nodes that read a matrix initializer; returns the initializers to store transposed."""
    folded = set()
    for name, value in list(model.graph.initializers.items()):
        consumers = value.consumers()
        if not consumers or not all(_is_matrix_transpose(node) for node in consumers):
            continue
        for node in consumers:
            ir.convenience.replace_all_uses_with(node.outputs[0], value)
            model.graph.remove(node, safe=True)
        rows, columns = value.shape.numpy()
        value.shape = ir.Shape([columns, rows])
        folded.add(name)
    return folded


def fill_and_save(model: ir.Model, load: LoadTensor, path: Path) -> None:
    """Saves ``model`` as ``path`` with its weights in ``<path>.data``; ``load`` gives each initializer by its name."""
    transposed = fold_transposes(model)
    for name, value in model.graph.initializers.items():
        value.const_value = _lazy(name, value, load, name in transposed)
    ir.save(model, path, external_data=f"{path.name}.data")


def _lazy(name: str, value: ir.Value, load: LoadTensor, transpose: bool) -> ir.LazyTensor:
    def read() -> ir.Tensor:
        tensor = load(name)
        array = (tensor.T if transpose else tensor).numpy()
        return ir.Tensor(np.ascontiguousarray(array), name=name)

    return ir.LazyTensor(read, dtype=value.dtype, shape=value.shape, name=name)


def _is_matrix_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and node.domain == "" and node.attributes["perm"].as_ints() == [1, 0]
