"""The shape of ``llava-tiny``: LLaVA-1.5's architecture at 5 million parameters.

CLIP tower (CLS token, 168 px / 14 = 144 patches; features of the second-last layer, without CLS), two-layer
projector, Llama decoder with grouped-query attention. What LLaVA-1.5 does, this does; only the numbers are smaller.
"""

from __future__ import annotations

from transformers import CLIPVisionConfig, LlamaConfig, LlavaConfig

IMAGE_SIDE_PX = 168
PATCH_PX = 14
GRID = IMAGE_SIDE_PX // PATCH_PX
VISUAL_TOKENS = GRID * GRID


def vision_config() -> CLIPVisionConfig:
    return CLIPVisionConfig(
        hidden_size=192,
        intermediate_size=768,
        num_hidden_layers=6,
        num_attention_heads=6,
        image_size=IMAGE_SIDE_PX,
        patch_size=PATCH_PX,
        projection_dim=192,
        hidden_act="quick_gelu",
    )


def text_config(vocab_size: int, pad: int, bos: int, eos: int) -> LlamaConfig:
    return LlamaConfig(
        vocab_size=vocab_size,
        hidden_size=192,
        intermediate_size=512,
        num_hidden_layers=6,
        num_attention_heads=6,
        num_key_value_heads=2,
        max_position_embeddings=1024,
        rms_norm_eps=1e-5,
        # As Llama 3: most of the 16 rotary pairs turn slowly, so words match patches 150 tokens away.
        rope_parameters={"rope_type": "default", "rope_theta": 500_000.0},
        tie_word_embeddings=False,
        pad_token_id=pad,
        bos_token_id=bos,
        eos_token_id=eos,
    )


def llava_config(vocab_size: int, image_token: int, pad: int, bos: int, eos: int) -> LlavaConfig:
    return LlavaConfig(
        vision_config=vision_config(),
        text_config=text_config(vocab_size, pad, bos, eos),
        image_token_index=image_token,
        projector_hidden_act="gelu",
        vision_feature_select_strategy="default",
        vision_feature_layer=-2,
        image_seq_length=VISUAL_TOKENS,
        tie_word_embeddings=False,
    )
