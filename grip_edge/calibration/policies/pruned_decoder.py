"""The language model with visual tokens dropped between its layers: prefill, and greedy steps with a cache.

R questions go through together, padded on the left. Each layer's cache has the length of what that layer sees.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import DynamicCache

from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts
from grip_edge.calibration.selection import keep_best


@dataclass(frozen=True)
class Stage:
    """From ``first_layer`` on (counted from 0), only the ``kept`` visual tokens that the prompt's last token attends
    to most in layer ``ranked_by``: the layer before, or ``first_layer`` itself on all that it would have seen.
    """

    first_layer: int
    ranked_by: int
    kept: int


@dataclass
class _Sequences:
    """R sequences of L tokens; ``valid`` is False on padding, ``visual`` True on visual tokens, all [R,L,...]."""

    hidden: Tensor
    positions: Tensor
    valid: Tensor
    visual: Tensor

    def pick(self, index: Tensor) -> _Sequences:
        """index [R,L'] -> the same sequences with these tokens alone."""
        hidden = self.hidden.take_along_dim(index[..., None], dim=1)
        return _Sequences(hidden, *(x.gather(1, index) for x in (self.positions, self.valid, self.visual)))


class PrunedDecoder:
    """One batch of questions. ``kept_indices`` holds the kept tokens of each stage after ``generate``, each [R,K]."""

    def __init__(self, vlm: FrozenVlm, stages: tuple[Stage, ...], reindexed: bool) -> None:
        self._vlm, self._reindexed = vlm, reindexed
        self._model: Any = vlm.model.model.language_model
        self._starts = {stage.first_layer: stage for stage in stages}
        self._cache = DynamicCache()
        # What each layer's cache holds ([R,S], False: padding), and the position of the next token there ([R,1]).
        self._cached: list[tuple[Tensor, Tensor]] = []
        self.kept_indices: list[Tensor] = []

    @torch.no_grad()
    def generate(self, visual: Sequence[Tensor], prompts: Prompts, max_new_tokens: int) -> Tensor:
        """Greedy tokens [R,A]; behind a stop token, stop tokens."""
        logits = self.prefill(visual, prompts)
        done = torch.zeros(len(prompts), dtype=torch.bool, device=logits.device)
        tokens: list[Tensor] = []
        while True:
            tokens.append(torch.where(done, self._vlm.stop_token_id, logits.argmax(dim=-1)))
            done = done | (tokens[-1] == self._vlm.stop_token_id)
            if len(tokens) == max_new_tokens or bool(done.all()):
                return torch.stack(tokens, dim=1)
            logits = self._step(tokens[-1])

    @torch.no_grad()
    def prefill(self, visual: Sequence[Tensor], prompts: Prompts) -> Tensor:
        """Logits [R,V] of the first new token."""
        seen = self._prompt(visual, prompts)
        previous = seen
        for index, layer in enumerate(self._model.layers):
            stage = self._starts.get(index)
            if stage is not None:
                seen = self._drop(seen, previous if stage.ranked_by < index else seen, stage)
            next_position = seen.positions[:, -1:] + 1
            self._cached.append((seen.valid, next_position))
            mask = _additive(seen.valid[:, None] & _causal(seen.valid), seen.hidden.dtype)
            previous = seen
            hidden = self._layer(layer, seen.hidden, seen.positions, mask)
            seen = _Sequences(hidden, seen.positions, seen.valid, seen.visual)
        return self._logits(seen.hidden)

    def _prompt(self, visual: Sequence[Tensor], prompts: Prompts) -> _Sequences:
        """before | visual | after, padded on the left."""
        embed, device = self._vlm.model.get_input_embeddings(), self._vlm.device
        before = embed(torch.tensor(self._vlm.before, device=device))
        rows, marks = [], []
        for tokens, after in zip(visual, prompts.after, strict=True):
            behind = embed(torch.tensor(after, device=device))
            rows.append(torch.cat([before, tokens, behind]))
            marks.append(torch.tensor([1] * len(before) + [2] * len(tokens) + [1] * len(behind), device=device))
        mark = pad_sequence(marks, batch_first=True, padding_side="left")
        valid = mark > 0
        hidden = pad_sequence(rows, batch_first=True, padding_side="left")
        return _Sequences(hidden, _consecutive(valid), valid, mark == 2)

    def _drop(self, seen: _Sequences, ranked: _Sequences, stage: Stage) -> _Sequences:
        """``ranked`` is what enters the layer whose attention ranks the tokens of ``seen``."""
        attention = self._last_token_attention(self._model.layers[stage.ranked_by], ranked)
        count = int(seen.visual[0].sum())
        best = keep_best(attention[seen.visual].view(-1, count), stage.kept)
        self.kept_indices.append(self.kept_indices[-1].gather(1, best) if self.kept_indices else best)
        chosen = torch.zeros(len(best), count, dtype=torch.bool, device=best.device).scatter(1, best, True)
        stays = (~seen.visual).masked_scatter(seen.visual, chosen)
        left = seen.pick(stays.nonzero()[:, 1].view(len(best), -1))
        return _Sequences(left.hidden, _consecutive(left.valid), left.valid, left.visual) if self._reindexed else left

    def _last_token_attention(self, layer: Any, seen: _Sequences) -> Tensor:
        """Softmax row of the last query, mean over heads: [R,L]."""
        attention, normed = layer.self_attn, layer.input_layernorm(seen.hidden)
        query = attention.q_proj(normed[:, -1:]).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        key = attention.k_proj(normed).unflatten(-1, (-1, attention.head_dim)).transpose(1, 2)
        cos, sin = (x[:, None] for x in self._model.rotary_emb(normed, seen.positions))
        query, key = _rotated(query, cos[:, :, -1:], sin[:, :, -1:]), _rotated(key, cos, sin)
        key = key.repeat_interleave(query.shape[1] // key.shape[1], dim=1)
        scores = (query @ key.transpose(2, 3)).float() * attention.scaling
        weights = scores.masked_fill(~seen.valid[:, None, None], -torch.inf).softmax(dim=-1)
        row: Tensor = weights.mean(dim=1)[:, 0]
        return row

    def _step(self, tokens: Tensor) -> Tensor:
        """One more token per row [R] -> logits [R,V] of the next."""
        hidden = self._vlm.model.get_input_embeddings()(tokens[:, None])
        for index, layer in enumerate(self._model.layers):
            valid, position = self._cached[index]
            valid = torch.cat([valid, torch.ones_like(valid[:, :1])], dim=1)
            self._cached[index] = (valid, position + 1)
            hidden = self._layer(layer, hidden, position, _additive(valid[:, None], hidden.dtype))
        return self._logits(hidden)

    def _layer(self, layer: Any, hidden: Tensor, positions: Tensor, mask: Tensor) -> Tensor:
        out: Tensor = layer(
            hidden,
            attention_mask=mask,
            position_embeddings=self._model.rotary_emb(hidden, positions),
            past_key_values=self._cache,
            use_cache=True,
        )
        return out

    def _logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self._vlm.model.lm_head(self._model.norm(hidden[:, -1]))
        return logits


def _consecutive(valid: Tensor) -> Tensor:
    """Positions 0, 1, ... of the valid tokens, [R,L] -> [R,L]."""
    return (valid.long().cumsum(dim=1) - 1).clamp(min=0)


def _causal(valid: Tensor) -> Tensor:
    """bool [1,L,L]."""
    length = valid.shape[1]
    return torch.ones(1, length, length, dtype=torch.bool, device=valid.device).tril()


def _additive(seen: Tensor, dtype: torch.dtype) -> Tensor:
    """bool [R,T,S] -> [R,1,T,S], 0 where seen."""
    return torch.zeros(seen.shape, dtype=dtype, device=seen.device).masked_fill(~seen, torch.finfo(dtype).min)[:, None]


def _rotated(x: Tensor, cos: Tensor, sin: Tensor) -> Tensor:
    first, second = x.chunk(2, dim=-1)
    return x * cos + torch.cat([-second, first], dim=-1) * sin
