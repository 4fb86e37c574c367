"""FLOPs of the bundles that were timed or evaluated, for prompts as long as those of the data."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from grip_edge.bundle import TOKENIZER_NAME, Bundle
from grip_edge.calibration.data import AskedQuestion
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case
from grip_edge.calibration.evaluation.report import FlopsRow
from grip_edge.export.flops import RequestSize, bundle_flops
from grip_edge.runtime.prompt import PromptEncoder, load_tokenizer

_PROMPTS = 500


def count_flops(
    bundles: dict[str, Bundle], cases: Sequence[Case], questions: Sequence[AskedQuestion]
) -> tuple[FlopsRow, ...]:
    """``cases`` name bundles by their policy. The unpruned model has no selector, so its ``select`` is 0."""
    first = next(iter(bundles.values()))
    text_tokens, question_tokens = _prompt_lengths(first, questions[:_PROMPTS])
    unpruned = bundle_flops(
        first.folder, RequestSize(first.manifest.model.vision.visual_tokens, text_tokens, question_tokens)
    )
    base = unpruned.vision + unpruned.prefill
    rows = []
    for case in cases:
        if case.policy == UNPRUNED:
            rows.append(
                FlopsRow(
                    UNPRUNED, case.budget, case.kept_tokens, text_tokens, unpruned.vision, 0, unpruned.prefill, 0.0
                )
            )
            continue
        flops = bundle_flops(bundles[case.policy].folder, RequestSize(case.kept_tokens, text_tokens, question_tokens))
        stages = (flops.vision, flops.select, flops.prefill)
        rows.append(
            FlopsRow(
                case.policy, case.budget, case.kept_tokens, text_tokens, *stages, saved_share=1 - flops.total / base
            )
        )
    return tuple(rows)


def _prompt_lengths(bundle: Bundle, questions: Sequence[AskedQuestion]) -> tuple[int, int]:
    """Mean numbers of text tokens in the prompt and of tokens in the question, rounded."""
    encoder = PromptEncoder(load_tokenizer(bundle.path(TOKENIZER_NAME)), bundle.manifest.prompt)
    prompts = [encoder.encode(question.text) for question in questions]
    text = np.mean([len(prompt.before) + len(prompt.after) for prompt in prompts])
    return round(float(text)), round(float(np.mean([len(prompt.question) for prompt in prompts])))
