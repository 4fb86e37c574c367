"""What vision towers share: their shape, and the pre-norm transformer over the tokens of each tile.

``architecture`` chooses the tower; ``clip`` and ``siglip`` add what is theirs. Layers behind the one whose features the
language model reads are never built.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn
from torch.nn import functional

from grip_edge.export.networks.activations import ACTIVATIONS


@dataclass(frozen=True)
class TowerConfig:
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


class Encoder(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))

    def forward(self, tokens: Tensor, with_cls_attention: bool = False) -> tuple[Tensor, Tensor | None]:
        """tokens [A,L,Dv] -> the same, and the last layer's attention of token 0 to the others [A,L-1] if wanted."""
        attention = None
        for index, layer in enumerate(self.layers, start=1):
            tokens, attention = layer(tokens, with_cls_attention and index == len(self.layers))
        return tokens, attention


class _Layer(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
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
        """Softmax row of the CLS query, mean over heads, patches only: [A,P]."""
        rows: Tensor = (query[:, :, :1] * self.head_dim**-0.5 @ key.transpose(2, 3)).softmax(dim=-1)
        return rows[:, :, 0, 1:].mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        """[A,L,D] -> [A,heads,L,D/heads]."""
        return x.reshape(x.shape[0], -1, self.heads, self.head_dim).transpose(1, 2)


class _Mlp(nn.Module):
    def __init__(self, config: TowerConfig) -> None:
        super().__init__()
        self.fc1 = nn.Linear(config.width, config.mlp_width)
        self.fc2 = nn.Linear(config.mlp_width, config.width)
        self.activation = ACTIVATIONS[config.activation]

    def forward(self, tokens: Tensor) -> Tensor:
        out: Tensor = self.fc2(self.activation(self.fc1(tokens)))
        return out
