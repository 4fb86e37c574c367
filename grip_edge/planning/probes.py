"""Stacks of linear layers in each weight format, and one attention, as the export writes them: what ``cpu_speed`` runs.

Weights are random numbers of a size that keeps activations finite through the stack; speed does not depend on them.
"""

from __future__ import annotations

import numpy as np

from grip_edge.manifest import WeightFormats
from grip_edge.planning.onnx_bytes import FLOAT, INT4, INT8, UINT4, Node, Port, Tensor, model_bytes

WIDTH = 4096
HEADS = 32

_FLOATS = ("fp32", "fp16", "bf16")
_INT8_BLOCK = 128
_CAST_TO_FLOAT = {"to": FLOAT}


def linear_stack(scheme: str, count: int, formats: WeightFormats) -> bytes:
    """x [rows,4096] through ``count`` different matrices [4096,4096]."""
    nodes: list[Node] = []
    tensors: list[Tensor] = []
    for index in range(count):
        source, out = (f"x{index}" if index else "x"), (f"x{index + 1}" if index + 1 < count else "y")
        if scheme in _FLOATS:
            tensors.append(Tensor(f"w{index}", FLOAT, (WIDTH, WIDTH), _floats(index)))
            nodes.append(Node("MatMul", (source, f"w{index}"), (out,)))
        elif scheme == "int8":
            _dynamic(index, source, out, nodes, tensors)
        else:
            _blocks(index, source, out, scheme, formats, nodes, tensors)
    axes = ("rows", WIDTH)
    return model_bytes(nodes, tensors, [Port("x", FLOAT, axes)], [Port("y", FLOAT, axes)])


def attention() -> bytes:
    """Queries of 32 heads over as many keys, as in a tower; the decoder's cached attention is as fast."""
    axes = (1, HEADS, "rows", WIDTH // HEADS)
    inputs = [Port(name, FLOAT, axes) for name in ("query", "key", "value")]
    node = Node("Attention", ("query", "key", "value"), ("y",))
    return model_bytes([node], [], inputs, [Port("y", FLOAT, axes)])


def _dynamic(index: int, source: str, out: str, nodes: list[Node], tensors: list[Tensor]) -> None:
    codes = np.random.default_rng(index).integers(-127, 128, (WIDTH, WIDTH), np.int8)
    tensors.append(Tensor(f"w{index}", INT8, (WIDTH, WIDTH), codes))
    tensors.append(Tensor(f"s{index}", FLOAT, (WIDTH,), np.full(WIDTH, 1 / (73 * WIDTH**0.5), np.float32)))
    nodes += [
        Node("DynamicQuantizeLinear", (source,), (f"q{index}", f"qs{index}", f"qz{index}")),
        Node("MatMulInteger", (f"q{index}", f"w{index}", f"qz{index}"), (f"i{index}",)),
        Node("Cast", (f"i{index}",), (f"f{index}",), _CAST_TO_FLOAT),
        Node("Mul", (f"qs{index}", f"s{index}"), (f"b{index}",)),
        Node("Mul", (f"f{index}", f"b{index}"), (out,)),
    ]


def _blocks(
    index: int,
    source: str,
    out: str,
    scheme: str,
    formats: WeightFormats,
    nodes: list[Node],
    tensors: list[Tensor],
) -> None:
    four_bits = scheme == "int4"
    block = (formats.int4_block or _INT8_BLOCK) if four_bits else _INT8_BLOCK
    zero_points = four_bits and not formats.int4_symmetric
    dtype = (UINT4 if zero_points else INT4) if four_bits else INT8
    scale_shape, per_byte = (WIDTH // block, WIDTH), 2 if four_bits else 1
    rng = np.random.default_rng(index)
    codes = np.frombuffer(rng.bytes(WIDTH * WIDTH // per_byte), np.uint8)
    spread = 4.6 if four_bits else 74.0
    tensors.append(Tensor(f"w{index}", dtype, (WIDTH, WIDTH), codes))
    tensors.append(Tensor(f"s{index}", FLOAT, scale_shape, np.full(scale_shape, 1 / (spread * WIDTH**0.5), np.float32)))
    inputs = (f"w{index}", f"s{index}")
    if zero_points:
        packed = np.full(scale_shape[0] * scale_shape[1] // 2, 0x88, np.uint8)
        tensors.append(Tensor(f"z{index}", dtype, scale_shape, packed))
        inputs = (*inputs, f"z{index}")  # type: ignore[assignment]
    nodes.append(Node("DequantizeLinear", inputs, (f"d{index}",), {"axis": 0, "block_size": block}))
    nodes.append(Node("MatMul", (source, f"d{index}"), (out,)))


def _floats(seed: int) -> np.ndarray[tuple[int, int], np.dtype[np.float32]]:
    row = np.random.default_rng(seed).standard_normal(WIDTH * 16, np.float32) / np.float32(WIDTH**0.5)
    return np.resize(row, (WIDTH, WIDTH))
