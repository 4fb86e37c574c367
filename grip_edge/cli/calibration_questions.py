"""A user's questions as the graphs of a bundle want them: preprocessed, tokenised, each at one of its budgets.

Half of the images decide (``seen``), the others measure (``checked``). Budgets take turns: smallest, largest, all.
"""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass

from grip_edge.bundle import TOKENIZER_NAME, Bundle
from grip_edge.calibration.data import AskedData, open_data
from grip_edge.errors import UserError
from grip_edge.export.accuracy.questions import AskedPrompt, QuestionSet
from grip_edge.runtime.preprocess import Preprocessor
from grip_edge.runtime.prompt import PromptEncoder, load_tokenizer

_QUESTION = "{question}"


@dataclass(frozen=True)
class Asked:
    data: str
    seen: QuestionSet
    checked: QuestionSet


def ask_about(bundle: Bundle, data: str, split: str, images: int, questions_per_image: int) -> Asked:
    """``images`` to decide on and as many others to measure with, or all there are, halved."""
    for option, value in (("images", images), ("questions-per-image", questions_per_image)):
        if value < 1:
            raise UserError(f"--{option} is at least 1; got {value}.")
    side_px = bundle.manifest.model.vision.image_side_px
    asked = open_data(data, split, side_px, questions_per_image)
    each = min(images, len(asked) // 2)
    if not each:
        raise UserError(
            f"{asked.name} has {len(asked)} image; expected 2 or more: some to decide on, others to measure."
        )
    seen, checked = range(each), range(each, 2 * each)
    return Asked(asked.name, _questions(bundle, asked, seen), _questions(bundle, asked, checked))


def _questions(bundle: Bundle, data: AskedData, indices: Sequence[int]) -> QuestionSet:
    manifest = bundle.manifest
    tokenizer = load_tokenizer(bundle.path(TOKENIZER_NAME))
    encoder, preprocess = PromptEncoder(tokenizer, manifest.prompt), Preprocessor(manifest.image)
    allowed = manifest.budget_range
    budgets = itertools.cycle((allowed.min_tokens, allowed.max_tokens, allowed.visual_tokens))
    taken = data.take(indices)
    prompts = []
    for question, image in zip(taken.questions, taken.image_of, strict=True):
        prompt = encoder.encode(question.text)
        text = manifest.prompt.template.replace(_QUESTION, question.text)
        ids = tokenizer.encode(f"{text} {question.answer}").ids
        answer = (*ids[len(prompt.before) + 1 + len(prompt.after) :], manifest.prompt.stop_token_ids[0])
        prompts.append(AskedPrompt(image, prompt.before, prompt.after, prompt.question, answer, next(budgets)))
    return QuestionSet(tuple(preprocess(image) for image in taken.images), tuple(prompts))
