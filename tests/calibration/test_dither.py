"""Ordered dither against the quantiles of Gumbel noise, random arrangements of them, and the scorers that use it."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from grip_edge.calibration.dither import ordered_dither
from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.calibration.tprl.network import TprlConfig, TprlScorer
from grip_edge.errors import UserError

SIZES = st.integers(1, 24)


@given(rows=SIZES, columns=SIZES, temperature=st.floats(0, 4))
def test_the_values_are_the_quantiles_of_gumbel_noise(rows: int, columns: int, temperature: float) -> None:
    count = rows * columns
    quantiles = [-temperature * np.log(-np.log((i + 0.5) / count)) for i in range(count)]
    found = ordered_dither((rows, columns), temperature)
    assert found.dtype == torch.float32
    np.testing.assert_allclose(np.sort(found.numpy()), quantiles, atol=1e-5)


@pytest.mark.parametrize("grid", [(12, 12), (24, 24), (9, 16)])
def test_high_values_are_spread_more_evenly_than_by_chance(grid: tuple[int, int]) -> None:
    """The worst rectangle's surplus of the highest quarter (star discrepancy), against 200 random arrangements."""

    def surplus(values: np.ndarray) -> float:
        high = values.reshape(grid) >= np.quantile(values, 0.75)
        share = np.arange(1, grid[0] + 1)[:, None] * np.arange(1, grid[1] + 1) / values.size
        return float(np.abs(high.cumsum(0).cumsum(1) / high.sum() - share).max())

    dither = ordered_dither(grid, 1.0).numpy()
    rng = np.random.default_rng(0)
    by_chance = [surplus(rng.permutation(dither)) for _ in range(200)]
    assert surplus(dither) < np.quantile(by_chance, 0.05)


@pytest.mark.parametrize(
    "new",
    [
        lambda dither: GripScorer(ScorerConfig(8, 6, (3, 4), width=8, heads=2, dither=dither)),
        lambda dither: TprlScorer(TprlConfig(8, 6, (3, 4), width=8, heads=2, code=4, encoder_hidden=8, dither=dither)),
    ],
    ids=["grip", "tprl"],
)
def test_scores_are_dithered_in_use_and_not_in_training(new) -> None:  # type: ignore[no-untyped-def]
    scorer = new(0.7)
    inputs = torch.randn(2, 12, 8), torch.randn(2, 5, 6), torch.tensor([3])
    plain = scorer.train()(*inputs)
    torch.testing.assert_close(scorer.eval()(*inputs) - plain, ordered_dither((3, 4), 0.7).expand(2, 12))
    without = new(0.0)
    without.load_state_dict(scorer.state_dict())
    torch.testing.assert_close(without.eval()(*inputs), plain)


def test_noise_below_zero_is_refused() -> None:
    with pytest.raises(UserError, match="at least 0; got -1"):
        ordered_dither((3, 4), -1.0)
