"""Reference: transformers' own forward pass and generation on the same toy checkpoint."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from transformers import AutoProcessor, LlavaForConditionalGeneration

from grip_edge.calibration.attention_targets import layer_attention, normalised
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.errors import UserError

QUESTIONS = ["What is it?", "Which colour does the large round thing have?"]
ANSWERS = ["red", "a blue one"]


@pytest.fixture(scope="module")
def vlm(toy_checkpoint: Path) -> FrozenVlm:
    return FrozenVlm.load(toy_checkpoint, torch.float32)


@pytest.fixture(scope="module")
def reference(toy_checkpoint: Path) -> Any:
    return LlavaForConditionalGeneration.from_pretrained(
        toy_checkpoint, dtype=torch.float32, attn_implementation="eager"
    )


@pytest.fixture(scope="module")
def images() -> list[Image.Image]:
    rng = np.random.default_rng(0)
    return [Image.fromarray(rng.integers(0, 255, (70, 90, 3), dtype=np.uint8)) for _ in QUESTIONS]


def chat(question: str) -> list[dict[str, object]]:
    return [{"role": "user", "content": [{"type": "image"}, {"type": "text", "text": question}]}]


def assert_close(found: torch.Tensor, expected: torch.Tensor, tolerance: float = 1e-4) -> None:
    difference = (found - expected).abs()
    assert difference.max() <= tolerance, f"max {difference.max():.2e}, mean {difference.mean():.2e}"


def test_features_and_visual_embeds(vlm: FrozenVlm, reference: Any, images: list[Image.Image]) -> None:
    pixels = vlm.pixels(images)
    hidden = reference.model.vision_tower(pixels, output_hidden_states=True).hidden_states
    features = vlm.features(pixels)
    assert_close(features, hidden[reference.config.vision_feature_layer][:, 1:])
    assert_close(vlm.visual_embeds(features), reference.model.multi_modal_projector(features))


def test_cls_attention_is_the_cls_row_of_the_selected_layer(
    vlm: FrozenVlm, reference: Any, images: list[Image.Image]
) -> None:
    pixels = vlm.pixels(images)
    features, attention = vlm.features_and_cls_attention(pixels)
    out = reference.model.vision_tower(pixels, output_attentions=True)
    selected = len(out.attentions) + 1 + reference.config.vision_feature_layer - 1
    assert_close(attention, out.attentions[selected].mean(dim=1)[:, 0, 1:], 1e-6)
    assert torch.equal(features, vlm.features(pixels))


def test_answer_log_prob_is_that_of_the_full_forward_pass(
    vlm: FrozenVlm, reference: Any, images: list[Image.Image], toy_checkpoint: Path
) -> None:
    processor = AutoProcessor.from_pretrained(toy_checkpoint)
    visual = vlm.visual_embeds(vlm.features(vlm.pixels(images)))
    found = vlm.answer_log_prob(visual, vlm.prompts(QUESTIONS, ANSWERS))
    for row, (question, answer) in enumerate(zip(QUESTIONS, ANSWERS, strict=True)):
        prompt = processor.apply_chat_template(chat(question), add_generation_prompt=True)
        asked = processor(images=images[row], text=prompt, return_tensors="pt")
        told = processor(images=images[row], text=f"{prompt} {answer}</s>", return_tensors="pt")
        with torch.no_grad():
            logits = reference(**told).logits[0].log_softmax(-1)
        ids, start = told["input_ids"][0], asked["input_ids"].shape[1]
        expected = torch.stack([logits[i - 1, ids[i]] for i in range(start, len(ids))]).mean()
        assert_close(found[row], expected)


def test_greedy_answers_are_those_of_generate(
    vlm: FrozenVlm, reference: Any, images: list[Image.Image], toy_checkpoint: Path
) -> None:
    processor = AutoProcessor.from_pretrained(toy_checkpoint)
    visual = vlm.visual_embeds(vlm.features(vlm.pixels(images)))
    found = vlm.answers(visual, vlm.prompts(QUESTIONS), max_new_tokens=6)
    for row, question in enumerate(QUESTIONS):
        prompt = processor.apply_chat_template(chat(question), add_generation_prompt=True)
        inputs = processor(images=images[row], text=prompt, return_tensors="pt")
        tokens = reference.generate(**inputs, max_new_tokens=6, do_sample=False)[0, inputs["input_ids"].shape[1] :]
        assert found[row] == processor.tokenizer.decode(tokens, skip_special_tokens=True).strip()


def test_attention_targets_are_the_rows_of_the_prompt(
    vlm: FrozenVlm, reference: Any, images: list[Image.Image], toy_checkpoint: Path
) -> None:
    processor = AutoProcessor.from_pretrained(toy_checkpoint)
    visual = vlm.visual_embeds(vlm.features(vlm.pixels(images)))
    last, question = layer_attention(vlm, visual, vlm.prompts(QUESTIONS))
    for row, text in enumerate(QUESTIONS):
        prompt = processor.apply_chat_template(chat(text), add_generation_prompt=True)
        inputs = processor(images=images[row], text=prompt, return_tensors="pt")
        with torch.no_grad():
            out = reference(**inputs, output_attentions=True)
        seen = (inputs["input_ids"][0] == reference.config.image_token_id).nonzero()[:, 0]
        for layer, weights in enumerate(out.attentions):
            rows = weights[0].mean(dim=0)[:, seen]
            assert_close(last[layer, row], rows[-1], 1e-6)
            assert_close(question[layer, row], rows[seen[-1] + 1 :].mean(dim=0), 1e-6)
    assert_close(normalised(last).sum(dim=-1), torch.ones(last.shape[:2]), 1e-5)


def test_a_folder_that_is_no_checkpoint_is_refused_in_one_line(tmp_path: Path) -> None:
    with pytest.raises(UserError, match="cannot be loaded as a LLaVA checkpoint") as error:
        FrozenVlm.load(tmp_path)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("change", "problem"),
    [
        ({"model_type": "llama"}, "model_type is 'llama'; a scorer can be trained where it is 'llava'"),
        ({"vision_feature_select_strategy": "full"}, "vision_feature_select_strategy is 'full'"),
        ({"vision_feature_layer": [-2, -1]}, "vision_feature_layer is \\[-2, -1\\]; expected one layer"),
        ({"vision_config": {"model_type": "siglip_vision_model"}}, "vision_config.model_type is 'siglip_vision_model'"),
    ],
)
def test_other_architectures_are_refused(
    toy_checkpoint: Path, tmp_path: Path, change: dict[str, Any], problem: str
) -> None:
    config = json.loads((toy_checkpoint / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | change))
    with pytest.raises(UserError, match=problem):
        FrozenVlm.load(tmp_path)
