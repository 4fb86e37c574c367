"""The TPRL policy: which of the remaining visual tokens to keep, given the question and how many may stay.

A state is the codes of the tokens (``autoencoder``), which of them remain, the question, and the share of them to keep.
Codes with their 2-D position, the words of the question (TPRL's code has one token, their mean) and one token for the
share are read by bidirectional layers; dropped tokens are not read. One logit per token is its keep decision. The
value of a state is read off the mean remaining token, by a head that only training has.

At inference all tokens remain and the K best logits are kept, a fixed noise added to them (``dither``): the same
contract as the GRIP scorer's.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grip_edge.calibration.dither import ordered_dither
from grip_edge.calibration.scorer import standardised
from grip_edge.errors import UserError


@dataclass(frozen=True)
class TprlConfig:
    """``code`` is the width of the compact state, ``encoder_hidden`` that of the encoder's only hidden layer."""

    vision_width: int
    text_width: int
    grid: tuple[int, int]
    code: int = 32
    encoder_hidden: int = 64
    width: int = 64
    layers: int = 2
    heads: int = 4
    mlp_ratio: int = 2
    dither: float = 0.5
    """Temperature of the fixed noise on the scores, in use; 0: none."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"The scorer's width must be a multiple of its heads; got {self.width} and {self.heads}.")

    @property
    def visual_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class Words:
    """Embeddings [B,T,D] of questions, and bool [B,T] that is False on padding (None: there is none)."""

    embeds: Tensor
    mask: Tensor | None = None

    def rows(self, numbers: Sequence[int] | Tensor) -> Words:
        return Words(self.embeds[numbers], None if self.mask is None else self.mask[numbers])


class TokenEncoder(nn.Sequential):
    """The compact state of each token: [...,Dv] -> codes [...,C]."""

    def __init__(self, vision_width: int, hidden: int, code: int) -> None:
        super().__init__(nn.Linear(vision_width, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, code))


class _Layer(nn.Module):
    """Pre-norm transformer layer over all tokens in both directions."""

    def __init__(self, config: TprlConfig) -> None:
        super().__init__()
        width = config.width
        self.heads = config.heads
        self.norm_attention = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.query_key_value = nn.Linear(width, 3 * width)
        self.out = nn.Linear(width, width)
        self.up = nn.Linear(width, width * config.mlp_ratio)
        self.down = nn.Linear(width * config.mlp_ratio, width)

    def forward(self, x: Tensor, mask: Tensor | None) -> Tensor:
        """x [B,L,W], mask bool [B,1,1,L] (False: not read) -> [B,L,W]."""
        joint = self.query_key_value(self.norm_attention(x))
        query, key, value = (self._split(part) for part in joint.chunk(3, dim=-1))
        mixed = F.scaled_dot_product_attention(query, key, value, attn_mask=mask)
        x = x + self.out(mixed.transpose(1, 2).flatten(2))
        out: Tensor = x + self.down(F.gelu(self.up(self.norm_mlp(x))))
        return out

    def _split(self, x: Tensor) -> Tensor:
        """[B,L,W] -> [B,heads,L,W/heads]."""
        return torch.unflatten(x, -1, (self.heads, x.shape[-1] // self.heads)).transpose(1, 2)


class TprlScorer(nn.Module):
    def __init__(self, config: TprlConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.encoder = TokenEncoder(config.vision_width, config.encoder_hidden, config.code)
        self.from_code = nn.Linear(config.code, width)
        self.text_norm = nn.LayerNorm(config.text_width)
        self.from_text = nn.Linear(config.text_width, width)
        self.from_share = nn.Linear(1, width)
        self.row = nn.Parameter(0.02 * torch.randn(config.grid[0], width))
        self.column = nn.Parameter(0.02 * torch.randn(config.grid[1], width))
        self.layers = nn.ModuleList(_Layer(config) for _ in range(config.layers))
        self.norm = nn.LayerNorm(width)
        self.to_keep = nn.Linear(width, 1)
        self.dither = nn.Buffer(ordered_dither(config.grid, config.dither), persistent=False)

    def forward(
        self, features: Tensor, question_embeds: Tensor, budget: Tensor, question_mask: Tensor | None = None
    ) -> Tensor:
        """features [B,N,Dv], question_embeds [B,T,D], budget int64 [1] or [B] (tokens to keep) -> scores [B,N].

        ``question_mask`` bool [B,T] is False on padding; None when there is none.
        """
        share = budget.to(features.dtype) / features.shape[1]
        logits = self.logits(self.read(self.codes(features), Words(question_embeds, question_mask), share))
        return logits if self.training else logits + self.dither

    def codes(self, features: Tensor) -> Tensor:
        """[B,N,Dv] -> [B,N,C]."""
        codes: Tensor = self.encoder(standardised(features))
        return codes

    def read(self, codes: Tensor, words: Words, share: Tensor, remaining: Tensor | None = None) -> Tensor:
        """codes [B,N,C], share [1] or [B] of the remaining tokens to keep, remaining bool [B,N] (None: all)
        -> the visual tokens [B,N,W].
        """
        batch, count, _ = codes.shape
        visual = self.from_code(codes) + (self.row[:, None] + self.column[None]).flatten(0, 1)
        text = self.from_text(self.text_norm(words.embeds))
        knob = self.from_share(torch.log(share)[:, None])[:, None].expand(batch, 1, -1)
        tokens = torch.cat([visual, knob, text], dim=1)
        mask = _seen(remaining, words.mask, batch, count, text.shape[1], codes.device)
        for layer in self.layers:
            tokens = layer(tokens, mask)
        out: Tensor = self.norm(tokens[:, :count])
        return out

    def logits(self, tokens: Tensor) -> Tensor:
        """[B,N,W] -> [B,N]: how much better than its fellows each token is, which alone decides the best K."""
        logits: Tensor = self.to_keep(tokens)[..., 0]
        return logits

    def keep_logits(self, tokens: Tensor, share: Tensor) -> Tensor:
        """tokens [B,N,W], share [1] or [B] -> [B,N]: the log-odds of keeping each token.

        A token that is no better than its fellows is kept with probability ``share``: to know how many may stay is
        given, so that training is spent on knowing which.
        """
        return self.logits(tokens) + torch.logit(share, eps=1e-3)[:, None]


class ValueHead(nn.Module):
    """How much better the answer will get from here on. Its errors do not reach the policy that it reads."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.mlp = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, 1))

    def forward(self, tokens: Tensor, remaining: Tensor) -> Tensor:
        """tokens [B,N,W], remaining bool [B,N] -> [B]."""
        weight = remaining.to(tokens.dtype)[..., None]
        mean = (tokens.detach() * weight).sum(dim=1) / weight.sum(dim=1).clamp_min(1)
        value: Tensor = self.mlp(mean)[:, 0]
        return value


def _seen(
    remaining: Tensor | None, words: Tensor | None, batch: int, tokens: int, length: int, device: torch.device
) -> Tensor | None:
    """bool [B,1,1,N+1+T] over visual tokens, share and words; None if all are seen."""
    if remaining is None and words is None:
        return None
    visual = torch.ones(batch, tokens, dtype=torch.bool, device=device) if remaining is None else remaining
    text = torch.ones(batch, length, dtype=torch.bool, device=device) if words is None else words
    return torch.cat([F.pad(visual, (0, 1), value=True), text], dim=1)[:, None, None]
