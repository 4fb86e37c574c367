"""From question to tokens. Reference: transformers' LlavaProcessor on the same checkpoint."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grip_edge.errors import BundleError, PromptError
from grip_edge.manifest import PromptSpec
from grip_edge.runtime import Pipeline
from grip_edge.runtime.prompt import PromptEncoder, load_tokenizer

QUESTIONS = [
    "what is it?",
    "  spaces around  ",
    "two\nlines",
    "Was ist das für eine Farbe?",
    "这是什么颜色?",
    "ما هذا؟ 🙂",
    "braces {question} {0} %s \\",
    "?",
]


@pytest.mark.parametrize("question", QUESTIONS)
def test_equals_transformers_processor(pipeline: Pipeline, toy_checkpoint: Path, question: str) -> None:
    from transformers import LlavaProcessor

    processor = LlavaProcessor.from_pretrained(toy_checkpoint)
    spec = pipeline.manifest.prompt
    visual_tokens = pipeline.manifest.budget_range.visual_tokens
    text = spec.template.replace("{question}", question)
    expected = processor(images=Image.new("RGB", (56, 56)), text=text)["input_ids"]
    prompt = pipeline.prompt_encoder.encode(question)
    found = [*prompt.before, *[spec.image_token_id] * visual_tokens, *prompt.after]
    assert found == np.asarray(expected).ravel().tolist()
    alone = processor.tokenizer(question, add_special_tokens=False)["input_ids"]
    assert list(prompt.question) == alone


@pytest.mark.parametrize("question", ["", "   ", "\n\t"])
def test_an_empty_question_is_refused(pipeline: Pipeline, question: str) -> None:
    with pytest.raises(PromptError, match="The question is empty"):
        pipeline.prompt_encoder.encode(question)


@pytest.mark.parametrize("text", ["<image>", "</s>", "<s>", "<pad>", "<unk>"])
def test_control_tokens_in_a_question_are_refused(pipeline: Pipeline, text: str) -> None:
    with pytest.raises(PromptError, match=f"contains '{text}', a control token"):
        pipeline.prompt_encoder.encode(f"what does {text} mean?")


def test_text_that_is_not_unicode_is_refused(pipeline: Pipeline) -> None:
    with pytest.raises(PromptError, match="not valid Unicode"):
        pipeline.prompt_encoder.encode("what \udcff is it?")


@pytest.mark.parametrize("template", ["{question}", "<image> only", "<image><image>{question}"])
def test_a_template_without_its_parts_is_the_bundles_fault(pipeline: Pipeline, template: str) -> None:
    spec = pipeline.manifest.prompt
    wrong = PromptSpec(template, spec.image_token, spec.image_token_id, spec.stop_token_ids)
    with pytest.raises(BundleError, match=r"prompt\.template must hold"):
        PromptEncoder(pipeline.tokenizer, wrong)


def test_a_tokenizer_of_another_model_is_noticed(pipeline: Pipeline) -> None:
    spec = pipeline.manifest.prompt
    wrong = PromptSpec(spec.template, spec.image_token, spec.image_token_id + 1000, spec.stop_token_ids)
    with pytest.raises(BundleError, match=r"tokenizer\.json does not give the image token's id"):
        PromptEncoder(pipeline.tokenizer, wrong).encode("what is it?")


def test_a_damaged_tokenizer_is_one_line(tmp_path: Path) -> None:
    (tmp_path / "tokenizer.json").write_text('{"version": ')
    with pytest.raises(BundleError, match="is no tokenizer") as caught:
        load_tokenizer(tmp_path / "tokenizer.json")
    assert "\n" not in str(caught.value)
