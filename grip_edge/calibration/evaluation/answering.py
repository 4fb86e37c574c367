"""Answers of the frozen model in PyTorch, for every policy and budget, on the same questions of the same images.

An image is encoded once. Selections that keep equally many tokens go through the language model together, in passes
whose activations stay small: on a CPU, larger ones spend a third of the time on fresh memory pages.

Not here: which policies (``contestants``), scores (``scoring``).
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grip_edge.calibration.data import AskedImages
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case
from grip_edge.calibration.evaluation.contestants import Contestant
from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts
from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.selection import gather_tokens

_TOKENS_AT_ONCE = 4096


class TorchAnswerer:
    """``cases`` are the unpruned model and contestants at budgets; ``new_tokens`` is the longest answer."""

    def __init__(
        self, vlm: FrozenVlm, contestants: Sequence[Contestant], cases: Sequence[Case], new_tokens: int
    ) -> None:
        self.cases = tuple(cases)
        self._vlm = vlm
        self._contestants = {contestant.name: contestant for contestant in contestants}
        self._new_tokens = new_tokens

    @torch.no_grad()
    def answers(self, asked: AskedImages, first_image: int) -> list[tuple[str, ...]]:
        """One row per case; ``first_image`` is the number of the first of these images in the data."""
        vlm = self._vlm
        features, cls_attention = vlm.features_and_cls_attention(vlm.pixels(asked.images))
        prompts = vlm.prompts([question.text for question in asked.questions])
        rows = torch.tensor(asked.image_of, device=features.device)
        visual = vlm.visual_embeds(features)[rows]
        evidence = Evidence(
            features=features[rows].float(),
            visual=visual.float(),
            cls_attention=cls_attention[rows],
            question_embeds=vlm.question_embeds(prompts).float(),
            question_mask=prompts.question_mask,
            grid=vlm.grid,
        )
        found = self._answers_inside(visual, prompts)
        for kept_tokens in dict.fromkeys(case.kept_tokens for case in self.cases):
            cases = [case for case in self.cases if case.kept_tokens == kept_tokens and case not in found]
            kept = [self._keep(case, evidence, visual, first_image) for case in cases]
            texts = self._generated(kept, prompts)
            for index, case in enumerate(cases):
                found[case] = tuple(texts[index * len(prompts) : (index + 1) * len(prompts)])
        return [found[case] for case in self.cases]

    def _generated(self, kept: Sequence[Tensor], prompts: Prompts) -> list[str]:
        """Answers to all questions over each of ``kept`` [R,K,D]."""
        if not kept:
            return []
        visual, rows = torch.cat(list(kept)), list(range(len(prompts))) * len(kept)
        length = visual.shape[1] + len(self._vlm.before) + max(len(after) for after in prompts.after)
        size = max(1, _TOKENS_AT_ONCE // length)
        texts: list[str] = []
        for start in range(0, len(rows), size):
            part = slice(start, start + size)
            texts += self._vlm.answers(visual[part], prompts.rows(rows[part]), self._new_tokens)
        return texts

    def _answers_inside(self, visual: Tensor, prompts: Prompts) -> dict[Case, tuple[str, ...]]:
        """Of the policies that prune inside the language model."""
        found = {}
        for case in self.cases:
            inside = None if case.policy == UNPRUNED else self._contestants[case.policy].in_decoder
            if inside is not None:
                found[case] = tuple(inside.answers(self._vlm, visual, prompts, case.kept_tokens, self._new_tokens))
        return found

    def _keep(self, case: Case, evidence: Evidence, visual: Tensor, first_image: int) -> Tensor:
        """[R,K,D]."""
        if case.policy == UNPRUNED:
            return visual
        policy = self._contestants[case.policy].policy(case.run, first_image)
        return gather_tokens(visual, policy.select(evidence, case.kept_tokens))
