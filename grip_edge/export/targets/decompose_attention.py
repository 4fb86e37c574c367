"""Attention from matrix products and softmax, where the target has no such operator in that type.

    query * scale ─ MatMul(key transposed) ─ Where(mask) ─ Softmax ─ MatMul(value)

With fewer key heads than query heads, the query heads of a group become an axis of their own and share the key by
broadcasting, so nothing is repeated. Boolean masks only; masked scores become the most negative number, not infinity.

    needs    query, key, value [1,heads,length,d] with known heads and d; no cache, softcap or second output
    leaves   no Attention but in the types and widths that the target has
"""

from __future__ import annotations

from collections.abc import Collection

import numpy as np
import onnx_ir as ir

from grip_edge.export.passes.editing import replace_node, result
from grip_edge.export.targets.constants import NUMPY_TYPES, add_constant, fixed_size

_LOWEST = {ir.DataType.FLOAT: float(np.finfo(np.float32).min), ir.DataType.FLOAT16: float(np.finfo(np.float16).min)}


class DecomposeAttention(ir.passes.InPlacePass):
    """``native_types`` and ``native_head_dims`` (None: all): float types and head widths whose Attention stays."""

    def __init__(self, native_types: Collection[str], native_head_dims: range | None) -> None:
        self._native_types = frozenset(native_types)
        self._native_head_dims = native_head_dims

    def call(self, model: ir.Model) -> ir.passes.PassResult:
        found = [node for node in model.graph if self._is_foreign(node)]
        for node in found:
            _Decomposition(model.graph, node).write()
        return ir.passes.PassResult(model, modified=bool(found))

    def ensures(self, model: ir.Model) -> None:
        for node in model.graph:
            if self._is_foreign(node):
                raise ir.passes.PostconditionError(f"Attention '{node.name}' is left")

    def _is_foreign(self, node: ir.Node) -> bool:
        if node.op_type != "Attention":
            return False
        query = node.inputs[0]
        if query is None or query.dtype is None or query.dtype.name not in self._native_types:
            return True
        return self._native_head_dims is not None and fixed_size(query, 3) not in self._native_head_dims


class _Decomposition:
    def __init__(self, graph: ir.Graph, node: ir.Node) -> None:
        self._graph, self._node = graph, node
        self._made: list[ir.Node] = []
        self._output = node.outputs[0]
        query, key, value, *rest = node.inputs
        if query is None or key is None or value is None or query.dtype is None or query.dtype not in NUMPY_TYPES:
            raise ir.passes.PreconditionError(f"Attention '{node.name}' lacks an input or its type")
        self._query, self._key, self._value = query, key, value
        self._mask = rest[0] if rest else None
        self._dtype: ir.DataType = query.dtype
        if any(extra is not None for extra in rest[1:]) or _number(node, "is_causal") or _number(node, "softcap"):
            raise ir.passes.PreconditionError(f"Attention '{node.name}' has inputs or attributes beyond a mask")
        if self._mask is not None and self._mask.dtype != ir.DataType.BOOL:
            raise ir.passes.PreconditionError(f"Attention '{node.name}' has a mask that is not boolean")
        self._heads, self._head_dim = fixed_size(query, 1), fixed_size(query, 3)
        self._kv_heads = fixed_size(key, 1)

    def write(self) -> None:
        scale = _number(self._node, "scale") or self._head_dim**-0.5
        query = self._op("Mul", [self._query, self._constant("scale", scale)])
        key = self._op("Transpose", [self._key], {"perm": [0, 1, 3, 2]})
        value = self._value
        grouped = self._heads != self._kv_heads
        if grouped:
            query = self._reshape(query, [1, self._kv_heads, self._heads // self._kv_heads, -1, self._head_dim])
            key, value = self._unsqueeze(key), self._unsqueeze(value)
        scores = self._op("MatMul", [query, key])
        if self._mask is not None:
            scores = self._op("Where", [self._mask, scores, self._constant("lowest", _LOWEST[self._dtype])])
        mixed = self._op("MatMul", [self._op("Softmax", [scores], {"axis": -1}), value])
        if grouped:
            mixed = self._reshape(mixed, [1, self._heads, -1, self._head_dim])
        mixed.shape = self._output.shape
        replace_node(self._graph, self._node, self._made)

    def _reshape(self, value: ir.Value, shape: list[int]) -> ir.Value:
        return self._op("Reshape", [value, self._constant("shape", shape)])

    def _unsqueeze(self, value: ir.Value) -> ir.Value:
        return self._op("Unsqueeze", [value, self._constant("axis", [2])])

    def _op(
        self, op_type: str, inputs: list[ir.Value], attributes: dict[str, int | list[int]] | None = None
    ) -> ir.Value:
        output = result(f"{self._output.name}_{op_type.lower()}_{len(self._made)}", self._dtype, None)
        self._made.append(ir.node(op_type, inputs, attributes or {}, outputs=[output]))
        return output

    def _constant(self, role: str, number: float | list[int]) -> ir.Value:
        dtype: type[np.generic] = np.int64 if isinstance(number, list) else NUMPY_TYPES[self._dtype]
        name = f"{self._output.name}_{role}_{len(self._made)}"
        return add_constant(self._graph, name, np.array(number, dtype))


def _number(node: ir.Node, name: str) -> float:
    attribute = node.attributes.get(name)
    return float(attribute.value) if attribute is not None else 0.0
