"""Toys of LLaVA-NeXT and LLaVA-OneVision with random weights, written by transformers as their hub checkpoints are.

As in ``toy_model``, weights are scaled up, so that a wrong graph cannot pass by chance. Sizes are odd on purpose: heads
wider than their share of the width, a SigLIP side that is no multiple of its patch, a vocabulary of no round number.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from tests.toy_model import CHAT_TEMPLATE, randomise, toy_tokenizer

# The policy that the tests select with: one that rates tokens, and two that build sets.
FAMILY_POLICIES = {"llava-1.6-vicuna": "cen-cdpruner", "llava-1.6-mistral": "cls", "llava-onevision": "divprune"}
FAMILIES = tuple(FAMILY_POLICIES)

_CONTENT = (
    "{%% for content in message['content'] | selectattr('type', 'equalto', 'image') %%}{{ '%s' }}{%% endfor %%}"
    "{%% for content in message['content'] | selectattr('type', 'equalto', 'text') %%}{{ %s }}{%% endfor %%}"
)
MISTRAL_TEMPLATE = (
    "{% for message in messages %}{{ '[INST] ' }}" + _CONTENT % ("<image>\\n", "content['text']") + "{{ ' [/INST]' }}"
    "{% endfor %}"
)
QWEN_TEMPLATE = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + ' '}}"
    + _CONTENT % ("<image>", "'\\n' + content['text']")
    + "{{'<|im_end|>'}}{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\\n' }}{% endif %}"
)
NEXT_SIDE_PX, ONEVISION_SIDE_PX = 28, 30
NEXT_RESOLUTIONS = [[28, 56], [56, 28], [56, 56], [84, 28], [28, 84]]
ONEVISION_RESOLUTIONS = [[30 * rows, 30 * columns] for rows in range(1, 5) for columns in range(1, 5)]


def save_toy_family(folder: Path, family: str, *, seed: int = 0, aspect: str = "anyres_max_4") -> Path:
    """Model, tokenizer, processor and chat template of one of ``FAMILIES``."""
    import torch
    from transformers import LlavaNextForConditionalGeneration, LlavaOnevisionForConditionalGeneration

    tokenizer = toy_tokenizer()
    onevision = family == "llava-onevision"
    if onevision:
        tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<video>"]})
    config = _onevision_config(tokenizer, aspect) if onevision else _next_config(tokenizer, family)
    torch.manual_seed(seed)
    make_model: Any = LlavaOnevisionForConditionalGeneration if onevision else LlavaNextForConditionalGeneration
    model = make_model(config).eval()
    randomise(model)
    model.save_pretrained(folder)
    processor = _onevision_processor(tokenizer, aspect) if onevision else _next_processor(tokenizer, family)
    processor.save_pretrained(folder)
    if onevision:
        path = folder / "processor_config.json"
        path.write_text(path.read_text().replace("ImageOnlyOnevisionProcessor", "LlavaOnevisionProcessor"))
    return folder


def _next_config(tokenizer: Any, family: str) -> Any:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaNextConfig, MistralConfig

    vision = CLIPVisionConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=3, num_attention_heads=2, image_size=NEXT_SIDE_PX,
        patch_size=7, projection_dim=24,
    )  # fmt: skip
    shape: dict[str, Any] = {
        "vocab_size": len(tokenizer) + 5, "hidden_size": 36, "intermediate_size": 50, "num_hidden_layers": 2,
        "num_attention_heads": 6, "head_dim": 10, "max_position_embeddings": 512, "bos_token_id": 1, "eos_token_id": 2,
    }  # fmt: skip
    text: Any
    if family == "llava-1.6-mistral":
        text = MistralConfig(**shape, num_key_value_heads=2, sliding_window=None)
    else:
        text = LlamaConfig(**shape, num_key_value_heads=6)
    return LlavaNextConfig(
        vision_config=vision, text_config=text, image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        image_grid_pinpoints=NEXT_RESOLUTIONS,
    )  # fmt: skip


def _onevision_config(tokenizer: Any, aspect: str) -> Any:
    from transformers import LlavaOnevisionConfig, Qwen2Config, SiglipVisionConfig

    vision = SiglipVisionConfig(
        hidden_size=24, intermediate_size=40, num_hidden_layers=2, num_attention_heads=2,
        image_size=ONEVISION_SIDE_PX, patch_size=7, vision_use_head=False,
    )  # fmt: skip
    text = Qwen2Config(
        vocab_size=len(tokenizer) + 3, hidden_size=32, intermediate_size=50, num_hidden_layers=2,
        num_attention_heads=4, num_key_value_heads=2, max_position_embeddings=1024, tie_word_embeddings=True,
        eos_token_id=tokenizer.convert_tokens_to_ids("<|im_end|>"),
    )  # fmt: skip
    return LlavaOnevisionConfig(
        vision_config=vision, text_config=text, image_grid_pinpoints=ONEVISION_RESOLUTIONS, vision_aspect_ratio=aspect,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        video_token_index=tokenizer.convert_tokens_to_ids("<video>"), tie_word_embeddings=True,
    )  # fmt: skip


def _next_processor(tokenizer: Any, family: str) -> Any:
    from transformers import LlavaNextImageProcessorPil, LlavaNextProcessor

    image_processor = LlavaNextImageProcessorPil(
        size={"shortest_edge": NEXT_SIDE_PX}, crop_size={"height": NEXT_SIDE_PX, "width": NEXT_SIDE_PX},
        image_grid_pinpoints=NEXT_RESOLUTIONS,
    )  # fmt: skip
    return LlavaNextProcessor(
        image_processor=image_processor, tokenizer=tokenizer, patch_size=7, vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=MISTRAL_TEMPLATE if family == "llava-1.6-mistral" else CHAT_TEMPLATE,
    )  # fmt: skip


def _onevision_processor(tokenizer: Any, aspect: str) -> Any:
    from transformers import LlavaOnevisionImageProcessorPil

    from grip_edge.export.processor import ImageOnlyOnevisionProcessor

    image_processor = LlavaOnevisionImageProcessorPil(
        size={"height": ONEVISION_SIDE_PX, "width": ONEVISION_SIDE_PX}, image_grid_pinpoints=ONEVISION_RESOLUTIONS,
        image_mean=[0.5, 0.5, 0.5], image_std=[0.5, 0.5, 0.5],
    )  # fmt: skip
    make_processor: Any = ImageOnlyOnevisionProcessor
    return make_processor(
        image_processor=image_processor, tokenizer=tokenizer, video_processor=None, num_image_tokens=16,
        vision_feature_select_strategy="full", chat_template=QWEN_TEMPLATE, vision_aspect_ratio=aspect,
    )  # fmt: skip


def save_toy_siglip(folder: Path, *, seed: int = 0) -> Path:
    """LLaVA with one view, SigLIP and Qwen2: parts of the families, put together as none of them does."""
    import torch
    from transformers import (
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
        SiglipImageProcessorPil,
    )

    tokenizer = toy_tokenizer()
    tokenizer.add_special_tokens({"additional_special_tokens": ["<|im_start|>", "<|im_end|>", "<video>"]})
    parts = _onevision_config(tokenizer, "anyres_max_9")
    config = LlavaConfig(
        vision_config=parts.vision_config, text_config=parts.text_config, vision_feature_select_strategy="full",
        vision_feature_layer=-1, image_token_index=parts.image_token_id, image_seq_length=16, tie_word_embeddings=True,
    )  # fmt: skip
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    randomise(model)
    model.save_pretrained(folder)
    side = {"height": ONEVISION_SIDE_PX, "width": ONEVISION_SIDE_PX}
    LlavaProcessor(
        image_processor=SiglipImageProcessorPil(size=side), tokenizer=tokenizer, patch_size=7,
        vision_feature_select_strategy="full", num_additional_image_tokens=0, chat_template=QWEN_TEMPLATE,
    ).save_pretrained(folder)  # fmt: skip
    return folder
