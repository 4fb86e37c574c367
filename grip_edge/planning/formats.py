"""Bytes of one weight in each number format, as the export's passes store it (``export.quantise``), and of a key."""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.manifest import WeightFormats
from grip_edge.weight_blocks import INT8_BLOCK, fitting_block

_FLOAT_BYTES = {"fp32": 4, "fp16": 2, "bf16": 2}
# ONNX Runtime's CPU widens these to fp32 when it loads them.
WIDENED = ("fp16", "bf16")
_SCALE_BYTES = 4


@dataclass(frozen=True)
class Matrix:
    """A linear layer's weight [inputs,outputs]; ``count`` of them are alike."""

    inputs: int
    outputs: int
    count: int = 1

    @property
    def elements(self) -> int:
        return self.count * self.inputs * self.outputs


def matrix_bytes(matrix: Matrix, scheme: str, formats: WeightFormats) -> int:
    """Codes, scales and zero points. ``formats`` tells the block of int4."""
    inputs, outputs = matrix.inputs, matrix.outputs
    if scheme in _FLOAT_BYTES:
        return matrix.elements * _FLOAT_BYTES[scheme]
    if scheme == "int8":
        return matrix.count * outputs * (inputs + _SCALE_BYTES)
    if scheme == "int8-weight":
        return matrix.count * outputs * (inputs + _SCALE_BYTES * _blocks(inputs, INT8_BLOCK))
    if scheme == "int4" and formats.int4_block is not None:
        scales = outputs * _blocks(inputs, formats.int4_block)
        zeros = 0 if formats.int4_symmetric else -(-scales // 2)
        return matrix.count * (-(-inputs * outputs // 2) + _SCALE_BYTES * scales + zeros)
    raise ValueError(f"no bytes for weights in '{scheme}'")


def scale_bytes(matrix: Matrix, scheme: str, formats: WeightFormats) -> int:
    """The scales of blocks alone; zero for formats without blocks."""
    block = formats.int4_block if scheme == "int4" else INT8_BLOCK if scheme == "int8-weight" else None
    return 0 if block is None else matrix.count * matrix.outputs * _SCALE_BYTES * _blocks(matrix.inputs, block)


def table_bytes(rows: int, width: int, scheme: str) -> int:
    """An embedding table, read by row."""
    if scheme in _FLOAT_BYTES:
        return rows * width * _FLOAT_BYTES[scheme]
    return rows * (width + _SCALE_BYTES * _blocks(width, INT8_BLOCK))


def float_bytes(scheme: str) -> int:
    """Of one weight that only float formats change, such as a convolution's."""
    return _FLOAT_BYTES.get(scheme, 4)


def cache_bytes(formats: WeightFormats) -> int:
    """Of one key or value on ONNX Runtime's CPU, where they are fp32 unless another format was chosen."""
    return float_bytes(formats.cache or "fp32")


def _blocks(inputs: int, block: int) -> int:
    return -(-inputs // fitting_block(inputs, block))
