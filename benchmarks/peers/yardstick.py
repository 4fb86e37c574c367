"""Writes the yardstick: a LLaVA checkpoint of random weights, its language model alone, and the requests' picture.

    python -m benchmarks.peers.yardstick /tmp/peers --shape yardstick

    model/           the checkpoint, its tensors named as in the published llava-hf checkpoints, which every version of
                     transformers reads; fp16; with an untrained scorer, so that grip-edge's selection is paid for
    language-model/  the decoder as a plain Llama, for peers that know no LLaVA
    picture.png      already of the tower's size, so that every peer's preprocessing gives the same pixels

The tokenizer makes a token of each byte. Random weights show speed, memory and agreement; never quality.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click
import numpy as np
import torch
from PIL import Image
from safetensors.torch import save_file
from torch import Tensor

from benchmarks.peers.shape import IMAGE_TOKEN, IMAGE_TOKEN_ID, SHAPES, Shape
from grip_edge.calibration.scorer import ScorerConfig
from grip_edge.calibration.scorer_files import save_random_scorer
from grip_edge.catalog import SCORER_FOLDER
from grip_edge.export.quiet import quiet_libraries

MODEL, LANGUAGE_MODEL, PICTURE = "model", "language-model", "picture.png"
STANDARD_DEVIATION = 0.02
SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")

_PUBLISHED = (
    ("model.language_model.", "language_model.model."),
    ("lm_head.", "language_model.lm_head."),
    ("model.vision_tower.", "vision_tower.vision_model."),
    ("model.multi_modal_projector.", "multi_modal_projector."),
)
_CHAT = (
    "{% for message in messages %}{% if message['role'] == 'user' %}USER: {% for part in message['content'] %}"
    "{% if part['type'] == 'image' %}<image>\n{% else %}{{ part['text'] }}{% endif %}{% endfor %}"
    "{% else %} ASSISTANT: {{ message['content'] }}{% endif %}{% endfor %}"
    "{% if add_generation_prompt %} ASSISTANT:{% endif %}"
)


@click.command()
@click.argument("work", type=click.Path(path_type=Path))
@click.option("--shape", "shape_name", type=click.Choice(list(SHAPES)), default="yardstick", show_default=True)
def main(work: Path, shape_name: str) -> None:
    """Write the yardstick into the folder WORK."""
    shape = SHAPES[shape_name]
    with quiet_libraries():
        write_models(work, shape)
    picture(shape.image_side_px).save(work / PICTURE)


def picture(side: int) -> Image.Image:
    down, across = np.mgrid[0:side, 0:side] / side
    waves = [np.sin(9 * across + 3 * k) * np.cos(7 * down - 2 * k) for k in range(3)]
    return Image.fromarray((127.5 * (1 + np.stack(waves, axis=-1))).astype(np.uint8))


def write_models(work: Path, shape: Shape) -> None:
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    text = LlamaConfig(
        hidden_size=shape.width, intermediate_size=shape.mlp, num_hidden_layers=shape.layers,
        num_attention_heads=shape.heads, num_key_value_heads=shape.heads, vocab_size=shape.vocabulary,
        max_position_embeddings=shape.max_positions, rms_norm_eps=1e-5, tie_word_embeddings=False,
        bos_token_id=1, eos_token_id=2, pad_token_id=3, dtype="float16", architectures=["LlamaForCausalLM"],
    )  # fmt: skip
    vision = CLIPVisionConfig(
        hidden_size=shape.vision_width, intermediate_size=shape.vision_mlp, num_hidden_layers=shape.vision_layers,
        num_attention_heads=shape.vision_heads, image_size=shape.image_side_px, patch_size=shape.patch_px,
        projection_dim=shape.vision_width,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=IMAGE_TOKEN_ID, vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=shape.visual_tokens, tie_word_embeddings=False,
        dtype="float16", architectures=["LlavaForConditionalGeneration"],
    )  # fmt: skip
    with torch.device("meta"):
        shapes = LlavaForConditionalGeneration(config).state_dict()
    weights = _random_weights(shapes)
    _write(work / MODEL, config, {_published(name): tensor for name, tensor in weights.items()})
    _write_processor(work / MODEL, shape)
    side = shape.image_side_px // shape.patch_px
    save_random_scorer(work / MODEL / SCORER_FOLDER, ScorerConfig(shape.vision_width, shape.width, (side, side)))
    decoder = {
        name.replace("model.language_model.", "model."): tensor
        for name, tensor in weights.items()
        if name.startswith(("model.language_model.", "lm_head."))
    }
    _write(work / LANGUAGE_MODEL, text, decoder)


def _random_weights(shapes: dict[str, Tensor]) -> dict[str, Tensor]:
    generator = torch.Generator().manual_seed(0)
    weights = {}
    for name, shape in shapes.items():
        if shape.is_floating_point():
            centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
            values = torch.empty(shape.shape).normal_(centre, STANDARD_DEVIATION, generator=generator)
            weights[name] = values.to(torch.float16)
    return weights


def _published(name: str) -> str:
    for ours, theirs in _PUBLISHED:
        if name.startswith(ours):
            return theirs + name.removeprefix(ours)
    raise ValueError(f"{name} has no published name")


def _write(folder: Path, config: Any, weights: dict[str, Tensor]) -> None:
    config.save_pretrained(folder)
    save_file(weights, folder / "model.safetensors", metadata={"format": "pt"})
    generation = {"bos_token_id": 1, "eos_token_id": 2, "pad_token_id": 3}
    (folder / "generation_config.json").write_text(json.dumps(generation, indent=2))
    _write_tokenizer(folder, config.get_text_config().vocab_size)


def _write_tokenizer(folder: Path, vocabulary: int) -> None:
    """Byte-level without merges. Ids that no text gives are there too, since random weights choose them."""
    from tokenizers import Tokenizer, decoders, models, pre_tokenizers, processors

    fillers = iter(f"filler{number}" for number in range(vocabulary))
    names = [*SPECIAL, *sorted(pre_tokenizers.ByteLevel.alphabet())]
    names += [IMAGE_TOKEN if index == IMAGE_TOKEN_ID else next(fillers) for index in range(len(names), vocabulary)]
    tokenizer = Tokenizer(models.BPE(vocab={name: index for index, name in enumerate(names)}, merges=[]))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", SPECIAL.index("<s>"))]
    )
    tokenizer.add_special_tokens([*SPECIAL, IMAGE_TOKEN])
    tokenizer.save(str(folder / "tokenizer.json"))
    settings = {
        "tokenizer_class": "PreTrainedTokenizerFast", "model_max_length": 1_000_000,
        "clean_up_tokenization_spaces": False,
        "bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "pad_token": "<pad>",
        "processor_class": "LlavaProcessor", "chat_template": _CHAT,
    }  # fmt: skip
    (folder / "tokenizer_config.json").write_text(json.dumps(settings, indent=2))


def _write_processor(folder: Path, shape: Shape) -> None:
    """In both layouts: transformers 5 reads processor_config.json alone, 4 preprocessor_config.json too."""
    image = {
        "image_processor_type": "CLIPImageProcessor", "do_convert_rgb": True, "do_resize": True, "resample": 3,
        "size": {"shortest_edge": shape.image_side_px}, "do_center_crop": True,
        "crop_size": {"height": shape.image_side_px, "width": shape.image_side_px},
        "do_rescale": True, "rescale_factor": 1 / 255, "do_normalize": True,
        "image_mean": [0.48145466, 0.4578275, 0.40821073], "image_std": [0.26862954, 0.26130258, 0.27577711],
    }  # fmt: skip
    common = {"processor_class": "LlavaProcessor", "patch_size": shape.patch_px, "image_token": IMAGE_TOKEN}
    common |= {"num_additional_image_tokens": 1, "vision_feature_select_strategy": "default"}
    (folder / "preprocessor_config.json").write_text(
        json.dumps(image | {"processor_class": "LlavaProcessor"}, indent=2)
    )
    (folder / "processor_config.json").write_text(json.dumps(common | {"image_processor": image}, indent=2))
    (folder / "chat_template.jinja").write_text(_CHAT)


if __name__ == "__main__":
    main()
