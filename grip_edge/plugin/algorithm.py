"""BudgetSelect in numpy, step by step as ``native/budget_select.cuh`` does it; for tests and for the Python plugin.

Radix passes over order-preserving keys find the K-th largest; then the tokens are taken in their order: every key above
it, and the first of those equal to it. Not here: speed.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

_RADIX_BITS = 8
_BINS = 1 << _RADIX_BITS
_MINUS_INFINITY_KEY = np.uint32(0x007FFFFF)
_SIGN = np.uint32(0x80000000)


def order_keys(scores: NDArray[np.floating[Any]]) -> NDArray[np.uint32]:
    """Larger scores have larger keys; NaN has that of -infinity, -0 that of 0."""
    wide = scores.astype(np.float32)
    bits = np.where(wide == 0, np.float32(0), wide).view(np.uint32)
    keys = np.where(bits & _SIGN, ~bits, bits | _SIGN)
    return np.where(np.isnan(wide), _MINUS_INFINITY_KEY, keys).astype(np.uint32)


def find_threshold(keys: NDArray[np.uint32], kept: int) -> tuple[int, int]:
    """keys [N] -> the K-th largest key, and how many keys equal to it are kept."""
    key, missing = 0, kept
    for shift in range(32 - _RADIX_BITS, -1, -_RADIX_BITS):
        known = 0 if shift == 32 - _RADIX_BITS else (0xFFFFFFFF << (shift + _RADIX_BITS)) & 0xFFFFFFFF
        candidates = keys[(keys & np.uint32(known)) == np.uint32(key)]
        counts = np.bincount((candidates >> np.uint32(shift)) & np.uint32(_BINS - 1), minlength=_BINS)
        digit = _BINS - 1
        while counts[digit] < missing:
            missing -= int(counts[digit])
            digit -= 1
        key |= digit << shift
    return key, missing


def select_row(scores: NDArray[np.floating[Any]], kept: int) -> NDArray[np.int64]:
    """scores [N] -> indices [K]."""
    keys = order_keys(scores)
    key, ties = find_threshold(keys, kept)
    above, equal = keys > key, keys == key
    above_before: NDArray[np.int64] = np.cumsum(above) - above
    equal_before: NDArray[np.int64] = np.cumsum(equal) - equal
    taken = above | (equal & (equal_before < ties))
    indices = np.empty(kept, np.int64)
    indices[(above_before + np.minimum(equal_before, ties))[taken]] = np.flatnonzero(taken)
    return indices


def budget_select(
    scores: NDArray[np.floating[Any]], features: NDArray[Any], kept: int
) -> tuple[NDArray[Any], NDArray[np.int64]]:
    """scores [B,N], features [B,N,D] -> kept [B,K,D], indices [B,K]."""
    indices = np.stack([select_row(row, kept) for row in scores])
    return np.take_along_axis(features, indices[..., None], axis=1), indices
