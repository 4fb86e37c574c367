"""Sets built one token at a time: the token of greatest gain first, then the one that gains most beside those taken.

Three measures of gain are used by published policies: the distance to the taken (``FarthestFirst``), the volume that
they span (``MostDiverse``) and what they cover (``WidestCover``). Each holds the gains [R,N] of all tokens and updates
them when one is taken; ``grow`` is the loop. The result is a score per token, [R,N]: 1 for the first taken, 1/N less
for each later one, 0 for those not taken. Ties go to the lower index.

The three ``torch.ops.grip_edge`` operators are the same loops as one node each, for ``torch.export``, which cannot
follow a loop of unknown length. Tokens outside ``usable`` (bool [R,N]) are never taken.
Not here: their form in ONNX (``export.networks.greedy``).
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Protocol

import torch
from torch import Tensor


class Gains(Protocol):
    gains: Tensor

    def take(self, token: Tensor) -> None:
        """Updates the gains: ``token`` int64 [R,1] is now in the set."""
        ...


class FarthestFirst:
    """Farthest-first traversal: distance [R,N,N], first_gains [R,N] those before anything is taken."""

    def __init__(self, distance: Tensor, first_gains: Tensor) -> None:
        self.gains = first_gains
        self._distance = distance
        self._to_taken = torch.full_like(first_gains, torch.inf)

    def take(self, token: Tensor) -> None:
        self._to_taken = torch.minimum(self._to_taken, row_of(self._distance, token))
        self.gains = self._to_taken


class MostDiverse:
    """Greedy MAP of a determinantal point process (Chen et al., 1709.05135, algorithm 1): kernel [R,N,N] and its
    diagonal [R,N].

    Gains are det(L with i) / det(L); ``_factor`` holds the Cholesky rows of the taken tokens. Once the kernel's rank
    is used up, every gain is 0: what is left of it is rounding.
    """

    def __init__(self, kernel: Tensor, diagonal: Tensor) -> None:
        self.gains = diagonal
        self._kernel = kernel
        self._rounding = diagonal * diagonal.shape[1] * torch.finfo(kernel.dtype).eps
        self._factor = kernel.new_zeros(len(kernel), 0, kernel.shape[1])

    def take(self, token: Tensor) -> None:
        pivot = self.gains.gather(1, token)
        known = (self._factor.take_along_dim(token[:, None], dim=2) * self._factor).sum(dim=1)
        row = torch.where(pivot > 0, (row_of(self._kernel, token) - known) / pivot.sqrt(), 0.0)
        self._factor = torch.cat([self._factor, row[:, None]], dim=1)
        left = self.gains - row.square()
        self.gains = torch.where(left > self._rounding, left, 0.0)


class WidestCover:
    """Weighted facility location: the gain of u is sum_j weights_j max(0, similarity_uj - covered_j).

    weights [R,N], similarity [R,N,N].
    """

    def __init__(self, weights: Tensor, similarity: Tensor) -> None:
        self._weights, self._similarity = weights, similarity
        self._covered = torch.zeros_like(weights)
        self.gains = self._gains()

    def take(self, token: Tensor) -> None:
        self._covered = torch.maximum(self._covered, row_of(self._similarity, token))
        self.gains = self._gains()

    def _gains(self) -> Tensor:
        return ((self._similarity - self._covered[:, None]).clamp(min=0) @ self._weights[..., None])[..., 0]


def grow(rule: Gains, usable: Tensor, budget: Tensor) -> Tensor:
    """Takes ``budget`` tokens: scores [R,N]."""
    free, count = usable.clone(), usable.shape[1]
    scores = torch.zeros_like(rule.gains)
    for step in range(min(int(budget), int(usable.sum(dim=-1).max()))):
        best = rule.gains.masked_fill(~free, -torch.inf).argmax(dim=-1, keepdim=True)
        scores.scatter_(1, best, torch.where(free.gather(1, best), 1 - step / count, scores.gather(1, best)))
        free.scatter_(1, best, False)
        rule.take(best)
    return scores


def shortfall(rule: Gains, usable: Tensor, scores: Tensor) -> float:
    """How far from greedy is the order that ``scores`` [1,N] tell: the largest gain missed, over the first gain.

    0 for the order of ``grow``. Rounding alone swaps tokens of nearly equal gain; this tells such a swap from a fault.
    """
    free, missed = usable.clone(), 0.0
    first = float(rule.gains.masked_fill(~free, -torch.inf).max())
    taken = int((scores > 0).sum())
    for token in scores.argsort(dim=-1, descending=True, stable=True)[0, :taken]:
        gains = rule.gains.masked_fill(~free, -torch.inf)
        missed = max(missed, float(gains.max() - gains[0, token]))
        free[0, token] = False
        rule.take(token.view(1, 1))
    return missed / first if first > 0 else missed


def row_of(matrix: Tensor, index: Tensor) -> Tensor:
    """matrix [R,N,M], index [R,1] -> [R,M]."""
    return matrix.take_along_dim(index[..., None], dim=1)[:, 0]


@torch.library.custom_op("grip_edge::farthest_first", mutates_args=())
def farthest_first(distance: Tensor, first_gains: Tensor, usable: Tensor, budget: Tensor) -> Tensor:
    return grow(FarthestFirst(distance, first_gains), usable, budget)


@torch.library.custom_op("grip_edge::most_diverse", mutates_args=())
def most_diverse(kernel: Tensor, diagonal: Tensor, usable: Tensor, budget: Tensor) -> Tensor:
    return grow(MostDiverse(kernel, diagonal), usable, budget)


@torch.library.custom_op("grip_edge::widest_cover", mutates_args=())
def widest_cover(weights: Tensor, similarity: Tensor, usable: Tensor, budget: Tensor) -> Tensor:
    return grow(WidestCover(weights, similarity), usable, budget)


OPERATORS: dict[type[Gains], Callable[[Tensor, Tensor, Tensor, Tensor], Tensor]] = {
    FarthestFirst: farthest_first,
    MostDiverse: most_diverse,
    WidestCover: widest_cover,
}


@farthest_first.register_fake
@most_diverse.register_fake
@widest_cover.register_fake
def _(first: Tensor, second: Tensor, usable: Tensor, budget: Tensor) -> Tensor:
    return first.new_empty(usable.shape)
