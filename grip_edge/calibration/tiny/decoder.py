"""Stages 3 and 4 of the embedded model: the decoder learns to answer, over ideal patches, then over the frozen tower.

Most batches drop background patches at random, so that a missing background is nothing new to the decoder;
object patches always stay.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from grip_edge.calibration import matmul_attention
from grip_edge.calibration.loop import LoopSettings, run_steps
from grip_edge.calibration.scenes import SKILLS
from grip_edge.calibration.tiny.align import patch_targets
from grip_edge.calibration.tiny.architecture import VISUAL_TOKENS, llava_config
from grip_edge.calibration.tiny.batches import Batch, gather_batch
from grip_edge.calibration.tiny.blocks import (
    QuestionBank,
    known_id,
    shared_prefix_mask,
    shared_prefix_positions,
)
from grip_edge.calibration.tiny.corpus import Corpus
from grip_edge.calibration.tiny.language import IMAGE_TOKEN, PROMPT_BEFORE
from grip_edge.calibration.tiny.tower import PatchReader, to_pixels

_THINNED = 0.8  # share of batches that lose background patches
_HEAD_SCALE = 0.2
_IDEAL_NOISE = 0.03
_MIMETIC_LAYERS, _MIMETIC_STD, _COPY_SCALE = 3, 0.08, 0.15
_TOKEN_STD = 0.15  # of text embeddings and of visual tokens alike


@dataclass(frozen=True)
class AnswerStage:
    """One stage of learning to answer. Rates are shares of the loop's learning rate; 0 freezes.

    ``ideal``: the decoder reads what the patches should say (``align.patch_targets``) in place of the tower.
    """

    name: str
    loop: LoopSettings
    ideal: bool = False
    word_rate: float = 0.2
    images: int = 24
    questions: int = 8
    most_tokens: int = VISUAL_TOKENS
    focus: tuple[str, ...] = ()
    """Skills that are asked first: those that lag."""


def new_llava(tokenizer: Tokenizer, reader: PatchReader, sample_pixels: Tensor) -> LlavaForConditionalGeneration:
    """A fresh model around a trained tower; the projector starts standardised on ``sample_pixels``."""
    ids = [known_id(tokenizer, name) for name in (IMAGE_TOKEN, "<pad>", "<s>", "</s>")]
    config = llava_config(tokenizer.get_vocab_size(), *ids)
    text: Any = config.text_config
    text.initializer_range = 0.05
    model: Any = LlavaForConditionalGeneration._from_config(config, attn_implementation=matmul_attention.NAME)
    model.model.vision_tower.load_state_dict(reader.tower.state_dict(), strict=False)
    with torch.no_grad():
        embeddings = torch.nn.init.normal_(model.get_input_embeddings().weight, std=_TOKEN_STD)
        model.lm_head.weight.copy_(_HEAD_SCALE * embeddings)  # a word that is attended to is soon a word that is said
        features = reader.features(sample_pixels).float().flatten(0, 1)
        projector = model.model.multi_modal_projector
        width = features.shape[1]
        first = torch.randn(width, width) * width**-0.5 / features.std(dim=0)
        projector.linear_1.weight.copy_(first)
        projector.linear_1.bias.copy_(-first @ features.mean(dim=0))
        torch.nn.init.normal_(projector.linear_2.weight, std=width**-0.5)
        torch.nn.init.zeros_(projector.linear_2.bias)
        for layer in model.model.language_model.layers[:_MIMETIC_LAYERS]:
            _mimetic(layer.self_attn)
        projected = projector(features)
        projector.linear_2.weight.mul_(_TOKEN_STD / projected.std())
    llava: LlavaForConditionalGeneration = model
    return llava


def _mimetic(attention: Any) -> None:
    """Start an attention layer as one that compares and copies: a token looks at tokens that say the same as it does.

    Mimetic initialisation (Trockman and Kolter, 2305.09828): query and key weights alike, output weights the transpose
    of the value weights.
    """
    width = attention.head_dim
    groups = attention.config.num_key_value_heads
    for weights in (attention.k_proj.weight, attention.v_proj.weight):
        torch.nn.init.normal_(weights, std=_MIMETIC_STD)
    for head in range(attention.config.num_attention_heads):
        rows = slice(head * width, (head + 1) * width)
        shared = head // (attention.config.num_attention_heads // groups)
        same = slice(shared * width, (shared + 1) * width)
        noise = torch.randn_like(attention.k_proj.weight[same]) * 0.3 * _MIMETIC_STD
        attention.q_proj.weight[rows] = attention.k_proj.weight[same] + noise
        attention.o_proj.weight[:, rows] = _COPY_SCALE * attention.v_proj.weight[same].T


class Answerer:
    """Forward passes of a LLaVA over shared-prefix batches. ``model`` keeps its dtype (bf16 while training)."""

    def __init__(self, model: LlavaForConditionalGeneration, tokenizer: Tokenizer) -> None:
        self.model: Any = model  # its parts are untyped in transformers
        self.prefix_ids = tokenizer.encode(PROMPT_BEFORE.removesuffix(IMAGE_TOKEN)).ids

    def features(self, pixels: Tensor) -> Tensor:
        """[B,3,H,W] -> the second-last layer's features without CLS, [B,N,D]; the last layer is not run."""
        tower = self.model.model.vision_tower
        hidden = tower.pre_layrnorm(tower.embeddings(pixels))
        for layer in tower.encoder.layers[:-1]:
            hidden = layer(hidden, attention_mask=None)
        features: Tensor = hidden[:, 1:]
        return features

    def visual_tokens(self, features: Tensor) -> Tensor:
        tokens: Tensor = self.model.model.multi_modal_projector(features)
        return tokens

    def hidden(self, visual: Tensor, tokens: Tensor) -> Tensor:
        """visual [B,K,D], blocks [B,Q,L] -> the decoder's last hidden states on the blocks, [B,Q,L,D]."""
        batch, blocks, length = tokens.shape
        embed = self.model.get_input_embeddings()
        prefix = embed(torch.tensor(self.prefix_ids))[None].expand(batch, -1, -1)
        inputs = torch.cat([prefix, visual, embed(tokens.flatten(1))], dim=1)
        before = prefix.shape[1] + visual.shape[1]
        out = self.model.model.language_model(
            inputs_embeds=inputs,
            attention_mask=shared_prefix_mask(before, blocks, length, inputs.dtype),
            position_ids=shared_prefix_positions(before, blocks, length),
            use_cache=False,
        )
        hidden: Tensor = out.last_hidden_state[:, before:].unflatten(1, (blocks, length))
        return hidden

    def logits(self, hidden: Tensor) -> Tensor:
        logits: Tensor = self.model.lm_head(hidden)
        return logits


def answer_loss(answerer: Answerer, visual: Tensor, batch: Batch) -> tuple[Tensor, Tensor]:
    """Mean cross-entropy over answer tokens, and whether each question was answered right (teacher-forced) [B,Q]."""
    hidden = answerer.hidden(visual, batch.tokens)[:, :, :-1]
    targets, wanted = batch.tokens[:, :, 1:], batch.answers[:, :, 1:]
    logits = answerer.logits(hidden[wanted]).float()
    loss = F.cross_entropy(logits, targets[wanted])
    wrong = torch.zeros(wanted.shape, dtype=torch.bool)
    wrong[wanted] = logits.argmax(-1) != targets[wanted]
    return loss, ~wrong.any(dim=-1)


def draw_batch(corpus: Corpus, bank: QuestionBank, rng: np.random.Generator, stage: AnswerStage) -> Batch:
    """Scenes at random; of each the wanted number of questions, ``stage.focus`` first."""
    chosen = np.sort(rng.choice(len(corpus), stage.images, replace=False))
    allowed = bank.length[chosen] > 0
    first = np.isin(bank.skill[chosen], [SKILLS.index(skill) for skill in stage.focus])
    order = np.argsort(rng.random(allowed.shape) + 2.0 * ~allowed - 0.7 * first, axis=1)[:, : stage.questions]
    return gather_batch(corpus, bank, chosen, order)


def thinned(visual: Tensor, object_patches: Tensor, rng: np.random.Generator, most: int) -> Tensor:
    """Four times in five, drop background tokens down to a random count of at most ``most``; [B,N,D] -> [B,K,D]."""
    if rng.random() >= _THINNED:
        return visual
    least = max(16, int(object_patches.sum(dim=1).max()))
    kept = int(rng.integers(least, max(least, most) + 1))
    order = torch.from_numpy(rng.random(object_patches.shape)) - 2.0 * object_patches
    indices = order.argsort(dim=1)[:, :kept].sort(dim=1).values
    return visual.gather(1, indices[..., None].expand(-1, -1, visual.shape[-1]))


def train_answers(
    stage: AnswerStage,
    model: LlavaForConditionalGeneration,
    tokenizer: Tokenizer,
    data: tuple[Corpus, QuestionBank],
    validation: tuple[Corpus, QuestionBank],
    folder: Path,
    seed: int,
) -> None:
    """Train ``model`` in place."""
    answerer = Answerer(model, tokenizer)
    groups = _parameter_groups(model, stage)
    words: Any = model.get_input_embeddings().weight
    embeddings: Tensor = words.detach().clone()

    def visual_tokens(corpus: Corpus, batch: Batch, noise: np.random.Generator | None) -> Tensor:
        if not stage.ideal:
            return answerer.visual_tokens(answerer.features(to_pixels(corpus.images[batch.rows])))
        tokens = patch_targets(embeddings.float(), tokenizer, batch.labels, seed)
        if noise is not None:
            tokens = tokens + _IDEAL_NOISE * torch.from_numpy(noise.standard_normal(tokens.shape, dtype=np.float32))
        return tokens.to(embeddings.dtype)

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, number, 12])
        batch = draw_batch(*data, rng, stage)
        visual = thinned(visual_tokens(data[0], batch, rng), batch.labels[:, 0] > 0, rng, stage.most_tokens)
        loss, right = answer_loss(answerer, visual, batch)
        return loss, _per_skill(right, batch.skill)

    @torch.no_grad()
    def evaluate(_: int) -> dict[str, float]:
        rights, skills, losses = [], [], []
        corpus, bank = validation
        for start in range(0, min(256, len(corpus)), 32):
            rows = np.arange(start, start + 32)
            batch = gather_batch(corpus, bank, rows, np.tile(np.arange(8), (32, 1)))
            loss, right = answer_loss(answerer, visual_tokens(corpus, batch, None), batch)
            rights.append(right)
            skills.append(batch.skill)
            losses.append(float(loss))
        table = _per_skill(torch.cat(rights), torch.cat(skills))
        return {"validation_loss": round(float(np.mean(losses)), 4), **{f"validation_{k}": v for k, v in table.items()}}

    run_steps(stage.name, groups, step, stage.loop, folder, evaluate)


def _parameter_groups(model: Any, stage: AnswerStage) -> list[dict[str, Any]]:
    words = [model.get_input_embeddings().weight, *model.model.multi_modal_projector.parameters()]
    reasoning = [*model.model.language_model.layers.parameters(), *model.model.language_model.norm.parameters()]
    reasoning += model.lm_head.parameters()
    model.requires_grad_(False)
    groups = []
    for parameters, share in ((reasoning, 1.0), (words, stage.word_rate)):
        if share > 0:
            for parameter in parameters:
                parameter.requires_grad_(True)
            groups.append({"params": parameters, "lr": share * stage.loop.learning_rate})
    return groups


def _per_skill(right: Tensor, skill: Tensor) -> dict[str, float]:
    measured = skill < len(SKILLS)
    table = {"all": round(float(right[measured].float().mean()), 4)}
    for index, name in enumerate(SKILLS):
        asked = skill == index
        if asked.any():
            table[name] = round(float(right[asked].float().mean()), 4)
    return table
