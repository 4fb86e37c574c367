"""Linear layers that read the same values, and where the channels of these values can be rescaled for nothing.

Products of one group share the input, so they share its quantisation and its rescaling: channel j of the input is
divided by s[j] where it is made, and row j of each matrix multiplied by it. The result does not change, its rounding
does: outliers move from inputs into weights (SmoothQuant, 2211.10438), or precision to the channels that matter (AWQ,
2306.00978). Channels can be rescaled in a norm's weights, and in the matrix that makes one factor of a product
(up_proj in front of down_proj). Not covered: attention's output, whose channels are made by heads that may be shared.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

import onnx_ir as ir

from grip_edge.export.passes.editing import is_product_matrix

_NORMS = ("RMSNormalization", "LayerNormalization")


@dataclass(frozen=True)
class Group:
    """``source``: the weights that are divided, all along ``source_axis``; empty where nothing can be."""

    input: str
    matrices: tuple[str, ...]
    source: tuple[str, ...]
    source_axis: int

    @property
    def name(self) -> str:
        """Of its first matrix."""
        return self.matrices[0].removesuffix(".weight")


def find_groups(model: ir.Model, names: Collection[str]) -> tuple[Group, ...]:
    """The groups of these matrices, in order of execution."""
    by_input: dict[ir.Value, list[str]] = {}
    for node in model.graph:
        matrix = node.inputs[1] if node.op_type == "MatMul" else None
        source = node.inputs[0] if node.op_type == "MatMul" else None
        if matrix is not None and source is not None and matrix.name in names:
            by_input.setdefault(source, []).append(str(matrix.name))
    return tuple(_group(value, tuple(matrices)) for value, matrices in by_input.items())


def _group(value: ir.Value, matrices: tuple[str, ...]) -> Group:
    readers = list(value.consumers())
    alone = not value.is_graph_output() and all(
        node.op_type == "MatMul" and node.inputs[1] is not None and node.inputs[1].name in matrices for node in readers
    )
    read_once = all(_reads_once(node.inputs[1]) for node in readers if len(node.inputs) > 1)
    source, axis = _source(value) if alone and read_once else ((), 0)
    return Group(str(value.name), matrices, source, axis)


def _reads_once(matrix: ir.Value | None) -> bool:
    """A matrix that two products read with different inputs cannot be rescaled for one of them."""
    return matrix is not None and len(list(matrix.uses())) == 1


def _source(value: ir.Value) -> tuple[tuple[str, ...], int]:
    maker = value.producer()
    if maker is None:
        return (), 0
    if maker.op_type in _NORMS:
        weights = [weight for weight in maker.inputs[1:] if weight is not None]
        if weights and all(weight.is_initializer() and _reads_once(weight) for weight in weights):
            return tuple(str(weight.name) for weight in weights), 0
    if maker.op_type == "Mul":
        for factor in maker.inputs:
            matrix = _made_by_matrix(factor)
            if matrix is not None:
                return (matrix,), 1
    return (), 0


def _made_by_matrix(factor: ir.Value | None) -> str | None:
    """The matrix whose product is this factor and nothing else."""
    maker = None if factor is None else factor.producer()
    if factor is None or maker is None or maker.op_type != "MatMul" or len(list(factor.uses())) != 1:
        return None
    matrix = maker.inputs[1]
    found = matrix is not None and is_product_matrix(matrix) and _reads_once(matrix)
    return str(matrix.name) if found and matrix is not None else None
