"""The shape of LLaVA-1.5-7B with few layers and few words: what decides how a graph is compiled, without the bulk.

Widths, heads, image size, visual tokens and positions are those of llava-hf/llava-1.5-7b-hf. The weights are one block
of random numbers over and over, since no test looks at what they compute.
"""

from __future__ import annotations

import json
import math
from pathlib import Path
from typing import Any

import torch

from grip_edge.export.quiet import quiet_libraries

DECODER_LAYERS, VISION_LAYERS, WORDS = 1, 3, 512
_BLOCK = torch.empty(1 << 22).normal_(0.0, 0.02, generator=torch.Generator().manual_seed(0)).half()


def save_seven_b_shape(folder: Path) -> Path:
    """Configuration and weights, without a tokenizer."""
    from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    folder.mkdir()
    vision = CLIPVisionConfig(
        hidden_size=1024, intermediate_size=4096, num_hidden_layers=VISION_LAYERS, num_attention_heads=16,
        image_size=336, patch_size=14, projection_dim=768,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=WORDS, hidden_size=4096, intermediate_size=11008, num_hidden_layers=DECODER_LAYERS,
        num_attention_heads=32, max_position_embeddings=4096, rms_norm_eps=1e-5,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision, text_config=text, image_token_index=3, vision_feature_layer=-2,
        vision_feature_select_strategy="default", image_seq_length=576,
    )  # fmt: skip
    config.architectures = ["LlavaForConditionalGeneration"]
    with quiet_libraries():
        config.save_pretrained(folder)
        with torch.device("meta"):
            state: dict[str, Any] = LlavaForConditionalGeneration(config).state_dict()
    header, end = {}, 0
    for name, tensor in state.items():
        start, end = end, end + 2 * math.prod(tensor.shape)
        header[name] = {"dtype": "F16", "shape": list(tensor.shape), "data_offsets": [start, end]}
    text_header = json.dumps(header).encode()
    block = _BLOCK.view(torch.uint8).numpy().tobytes()
    with (folder / "model.safetensors").open("wb") as file:
        file.write(len(text_header).to_bytes(8, "little") + text_header)
        for start in range(0, end, len(block)):
            file.write(block[: end - start])
    return folder
