"""Selection where an image is a small view and tiles of detail, and the number N of its visual tokens is its own.

Which patches each token is made of comes with the request (``grip_edge.tiles.TilePlan``), so that here too only what
is kept is gathered and projected. A token mixed of four patches is the mixture of their four projections, as in
LLaVA-OneVision, which mixes behind the projector.

How the budget is shared among the tiles depends on how the policy decides:

* A policy that rates each token by itself rates within a tile (CLS attention sums to 1 in every tile). Each tile keeps
  its share of the budget, in proportion to its tokens (``shared_among_tiles``): as VisionZip's authors prune each part
  like an image of its own, by one ratio.
* A policy that builds a set chooses among the tokens of all tiles at once, as DivPrune's code does with the packed
  sequence; so does the uniform stride.

Newlines are kept last: only a budget that keeps all patches keeps some. The pruners that give each part its own choice
(``restore_image_features_sorted`` in VisionZip's relatives FlowCut and Nuwa) drop them, too, or nearly all of them.

Shapes: A tiles, P patches of each, L tokens made of patches, M patches in each of these, N = L + newlines, K kept.
"""

from __future__ import annotations

import torch
from torch import Tensor, nn

from grip_edge.calibration.policies.interface import Evidence, Policy
from grip_edge.export.networks.ops import keep_best
from grip_edge.export.networks.projector import Projector
from grip_edge.policy_catalog import CLS_ATTENTION, PROJECTED, PolicySpec


class SelectFromTiles(nn.Module):
    """``grid`` is that of a tile; no policy that needs one grid for all tokens comes here."""

    def __init__(self, policy: Policy, spec: PolicySpec, grid: tuple[int, int], projector: Projector) -> None:
        super().__init__()
        self.policy, self.grid = policy, grid
        self.projects_all, self.shares = PROJECTED in spec.reads, CLS_ATTENTION in spec.reads
        self.projector = projector
        self.image_newline = nn.Parameter(torch.empty(projector.linear_2.out_features))

    def forward(
        self,
        features: Tensor,
        question_embeds: Tensor,
        budget: Tensor,
        sources: Tensor,
        weights: Tensor,
        order: Tensor,
        cls_attention: Tensor | None = None,
    ) -> tuple[Tensor, Tensor, Tensor]:
        """features [A,P,Dv], question_embeds [1,T,D], budget int64 [1], sources int64 [L,M], weights [L,M], order int64
        [N], cls_attention [A,P] for policies that read it

        -> kept_embeds [1,K,D], kept_indices int64 [1,K] ascending, scores [1,N] (-inf for newlines).
        """
        patches = features.flatten(0, 1)
        if self.projects_all:
            patches = self.projector(patches)
        evidence = _evidence(patches, question_embeds, sources, weights, cls_attention, self.grid)
        scores = self.policy.scores(evidence, budget.clamp(max=sources.shape[0]))
        if self.shares:
            scores = shared_among_tiles(scores, sources[:, 0] // features.shape[1])
        scores = torch.cat([scores, torch.full((1, 1), -torch.inf)], dim=1)[:, order]
        kept_indices = keep_best(scores, budget)
        made_of = order[kept_indices[0]]
        kept = self._tokens(patches, sources, weights, made_of)
        newline = (made_of == sources.shape[0])[:, None]
        return torch.where(newline, self.image_newline, kept)[None], kept_indices, scores

    def _tokens(self, patches: Tensor, sources: Tensor, weights: Tensor, made_of: Tensor) -> Tensor:
        """made_of int64 [K] -> tokens [K,D]; newlines get some other token's."""
        chosen = made_of.clamp(max=sources.shape[0] - 1)
        parts = patches[sources[chosen]]
        if not self.projects_all:
            parts = self.projector(parts)
        return (parts * weights[chosen][..., None]).sum(dim=1)


def _evidence(
    patches: Tensor,
    question_embeds: Tensor,
    sources: Tensor,
    weights: Tensor,
    cls_attention: Tensor | None,
    grid: tuple[int, int],
) -> Evidence:
    """patches [A*P,Dv or D]; the evidence is of the L tokens."""
    mixed = (patches[sources] * weights[..., None]).sum(dim=1)[None]
    attention = mixed[..., 0]  # not read if None
    if cls_attention is not None:
        attention = (cls_attention.flatten()[sources] * weights).sum(dim=1)[None]
    mask = torch.ones(question_embeds.shape[:2], dtype=torch.bool)
    return Evidence(mixed, mixed, attention, question_embeds, mask, grid)


def shared_among_tiles(scores: Tensor, tiles: Tensor) -> Tensor:
    """scores [1,L], tiles int64 [L] (of each token) -> scores [1,L] by which every tile keeps its share, best first.

    Webster's apportionment: the token of rank r (from 0) in a tile of n tokens stands at (r + 1/2) / n, and the lowest
    are kept. So of K tokens a tile keeps about K n / L, for every K, and a larger budget keeps what a smaller one did.
    """
    place = torch.arange(scores.shape[1])
    scores = scores[0].masked_fill(scores[0].isnan(), -torch.inf)
    same = tiles[:, None] == tiles
    better = (scores > scores[:, None]) | ((scores == scores[:, None]) & (place < place[:, None]))
    rank, size = (better & same).sum(dim=1), same.sum(dim=1)
    return -((rank + 0.5) / size)[None]
