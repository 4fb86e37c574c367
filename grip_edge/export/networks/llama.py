"""The Llama decoder as one graph for prefill and decode, with a key-value cache of fixed capacity.

Mistral and Qwen2 are the same network: what differs is which projections have a bias, and numbers.

New keys and values go into the slots ``write_start`` .. ``write_start + S``; a query in slot p sees the slots up to p.
That mask is made once and shared by all layers. Slots behind are masked, but must hold finite numbers.
Positions (for the rotary embedding) are an input of their own: slots and positions may differ.

Of the last layer only keys and values are wanted of every token, and the rest of the last token alone: behind the
attention it computes that one.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from grip_edge.export.networks.ops import write_cache
from grip_edge.export.networks.rope import Rope

Cache = tuple[Tensor, Tensor]

_ALL, _LAST = slice(None), slice(-1, None)


class _Step(NamedTuple):
    """What all layers share in one call."""

    rotary: tuple[Tensor, Tensor, Tensor]
    mask: Tensor
    write_start: Tensor


@dataclass(frozen=True)
class LlamaConfig:
    """``output_bias`` is that of the attention's output projection."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    mlp_width: int
    vocab_size: int
    max_positions: int
    norm_eps: float
    rope: Rope
    qkv_bias: bool
    output_bias: bool
    mlp_bias: bool


class TokenEmbedding(nn.Module):
    def __init__(self, vocab_size: int, width: int) -> None:
        super().__init__()
        self.embed_tokens = nn.Embedding(vocab_size, width)

    def forward(self, token_ids: Tensor) -> Tensor:
        """token_ids int64 [1,T] -> embeddings [1,T,D]."""
        embeds: Tensor = self.embed_tokens(token_ids)
        return embeds


class LlamaDecoder(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.lm_head = nn.Linear(config.width, config.vocab_size, bias=False)
        cos, sin = rotary_tables(config)
        self.rotary_cos = nn.Buffer(cos, persistent=False)
        self.rotary_sin = nn.Buffer(sin, persistent=False)

    def forward(
        self, embeds: Tensor, position_ids: Tensor, write_start: Tensor, caches: tuple[Cache, ...]
    ) -> tuple[Tensor, tuple[Cache, ...]]:
        """embeds [1,S,D], position_ids int64 [1,S], write_start int64 [1], per layer key and value [1,G,C,d]

        -> logits [1,V] of the last position, and the caches with the S new slots written.
        """
        capacity = caches[0][0].shape[2]
        query_slots = write_start + torch.arange(embeds.shape[1])
        mask = (torch.arange(capacity) <= query_slots[:, None])[None, None]
        step = _Step((self.rotary_cos, self.rotary_sin, position_ids), mask, write_start)
        new_caches = []
        for layer, cache in zip(self.layers, caches, strict=True):
            embeds, new_cache = layer(embeds, step, cache, _LAST if layer is self.layers[-1] else _ALL)
            new_caches.append(new_cache)
        return self.lm_head(self.norm(embeds[:, -1])), tuple(new_caches)


def rotary_tables(config: LlamaConfig) -> tuple[Tensor, Tensor]:
    """Cosine and sine per position, each [max_positions, head_dim / 2]."""
    return config.rope.tables(config.head_dim, config.max_positions)


class _Layer(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.input_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.self_attn = _Attention(config)
        self.post_attention_layernorm = nn.RMSNorm(config.width, eps=config.norm_eps)
        self.mlp = _Mlp(config)

    def forward(self, x: Tensor, step: _Step, cache: Cache, wanted: slice) -> tuple[Tensor, Cache]:
        mixed, new_cache = self.self_attn(self.input_layernorm(x), step, cache, wanted)
        x = x[:, wanted] + mixed
        return x + self.mlp(self.post_attention_layernorm(x)), new_cache


class _Attention(nn.Module):
    """Grouped-query attention over the whole cache."""

    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.heads, self.kv_heads, self.head_dim = config.heads, config.kv_heads, config.head_dim
        query_width, cache_width = self.heads * self.head_dim, self.kv_heads * self.head_dim
        self.q_proj = nn.Linear(config.width, query_width, bias=config.qkv_bias)
        self.k_proj = nn.Linear(config.width, cache_width, bias=config.qkv_bias)
        self.v_proj = nn.Linear(config.width, cache_width, bias=config.qkv_bias)
        self.o_proj = nn.Linear(query_width, config.width, bias=config.output_bias)

    def forward(self, x: Tensor, step: _Step, cache: Cache, wanted: slice) -> tuple[Tensor, Cache]:
        query = torch.onnx.ops.rotary_embedding(self._split(self.q_proj(x), self.heads), *step.rotary)
        key = torch.onnx.ops.rotary_embedding(self._split(self.k_proj(x), self.kv_heads), *step.rotary)
        keys = write_cache(cache[0], key, step.write_start)
        values = write_cache(cache[1], self._split(self.v_proj(x), self.kv_heads), step.write_start)
        grouped = self.heads != self.kv_heads  # the exporter refuses the flag where it changes nothing
        mixed = functional.scaled_dot_product_attention(query, keys, values, attn_mask=step.mask, enable_gqa=grouped)
        return self.o_proj(mixed.transpose(1, 2).flatten(2)[:, wanted]), (keys, values)

    def _split(self, x: Tensor, heads: int) -> Tensor:
        """[1,S,heads*d] -> [1,heads,S,d]."""
        return x.reshape(1, -1, heads, self.head_dim).transpose(1, 2)


class _Mlp(nn.Module):
    def __init__(self, config: LlamaConfig) -> None:
        super().__init__()
        self.gate_proj = nn.Linear(config.width, config.mlp_width, bias=config.mlp_bias)
        self.up_proj = nn.Linear(config.width, config.mlp_width, bias=config.mlp_bias)
        self.down_proj = nn.Linear(config.mlp_width, config.width, bias=config.mlp_bias)

    def forward(self, x: Tensor) -> Tensor:
        out: Tensor = self.down_proj(functional.silu(self.gate_proj(x)) * self.up_proj(x))
        return out
