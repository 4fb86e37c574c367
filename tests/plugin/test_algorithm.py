"""Reference: ``calibration.selection.keep_best_numpy``, a stable sort; ties, NaN, infinities and zeros included."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from grip_edge.calibration.selection import keep_best_numpy
from grip_edge.plugin.algorithm import budget_select, order_keys, select_row

ODD = [0.0, -0.0, 1.0, -1.0, np.inf, -np.inf, np.nan, -np.nan, 1e-45, -1e-45, 3.4e38, -3.4e38]


def adversaries(count: int) -> dict[str, NDArray[np.float32]]:
    random = np.random.default_rng(count)
    scores = random.standard_normal(count).astype(np.float32)
    cases = {
        "random": scores,
        "ascending": np.sort(scores),
        "descending": np.sort(scores)[::-1].copy(),
        "constant": np.full(count, 0.25),
        "few values": random.integers(0, 3, count),
        "last bits": np.float32(1) + random.integers(0, 4, count) * np.float32(2**-23),
        "all NaN": np.full(count, np.nan),
        "odd": random.choice(ODD, count),
    }
    return {name: case.astype(np.float32) for name, case in cases.items()}


@pytest.mark.parametrize("count", [1, 2, 31, 32, 33, 576, 1025, 16_384])
def test_the_same_tokens_as_a_stable_sort(count: int) -> None:
    for name, scores in adversaries(count).items():
        for kept in sorted({1, 2, count // 3, count - 1, count} & set(range(1, count + 1))):
            expected = keep_best_numpy(scores, kept)
            np.testing.assert_array_equal(select_row(scores, kept), expected, f"{name}, {kept} of {count}")


@settings(deadline=None, max_examples=150)
@given(data=st.data())
def test_any_scores_and_any_budget(data: st.DataObject) -> None:
    numbers = st.sampled_from(ODD) | st.floats(width=32)
    scores = data.draw(arrays.arrays(np.float32, st.integers(1, 40), elements=numbers))
    kept = data.draw(st.integers(1, len(scores)))
    np.testing.assert_array_equal(select_row(scores, kept), keep_best_numpy(scores, kept))


def test_keys_order_as_scores_do() -> None:
    scores = np.sort(adversaries(4096)["random"])
    assert (np.diff(order_keys(scores).astype(np.int64)) >= 0).all()
    assert len(set(order_keys(np.array([np.nan, -np.inf], np.float32)))) == 1
    assert len(set(order_keys(np.array([0.0, -0.0], np.float32)))) == 1
    assert (order_keys(np.array([-3.4e38], np.float32)) > order_keys(np.array([-np.inf], np.float32))).all()


def test_rows_are_gathered_per_image() -> None:
    random = np.random.default_rng(0)
    scores, features = random.standard_normal((3, 20)), random.standard_normal((3, 20, 4)).astype(np.float16)
    kept, indices = budget_select(scores, features, 7)
    assert (kept.shape, kept.dtype.name, indices.shape) == ((3, 7, 4), "float16", (3, 7))
    for image in range(3):
        np.testing.assert_array_equal(kept[image], features[image][keep_best_numpy(scores[image], 7)])
