"""The reference that exported graphs must equal: transformers' own model on the same checkpoint, in fp32.

At N tokens it is transformers' plain ``generate`` on the processor's output. Pruned, it is transformers' vision
features, the selector in PyTorch, transformers' projection (and packing of tiles), of which the kept tokens are taken,
and its language model.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image, ImageDraw
from tokenizers import Tokenizer
from torch import Tensor
from transformers import GenerationConfig

from grip_edge.calibration.selection import gather_tokens
from grip_edge.errors import ParityError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.prompt import QUESTION_FIELD
from grip_edge.export.selector import PolicySelector, Seen, Selector
from grip_edge.manifest import PromptSpec
from grip_edge.tiles import Size, TilePlan, TilingSpec, plan_tiles

QUESTION = "What color is the large circle?"
NEW_TOKENS = 8


@dataclass(frozen=True)
class Request:
    """The parity check's picture and question, as all parts of the model want them."""

    processed: dict[str, Tensor]
    prompt_ids: Tensor
    question_ids: Tensor
    plan: TilePlan | None = None

    @property
    def pixels(self) -> Tensor:
        """[1,3,H,W], or [A,3,H,W] of A tiles."""
        pixels = self.processed["pixel_values"].float()
        return pixels[0] if pixels.ndim == 5 else pixels


@dataclass(frozen=True)
class Answer:
    """``logits`` [V] of the prompt's last position; ``tokens``: greedy, up to and including a stop token; ``scores``
    [1,N] of the select graph.
    """

    logits: NDArray[np.float32]
    tokens: tuple[int, ...]
    kept_indices: tuple[int, ...]
    scores: NDArray[np.float32] | None = None


@dataclass(frozen=True)
class GraphChoice:
    """What the select graph chose from: the vision graph's outputs by name, and the scores [1,N] that it gave."""

    vision: dict[str, NDArray[np.float32]]
    scores: NDArray[np.float32]


def make_request(
    processor: Any,
    prompt: PromptSpec,
    tokenizer_file: Path,
    tiling: TilingSpec | None = None,
    size_px: Size = (240, 320),
) -> Request:
    """Tokens come from ``tokenizer.json`` alone, as on the device; ParityError if transformers' differ.

    ``size_px`` is height and width of the picture.
    """
    tokenizer = Tokenizer.from_file(str(tokenizer_file))
    text = prompt.template.replace(QUESTION_FIELD, QUESTION)
    ids, expected = tokenizer.encode(text).ids, processor.tokenizer.encode(text)
    if ids != expected:
        raise ParityError(f"tokenizer.json encodes the prompt as {ids}, transformers as {expected}.")
    return Request(
        processed=dict(processor(images=synthetic_image(size_px), text=text, return_tensors="pt")),
        prompt_ids=torch.tensor([ids]),
        question_ids=torch.tensor([tokenizer.encode(QUESTION, add_special_tokens=False).ids]),
        plan=None if tiling is None else plan_tiles(size_px, tiling),
    )


def synthetic_image(size_px: Size) -> Image.Image:
    """Colour gradients with a few shapes; wider than high, resize and crop both act."""
    height, width = size_px
    rows, columns = np.mgrid[0:height, 0:width]
    gradients = np.stack([255 * columns / width, 255 * rows / height, 128 + 60 * np.sin(columns / 9)], axis=-1)
    image = Image.fromarray(gradients.astype(np.uint8))
    draw = ImageDraw.Draw(image)
    draw.ellipse((60, 40, 170, 150), fill=(220, 30, 30))
    draw.rectangle((200, 120, 280, 210), fill=(30, 60, 220))
    draw.polygon([(90, 220), (140, 160), (190, 220)], fill=(240, 220, 40))
    return image


class Reference:
    """Holds the whole model in memory: the check costs what transformers costs."""

    def __init__(self, checkpoint: Checkpoint, selector: Selector, prompt: PromptSpec) -> None:
        self._model = checkpoint.model_class.from_pretrained(
            checkpoint.folder, dtype=torch.float32, local_files_only=True
        ).eval()
        self._model.generation_config = GenerationConfig(
            do_sample=False,
            eos_token_id=list(prompt.stop_token_ids),
            pad_token_id=prompt.stop_token_ids[0],
            return_dict_in_generate=True,
            output_logits=True,
        )
        self._selector = selector
        self._image_token_id = prompt.image_token_id

    @staticmethod
    def new_tokens(smallest_budget: bool) -> int:
        """Greedy tokens to compare; the same at every budget."""
        return NEW_TOKENS

    def features(self, request: Request) -> Tensor:
        """The features that the projector gets: [A,P,Dv]."""
        return vision_features(self._model, request)

    def cls_attention(self, request: Request) -> Tensor:
        """The attention of CLS in the layer that gives the features, mean over heads: [A,P]."""
        return vision_cls_attention(self._model, request)

    @torch.no_grad()
    def answer(
        self, request: Request, kept: int, new_tokens: int = NEW_TOKENS, graph: GraphChoice | None = None
    ) -> Answer:
        """``graph`` is needed for policies, which are compared on what the graph saw."""
        features = self.features(request)
        if kept == visual_tokens(request, features):
            output = self._model.generate(**request.processed, max_new_tokens=new_tokens)
            first_new = request.processed["input_ids"].shape[1]
            return self._answer(output, output.sequences[0, first_new:], range(kept))
        embed = self._model.get_input_embeddings()
        indices = choose(self._model, self._selector, request, features, kept, graph)
        projected = gather_tokens(visual_embeds(self._model, request, features), indices)
        place = int((request.prompt_ids[0] == self._image_token_id).nonzero()[0])
        before, after = request.prompt_ids[:, :place], request.prompt_ids[:, place + 1 :]
        embeds = torch.cat([embed(before), projected, embed(after)], dim=1)
        mask = torch.ones(embeds.shape[:2], dtype=torch.int64)
        output = self._model.generate(inputs_embeds=embeds, attention_mask=mask, max_new_tokens=new_tokens)
        return self._answer(output, output.sequences[0], indices[0].tolist())

    @staticmethod
    def _answer(output: Any, tokens: Tensor, kept_indices: Any) -> Answer:
        return Answer(output.logits[0][0].float().numpy(), tuple(tokens.tolist()), tuple(kept_indices))


def visual_tokens(request: Request, features: Tensor) -> int:
    """N of this image."""
    return features.shape[1] if request.plan is None else request.plan.visual_tokens


@torch.no_grad()
def vision_features(model: Any, request: Request) -> Tensor:
    """Of transformers' model: the selected layer's hidden state, without the CLS token where there is one."""
    states = model.model.vision_tower(request.pixels, output_hidden_states=True).hidden_states
    features: Tensor = states[model.config.vision_feature_layer]
    return features[:, 1:] if model.config.vision_feature_select_strategy == "default" else features


@torch.no_grad()
def vision_cls_attention(model: Any, request: Request) -> Tensor:
    """Of transformers' model: the CLS row of the selected layer, which only its eager attention gives."""
    tower, usual = model.model.vision_tower, model.config.vision_config._attn_implementation
    tower.set_attn_implementation("eager")
    layers = tower(request.pixels, output_attentions=True).attentions
    tower.set_attn_implementation(usual)
    selected = model.config.vision_feature_layer % (len(layers) + 1) - 1  # state i is the output of layer i - 1
    attention: Tensor = layers[selected].mean(dim=1)[:, 0, 1:]
    return attention


@torch.no_grad()
def visual_embeds(model: Any, request: Request, features: Tensor) -> Tensor:
    """features [A,P,Dv] -> [1,N,D]: all visual tokens as the language model of transformers would get them."""
    projected: Tensor = model.model.multi_modal_projector(features)
    if request.plan is None:
        return projected
    options = {"image_sizes": request.processed["image_sizes"], "image_newline": model.model.image_newline}
    if hasattr(model.config, "vision_aspect_ratio"):
        options["vision_aspect_ratio"] = model.config.vision_aspect_ratio
    else:
        options["vision_feature_select_strategy"] = model.config.vision_feature_select_strategy
    packed: Tensor = model.model.pack_image_features([projected], **options)[0][0]
    return packed[None]


@torch.no_grad()
def choose(
    model: Any, selector: Selector, request: Request, features: Tensor, kept: int, graph: GraphChoice | None
) -> Tensor:
    """The reference's kept tokens, int64 [1,K]. A scorer judges transformers' features, a policy the graph's."""
    question_embeds = model.get_input_embeddings()(request.question_ids)
    if not isinstance(selector, PolicySelector):
        return selector.kept(Seen(features, features, question_embeds, None, None), kept)
    if graph is None:
        raise ValueError("a policy is compared on what the graph saw, which is not given")
    seen = {name: torch.from_numpy(array) for name, array in graph.vision.items()}
    visual = visual_embeds(model, request, seen["features"])
    of_tower, attention, scores = seen["features"], seen.get("cls_attention"), torch.from_numpy(graph.scores)
    if request.plan is not None:
        visual = visual[:, request.plan.order < len(request.plan.sources)]
        of_tower = _of_tokens(request.plan, of_tower)
        attention = None if attention is None else _of_tokens(request.plan, attention[..., None])[..., 0]
    return selector.kept(Seen(of_tower, visual, question_embeds, attention, scores, request.plan), kept)


def _of_tokens(plan: TilePlan, of_patches: Tensor) -> Tensor:
    """[A,P,X] -> [1,L,X]."""
    parts = of_patches.flatten(0, 1)[torch.from_numpy(plan.sources)]
    return (parts * torch.from_numpy(plan.weights)[..., None]).sum(dim=1)[None]
