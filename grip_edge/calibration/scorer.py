"""The GRIP scorer: one importance per visual token, given the question and the budget.

Inputs are the vision features before the projector, the question's token embeddings and the number of tokens to
keep. Features are standardised per dimension over the image (Cen-Prune, supplement: raw features of some towers are
nearly collinear), projected to a small width and given a 2-D position; words and visual tokens then read each other.
The budget enters as a word of its own (log of the keep ratio). In use, not in training, a fixed noise is added to the
scores (``dither``).

GRIP-VLM's internals are not public beyond its abstract; this network follows its documented relatives (docs/log.md).
Not here: training (``warmup``, ``grpo``), the choice of tokens (``selection``), files (``scorer_files``).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from grip_edge.calibration.dither import ordered_dither
from grip_edge.errors import UserError


@dataclass(frozen=True)
class ScorerConfig:
    """Shape of the scorer. ``vision_width`` and ``text_width`` are those of the model that it serves."""

    vision_width: int
    text_width: int
    grid: tuple[int, int]
    width: int = 48
    rounds: int = 1
    heads: int = 4
    mlp_ratio: int = 2
    sees_question: bool = True
    sees_budget: bool = True
    """What is not seen is replaced by nothing: the ablations of docs/benchmarks.md."""
    dither: float = 0.4
    """Temperature of the fixed noise on the scores; 0: none."""

    def __post_init__(self) -> None:
        if self.width % self.heads:
            raise UserError(f"The scorer's width must be a multiple of its heads; got {self.width} and {self.heads}.")

    @property
    def visual_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


class _Round(nn.Module):
    """The words read the picture, then the picture reads the words: pre-norm cross-attention both ways, then an MLP.

    Attention among the N visual tokens themselves would cost N * N; this costs 2 * N * T, and what visual tokens need
    of each other (an extreme, a duplicate) reaches them through the words.
    """

    def __init__(self, width: int, heads: int, mlp_ratio: int) -> None:
        super().__init__()
        self.heads = heads
        self.norm_visual = nn.LayerNorm(width)
        self.norm_words = nn.LayerNorm(width)
        self.norm_told_words = nn.LayerNorm(width)
        self.norm_mlp = nn.LayerNorm(width)
        self.from_visual = nn.Linear(width, 3 * width)
        """Key and value for the words, query to the words."""
        self.word_query = nn.Linear(width, width)
        self.word_out = nn.Linear(width, width)
        self.word_key_value = nn.Linear(width, 2 * width)
        self.visual_out = nn.Linear(width, width)
        self.up = nn.Linear(width, width * mlp_ratio)
        self.down = nn.Linear(width * mlp_ratio, width)

    def forward(self, visual: Tensor, words: Tensor, mask: Tensor | None) -> tuple[Tensor, Tensor]:
        """visual [B,N,D], words [B,T,D], mask bool [B,1,1,T] (False: padding) -> both, told of each other."""
        key, value, visual_query = self._heads(self.from_visual(self.norm_visual(visual)), 3)
        (word_query,) = self._heads(self.word_query(self.norm_words(words)), 1)
        words = words + self.word_out(_joined(F.scaled_dot_product_attention(word_query, key, value)))
        key, value = self._heads(self.word_key_value(self.norm_told_words(words)), 2)
        mixed = F.scaled_dot_product_attention(visual_query, key, value, attn_mask=mask)
        visual = visual + self.visual_out(_joined(mixed))
        visual = visual + self.down(F.gelu(self.up(self.norm_mlp(visual))))
        return visual, words

    def _heads(self, x: Tensor, parts: int) -> tuple[Tensor, ...]:
        """[B,L,parts*D] -> ``parts`` of [B,heads,L,D/heads]."""
        width = x.shape[-1] // parts
        split = (torch.unflatten(part, -1, (self.heads, width // self.heads)) for part in x.chunk(parts, dim=-1))
        return tuple(part.transpose(1, 2) for part in split)


def _joined(x: Tensor) -> Tensor:
    """[B,heads,L,D/heads] -> [B,L,D]."""
    return x.transpose(1, 2).flatten(2)


class GripScorer(nn.Module):
    def __init__(self, config: ScorerConfig) -> None:
        super().__init__()
        self.config = config
        width = config.width
        self.from_vision = nn.Linear(config.vision_width, width)
        self.row = nn.Parameter(0.02 * torch.randn(config.grid[0], width))
        self.column = nn.Parameter(0.02 * torch.randn(config.grid[1], width))
        self.word = nn.Parameter(0.02 * torch.randn(width))
        """A word that is always there: the budget's, and the only one where the question is not seen."""
        self.text_norm = nn.LayerNorm(config.text_width)
        self.from_text = nn.Linear(config.text_width, width)
        self.from_budget = nn.Linear(1, width)
        self.rounds = nn.ModuleList(_Round(width, config.heads, config.mlp_ratio) for _ in range(config.rounds))
        self.norm = nn.LayerNorm(width)
        self.to_score = nn.Linear(width, 1)
        self.dither = nn.Buffer(ordered_dither(config.grid, config.dither), persistent=False)

    def forward(
        self, features: Tensor, question_embeds: Tensor, budget: Tensor, question_mask: Tensor | None = None
    ) -> Tensor:
        """features [B,N,Dv], question_embeds [B,T,D], budget int64 [1] or [B] (tokens to keep) -> scores [B,N].

        ``question_mask`` bool [B,T] is False on padding; None when there is none.
        """
        # Parameters alone, so that a graph optimiser folds them into one constant.
        place = (self.row[:, None] + self.column[None]).flatten(0, 1)
        visual = self.from_vision(standardised(features)) + place
        words = self._words(question_embeds, budget.to(features.dtype) / features.shape[1])
        mask = None
        if question_mask is not None and self.config.sees_question:
            mask = F.pad(question_mask, (1, 0), value=True)[:, None, None]
        for one_round in self.rounds:
            visual, words = one_round(visual, words, mask)
        scores: Tensor = self.to_score(self.norm(visual))[..., 0]
        return scores if self.training else scores + self.dither

    def _words(self, question_embeds: Tensor, keep_ratio: Tensor) -> Tensor:
        """question_embeds [B,T,D], keep_ratio [1] or [B] -> [B,1+T,width], the budget's word first."""
        first = self.word.expand(question_embeds.shape[0], 1, -1)
        if self.config.sees_budget:
            first = first + self.from_budget(torch.log(keep_ratio)[:, None, None])
        if not self.config.sees_question:
            return first
        return torch.cat([first, self.from_text(self.text_norm(question_embeds))], dim=1)


def standardised(features: Tensor) -> Tensor:
    """Zero mean and unit variance per dimension over the N tokens of each image; [B,N,D] -> [B,N,D]."""
    return F.instance_norm(features.transpose(1, 2), eps=1e-6).transpose(1, 2)
