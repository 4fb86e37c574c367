"""Choosing tokens. References: distributions computed by hand, and transformers' warpers."""

from __future__ import annotations

import numpy as np
import pytest

from grip_edge.errors import BundleError, UserError
from grip_edge.runtime.sampling import Sampler, Sampling, nucleus, softmax

LOGITS = np.log(np.array([0.1, 0.4, 0.2, 0.3], np.float32))


def test_greedy_takes_the_first_of_the_likeliest() -> None:
    assert Sampler(Sampling()).choose(np.array([0.0, 2.0, 2.0, 1.0], np.float32)) == 1


def test_softmax_by_hand() -> None:
    np.testing.assert_allclose(softmax(LOGITS, 1.0), [0.1, 0.4, 0.2, 0.3], rtol=1e-6)
    squared = np.array([0.01, 0.16, 0.04, 0.09])
    np.testing.assert_allclose(softmax(LOGITS, 0.5), squared / squared.sum(), rtol=1e-6)
    np.testing.assert_allclose(softmax(np.array([1e4, 0.0], np.float32), 1.0), [1.0, 0.0])


@pytest.mark.parametrize(
    ("top_p", "expected"),
    [
        (1.0, [0.1, 0.4, 0.2, 0.3]),
        (0.95, [0.1, 0.4, 0.2, 0.3]),
        (0.85, [0.0, 4 / 9, 2 / 9, 3 / 9]),
        (0.65, [0.0, 4 / 7, 0.0, 3 / 7]),
        (0.35, [0.0, 1.0, 0.0, 0.0]),
        (1e-9, [0.0, 1.0, 0.0, 0.0]),
    ],
)
def test_nucleus_by_hand(top_p: float, expected: list[float]) -> None:
    np.testing.assert_allclose(nucleus(np.array([0.1, 0.4, 0.2, 0.3]), top_p), expected, rtol=1e-9)


@pytest.mark.parametrize("top_p", [0.1, 0.5, 0.9])
@pytest.mark.parametrize("temperature", [0.3, 1.0, 2.5])
def test_equals_transformers_warpers(temperature: float, top_p: float) -> None:
    import torch
    from transformers import TemperatureLogitsWarper, TopPLogitsWarper

    logits = np.random.default_rng(0).normal(0, 3, 200).astype(np.float32)
    scores = TemperatureLogitsWarper(temperature)(None, torch.from_numpy(logits)[None])
    expected = TopPLogitsWarper(top_p)(None, scores).softmax(-1)[0].numpy()
    found = nucleus(softmax(logits, temperature), top_p)
    assert np.array_equal(found > 0, expected > 0)
    np.testing.assert_allclose(found, expected, atol=1e-6)


def test_drawn_frequencies_follow_the_distribution() -> None:
    sampler = Sampler(Sampling(temperature=1.0, seed=0))
    counts = np.bincount([sampler.choose(LOGITS) for _ in range(4000)], minlength=4)
    np.testing.assert_allclose(counts / 4000, [0.1, 0.4, 0.2, 0.3], atol=0.03)


def test_a_seed_repeats_the_draws() -> None:
    draws = [[Sampler(Sampling(1.0, seed=seed)).choose(LOGITS * 0) for _ in range(1)] for seed in range(40)]
    again = [[Sampler(Sampling(1.0, seed=seed)).choose(LOGITS * 0) for _ in range(1)] for seed in range(40)]
    assert draws == again
    assert len({draw[0] for draw in draws}) == 4


@pytest.mark.parametrize(
    ("options", "message"),
    [
        ({"temperature": -1.0}, "temperature is 0 (greedy) or a positive number; got -1.0"),
        ({"temperature": float("nan")}, "got nan"),
        ({"temperature": float("inf")}, "got inf"),
        ({"temperature": 1.0, "top_p": 0.0}, "top-p is in (0, 1]; got 0.0"),
        ({"temperature": 1.0, "top_p": 1.5}, "got 1.5"),
        ({"temperature": 1.0, "seed": -3}, "seed is 0 or a positive integer; got -3"),
        ({"seed": 3}, "Greedy decoding has no use for a seed"),
        ({"top_p": 0.5}, "Greedy decoding has no use for top-p"),
    ],
)
def test_options_that_mean_nothing_are_refused(options: dict[str, float], message: str) -> None:
    with pytest.raises(UserError) as caught:
        Sampling(**options)  # type: ignore[arg-type]
    assert message in str(caught.value)


@pytest.mark.parametrize("sampling", [Sampling(), Sampling(temperature=1.0)])
def test_nan_is_an_error_not_an_answer(sampling: Sampling) -> None:
    with pytest.raises(BundleError, match="NaN"):
        Sampler(sampling).choose(np.array([0.0, np.nan, 1.0], np.float32))
