"""transformers' model of a checkpoint that does not fit in memory: each layer's weights exist only while it runs.

The modules, their order and arithmetic are transformers' own; only where the weights come from differs. Every forward
pass reads the whole checkpoint, and there is no cache: each new token is a pass over the whole sequence.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from grip_edge.calibration.selection import gather_tokens
from grip_edge.export.checkpoint import Checkpoint, canonical_name
from grip_edge.export.reference import (
    Answer,
    GraphChoice,
    Request,
    choose,
    vision_cls_attention,
    vision_features,
    visual_embeds,
    visual_tokens,
)
from grip_edge.export.selector import Selector
from grip_edge.manifest import PromptSpec

_HEAD, _EMBEDDING = "lm_head.weight", "language_model.embed_tokens.weight"


class StreamedReference:
    def __init__(self, checkpoint: Checkpoint, selector: Selector, prompt: PromptSpec) -> None:
        self._model = streamed_model(checkpoint)
        self._selector = selector
        self._prompt = prompt
        self._features: tuple[Request, Tensor] | None = None

    @staticmethod
    def new_tokens(smallest_budget: bool) -> int:
        """The second token shows that decoding works; once is enough, a pass over the weights is expensive."""
        return 2 if smallest_budget else 1

    def features(self, request: Request) -> Tensor:
        """The features that the projector gets: [1,N,Dv]."""
        if self._features is None or self._features[0] is not request:
            self._features = request, vision_features(self._model, request)
        return self._features[1]

    def cls_attention(self, request: Request) -> Tensor:
        return vision_cls_attention(self._model, request)

    @torch.no_grad()
    def answer(self, request: Request, kept: int, new_tokens: int, graph: GraphChoice | None = None) -> Answer:
        features = self.features(request)
        count = visual_tokens(request, features)
        indices = torch.arange(count)[None]
        if kept < count:
            indices = choose(self._model, self._selector, request, features, kept, graph)
        visual = visual_embeds(self._model, request, features)
        embeds = self._prompt_embeds(request, gather_tokens(visual, indices))
        logits: list[Tensor] = []
        tokens: list[int] = []
        while True:
            hidden = self._model.model.language_model(inputs_embeds=embeds, use_cache=False).last_hidden_state
            logits.append(self._model.lm_head(hidden[:, -1])[0])
            tokens.append(int(logits[-1].argmax()))
            if tokens[-1] in self._prompt.stop_token_ids or len(tokens) == new_tokens:
                return Answer(np.asarray(logits[0]), tuple(tokens), tuple(indices[0].tolist()))
            embeds = torch.cat([embeds, self._model.get_input_embeddings()(torch.tensor([tokens[-1:]]))], dim=1)

    def _prompt_embeds(self, request: Request, kept_embeds: Tensor) -> Tensor:
        """The prompt's embeddings with the kept visual tokens in the image's place."""
        embeds = self._model.get_input_embeddings()(request.prompt_ids)
        place = int((request.prompt_ids[0] == self._prompt.image_token_id).nonzero()[0])
        return torch.cat([embeds[:, :place], kept_embeds, embeds[:, place + 1 :]], dim=1)


def streamed_model(checkpoint: Checkpoint) -> Any:
    """The model in fp32, its parameters without data outside the forward pass of their module."""
    with torch.device("meta"):
        model: Any = checkpoint.model_class(checkpoint.config).eval()
    for name, module in list(model.named_modules()):
        if module._buffers:  # computed from the configuration alone, but on the meta device without data
            model.set_submodule(name, type(module)(module.config).eval())
    if checkpoint.tiling is not None:  # no module's own: nothing would load it
        model.model.image_newline = nn.Parameter(checkpoint.load("image_newline"), False)
    for name, module in model.named_modules():
        if module._parameters and module is not model.model:
            _stream(module, name, checkpoint)
    return model


def _stream(module: nn.Module, module_name: str, checkpoint: Checkpoint) -> None:
    shapes = {name: parameter.shape for name, parameter in module._parameters.items() if parameter is not None}
    empty = {name: nn.Parameter(torch.empty(shape, device="meta"), False) for name, shape in shapes.items()}

    def load(*_: Any) -> None:
        for name, shape in shapes.items():
            module._parameters[name] = nn.Parameter(_weight(checkpoint, f"{module_name}.{name}", shape), False)

    def drop(*_: Any) -> None:
        module._parameters.update(empty)

    drop()
    module.register_forward_pre_hook(load)
    module.register_forward_hook(drop)


def _weight(checkpoint: Checkpoint, parameter_name: str, shape: torch.Size) -> Tensor:
    name = canonical_name(parameter_name)
    if name == _HEAD and checkpoint.config.tie_word_embeddings:
        name = _EMBEDDING
    if name not in checkpoint.tensors:  # behind the vision layer whose features are used; others were looked for before
        return torch.zeros(shape)
    return checkpoint.load(name)
