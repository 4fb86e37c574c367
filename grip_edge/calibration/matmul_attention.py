"""Attention written as two matrix products, for training on CPUs.

PyTorch's fused CPU attention spends half of a training step in its backward pass; plain bf16 products use the
matrix units (AMX) and halve the step time (docs/log.md). Registered with transformers under the name ``matmul``:
``from_pretrained(..., attn_implementation=matmul_attention.NAME)``.
"""

from __future__ import annotations

from typing import Any

from torch import Tensor, nn
from transformers import AttentionInterface
from transformers.masking_utils import AttentionMaskInterface, eager_mask

NAME = "matmul"


def matmul_attention(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    scaling: float | None = None,
    **_: Any,
) -> tuple[Tensor, Tensor]:
    """query [B,H,T,d], key and value [B,G,S,d], additive mask [B,1,T,S] -> output [B,T,H,d] and weights [B,H,T,S]."""
    groups = query.shape[1] // key.shape[1]
    if groups > 1:
        key, value = key.repeat_interleave(groups, dim=1), value.repeat_interleave(groups, dim=1)
    scale = query.shape[-1] ** -0.5 if scaling is None else scaling
    scores = (query * scale) @ key.transpose(-1, -2)
    if attention_mask is not None:
        scores = scores + attention_mask[..., : key.shape[-2]]
    weights = scores.softmax(dim=-1)
    return (weights @ value).transpose(1, 2), weights


AttentionInterface.register(NAME, matmul_attention)
AttentionMaskInterface.register(NAME, eager_mask)
