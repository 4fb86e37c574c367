"""A toy LLaVA of 0.4 MB and a toy scorer, written as transformers and training write them.

The checkpoint comes from transformers itself, so that what the tests load is what users have. Its weights are random
but scaled up, so that logits differ clearly between tokens and a wrong graph cannot pass by chance.
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from torch import nn

CHAT_TEMPLATE = (
    "{% for message in messages %}{% if message['role'] != 'system' %}{{ message['role'].upper() + ': '}}{% endif %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'image') %}{{ '<image>\n' }}{% endfor %}"
    "{% for content in message['content'] | selectattr('type', 'equalto', 'text') %}{{ content['text'] + ' '}}"
    "{% endfor %}{% endfor %}{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
IMAGE_SIDE_PX = 56
PATCH_PX = 14
GRID = IMAGE_SIDE_PX // PATCH_PX
VISUAL_TOKENS = GRID * GRID


def toy_tokenizer() -> Any:
    """A byte-fallback BPE in Llama's form: no merges, one token per printable character."""
    from tokenizers import AddedToken, Tokenizer, decoders, models, normalizers, processors
    from transformers import PreTrainedTokenizerFast

    specials = ["<unk>", "<s>", "</s>"]
    characters = [chr(code) for code in range(ord("a"), ord("z") + 1)] + list("UASERITN?.:\n") + ["\u2581"]
    words = specials + [f"<0x{byte:02X}>" for byte in range(256)] + characters
    vocab = {word: index for index, word in enumerate(words)}
    tokenizer = Tokenizer(models.BPE(vocab, [], unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("\u2581"), normalizers.Replace(" ", "\u2581")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("\u2581", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    added = [AddedToken(word, special=True, normalized=False) for word in (*specials, "<pad>", "<image>")]
    tokenizer.add_special_tokens(added)
    tokenizer.post_processor = processors.TemplateProcessing(single="<s> $A", special_tokens=[("<s>", 1)])
    return PreTrainedTokenizerFast(
        tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
    )


def save_toy_checkpoint(
    folder: Path, *, seed: int = 0, tied: bool = True, shard_size: str = "5GB", head_dim: int = 12
) -> Path:
    """Writes model, tokenizer, processor and chat template to ``folder`` in LLaVA-1.5's Hugging Face form.

    ``head_dim`` is the decoder's; fused attention wants a multiple of 8.
    """
    import torch
    from transformers import (
        CLIPImageProcessorPil,
        CLIPVisionConfig,
        LlamaConfig,
        LlavaConfig,
        LlavaForConditionalGeneration,
        LlavaProcessor,
    )

    tokenizer = toy_tokenizer()
    vision = CLIPVisionConfig(
        hidden_size=32, intermediate_size=64, num_hidden_layers=3, num_attention_heads=2,
        image_size=IMAGE_SIDE_PX, patch_size=PATCH_PX, projection_dim=32,
    )  # fmt: skip
    text = LlamaConfig(
        vocab_size=len(tokenizer), hidden_size=4 * head_dim, intermediate_size=96, num_hidden_layers=2,
        num_attention_heads=4,
        num_key_value_heads=2, max_position_embeddings=256, rms_norm_eps=1e-5, tie_word_embeddings=tied,
        pad_token_id=tokenizer.pad_token_id, bos_token_id=1, eos_token_id=2,
    )  # fmt: skip
    config = LlavaConfig(
        vision_config=vision,
        text_config=text,
        image_token_index=tokenizer.convert_tokens_to_ids("<image>"),
        vision_feature_layer=-2,
        vision_feature_select_strategy="default",
        image_seq_length=VISUAL_TOKENS,
        tie_word_embeddings=tied,
    )
    torch.manual_seed(seed)
    model = LlavaForConditionalGeneration(config).eval()
    randomise(model)
    model.save_pretrained(folder, max_shard_size=shard_size)
    image_processor = CLIPImageProcessorPil(
        size={"shortest_edge": IMAGE_SIDE_PX}, crop_size={"height": IMAGE_SIDE_PX, "width": IMAGE_SIDE_PX}
    )
    LlavaProcessor(
        image_processor=image_processor,
        tokenizer=tokenizer,
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    ).save_pretrained(folder)
    return folder


def save_toy_scorer(folder: Path, *, vision_width: int = 32, text_width: int = 48, grid: int = GRID) -> Path:
    from grip_edge.calibration.scorer import ScorerConfig
    from grip_edge.calibration.scorer_files import save_random_scorer

    config = ScorerConfig(vision_width=vision_width, text_width=text_width, grid=(grid, grid), width=16, heads=2)
    save_random_scorer(folder, config, seed=1)
    return folder


def randomise(model: nn.Module) -> None:
    """Random weights everywhere: fresh biases are zero and fresh norms one, which would hide mistakes."""
    import torch

    with torch.no_grad():
        for name, parameter in model.named_parameters():
            if "norm" in name:
                parameter.add_(0.1 * torch.randn_like(parameter))
            else:
                parameter.copy_(torch.randn_like(parameter) * (0.2 if parameter.ndim > 1 else 0.1))
