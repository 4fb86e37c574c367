"""A frozen LLaVA as the judge of token selections: features in, kept tokens in, answers and their likelihood out.

Works on any checkpoint of the LLaVA architecture in Hugging Face format, on any one device. Kept tokens get
consecutive positions, as in the exported bundle. Many rows are taken through the language model in passes that fit
into memory. Nothing here is trained, and nothing here chooses tokens (``policies``).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoConfig, AutoProcessor, LlavaForConditionalGeneration

from grip_edge.calibration import matmul_attention
from grip_edge.calibration.prompts import Prompts
from grip_edge.calibration.quiet import no_loading_bars
from grip_edge.calibration.supported import check_supported
from grip_edge.errors import UserError

__all__ = ["FrozenVlm", "Prompts"]

_PASS_BYTES = 4 * 2**30  # activations of the language model at one time


class FrozenVlm:
    """``before`` are the prompt's ids in front of the image; ``grid`` rows and columns of the visual tokens."""

    def __init__(self, model: LlavaForConditionalGeneration, processor: Any) -> None:
        self.model: Any = model.eval().requires_grad_(False)  # its parts are untyped in transformers
        self.device: torch.device = model.device
        self.processor = processor
        self.tokenizer = processor.tokenizer
        vision: Any = model.config.vision_config
        side = vision.image_size // vision.patch_size
        self.grid: tuple[int, int] = (side, side)
        self.image_side_px: int = vision.image_size
        self.vision_width: int = vision.hidden_size
        self.text_width: int = self.model.config.text_config.hidden_size
        self.image_token_id: int = model.config.image_token_id
        self.stop_token_id: int = self.tokenizer.eos_token_id
        self.before = self._split_prompt("?")[0]

    @classmethod
    def load(
        cls, folder: Path | str, dtype: torch.dtype = torch.bfloat16, device: torch.device | str = "cpu"
    ) -> FrozenVlm:
        """From a folder, or from the Hugging Face hub by its id."""
        try:
            check_supported(AutoConfig.from_pretrained(folder), folder)
            with no_loading_bars():
                model: Any = LlavaForConditionalGeneration.from_pretrained(
                    folder, dtype=dtype, attn_implementation=matmul_attention.NAME
                )
            processor = AutoProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UserError(
                f"'{folder}' cannot be loaded as a LLaVA checkpoint: {str(error).splitlines()[0]}"
            ) from None
        return cls(model.to(device), processor)

    @property
    def visual_tokens(self) -> int:
        rows, columns = self.grid
        return rows * columns

    def _split_prompt(self, question: str) -> tuple[tuple[int, ...], tuple[int, ...], str]:
        content = [{"type": "image"}, {"type": "text", "text": question}]
        text: str = self.processor.apply_chat_template(
            [{"role": "user", "content": content}], add_generation_prompt=True
        )
        ids = self.tokenizer(text).input_ids
        at = ids.index(self.image_token_id)
        return tuple(ids[:at]), tuple(ids[at + 1 :]), text

    def prompts(self, questions: Sequence[str], answers: Sequence[str] | None = None) -> Prompts:
        afters, answer_ids = [], []
        for row, question in enumerate(questions):
            before, after, text = self._split_prompt(question)
            afters.append(after)
            if answers is None:
                answer_ids.append(())
            else:
                whole = self.tokenizer(f"{text} {answers[row]}").input_ids
                answer_ids.append((*whole[len(before) + 1 + len(after) :], self.stop_token_id))
        own = [torch.tensor(self.tokenizer(q, add_special_tokens=False).input_ids) for q in questions]
        ids = pad_sequence(own, batch_first=True, padding_value=0)
        lengths = torch.tensor([len(row) for row in own])
        mask = torch.arange(ids.shape[1])[None] < lengths[:, None]
        return Prompts(tuple(afters), tuple(answer_ids), ids.to(self.device), mask.to(self.device))

    def question_embeds(self, prompts: Prompts) -> Tensor:
        """[R,T,D], for the scorer."""
        embeds: Tensor = self.model.get_input_embeddings()(prompts.question_ids)
        return embeds

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        pixels: Tensor = self.processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels.to(self.device, self.model.dtype)

    @torch.no_grad()
    def features(self, pixels: Tensor) -> Tensor:
        """pixels [B,3,H,W] -> [B,N,Dv] of the selected layer, without CLS."""
        return self._tower(pixels, attentions=False)[0]

    @torch.no_grad()
    def features_and_cls_attention(self, pixels: Tensor) -> tuple[Tensor, Tensor]:
        """As ``features``, and the attention that CLS pays each patch in that layer, mean over heads [B,N]."""
        features, attention = self._tower(pixels, attentions=True)
        assert attention is not None
        return features, attention

    def _tower(self, pixels: Tensor, attentions: bool) -> tuple[Tensor, Tensor | None]:
        """Layer by layer up to the selected one; transformers would run the unused rest as well."""
        tower, layer_index = self.model.model.vision_tower, self.model.config.vision_feature_layer
        layers = tower.encoder.layers
        hidden = tower.pre_layrnorm(tower.embeddings(pixels))
        last = layer_index % (len(layers) + 1)  # hidden_states[0] is the embedding
        for layer in layers[: last - 1]:
            hidden = layer(hidden, attention_mask=None)
        attention = _cls_attention(layers[last - 1], hidden) if attentions else None
        return layers[last - 1](hidden, attention_mask=None)[:, 1:], attention

    @torch.no_grad()
    def visual_embeds(self, features: Tensor) -> Tensor:
        """The projector: [B,N,Dv] -> [B,N,D]."""
        embeds: Tensor = self.model.model.multi_modal_projector(features)
        return embeds

    @torch.no_grad()
    def answer_log_prob(self, visual: Tensor | Sequence[Tensor], prompts: Prompts) -> Tensor:
        """Mean log-probability per token of the reference answers, fp32 [R]; ``visual`` are the kept tokens, [R,K,D]
        or R of [K,D] with K of their own.
        """
        return self._over_answers(visual, prompts, _log_prob)

    @torch.no_grad()
    def answer_margin(self, visual: Tensor | Sequence[Tensor], prompts: Prompts) -> Tensor:
        """As ``answer_log_prob``: the mean over the answer's tokens of its logit less the best other logit."""
        return self._over_answers(visual, prompts, _margin)

    @torch.no_grad()
    def answers(self, visual: Tensor | Sequence[Tensor], prompts: Prompts, max_new_tokens: int = 8) -> list[str]:
        """Greedy answers to R questions over their kept tokens, as above; special tokens removed."""
        found: list[str] = []
        for rows in self._passes(visual, prompts):
            texts = [self._ids(prompts.after[row]) for row in rows]
            inputs, mask = self._left_padded([visual[row] for row in rows], texts)
            tokens = self.model.generate(
                inputs_embeds=inputs,
                attention_mask=mask,
                max_new_tokens=max_new_tokens,
                do_sample=False,
                eos_token_id=self.stop_token_id,
                pad_token_id=self.stop_token_id,
            )
            found += [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]
        return found

    def rows_per_pass(self, length: int, layers_kept: int = 1) -> int:
        """How many sequences of ``length`` go through the language model at once; ``layers_kept`` is the number of
        layers whose attention is held at the same time. An estimate on the safe side.
        """
        text = self.model.config.text_config
        attention_bytes: int = 12 * text.num_attention_heads * length**2 * layers_kept
        hidden_bytes: int = 16 * length * (text.hidden_size + text.intermediate_size)
        return max(1, _PASS_BYTES // (attention_bytes + hidden_bytes))

    def _passes(self, visual: Tensor | Sequence[Tensor], prompts: Prompts) -> Iterator[list[int]]:
        """The rows of ``prompts``, in order, as many at a time as fit."""
        texts = max(len(after) + len(answer) for after, answer in zip(prompts.after, prompts.answers, strict=True))
        size = self.rows_per_pass(len(self.before) + max(len(kept) for kept in visual) + texts)
        for start in range(0, len(prompts), size):
            yield list(range(start, min(start + size, len(prompts))))

    def _over_answers(
        self, visual: Tensor | Sequence[Tensor], prompts: Prompts, value: Callable[[Tensor, Tensor], Tensor]
    ) -> Tensor:
        """Mean of ``value(logits, answer token)`` over each answer's tokens, fp32 [R]."""
        means = []
        for rows in self._passes(visual, prompts):
            part = prompts.rows(rows)
            logits, targets, owner = self._answer_logits([visual[row] for row in rows], part)
            lengths = torch.tensor([len(answer) for answer in part.answers], device=self.device)
            sums = torch.zeros(len(rows), device=self.device).index_add(0, owner, value(logits, targets))
            means.append(sums / lengths)
        return torch.cat(means)

    def _answer_logits(self, visual: Sequence[Tensor], prompts: Prompts) -> tuple[Tensor, Tensor, Tensor]:
        """For the A answer tokens of all rows: logits fp32 [A,V], the tokens [A], and the row of each [A]."""
        texts = [self._ids((*a, *b)) for a, b in zip(prompts.after, prompts.answers, strict=True)]
        hidden = self._hidden(visual, texts)
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        for row, (after, answer) in enumerate(zip(prompts.after, prompts.answers, strict=True)):
            first = len(self.before) + len(visual[row]) + len(after) - 1
            rows += [row] * len(answer)
            columns += range(first, first + len(answer))
            targets += answer
        return self.model.lm_head(hidden[rows, columns]).float(), self._ids(targets), self._ids(rows)

    def _hidden(self, visual: Sequence[Tensor], texts: list[Tensor]) -> Tensor:
        """Last hidden states [R,L,D] of  before | visual | text, padded on the right (causal, so padding is unseen)."""
        embed = self.model.get_input_embeddings()
        before = embed(self._ids(self.before))
        rows = [torch.cat([before, kept, embed(text)]) for kept, text in zip(visual, texts, strict=True)]
        out = self.model.model.language_model(inputs_embeds=pad_sequence(rows, batch_first=True), use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _left_padded(self, visual: Sequence[Tensor], texts: list[Tensor]) -> tuple[Tensor, Tensor]:
        embed = self.model.get_input_embeddings()
        before = embed(self._ids(self.before))
        rows = [torch.cat([before, kept, embed(text)]) for kept, text in zip(visual, texts, strict=True)]
        inputs = pad_sequence(rows, batch_first=True, padding_side="left")
        mask = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True, padding_side="left").long()
        return inputs, mask.to(self.device)

    def _ids(self, ids: Sequence[int]) -> Tensor:
        return torch.tensor(ids, dtype=torch.int64, device=self.device)


def _log_prob(logits: Tensor, targets: Tensor) -> Tensor:
    return F.log_softmax(logits, dim=-1).gather(1, targets[:, None])[:, 0]


def _margin(logits: Tensor, targets: Tensor) -> Tensor:
    own = logits.gather(1, targets[:, None])
    others = logits.scatter(1, targets[:, None], -torch.inf)
    return (own - others.amax(dim=1, keepdim=True))[:, 0]


def _cls_attention(layer: Any, hidden: Tensor) -> Tensor:
    """Softmax row of the CLS query in one CLIP layer, mean over heads, patches only: [B,N]."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    heads, width = attention.num_heads, attention.head_dim
    query = attention.q_proj(normed[:, :1]).unflatten(-1, (heads, width)).transpose(1, 2)
    key = attention.k_proj(normed).unflatten(-1, (heads, width)).transpose(1, 2)
    weights = ((query * width**-0.5) @ key.transpose(-1, -2)).float().softmax(dim=-1)
    attention_to_patches: Tensor = weights.mean(dim=1)[:, 0, 1:]
    return attention_to_patches
