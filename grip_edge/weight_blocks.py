"""How many inputs of a matrix, or numbers of a table's row, have one scale: the blocks of quantised weights."""

from __future__ import annotations

import math

INT8_BLOCK = 128

_SMALLEST_BLOCK = 16  # that ONNX Runtime multiplies by


def fitting_block(size: int, block: int) -> int:
    """Of ``size`` numbers: fewer than ``block`` where that leaves no shorter block at the end, which OpenVINO does not
    read.
    """
    even = math.gcd(size, block)
    return even if even >= _SMALLEST_BLOCK else block
