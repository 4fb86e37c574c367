"""Weights into a traced graph, one tensor at a time, so that memory holds the biggest tensor and not the model.

A traced graph's initializers have names and shapes but no data. Linear weights are stored transposed on the way
([in, out], as MatMul reads them), which removes their Transpose nodes; then constants are folded and tracing's
notes (source paths among them) dropped. Data is read when the file is written.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import onnx_ir as ir
from onnx_ir.passes.common import ClearMetadataAndDocStringPass
from onnxscript.optimizer import optimize
from torch import Tensor

T = TypeVar("T")
LoadTensor = Callable[[str], Tensor]


def fill_and_save(model: ir.Model, load: LoadTensor, path: Path) -> None:
    """Saves ``model`` as ``path`` and its weights as ``<path>.data``; ``load`` gives each initializer by its name."""
    transposed = fold_transposes(model)
    for name, value in model.graph.initializers.items():
        value.const_value = _lazy(name, value, load, name in transposed)
    optimize(model)
    _drop_notes(model)
    ir.save(model, path, external_data=f"{path.name}.data")


def fold_transposes(model: ir.Model) -> set[str]:
    """Removes Transpose nodes that read a matrix initializer; returns the initializers to store transposed."""
    folded = set()
    for name, value in model.graph.initializers.items():
        consumers = value.consumers()
        if not consumers or not all(_is_matrix_transpose(node) for node in consumers):
            continue
        for node in consumers:
            ir.convenience.replace_all_uses_with(node.outputs[0], value)
            model.graph.remove(node, safe=True)
        value.shape = ir.Shape(reversed(_known(value.shape)))
        folded.add(name)
    return folded


def _is_matrix_transpose(node: ir.Node) -> bool:
    return node.op_type == "Transpose" and tuple(node.attributes["perm"].as_ints()) == (1, 0)


def _lazy(name: str, value: ir.Value, load: LoadTensor, transpose: bool) -> ir.LazyTensor:
    def read() -> ir.Tensor[Any]:
        tensor = load(name)
        array = (tensor.T if transpose else tensor).numpy()
        return ir.Tensor(np.ascontiguousarray(array), name=name)

    return ir.LazyTensor(read, dtype=_known(value.dtype), shape=_known(value.shape), name=name)


def _known(attribute: T | None) -> T:
    """Type or shape of an initializer, which tracing always sets."""
    if attribute is None:
        raise ValueError("an initializer has neither type nor shape")
    return attribute


def _drop_notes(model: ir.Model) -> None:
    ClearMetadataAndDocStringPass()(model)
    values = [*model.graph.inputs, *model.graph.initializers.values()]
    for value in (*values, *(output for node in model.graph for output in node.outputs)):
        value.metadata_props.clear()
