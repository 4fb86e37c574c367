"""CLIP's vision tower up to the layer whose features LLaVA reads; the layers behind it are never built.

Pixels -> patches, CLS token in front, learned positions, pre-norm transformer; the output leaves CLS out. Policies that
rank patches by what CLS attends to get that row of the last layer built, which is the second-last of CLIP in LLaVA.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional

from grip_edge.export.networks.activations import ACTIVATIONS


@dataclass(frozen=True)
class ClipConfig:
    """``layers`` counts those that are built. ``activation`` is a key of ``ACTIVATIONS``."""

    width: int
    layers: int
    heads: int
    mlp_width: int
    image_side_px: int
    patch_px: int
    norm_eps: float
    activation: str

    @property
    def grid(self) -> int:
        return self.image_side_px // self.patch_px


class ClipTower(nn.Module):
    """``with_cls_attention``: gives the attention that CLS pays each patch too, [1,N], mean over heads."""

    def __init__(self, config: ClipConfig, with_cls_attention: bool = False) -> None:
        super().__init__()
        self.with_cls_attention = with_cls_attention
        self.embeddings = _Embeddings(config)
        self.pre_layrnorm = nn.LayerNorm(config.width, eps=config.norm_eps)  # spelt so in every checkpoint
        self.encoder = _Encoder(config)

    def forward(self, pixels: Tensor) -> Tensor | tuple[Tensor, Tensor]:
        """pixels [1,3,H,W] -> features [1,N,Dv], and cls_attention [1,N] if built with it."""
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
        tokens = torch.cat([self.class_embedding[None, None], patches], dim=1)
        return tokens + self.position_embedding.weight


class _Encoder(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def forward(self, tokens: Tensor, with_cls_attention: bool) -> tuple[Tensor, Tensor | None]:
        attention = None
        for index, layer in enumerate(self.layers, start=1):
            tokens, attention = layer(tokens, with_cls_attention and index == len(self.layers))
        return tokens, attention


class _Layer(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.layer_norm1 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.self_attn = _Attention(config.width, config.heads)
        self.layer_norm2 = nn.LayerNorm(config.width, eps=config.norm_eps)
        self.mlp = _Mlp(config)

    def forward(self, tokens: Tensor, with_cls_attention: bool) -> tuple[Tensor, Tensor | None]:
        mixed, attention = self.self_attn(self.layer_norm1(tokens), with_cls_attention)
        tokens = tokens + mixed
        return tokens + self.mlp(self.layer_norm2(tokens)), attention


class _Attention(nn.Module):
    def __init__(self, width: int, heads: int) -> None:
        super().__init__()
        self.heads, self.head_dim = heads, width // heads
        self.q_proj = nn.Linear(width, width)
        self.k_proj = nn.Linear(width, width)
        self.v_proj = nn.Linear(width, width)
        self.out_proj = nn.Linear(width, width)

    def forward(self, tokens: Tensor, with_cls_attention: bool) -> tuple[Tensor, Tensor | None]:
        query, key, value = (self._split(linear(tokens)) for linear in (self.q_proj, self.k_proj, self.v_proj))
        mixed = functional.scaled_dot_product_attention(query, key, value)
        out: Tensor = self.out_proj(mixed.transpose(1, 2).flatten(2))
        return out, self._cls_attention(query, key) if with_cls_attention else None

    def _cls_attention(self, query: Tensor, key: Tensor) -> Tensor:
        """Softmax row of the CLS query, mean over heads, patches only: [1,N]."""
        rows: Tensor = (query[:, :, :1] * self.head_dim**-0.5 @ key.transpose(2, 3)).softmax(dim=-1)
        return rows[:, :, 0, 1:].mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        """[1,L,D] -> [1,heads,L,D/heads]."""
        return x.reshape(1, -1, self.heads, self.head_dim).transpose(1, 2)


class _Mlp(nn.Module):
    def __init__(self, config: ClipConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(tokens)))
        return out
