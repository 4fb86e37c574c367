"""What the frozen model says about an image or a question, computed once and kept on disk.

Keys are digests of the model's weights, the image's pixels, the question and whatever settings decide the result, so
nothing stale is ever read. With a store, each image and each question is computed by itself: a matrix product of
another batch size may round differently, and a run that is resumed must see the same bits. Without one (rendered
scenes, which hardly ever come twice) whole batches are computed at once.
"""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Sequence
from functools import partial

import torch
from PIL import Image
from torch import Tensor

from grip_edge.calibration.attention_targets import layer_attention, normalised
from grip_edge.calibration.frozen_vlm import FrozenVlm, Prompts
from grip_edge.calibration.training.tensor_store import TensorStore


class CachedVlm:
    def __init__(self, vlm: FrozenVlm, store: TensorStore | None = None) -> None:
        self.vlm = vlm
        self._store = store
        self._model_key = model_digest(vlm) if store is not None else ""

    def features(self, images: Sequence[Image.Image]) -> tuple[Tensor, tuple[str, ...]]:
        """[B,N,Dv] in the model's precision, and a key of each image."""
        if self._store is None:
            return self.vlm.features(self.vlm.pixels(images)), ("",) * len(images)
        keys = tuple(_digest(image.mode.encode(), repr(image.size).encode(), image.tobytes()) for image in images)
        rows = [
            self._cached(("features", key), partial(self._one_image, image))
            for key, image in zip(keys, images, strict=True)
        ]
        return torch.stack(rows), keys

    def attention_target(
        self, visual: Tensor, prompts: Prompts, keys: Sequence[str], question_share: float, first_layer: int
    ) -> Tensor:
        """Where the model looks for the answer, a distribution over the tokens of visual [R,N,D]: fp32 [R,N].

        ``question_share`` is the weight of the question tokens' attention, the rest is the last prompt token's;
        decoder layers from ``first_layer`` on count. ``keys`` [R] name the images.
        """

        def target(rows: list[int]) -> Tensor:
            last, question = layer_attention(self.vlm, visual[rows], prompts.rows(rows))
            deep, share = slice(first_layer, None), question_share
            mixed = (1 - share) * normalised(last[deep]).mean(dim=0) + share * normalised(question[deep]).mean(dim=0)
            return normalised(mixed)

        if self._store is None:
            return target(list(range(len(prompts))))

        def one(row: int) -> Tensor:
            return target([row])[0]

        kind = f"attention {question_share} {first_layer}"
        rows = [
            self._cached((kind, key, repr(after)), partial(one, row))
            for row, (key, after) in enumerate(zip(keys, prompts.after, strict=True))
        ]
        return torch.stack(rows)

    def _one_image(self, image: Image.Image) -> Tensor:
        return self.vlm.features(self.vlm.pixels([image]))[0]

    def _cached(self, parts: tuple[str, ...], compute: Callable[[], Tensor]) -> Tensor:
        assert self._store is not None
        key = _digest(*(part.encode() for part in (self._model_key, *parts)))
        found = self._store.get(key)
        if found is None:
            found = compute()
            self._store.put(key, found)
        return found.to(self.vlm.device)


def model_digest(vlm: FrozenVlm) -> str:
    """Of every weight's name, shape and bits, of the preprocessing and of the prompt in front of the image."""
    sha = hashlib.sha256(repr((vlm.processor.image_processor.to_dict(), vlm.before)).encode())
    for name, parameter in vlm.model.state_dict().items():
        sha.update(f"{name} {tuple(parameter.shape)} {parameter.dtype}".encode())
        sha.update(parameter.detach().cpu().contiguous().flatten().view(torch.uint8).numpy().data)
    return sha.hexdigest()


def _digest(*parts: bytes) -> str:
    sha = hashlib.sha256()
    for part in parts:
        sha.update(len(part).to_bytes(8, "big"))
        sha.update(part)
    return sha.hexdigest()
