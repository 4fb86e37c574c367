"""References: the plain bootstrap written out, the normal approximation, and coverage on simulated data."""

from __future__ import annotations

import numpy as np
import pytest

from grip_edge.calibration.evaluation.intervals import Bootstrap


def everything(count: int) -> np.ndarray:
    return np.ones(count, dtype=bool)


def test_equals_the_bootstrap_written_out() -> None:
    rng = np.random.default_rng(0)
    image = np.repeat(np.arange(40), 3)
    scores = (rng.random(120) < 0.7).astype(float)
    found = Bootstrap(image, seed=1).interval(scores[None], everything(120))
    plain = [np.concatenate([scores[image == i] for i in rng.integers(0, 40, size=40)]).mean() for _ in range(2000)]
    assert found.value == pytest.approx(scores.mean())
    # two sets of random draws: their percentiles agree within the spacing of the tail
    assert (found.low, found.high) == pytest.approx(np.percentile(plain, [2.5, 97.5]), abs=0.015)


def test_questions_of_one_image_are_drawn_together() -> None:
    """Ten equal questions per image hold no more than one: the interval is that of the images alone."""
    right = (np.random.default_rng(2).random(100) < 0.5).astype(float)
    once = Bootstrap(np.arange(100)).interval(right[None], everything(100))
    often = Bootstrap(np.repeat(np.arange(100), 10)).interval(np.repeat(right, 10)[None], everything(1000))
    assert often == once


def test_width_is_that_of_the_normal_approximation() -> None:
    scores = np.random.default_rng(3).random(800)
    found = Bootstrap(np.arange(800)).interval(scores[None], everything(800))
    half = 1.96 * scores.std(ddof=1) / np.sqrt(800)
    assert found.high - found.value == pytest.approx(half, rel=0.1)
    assert found.value - found.low == pytest.approx(half, rel=0.1)


def test_a_paired_difference_is_narrower_than_its_parts() -> None:
    rng = np.random.default_rng(4)
    hard = rng.random(1000) < 0.5
    left = np.where(rng.random(1000) < 0.02, ~hard, hard).astype(float)
    bootstrap = Bootstrap(np.arange(1000))
    alone = bootstrap.interval(left[None], everything(1000))
    found = bootstrap.difference(left[None], hard[None].astype(float), everything(1000))
    assert found.value == pytest.approx((left - hard).mean())
    assert found.high - found.low < 0.4 * (alone.high - alone.low)
    same = bootstrap.difference(left[None], left[None], everything(1000))
    assert (same.value, same.low, same.high) == (0.0, 0.0, 0.0)


def test_training_runs_widen_the_interval_by_the_variance_of_their_mean() -> None:
    """Reference: Var = s_images^2 / I + s_runs^2 / n, by far the larger part here from the runs."""
    rng = np.random.default_rng(5)
    runs = np.array([0.30, 0.50, 0.70])
    scores = (rng.random((3, 1000)) < runs[:, None]).astype(float)
    found = Bootstrap(np.arange(1000), draws=8000).interval(scores, everything(1000))
    means = scores.mean(axis=1)
    resampled = Bootstrap(np.arange(1000), draws=8000)._resampled(scores, everything(1000), stream=0)
    expected = np.sqrt(means.var(ddof=1) / 3 + scores.mean(axis=0).var() / 1000)
    assert found.value == pytest.approx(means.mean())
    assert resampled.std() == pytest.approx(expected, rel=0.04)
    one = Bootstrap(np.arange(1000)).interval(scores[:1], everything(1000))
    assert found.high - found.low > 4 * (one.high - one.low)


def test_only_the_asked_questions_count() -> None:
    image = np.repeat(np.arange(50), 2)
    scores = np.tile([1.0, 0.0], 50)[None]
    asked = np.tile([True, False], 50)
    found = Bootstrap(image).interval(scores, asked)
    assert (found.value, found.low, found.high) == (1.0, 1.0, 1.0)


def test_the_interval_covers_the_truth_about_as_often_as_it_says() -> None:
    rng = np.random.default_rng(6)
    image = np.repeat(np.arange(60), 2)
    covered = 0
    for trial in range(100):
        level = rng.beta(4, 2, size=60)  # images differ in difficulty
        scores = (rng.random(120) < np.repeat(level, 2)).astype(float)
        found = Bootstrap(image, seed=trial, draws=300).interval(scores[None], everything(120))
        covered += found.low <= 4 / 6 <= found.high
    assert 0.88 <= covered / 100 <= 1.0, covered
