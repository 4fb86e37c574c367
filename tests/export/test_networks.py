"""Reference: transformers' modules with the same weights, on random small configurations."""

from __future__ import annotations

import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from transformers import CLIPVisionConfig, CLIPVisionModel, LlamaForCausalLM, LlavaConfig
from transformers import LlamaConfig as HfLlamaConfig
from transformers.models.llava.modeling_llava import LlavaMultiModalProjector

from grip_edge.export.networks.clip import ClipConfig, ClipTower
from grip_edge.export.networks.llama import LlamaConfig, LlamaDecoder
from grip_edge.export.networks.projector import Projector
from grip_edge.export.networks.rope import Rope
from tests.export.comparing import assert_close
from tests.toy_model import randomise

few = settings(max_examples=8, deadline=None)


@few
@given(
    heads=st.integers(1, 4),
    head_dim=st.integers(2, 9),
    layers=st.integers(1, 4),
    left_out=st.integers(0, 2),
    grid=st.integers(1, 4),
    patch_px=st.sampled_from([2, 5]),
    activation=st.sampled_from(["quick_gelu", "gelu"]),
)
def test_clip_tower_gives_the_hidden_state_without_cls(
    heads: int, head_dim: int, layers: int, left_out: int, grid: int, patch_px: int, activation: str
) -> None:
    width = heads * head_dim
    reference = CLIPVisionModel(
        CLIPVisionConfig(
            hidden_size=width,
            num_attention_heads=heads,
            num_hidden_layers=layers + left_out,
            intermediate_size=2 * width + 1,
            image_size=grid * patch_px,
            patch_size=patch_px,
            hidden_act=activation,
            layer_norm_eps=1e-3,
        )
    ).eval()
    randomise(reference)
    tower = ClipTower(ClipConfig(width, layers, heads, 2 * width + 1, grid * patch_px, patch_px, 1e-3, activation))
    tower.load_state_dict({name: reference.state_dict()[name] for name in tower.state_dict()})

    pixels = torch.randn(1, 3, grid * patch_px, grid * patch_px)
    with torch.no_grad():
        states = reference(pixels, output_hidden_states=True).hidden_states
        assert_close("features", tower(pixels), states[-1 - left_out][:, 1:])


@few
@given(
    kv_heads=st.integers(1, 3),
    group=st.integers(1, 3),
    head_dim=st.sampled_from([2, 6, 8]),
    layers=st.integers(1, 3),
    attention_bias=st.booleans(),
    mlp_bias=st.booleans(),
    prompt=st.integers(1, 6),
    spare=st.integers(0, 3),
)
def test_decoder_prefill_and_steps_equal_one_full_forward(
    kv_heads: int, group: int, head_dim: int, layers: int, attention_bias: bool, mlp_bias: bool, prompt: int, spare: int
) -> None:
    """Multi-head (group 1), grouped and multi-query attention; head_dim free of the width; spare slots at the end."""
    heads, steps = kv_heads * group, 3
    width = heads * 5
    config = HfLlamaConfig(
        hidden_size=width,
        num_attention_heads=heads,
        num_key_value_heads=kv_heads,
        head_dim=head_dim,
        num_hidden_layers=layers,
        intermediate_size=2 * width + 1,
        vocab_size=11,
        max_position_embeddings=64,
        attention_bias=attention_bias,
        mlp_bias=mlp_bias,
        rms_norm_eps=1e-3,
        rope_parameters={"rope_type": "default", "rope_theta": 500.0},
    )
    reference = LlamaForCausalLM(config).eval()
    randomise(reference)
    decoder = LlamaDecoder(
        LlamaConfig(
            width,
            layers,
            heads,
            kv_heads,
            head_dim,
            2 * width + 1,
            11,
            64,
            1e-3,
            Rope(500.0),
            attention_bias,
            attention_bias,
            mlp_bias,
        )
    )
    state = {name.removeprefix("model."): tensor for name, tensor in reference.state_dict().items()}
    decoder.load_state_dict({name: state[name] for name in decoder.state_dict()})

    total = prompt + steps
    embeds = torch.randn(1, total, width)
    positions = torch.arange(total)[None] * 3 + 4  # neither the slots nor consecutive
    with torch.no_grad():
        mask = torch.ones(1, total, dtype=torch.int64)
        expected = reference(inputs_embeds=embeds, position_ids=positions, attention_mask=mask).logits[0]
        shape = (1, kv_heads, total + spare, head_dim)
        caches = tuple((torch.full(shape, 7.0), torch.full(shape, -7.0)) for _ in range(layers))
        start = 0
        for end in range(prompt, total + 1):
            piece = slice(start, end)
            logits, caches = decoder(embeds[:, piece], positions[:, piece], torch.tensor([start]), caches)
            assert_close(f"logits of position {end - 1}", logits[0], expected[end - 1])
            start = end


@few
@given(vision_width=st.integers(1, 9), text_width=st.integers(1, 9), kept=st.integers(1, 5), bias=st.booleans())
def test_projector(vision_width: int, text_width: int, kept: int, bias: bool) -> None:
    config = LlavaConfig(
        vision_config=CLIPVisionConfig(hidden_size=vision_width, num_attention_heads=1),
        text_config=HfLlamaConfig(hidden_size=text_width, num_attention_heads=1, head_dim=2),
        multimodal_projector_bias=bias,
    )
    reference = LlavaMultiModalProjector(config).eval()
    randomise(reference)
    projector = Projector(vision_width, text_width, "gelu", bias)
    projector.load_state_dict(reference.state_dict())
    features = torch.randn(1, kept, vision_width)
    assert_close("projected", projector(features), reference(features))
