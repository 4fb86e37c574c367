"""Towers and decoders of all families. Reference: transformers' modules of the same weights, on small random shapes."""

from __future__ import annotations

from copy import deepcopy
from typing import Any

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import (
    CLIPVisionConfig,
    CLIPVisionModel,
    LlamaForCausalLM,
    LlavaConfig,
    MistralForCausalLM,
    Qwen2ForCausalLM,
    SiglipVisionConfig,
    SiglipVisionModel,
)
from transformers import LlamaConfig as HfLlamaConfig
from transformers import MistralConfig as HfMistralConfig
from transformers import Qwen2Config as HfQwen2Config

from grip_edge.errors import UserError
from grip_edge.export.architecture import decoder_config, tower_config
from grip_edge.export.networks.clip import ClipTower
from grip_edge.export.networks.llama import LlamaDecoder, TokenEmbedding, rotary_tables
from grip_edge.export.networks.siglip import SiglipConfig, SiglipTower
from tests.export.comparing import assert_close
from tests.toy_model import randomise

few = settings(max_examples=12, deadline=None)

DECODERS: dict[str, tuple[Any, Any]] = {
    "llama": (HfLlamaConfig, LlamaForCausalLM),
    "mistral": (HfMistralConfig, MistralForCausalLM),
    "qwen2": (HfQwen2Config, Qwen2ForCausalLM),
}
ROPES: dict[str, dict[str, Any]] = {
    "default": {},
    "linear": {"factor": 3.0},
    "dynamic": {"factor": 2.0},
    "llama3": {
        "factor": 8.0, "low_freq_factor": 1.0, "high_freq_factor": 4.0, "original_max_position_embeddings": 16,
    },
    "yarn": {"factor": 4.0, "original_max_position_embeddings": 16},
    "yarn, whole numbers": {
        "factor": 4.0, "original_max_position_embeddings": 16, "truncate": False, "beta_fast": 4.0, "beta_slow": 0.5,
    },
    "yarn, given amplitude": {"factor": 2.0, "original_max_position_embeddings": 32, "attention_factor": 0.7},
    "yarn, two scales": {
        "factor": 4.0, "original_max_position_embeddings": 16, "mscale": 0.7, "mscale_all_dim": 1.3,
    },
}  # fmt: skip

_SLIDES: dict[str, Any] = {"use_sliding_window": True, "sliding_window": 90}


def llava(text: Any = None, vision: Any = None, **changes: Any) -> LlavaConfig:
    """Of copies: a configuration forgets how its own model computes attention when it becomes a part."""
    parts: dict[str, Any] = {
        "text_config": deepcopy(text or HfLlamaConfig()),
        "vision_config": deepcopy(vision or CLIPVisionConfig()),
    }
    return LlavaConfig(**parts, **changes)


def decoder_of(reference: Any) -> LlamaDecoder:
    """Ours with the weights of transformers' model; the LM head of a tied one is its embedding."""
    decoder = LlamaDecoder(decoder_config(llava(reference.config)))
    state = {name.removeprefix("model."): tensor for name, tensor in reference.state_dict().items()}
    state.setdefault("lm_head.weight", state["embed_tokens.weight"])
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})
    return decoder.eval()


@few
@given(
    kind=st.sampled_from(list(DECODERS)),
    rope=st.sampled_from(list(ROPES)),
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    layers=st.integers(1, 3),
    half_head=st.integers(2, 5),
    vocab_size=st.integers(3, 41),
    tied=st.booleans(),
    prompt=st.integers(1, 30),
    seed=st.integers(0, 999),
)
def test_hidden_states_logits_and_greedy_tokens(
    kind: str,
    rope: str,
    kv_heads: int,
    group: int,
    layers: int,
    half_head: int,
    vocab_size: int,
    tied: bool,
    prompt: int,
    seed: int,
) -> None:
    """Token ids in, greedy tokens out, through our embedding, decoder and cache; tied and untied, odd vocabularies."""
    torch.manual_seed(seed)
    heads, steps = kv_heads * group, 3
    make_config, make_model = DECODERS[kind]
    shape = {} if kind == "qwen2" else {"head_dim": 2 * half_head}
    config = make_config(
        hidden_size=heads * 2 * half_head if kind == "qwen2" else heads * 5,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        num_hidden_layers=layers,
        intermediate_size=23,
        vocab_size=vocab_size,
        max_position_embeddings=64,
        rms_norm_eps=1e-3,
        tie_word_embeddings=tied,
        bos_token_id=None,
        eos_token_id=None,
        rope_parameters={"rope_type": rope.split(",")[0], "rope_theta": 500.0, **ROPES[rope]},
        **shape,
    )
    reference = make_model(config).eval()
    randomise(reference)
    decoder = decoder_of(reference)
    embedding = TokenEmbedding(vocab_size, config.hidden_size)
    embedding.embed_tokens.weight.data.copy_(reference.get_input_embeddings().weight)

    ids = torch.randint(vocab_size, (1, prompt))
    d = decoder_config(llava(config)).head_dim
    caches = tuple((torch.zeros(1, kv_heads, prompt + steps, d), torch.zeros(1, kv_heads, prompt + steps, d))
                   for _ in range(layers))  # fmt: skip
    states: list[torch.Tensor] = []
    decoder.norm.register_forward_hook(lambda module, inputs, output: states.append(output))
    tokens: list[int] = []
    start, new = 0, ids
    with torch.no_grad():
        for step in range(steps):
            positions = torch.arange(start, start + new.shape[1])[None]
            logits, caches = decoder(embedding(new), positions, torch.tensor([start]), caches)
            whole = torch.cat([ids, torch.tensor([tokens], dtype=torch.int64)], dim=1)
            expected = reference(whole, output_hidden_states=True)
            assert_close(f"logits of step {step}", logits, expected.logits[:, -1])
            assert_close(f"hidden state of step {step}", states[-1], expected.hidden_states[-1][:, -1])
            start, tokens = start + new.shape[1], [*tokens, int(logits.argmax())]
            new = torch.tensor([tokens[-1:]])
        mask = torch.ones_like(ids)
        greedy = reference.generate(ids, attention_mask=mask, max_new_tokens=steps, do_sample=False, pad_token_id=0)
    assert tokens == greedy[0, prompt:].tolist()


@pytest.mark.parametrize("rope", ROPES)
@pytest.mark.parametrize("head_dim", [8, 64, 128])
def test_rotary_tables_at_published_sizes(rope: str, head_dim: int) -> None:
    """Angles of thousands of radians leave no room for another order of operations."""
    original = {"original_max_position_embeddings": 8192} if "original_max_position_embeddings" in ROPES[rope] else {}
    config = HfLlamaConfig(
        hidden_size=head_dim * 2, num_attention_heads=2, head_dim=head_dim, num_hidden_layers=1, intermediate_size=4,
        vocab_size=5, max_position_embeddings=8192,
        rope_parameters={"rope_type": rope.split(",")[0], "rope_theta": 500000.0, **ROPES[rope], **original},
    )  # fmt: skip
    cos, sin = LlamaForCausalLM(config).model.rotary_emb(torch.zeros(1), torch.arange(8192)[None])
    found_cos, found_sin = rotary_tables(decoder_config(llava(config)))
    assert_close("cosine", found_cos, cos[0, :, : head_dim // 2], 2e-3)
    assert_close("sine", found_sin, sin[0, :, : head_dim // 2], 2e-3)
    assert float((found_cos - cos[0, :, : head_dim // 2]).abs().mean()) < 1e-5


@pytest.mark.parametrize(
    ("text", "positions"),
    [
        (HfMistralConfig(max_position_embeddings=500, sliding_window=None), 500),
        (HfMistralConfig(max_position_embeddings=500, sliding_window=100), 100),
        (HfQwen2Config(max_position_embeddings=500), 500),
        (HfQwen2Config(max_position_embeddings=500, **_SLIDES, max_window_layers=2), 90),
        (HfQwen2Config(max_position_embeddings=500, **_SLIDES, max_window_layers=32), 500),
    ],
)
def test_positions_end_with_a_sliding_window(text: Any, positions: int) -> None:
    assert decoder_config(llava(text)).max_positions == positions


@pytest.mark.parametrize("length", [8, 9])
def test_within_its_window_mistral_sees_everything(length: int) -> None:
    """Reference: the same weights without a window. One token more, and the window shows."""
    shape: dict[str, Any] = {
        "hidden_size": 16, "num_attention_heads": 2, "num_key_value_heads": 1, "head_dim": 8, "num_hidden_layers": 1,
        "intermediate_size": 9, "vocab_size": 11, "max_position_embeddings": 64,
    }  # fmt: skip
    slides = MistralForCausalLM(HfMistralConfig(**shape, sliding_window=8)).eval()
    randomise(slides)
    assert decoder_config(llava(slides.config)).max_positions == 8
    plain = MistralForCausalLM(HfMistralConfig(**shape, sliding_window=None)).eval()
    plain.load_state_dict(slides.state_dict())
    ids = torch.arange(length)[None]
    with torch.no_grad():
        difference = float((slides(ids).logits - plain(ids).logits)[0, -1].abs().max())
    assert (difference <= 1e-6) == (length <= 8)


@few
@given(
    heads=st.integers(1, 3),
    head_dim=st.integers(2, 7),
    layers=st.integers(1, 3),
    left_out=st.integers(0, 2),
    grid=st.integers(1, 4),
    spare_px=st.integers(0, 4),
    tiles=st.integers(1, 4),
)
def test_siglip_gives_the_hidden_states_of_all_tiles(
    heads: int, head_dim: int, layers: int, left_out: int, grid: int, spare_px: int, tiles: int
) -> None:
    """Before the closing norm; the side need not be a multiple of the patch."""
    side_px = grid * 5 + spare_px
    vision = SiglipVisionConfig(
        hidden_size=heads * head_dim, num_attention_heads=heads, num_hidden_layers=layers + left_out,
        intermediate_size=11, image_size=side_px, patch_size=5, layer_norm_eps=1e-3, vision_use_head=False,
    )  # fmt: skip
    reference = SiglipVisionModel(vision).eval()
    randomise(reference)
    strategy = {"vision_feature_select_strategy": "full", "vision_feature_layer": -1 - left_out}
    config = tower_config(llava(vision=vision, **strategy))
    assert isinstance(config, SiglipConfig)
    assert (config.layers, config.grid) == (layers, grid)
    tower = SiglipTower(config)
    tower.load_state_dict({name: reference.state_dict()[name] for name in tower.state_dict()})
    pixels = torch.randn(tiles, 3, side_px, side_px)
    with torch.no_grad():
        states = reference(pixels, output_hidden_states=True).hidden_states
        assert_close("features", tower(pixels), states[-1 - left_out])


@few
@given(heads=st.integers(1, 3), tiles=st.integers(1, 4), layers=st.integers(1, 3))
def test_clip_gives_features_and_cls_attention_of_all_tiles(heads: int, tiles: int, layers: int) -> None:
    vision = CLIPVisionConfig(
        hidden_size=heads * 4, num_attention_heads=heads, num_hidden_layers=layers + 1, intermediate_size=11,
        image_size=15, patch_size=5,
    )  # fmt: skip
    reference = CLIPVisionModel._from_config(vision, attn_implementation="eager").eval()
    randomise(reference)
    config: Any = tower_config(llava(vision=vision))
    tower = ClipTower(config, with_cls_attention=True)
    tower.load_state_dict({name: reference.state_dict()[name] for name in tower.state_dict()})
    pixels = torch.randn(tiles, 3, 15, 15)
    with torch.no_grad():
        expected = reference(pixels, output_hidden_states=True, output_attentions=True)
        features, attention = tower(pixels)
        assert_close("features", features, expected.hidden_states[-2][:, 1:])
        assert_close("CLS attention", attention, expected.attentions[-2].mean(dim=1)[:, 0, 1:])


def test_a_tower_whose_first_patch_would_be_lost() -> None:
    """transformers drops token 0 for "default", which in SigLIP is a patch."""
    with pytest.raises(UserError, match="vision_feature_select_strategy is 'default'; this version exports 'full'"):
        tower_config(llava(vision=SiglipVisionConfig(), vision_feature_select_strategy="default"))
