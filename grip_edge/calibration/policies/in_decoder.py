"""Policies inside the language model: its first layers see all visual tokens, later ones those it attended to.

They need attention maps and sequences of several lengths, so they cannot stand in ``select.onnx``; here they are
references, in PyTorch, on the model that judges all policies. A policy says in which layers to drop how many tokens
(``Stage``); ``PrunedDecoder`` runs them with a key-value cache. What is dropped is decided once, by the prompt's last
token, and stays dropped for the answer.

``kept`` is what the last layers see. A policy of the other kind shows that many to every layer, so at equal ``kept``
the comparison flatters those here: give ``mean_tokens`` beside it.
"""

from __future__ import annotations

import itertools
from abc import ABC, abstractmethod
from collections.abc import Sequence

import torch
from torch import Tensor

from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts
from grip_edge.calibration.policies.pruned_decoder import PrunedDecoder, Stage


class InDecoderPolicy(ABC):
    """``name`` stands in reports. ``reindexed``: tokens behind a drop get consecutive positions, or keep their own."""

    name: str
    reindexed: bool

    @abstractmethod
    def stages(self, layers: int, visual_tokens: int, kept: int) -> tuple[Stage, ...]:
        """In the order of the layers; UserError if the decoder has too few."""

    def mean_tokens(self, layers: int, visual_tokens: int, kept: int) -> float:
        """Visual tokens per layer, in the mean: the measure by which papers compare them with other policies."""
        stages = self.stages(layers, visual_tokens, kept)
        starts = [0, *(stage.first_layer for stage in stages), layers]
        counts = [visual_tokens, *(stage.kept for stage in stages)]
        depths = [end - start for start, end in itertools.pairwise(starts)]
        return sum(count * depth for count, depth in zip(counts, depths, strict=True)) / layers

    @torch.no_grad()
    def answers(
        self, vlm: FrozenVlm, visual: Tensor | Sequence[Tensor], prompts: Prompts, kept: int, max_new_tokens: int = 8
    ) -> list[str]:
        """Greedy answers to R questions over all their visual tokens [R,N,D]; special tokens removed."""
        language_model, found = vlm.model.model.language_model, []
        stages = self.stages(len(language_model.layers), len(visual[0]), kept)
        longest = len(vlm.before) + len(visual[0]) + max(len(after) for after in prompts.after) + max_new_tokens
        size = vlm.rows_per_pass(longest)
        for start in range(0, len(prompts), size):
            rows = range(start, min(start + size, len(prompts)))
            decoder = PrunedDecoder(vlm, stages, self.reindexed)
            tokens = decoder.generate([visual[row] for row in rows], prompts.rows(rows), max_new_tokens)
            found += [text.strip() for text in vlm.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        return found
