"""Ordered dither: noise that never changes, in use, where training draws at random.

The K best of a smooth ranking lie together: the last places go to neighbours of what was kept already, and a model that
sees an object's every patch and nothing around it counts too many. Draws do not have this fault: chance spreads such
places over the picture. In use the choice must be the same every time, so scores get the noise of one fixed draw
(Gumbel's, as in Gumbel top-k), with its large and small values spread evenly over the grid: the ranks of the additive
recurrence R2, frac(row / p + column / p^2) with p the plastic number, p^3 = p + 1 (Roberts 2018, "The unreasonable
effectiveness of quasirandom sequences").
"""

from __future__ import annotations

import torch
from torch import Tensor

from grip_edge.errors import UserError

_PLASTIC = 1.3247179572447460


def ordered_dither(grid: tuple[int, int], temperature: float) -> Tensor:
    """fp32 [N] in raster order: the N quantiles of Gumbel noise, times ``temperature``. UserError below 0."""
    if temperature < 0:
        raise UserError(f"The temperature of a scorer's dither is at least 0; got {temperature}.")
    rows, columns = (torch.arange(size, dtype=torch.float64) for size in grid)
    spread = ((rows[:, None] / _PLASTIC + columns[None] / _PLASTIC**2 + 0.5) % 1).flatten()
    ranks = spread.argsort(stable=True).argsort()
    uniform = (ranks.double() + 0.5) / len(ranks)
    return (-temperature * (-uniform.log()).log()).float()
