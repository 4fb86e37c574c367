"""Stage 1 of the embedded model: the vision tower alone, taught what each patch shows.

The renderer knows colour, shape, size, character and centre of the object under every patch; linear heads on the
tower's features are trained to tell them, and the patch's row and column: a pruned token must carry its own place.
The CLS token is trained to tell what is in the picture, so that its attention means something, as in CLIP. The heads
are thrown away afterwards. Learning to see from answers alone does not start on a CPU (docs/log.md), learning to see
from patches takes minutes.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import torch
import torch.nn.functional as F
from numpy.typing import NDArray
from torch import Tensor, nn
from transformers import CLIPVisionModel

from grip_edge.calibration import matmul_attention
from grip_edge.calibration.loop import LoopSettings, run_steps, trainable
from grip_edge.calibration.scenes.labels import LABEL_CLASSES
from grip_edge.calibration.scenes.scene import COLOURS, GLYPHS, SHAPES
from grip_edge.calibration.tiny.architecture import GRID, vision_config
from grip_edge.calibration.tiny.corpus import Corpus

# CLIP's constants: the processor of the finished model uses the same.
MEAN = (0.48145466, 0.4578275, 0.40821073)
STD = (0.26862954, 0.26130258, 0.27577711)

_PLACE_WEIGHT = 0.3
_PRESENCE = {"colour": len(COLOURS), "shape": len(SHAPES), "glyph": len(GLYPHS)}
_PRESENCE_WEIGHT = 1.0
_PLACE_RATE = 15.0  # CLIP's tiny initial positions drown in the patch content unless they grow fast
_BACKGROUND_WEIGHT = {"colour": 0.1, "shape": 0.1, "size": 0.1, "glyph": 0.03, "centre": 0.15}


def new_tower(layers: int | None = None) -> CLIPVisionModel:
    config = vision_config()
    if layers is not None:
        config.num_hidden_layers = layers
    tower: CLIPVisionModel = CLIPVisionModel._from_config(config, attn_implementation=matmul_attention.NAME)
    return tower


class PatchReader(nn.Module):
    """The tower up to its second-last layer, with one linear head per label kind."""

    def __init__(self) -> None:
        super().__init__()
        self.tower = new_tower(vision_config().num_hidden_layers - 1)
        width = self.tower.config.hidden_size
        classes = {**LABEL_CLASSES, "row": GRID, "column": GRID}
        self.presence = nn.Linear(width, sum(_PRESENCE.values()))
        self.heads = nn.ModuleDict({kind: nn.Linear(width, count) for kind, count in classes.items()})

    def features(self, pixels: Tensor) -> Tensor:
        """pixels [B,3,H,W] -> [B,N,D], without CLS."""
        hidden: Tensor = self.tower(pixel_values=pixels).last_hidden_state
        return hidden[:, 1:]

    def forward(self, pixels: Tensor) -> tuple[dict[str, Tensor], Tensor]:
        """pixels [B,3,H,W] -> logits [B,N,classes] per label kind, and CLS's logits [B,P] of what is in the picture."""
        hidden = self.tower(pixel_values=pixels).last_hidden_state
        normed = F.layer_norm(hidden, hidden.shape[-1:])
        return {kind: head(normed[:, 1:]) for kind, head in self.heads.items()}, self.presence(normed[:, 0])


def to_pixels(images: NDArray[np.uint8]) -> Tensor:
    """[B,H,W,3] uint8 -> normalised [B,3,H,W] bf16."""
    pixels = torch.from_numpy(images).permute(0, 3, 1, 2).float() / 255
    mean, std = torch.tensor(MEAN)[:, None, None], torch.tensor(STD)[:, None, None]
    return ((pixels - mean) / std).bfloat16()


def presence_targets(labels: Tensor) -> Tensor:
    """Which colours, shapes and characters are in the picture: labels [B,kinds,N] -> 0 or 1, fp32 [B,P]."""
    kinds = list(LABEL_CLASSES)
    found = []
    for kind, count in _PRESENCE.items():
        shown = F.one_hot(labels[:, kinds.index(kind)], LABEL_CLASSES[kind]).amax(dim=1)
        found.append(shown[:, 1 : count + 1])
    return torch.cat(found, dim=1).float()


def patch_loss(predictions: dict[str, Tensor], presence: Tensor, labels: Tensor) -> tuple[Tensor, dict[str, float]]:
    """labels [B,kinds,N]. Weighted cross-entropy summed over kinds; accuracy on the patches that show something."""
    total = _PRESENCE_WEIGHT * F.binary_cross_entropy_with_logits(presence.float(), presence_targets(labels))
    right = (presence > 0) == presence_targets(labels).bool()
    metrics = {"presence_accuracy": round(float(right.float().mean()), 4)}
    place = torch.arange(labels.shape[2]).expand(len(labels), -1)
    for kind, target in (("row", place // GRID), ("column", place % GRID)):
        logits = predictions[kind].float().flatten(0, 1)
        total = total + _PLACE_WEIGHT * F.cross_entropy(logits, target.flatten())
        metrics[f"{kind}_accuracy"] = round(float((logits.argmax(-1) == target.flatten()).float().mean()), 4)
    for index, kind in enumerate(LABEL_CLASSES):
        logits = predictions[kind]
        target = labels[:, index]
        shows = target > 0
        losses = F.cross_entropy(logits.float().flatten(0, 1), target.flatten(), reduction="none")
        weights = torch.where(shows, 1.0, _BACKGROUND_WEIGHT[kind])
        if kind == "glyph":
            weights = torch.where(target == LABEL_CLASSES["glyph"] - 1, 0.2, weights)
            shows = shows & (target < LABEL_CLASSES["glyph"] - 1)
        total = total + (losses * weights.flatten()).sum() / weights.sum()
        right = logits.argmax(-1) == target
        metrics[f"{kind}_accuracy"] = round(float(right[shows].float().mean()), 4)
    return total, metrics


def train_tower(corpus: Corpus, validation: Corpus, folder: Path, settings: LoopSettings, seed: int = 0) -> PatchReader:
    torch.manual_seed(seed)
    reader = PatchReader().bfloat16()

    def batch(data: Corpus, chosen: NDArray[np.int64]) -> tuple[Tensor, Tensor]:
        labels = torch.from_numpy(data.labels[chosen].astype(np.int64)).flatten(2)
        return to_pixels(data.images[chosen]), labels

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = np.random.default_rng([seed, number, 11])
        pixels, labels = batch(corpus, np.sort(rng.choice(len(corpus), 64, replace=False)))
        predictions, presence = reader(pixels)
        return patch_loss(predictions, presence, labels)

    @torch.no_grad()
    def evaluate(_: int) -> dict[str, float]:
        pixels, labels = batch(validation, np.arange(min(400, len(validation))))
        predictions, presence = reader(pixels)
        loss, metrics = patch_loss(predictions, presence, labels)
        return {"validation_loss": float(loss), **{f"validation_{k}": v for k, v in metrics.items()}}

    place = reader.tower.embeddings.position_embedding.weight
    others = [p for p in trainable([reader]) if p is not place]
    groups = [
        {"params": others, "lr": settings.learning_rate},
        {"params": [place], "lr": settings.learning_rate * _PLACE_RATE},
    ]
    run_steps("tower", groups, step, settings, folder, evaluate)
    return reader
