"""Reference: the same rounding written out in numpy, one block at a time; and the bound of half a step."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from grip_edge.export import quantise
from grip_edge.export.quantise import pack_nibbles, quantise_blocks, quantise_columns, quantise_rows

SHAPES = [(64, 6), (48, 10), (100, 7), (5, 3)]


@pytest.fixture(autouse=True)
def small_pieces(monkeypatch: pytest.MonkeyPatch) -> None:
    """Several pieces per matrix, the last one shorter."""
    monkeypatch.setattr(quantise, "_PIECE_ELEMENTS", 200)


def weight(shape: tuple[int, int], seed: int = 0) -> torch.Tensor:
    """With an outlier, a block of zeros, and all of one sign in the last column."""
    values = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    values[0, 0], values[:, 1], values[:, -1] = 9.0, 0.0, np.abs(values[:, -1])
    return torch.from_numpy(values)


def unpacked(codes: torch.Tensor, shape: tuple[int, ...], symmetric: bool) -> NDArray[np.int64]:
    """Two 4-bit codes per byte, the first in the lower half; signed ones in two's complement."""
    data = codes.numpy().astype(np.int64)
    flat = np.stack([data & 15, data >> 4], axis=1).ravel()[: int(np.prod(shape))]
    return np.where(flat > 7, flat - 16, flat).reshape(shape) if symmetric else flat.reshape(shape)


def blocks_by_hand(
    values: NDArray[np.float32], bits: int, block: int, symmetric: bool
) -> tuple[NDArray[np.int64], NDArray[np.float32], NDArray[np.int64]]:
    inputs, outputs = values.shape
    count = -(-inputs // block)
    codes = np.zeros((inputs, outputs), np.int64)
    scales, zeros = np.zeros((count, outputs), np.float32), np.zeros((count, outputs), np.int64)
    for b in range(count):
        for column in range(outputs):
            rows = slice(b * block, min((b + 1) * block, inputs))
            part = values[rows, column]
            if symmetric:
                scale = np.abs(part).max() / np.float32((2**bits - 1) / 2)
                low, high, zero = -(2 ** (bits - 1)), 2 ** (bits - 1) - 1, 0
            else:
                low, high = 0, 2**bits - 1
                smallest, largest = np.minimum(part.min(), 0), np.maximum(part.max(), 0)
                scale = (largest - smallest) / np.float32(high)
                zero = int(np.rint(-smallest / (scale or 1)))
            scale = scale or np.float32(1)
            codes[rows, column] = np.clip(np.rint(part / scale) + zero, low, high)
            scales[b, column], zeros[b, column] = scale, zero
    return codes, scales, zeros


@pytest.mark.parametrize("shape", SHAPES)
@pytest.mark.parametrize("block", [16, 32, 128])
@pytest.mark.parametrize("bits", [4, 8])
@pytest.mark.parametrize("symmetric", [True, False])
def test_blocks(shape: tuple[int, int], block: int, bits: int, symmetric: bool) -> None:
    given = weight(shape)
    codes, scales, *rest = quantise_blocks(given, bits, block, symmetric)
    expected_codes, expected_scales, expected_zeros = blocks_by_hand(given.numpy(), bits, block, symmetric)
    if bits == 4:
        found = unpacked(codes, shape, symmetric)
        zeros = unpacked(rest[0], expected_zeros.shape, symmetric) if rest else expected_zeros
    else:
        assert codes.dtype == (torch.int8 if symmetric else torch.uint8)
        found, zeros = codes.numpy().astype(np.int64), rest[0].numpy() if rest else expected_zeros
    assert len(rest) == (0 if symmetric else 1)
    np.testing.assert_allclose(scales.numpy(), expected_scales, rtol=1e-6)
    np.testing.assert_array_equal(zeros, expected_zeros)
    np.testing.assert_array_equal(found, expected_codes)
    steps = np.repeat(scales.numpy(), block, axis=0)[: shape[0]]
    restored = (found - np.repeat(zeros, block, axis=0)[: shape[0]]) * steps
    worst = (np.abs(restored - given.numpy()) / steps).max()
    assert worst <= 0.5 + 1e-4, f"largest error is {worst:.4f} steps"


@pytest.mark.parametrize("shape", SHAPES)
def test_columns(shape: tuple[int, int]) -> None:
    given = weight(shape)
    codes, scales = quantise_columns(given)
    largest = np.abs(given.numpy()).max(axis=0)
    expected_scales = np.where(largest > 0, largest / 127, 1)
    np.testing.assert_allclose(scales.numpy(), expected_scales, rtol=1e-6)
    np.testing.assert_array_equal(codes.numpy(), np.rint(given.numpy() / scales.numpy()))
    assert codes.abs().max() == 127


@pytest.mark.parametrize("block", [16, 128])
def test_rows_are_blocks_along_the_width(block: int) -> None:
    given = weight((70, 48))
    codes, scales = quantise_rows(given, block)
    expected_codes, expected_scales, _ = blocks_by_hand(given.numpy().T, 8, block, symmetric=True)
    np.testing.assert_array_equal(codes.numpy(), expected_codes.T)
    np.testing.assert_allclose(scales.numpy(), expected_scales.T, rtol=1e-6)


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16])
def test_every_float_type_is_quantised_as_its_own_numbers(dtype: torch.dtype) -> None:
    given = weight((100, 7)).to(dtype)
    kept = given.clone()
    for found, expected in (
        (quantise_columns(given), quantise_columns(given.float())),
        (quantise_blocks(given, 4, 32, False), quantise_blocks(given.float(), 4, 32, False)),
        (quantise_rows(given, 32), quantise_rows(given.float(), 32)),
    ):
        assert all(torch.equal(one, other) for one, other in zip(found, expected, strict=True))
    assert torch.equal(given, kept), "the weight itself was changed"


def test_the_seven_and_a_half_rule_beats_spending_a_code_on_the_extreme() -> None:
    """Symmetric 4-bit scales are largest / 7.5: a smaller step than largest / 7 at the same bound."""
    given = torch.from_numpy(np.random.default_rng(1).standard_normal((4096, 8)).astype(np.float32))
    codes, scales = quantise_blocks(given, 4, 32, True)
    found = unpacked(codes, (4096, 8), True) * np.repeat(scales.numpy(), 32, axis=0)
    sevenths = np.repeat(np.abs(given.numpy().reshape(128, 32, 8)).max(axis=1) / 7, 32, axis=0)
    other = np.rint(given.numpy() / sevenths) * sevenths
    ours, theirs = (float(np.square(x - given.numpy()).mean()) for x in (found, other))
    assert ours < 0.97 * theirs, f"{ours:.4g} against {theirs:.4g}"


@pytest.mark.parametrize("count", [1, 2, 9])
def test_packing(count: int) -> None:
    codes = torch.arange(count, dtype=torch.int8) - 4
    packed = pack_nibbles(codes)
    assert packed.dtype == torch.uint8
    assert packed.numel() == -(-count // 2)
    np.testing.assert_array_equal(unpacked(packed, (count,), True), codes.numpy())
