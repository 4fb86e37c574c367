"""The GRIP scorer: one importance per visual token, given the question and the budget.

Inputs are the vision features before the projector, the question's token embeddings and the number of tokens to
keep. Features are standardised per dimension over the image (Cen-Prune, supplement: raw features of some towers are
nearly collinear), projected to a small width, given a 2-D position, and read together with the question by one or
two bidirectional transformer layers. The budget enters as a token of its own (log of the keep ratio).

GRIP-VLM's internals are not public beyond its abstract; this network follows its documented relatives (docs/log.md).
Not here: training (``warmup``, ``grpo``), the choice of tokens (``selection``), files (``scorer_files``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grip_edge.errors import UserError


@dataclass(frozen=True)
class ScorerConfig:
    """Shape of the scorer. ``vision_width`` and ``text_width`` are those of the model that it serves."""

    vision_width: int
    text_width: int
    grid: tuple[int, int]
    width: int = 64
    layers: int = 2
    heads: int = 4
    mlp_ratio: int = 2

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"The scorer's width must be a multiple of its heads; got {self.width} and {self.heads}.")

    @property
    def visual_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


class _Layer(nn.Module):
    """Pre-norm transformer layer over all tokens in both directions."""

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_attention = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.query = nn.Linear(width, width)
        self.key = nn.Linear(width, width)
        self.value = nn.Linear(width, width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, width * mlp_ratio)
        self.down = nn.Linear(width * mlp_ratio, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B,L,D], mask bool [B,1,1,L] (False: padding) -> [B,L,D]."""
        normed = self.norm_attention(x)
        query, key, value = (self._split(linear(normed)) for linear in (self.query, self.key, self.value))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm_mlp(x))))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """[B,L,D] -> [B,heads,L,D/heads]."""
        return torch.unflatten(x, -1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)


class GripScorer(nn.Module):
    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.from_vision = nn.Linear(config.vision_width, width)
        self.from_text = nn.Linear(config.text_width, width)
        self.text_norm = nn.LayerNorm(config.text_width)
        self.row = nn.Parameter(0.02 * torch.randn(config.grid[0], width))
        self.column = nn.Parameter(0.02 * torch.randn(config.grid[1], width))
        self.kind = nn.Parameter(0.02 * torch.randn(3, width))
        self.from_budget = nn.Sequential(nn.Linear(1, width), nn.GELU(), nn.Linear(width, width))
        self.layers = nn.ModuleList(_Layer(width, config.heads, config.mlp_ratio) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.to_score = nn.Linear(width, 1)

    def forward(
        self, features: Tensor, question_embeds: Tensor, budget: Tensor, question_mask: Tensor | None = None
    ) -> Tensor:
        """features [B,N,Dv], question_embeds [B,T,D], budget int64 [1] or [B] (tokens to keep) -> scores [B,N].

        ``question_mask`` bool [B,T] is False on padding; None when there is none.
        """
        visual_count, batch = features.shape[1], features.shape[0]
        position = (self.row[:, None] + self.column[None]).flatten(0, 1)
        visual = self.from_vision(standardised(features)) + position + self.kind[0]
        text = self.from_text(self.text_norm(question_embeds)) + self.kind[1]
        ratio = budget.to(features.dtype) / visual_count
        knob = self.from_budget(torch.log(ratio)[:, None]) + self.kind[2]
        tokens = torch.cat([visual, text, knob[:, None].expand(batch, 1, -1)], dim=1)
        mask = None
        if question_mask is not None:
            ones = question_mask.new_ones(())
            seen = [ones.expand(batch, visual_count), question_mask, ones.expand(batch, 1)]
            mask = torch.cat(seen, dim=1)[:, None, None]
        for layer in self.layers:
            tokens = layer(tokens, mask)
        scores: Tensor = self.to_score(self.norm(tokens[:, :visual_count]))[..., 0]
        return scores


def standardised(features: Tensor) -> Tensor:
    """Zero mean and unit variance per dimension over the N tokens of each image; [B,N,D] -> [B,N,D]."""
    centred = features - features.mean(dim=1, keepdim=True)
    return centred * torch.rsqrt(centred.square().mean(dim=1, keepdim=True) + 1e-6)
