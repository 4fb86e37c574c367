"""Reference: the language model written out for one question, without cache, batch or padding; and transformers'
``generate`` on the unpruned model.
"""

from __future__ import annotations

import copy
import math
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from transformers import AutoProcessor, LlavaConfig, LlavaForConditionalGeneration

from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.policies import IN_DECODER_POLICIES
from grip_edge.calibration.policies.fastv import FastV
from grip_edge.calibration.policies.in_decoder import InDecoderPolicy
from grip_edge.calibration.policies.pruned_decoder import PrunedDecoder, Stage
from grip_edge.calibration.policies.pyramiddrop import PyramidDrop
from grip_edge.errors import UserError
from grip_edge.policy_catalog import DECODER_ATTENTION, POLICY_SPECS
from tests.toy_model import VISUAL_TOKENS, randomise

LAYERS, NEW_TOKENS = 5, 3
QUESTIONS = ["What is it?", "Which colour does the large round thing have?"]
POLICIES: list[InDecoderPolicy] = [FastV(), PyramidDrop()]


@pytest.fixture(scope="module")
def vlm(toy_checkpoint: Path) -> FrozenVlm:
    """The toy with five layers, so that there are some behind every drop."""
    config: Any = copy.deepcopy(LlavaConfig.from_pretrained(toy_checkpoint))
    config.text_config.num_hidden_layers = LAYERS
    torch.manual_seed(3)
    model = LlavaForConditionalGeneration(config).eval()
    randomise(model)
    return FrozenVlm(model, AutoProcessor.from_pretrained(toy_checkpoint))


@pytest.fixture(scope="module")
def visual(vlm: FrozenVlm) -> Tensor:
    draw = torch.Generator().manual_seed(0)
    return torch.randn(len(QUESTIONS), VISUAL_TOKENS, vlm.text_width, generator=draw)


def turned(x: Tensor, positions: list[int], theta: float) -> Tensor:
    """Rotary embedding of [L,d]: pairs (i, i + d/2) are complex numbers, turned by position * theta^(-2i/d)."""
    half = x.shape[1] // 2
    angles = torch.tensor([[position * theta ** (-i / half) for i in range(half)] for position in positions])
    pairs = torch.complex(x[:, :half], x[:, half:]) * torch.polar(torch.ones_like(angles), angles)
    return torch.cat([pairs.real, pairs.imag], dim=1)


def attention_weights(layer: Any, hidden: Tensor, positions: list[int], theta: float) -> Tensor:
    """[H,L,L], causal."""
    attention, normed = layer.self_attn, layer.input_layernorm(hidden)
    queries, keys = (linear(normed).split(attention.head_dim, 1) for linear in (attention.q_proj, attention.k_proj))
    shared = len(queries) // len(keys)
    rows = []
    for head, query in enumerate(queries):
        scores = turned(query, positions, theta) @ turned(keys[head // shared], positions, theta).T
        unseen = torch.ones_like(scores).triu(1).bool()
        rows.append((scores / math.sqrt(attention.head_dim)).masked_fill(unseen, -math.inf).softmax(dim=-1))
    return torch.stack(rows)


def run_layer(layer: Any, hidden: Tensor, positions: list[int], theta: float) -> Tensor:
    attention = layer.self_attn
    weights = attention_weights(layer, hidden, positions, theta)
    values = attention.v_proj(layer.input_layernorm(hidden)).split(attention.head_dim, 1)
    shared = len(weights) // len(values)
    mixed = torch.cat([w @ values[head // shared] for head, w in enumerate(weights)], dim=1)
    hidden = hidden + attention.o_proj(mixed)
    out: Tensor = hidden + layer.mlp(layer.post_attention_layernorm(hidden))
    return out


class Plain:
    """One question. A token is its index in the prompt or, for new ones, beyond it."""

    def __init__(self, vlm: FrozenVlm, visual: Tensor, after: tuple[int, ...], stages: tuple[Stage, ...]) -> None:
        self.vlm, self.model = vlm, vlm.model.model.language_model
        self.theta = vlm.model.config.text_config.rope_parameters["rope_theta"]
        embed = vlm.model.get_input_embeddings()
        self.embeds = torch.cat([embed(torch.tensor(vlm.before)), visual, embed(torch.tensor(after))])
        self.first, self.count = len(vlm.before), len(visual)
        self.stages = {stage.first_layer: stage for stage in stages}
        self.dropped: dict[int, set[int]] = {}  # by layer, decided in the first pass

    def next_token(self, new: list[int], reindexed: bool) -> int:
        embeds = torch.cat([self.embeds, self.vlm.model.get_input_embeddings()(torch.tensor(new, dtype=torch.int64))])
        tokens = list(range(len(embeds)))
        hidden, positions = embeds, list(tokens)
        before = (hidden, positions, list(tokens))
        for index, layer in enumerate(self.model.layers):
            if index in self.stages:
                stage = self.stages[index]
                entering = before if stage.ranked_by == index - 1 else (hidden, positions, list(tokens))
                if index not in self.dropped:
                    self.dropped[index] = self.losers(stage, *entering)
                stays = [i for i, token in enumerate(tokens) if token not in self.dropped[index]]
                hidden, tokens = hidden[stays], [tokens[i] for i in stays]
                positions = list(range(len(tokens))) if reindexed else [positions[i] for i in stays]
            before = (hidden, positions, list(tokens))
            hidden = run_layer(layer, hidden, positions, self.theta)
        return int(self.vlm.model.lm_head(self.model.norm(hidden[-1:])).argmax())

    def losers(self, stage: Stage, hidden: Tensor, positions: list[int], tokens: list[int]) -> set[int]:
        weights = attention_weights(self.model.layers[stage.ranked_by], hidden, positions, self.theta)
        last = weights.mean(dim=0)[-1].tolist()
        worth = {t: last[i] for i, t in enumerate(tokens) if self.first <= t < self.first + self.count}
        ranked = sorted(worth, key=lambda token: -worth[token])
        return set(ranked[stage.kept :])


@torch.no_grad()
def plain_answer(vlm: FrozenVlm, visual: Tensor, after: tuple[int, ...], policy: InDecoderPolicy, kept: int) -> Any:
    plain = Plain(vlm, visual, after, policy.stages(LAYERS, len(visual), kept))
    tokens: list[int] = []
    while len(tokens) < NEW_TOKENS and tokens[-1:] != [vlm.stop_token_id]:
        tokens.append(plain.next_token(tokens, policy.reindexed))
    gone = [set[int]()]
    for index in sorted(plain.dropped):
        gone.append(gone[-1] | {token - plain.first for token in plain.dropped[index]})
    return tokens, [[i for i in range(len(visual)) if i not in out] for out in gone[1:]]


@pytest.mark.parametrize("kept", [1, 6, VISUAL_TOKENS - 1])
@pytest.mark.parametrize("policy", POLICIES, ids=[policy.name for policy in POLICIES])
def test_tokens_and_kept_sets_are_those_of_the_plain_decoder(
    vlm: FrozenVlm, visual: Tensor, policy: InDecoderPolicy, kept: int
) -> None:
    prompts = vlm.prompts(QUESTIONS)
    decoder = PrunedDecoder(vlm, policy.stages(LAYERS, VISUAL_TOKENS, kept), policy.reindexed)
    found = decoder.generate(list(visual), prompts, NEW_TOKENS)
    for row, after in enumerate(prompts.after):
        tokens, sets = plain_answer(vlm, visual[row], after, policy, kept)
        assert [indices[row].tolist() for indices in decoder.kept_indices] == sets
        assert found[row, : len(tokens)].tolist() == tokens


@pytest.mark.parametrize("policy", POLICIES, ids=[policy.name for policy in POLICIES])
def test_with_nothing_dropped_it_is_the_unpruned_model(vlm: FrozenVlm, visual: Tensor, policy: InDecoderPolicy) -> None:
    prompts = vlm.prompts(QUESTIONS)
    found = policy.answers(vlm, visual, prompts, VISUAL_TOKENS, max_new_tokens=6)
    assert found == vlm.answers(visual, prompts, max_new_tokens=6)
    stages = policy.stages(LAYERS, VISUAL_TOKENS, VISUAL_TOKENS)
    logits = PrunedDecoder(vlm, stages, policy.reindexed).prefill(list(visual), prompts)
    for row in range(len(QUESTIONS)):
        embeds = vlm._left_padded([visual[row]], [torch.tensor(prompts.after[row])])[0]
        with torch.no_grad():
            expected = vlm.model(inputs_embeds=embeds).logits[0, -1]
        difference = (logits[row] - expected).abs()
        assert difference.max() < 1e-4, f"max {difference.max():.2e}, mean {difference.mean():.2e}"
    few = policy.stages(LAYERS, VISUAL_TOKENS, 1)
    pruned = PrunedDecoder(vlm, few, policy.reindexed).prefill(list(visual), prompts)
    assert (pruned - logits).abs().max() > 0.1, "dropping changes nothing"


def test_many_questions_go_through_in_parts(vlm: FrozenVlm, visual: Tensor, monkeypatch: pytest.MonkeyPatch) -> None:
    prompts = vlm.prompts(QUESTIONS)
    whole = FastV().answers(vlm, visual, prompts, 3)
    monkeypatch.setattr(vlm, "rows_per_pass", lambda length: 1)
    assert FastV().answers(vlm, visual, prompts, 3) == whole


def test_stages_by_hand() -> None:
    assert FastV().stages(32, 576, 64) == (Stage(2, 1, 64),)
    # The authors' defaults are the budget 1/8.
    assert PyramidDrop().stages(32, 576, 72) == (Stage(8, 8, 288), Stage(16, 16, 144), Stage(24, 24, 72))
    assert PyramidDrop().stages(6, 144, 1) == (Stage(1, 1, 27), Stage(3, 3, 5), Stage(4, 4, 1))


def test_mean_tokens_by_hand() -> None:
    assert FastV().mean_tokens(32, 576, 64) == (2 * 576 + 30 * 64) / 32
    assert PyramidDrop().mean_tokens(32, 576, 72) == (576 + 288 + 144 + 72) / 4


def test_a_decoder_with_too_few_layers_is_refused() -> None:
    for policy, layers in ((FastV(), 2), (PyramidDrop(), 3)):
        with pytest.raises(UserError, match=f"this decoder has {layers} layers"):
            policy.stages(layers, 16, 4)


def test_the_catalog_names_them_and_how_many_layers_they_need() -> None:
    for name, policy in IN_DECODER_POLICIES.items():
        least = POLICY_SPECS[name].least_decoder_layers
        assert policy().stages(least, 16, 4)
        with pytest.raises(UserError):
            policy().stages(least - 1, 16, 4)
    assert {s.name for s in POLICY_SPECS.values() if DECODER_ATTENTION in s.reads} == set(IN_DECODER_POLICIES)
