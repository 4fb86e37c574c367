"""Small ONNX models as bytes, written field by field, so that a device needs no ``onnx`` package to measure itself.

Only what the probes of ``cpu_speed`` use: float and integer tensors, integer attributes, fixed shapes but for one axis.
Field numbers are those of ``onnx.proto`` (stable since IR version 3); a test reads the bytes back with ``onnx``.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

import numpy as np
from numpy.typing import NDArray

FLOAT, UINT8, INT8, UINT4, INT4 = 1, 2, 3, 21, 22

_IR_VERSION = 10
_OPSET = 24
_INT_ATTRIBUTE = 2


@dataclass(frozen=True)
class Tensor:
    """``data`` as stored: two 4-bit numbers per byte."""

    name: str
    dtype: int
    shape: tuple[int, ...]
    data: NDArray[np.generic]


@dataclass(frozen=True)
class Node:
    op_type: str
    inputs: tuple[str, ...]
    outputs: tuple[str, ...]
    attributes: dict[str, int] = field(default_factory=dict)


@dataclass(frozen=True)
class Port:
    """An input or output; an axis given as text is dynamic."""

    name: str
    dtype: int
    shape: tuple[int | str, ...]


def model_bytes(
    nodes: Sequence[Node],
    tensors: Sequence[Tensor],
    inputs: Sequence[Port],
    outputs: Sequence[Port],
    opset: int = _OPSET,
) -> bytes:
    graph = b"".join(
        [
            *(_message(1, _node(node)) for node in nodes),
            _text(2, "probe"),
            *(_message(5, _tensor(tensor)) for tensor in tensors),
            *(_message(11, _port(port)) for port in inputs),
            *(_message(12, _port(port)) for port in outputs),
        ]
    )
    return _number(1, _IR_VERSION) + _message(7, graph) + _message(8, _text(1, "") + _number(2, opset))


def _node(node: Node) -> bytes:
    attributes = (
        _message(5, _text(1, name) + _number(3, value) + _number(20, _INT_ATTRIBUTE))
        for name, value in node.attributes.items()
    )
    names = (*(_text(1, name) for name in node.inputs), *(_text(2, name) for name in node.outputs))
    return b"".join(names) + _text(4, node.op_type) + b"".join(attributes)


def _tensor(tensor: Tensor) -> bytes:
    dims = b"".join(_number(1, size) for size in tensor.shape)
    return dims + _number(2, tensor.dtype) + _text(8, tensor.name) + _message(9, tensor.data.tobytes())


def _port(port: Port) -> bytes:
    axes = (_message(1, _text(2, axis) if isinstance(axis, str) else _number(1, axis)) for axis in port.shape)
    tensor_type = _number(1, port.dtype) + _message(2, b"".join(axes))
    return _text(1, port.name) + _message(2, _message(1, tensor_type))


def _message(number: int, payload: bytes) -> bytes:
    return _varint(number << 3 | 2) + _varint(len(payload)) + payload


def _text(number: int, text: str) -> bytes:
    return _message(number, text.encode())


def _number(number: int, value: int) -> bytes:
    return _varint(number << 3) + _varint(value % 2**64)


def _varint(value: int) -> bytes:
    out = bytearray()
    while value > 127:
        out.append(value & 127 | 128)
        value >>= 7
    out.append(value)
    return bytes(out)
