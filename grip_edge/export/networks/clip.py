"""CLIP's vision tower up to the layer whose features LLaVA reads.

Pixels -> patches, CLS token in front, learned positions, pre-norm transformer; the output leaves CLS out. Policies that
rank patches by what CLS attends to get that row of the last layer built, which is the second-last of CLIP in LLaVA.
Shapes: A tiles (1 where an image is one view), P patches of each.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn

from grip_edge.export.networks.tower import Encoder, TowerConfig


@dataclass(frozen=True)
class ClipConfig(TowerConfig):
    """A CLS token stands before the patches."""


class ClipTower(nn.Module):
    """``with_cls_attention``: gives the attention that CLS pays each patch too, [A,P], mean over heads."""

    def __init__(self, config: ClipConfig, with_cls_attention: bool = False) -> None:
        super().__init__()
        self.with_cls_attention = with_cls_attention
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=config.norm_eps)  # spelt so in every checkpoint
        self.encoder = Encoder(config)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """pixels [A,3,H,W] -> features [A,P,Dv], and cls_attention [A,P] if built with it."""
        tokens, attention = self.encoder(self.pre_layrnorm(self.embeddings(pixels)), self.with_cls_attention)
        features: Tensor = tokens[:, 1:]
        return (features, attention) if self.with_cls_attention else features


class _Embeddings(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.class_embedding = nn.Parameter(torch.empty(config.width))
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px, bias=False)
        self.position_embedding = nn.Embedding(config.grid**2 + 1, config.width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches: Tensor = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        cls = self.class_embedding[None, None].expand(pixels.shape[0], -1, -1)
        return torch.cat([cls, patches], dim=1) + self.position_embedding.weight
