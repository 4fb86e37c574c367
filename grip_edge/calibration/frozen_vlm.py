"""A frozen LLaVA as the judge of token selections: features in, kept tokens in, answers and their likelihood out.

Works on any checkpoint of the LLaVA architecture in Hugging Face format. Kept tokens get consecutive positions, as
in the exported bundle. Nothing here is trained, and nothing here chooses tokens (``policies``).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from transformers import AutoProcessor, LlavaForConditionalGeneration

from grip_edge.calibration import matmul_attention
from grip_edge.errors import UserError


@dataclass(frozen=True)
class Prompts:
    """R questions, tokenised. ``after`` holds the ids behind the image up to the answer; ``question_ids`` [R,T] are
    the question's own tokens, ``question_mask`` [R,T] False on padding; ``answers`` the reference's ids with the
    stop token (empty where none was given).
    """

    after: tuple[tuple[int, ...], ...]
    answers: tuple[tuple[int, ...], ...]
    question_ids: Tensor
    question_mask: Tensor

    def __len__(self) -> int:
        return len(self.after)

    def rows(self, index: Sequence[int]) -> Prompts:
        rows = list(index)
        return Prompts(
            tuple(self.after[i] for i in rows),
            tuple(self.answers[i] for i in rows),
            self.question_ids[rows],
            self.question_mask[rows],
        )


class FrozenVlm:
    """``before`` are the prompt's ids in front of the image; ``grid`` rows and columns of the visual tokens."""

    def __init__(self, model: LlavaForConditionalGeneration, processor: Any) -> None:
        self.model: Any = model.eval().requires_grad_(False)  # its parts are untyped in transformers
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
    def load(cls, folder: Path, dtype: torch.dtype = torch.bfloat16) -> FrozenVlm:
        try:
            model = LlavaForConditionalGeneration.from_pretrained(
                folder, dtype=dtype, attn_implementation=matmul_attention.NAME
            )
            processor = AutoProcessor.from_pretrained(folder)
        except (OSError, ValueError) as error:
            raise UserError(
                f"'{folder}' cannot be loaded as a LLaVA checkpoint: {str(error).splitlines()[0]}"
            ) from None
        return cls(model, processor)

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
        return Prompts(tuple(afters), tuple(answer_ids), ids, torch.arange(ids.shape[1])[None] < lengths[:, None])

    def question_embeds(self, prompts: Prompts) -> Tensor:
        """[R,T,D], for the scorer."""
        embeds: Tensor = self.model.get_input_embeddings()(prompts.question_ids)
        return embeds

    def pixels(self, images: Sequence[Image.Image]) -> Tensor:
        pixels: Tensor = self.processor.image_processor(images=list(images), return_tensors="pt")["pixel_values"]
        return pixels.to(self.model.dtype)

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
    def answer_log_prob(self, visual: Tensor, prompts: Prompts) -> Tensor:
        """Mean log-probability per token of the reference answers, fp32 [R]; visual [R,K,D] are the kept tokens."""
        texts = [torch.tensor((*a, *b)) for a, b in zip(prompts.after, prompts.answers, strict=True)]
        hidden = self._hidden(visual, texts)
        offset = len(self.before) + visual.shape[1]
        rows: list[int] = []
        columns: list[int] = []
        targets: list[int] = []
        for row, (after, answer) in enumerate(zip(prompts.after, prompts.answers, strict=True)):
            rows += [row] * len(answer)
            columns += range(offset + len(after) - 1, offset + len(after) - 1 + len(answer))
            targets += answer
        log_probs = F.log_softmax(self.model.lm_head(hidden[rows, columns]).float(), dim=-1)
        picked = log_probs.gather(1, torch.tensor(targets)[:, None])[:, 0]
        lengths = torch.tensor([len(answer) for answer in prompts.answers])
        return torch.zeros(len(prompts)).index_add(0, torch.tensor(rows), picked) / lengths

    @torch.no_grad()
    def answers(self, visual: Tensor, prompts: Prompts, max_new_tokens: int = 8) -> list[str]:
        """Greedy answers to R questions over their kept tokens [R,K,D]; special tokens removed."""
        texts = [torch.tensor(after) for after in prompts.after]
        inputs, mask = self._left_padded(visual, texts)
        tokens = self.model.generate(
            inputs_embeds=inputs,
            attention_mask=mask,
            max_new_tokens=max_new_tokens,
            do_sample=False,
            eos_token_id=self.stop_token_id,
            pad_token_id=self.stop_token_id,
        )
        return [text.strip() for text in self.tokenizer.batch_decode(tokens, skip_special_tokens=True)]

    def _hidden(self, visual: Tensor, texts: list[Tensor]) -> Tensor:
        """Last hidden states [R,L,D] of  before | visual | text, padded on the right (causal, so padding is unseen)."""
        embed = self.model.get_input_embeddings()
        before = embed(torch.tensor(self.before))[None].expand(len(texts), -1, -1)
        text = embed(pad_sequence(texts, batch_first=True, padding_value=0))
        out = self.model.model.language_model(inputs_embeds=torch.cat([before, visual, text], dim=1), use_cache=False)
        hidden: Tensor = out.last_hidden_state
        return hidden

    def _left_padded(self, visual: Tensor, texts: list[Tensor]) -> tuple[Tensor, Tensor]:
        embed = self.model.get_input_embeddings()
        before = embed(torch.tensor(self.before))
        rows = [torch.cat([before, kept, embed(text)]) for kept, text in zip(visual, texts, strict=True)]
        inputs = pad_sequence(rows, batch_first=True, padding_side="left")
        mask = pad_sequence([torch.ones(len(row)) for row in rows], batch_first=True, padding_side="left").long()
        return inputs, mask


def _cls_attention(layer: Any, hidden: Tensor) -> Tensor:
    """Softmax row of the CLS query in one CLIP layer, mean over heads, patches only: [B,N]."""
    attention, normed = layer.self_attn, layer.layer_norm1(hidden)
    heads, width = attention.num_heads, attention.head_dim
    query = attention.q_proj(normed[:, :1]).unflatten(-1, (heads, width)).transpose(1, 2)
    key = attention.k_proj(normed).unflatten(-1, (heads, width)).transpose(1, 2)
    weights = ((query * width**-0.5) @ key.transpose(-1, -2)).float().softmax(dim=-1)
    attention_to_patches: Tensor = weights.mean(dim=1)[:, 0, 1:]
    return attention_to_patches
