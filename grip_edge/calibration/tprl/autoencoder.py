"""The compact state: an autoencoder of visual tokens, trained by reconstruction alone.

Each token by itself goes from the tower's width through a bottleneck and back; the target is the standardised
feature, so that dimensions of large variance do not drown the others. The encoder then stays as it is.
"""

from __future__ import annotations

from dataclasses import dataclass

import torch.nn.functional as F
from torch import Tensor, nn

from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.scorer import standardised
from grip_edge.calibration.training.setup import Setup

_STAGE = 31


@dataclass(frozen=True)
class AutoencoderSettings:
    loop: LoopSettings = LoopSettings(steps=300, learning_rate=2e-3, warmup_steps=30)
    images: int = 6


class TokenDecoder(nn.Sequential):
    """codes [...,C] -> [...,Dv]."""

    def __init__(self, vision_width: int, hidden: int, code: int) -> None:
        super().__init__(nn.Linear(code, hidden), nn.GELU(), nn.LayerNorm(hidden), nn.Linear(hidden, vision_width))


def reconstruction_loss(encoder: nn.Module, decoder: nn.Module, features: Tensor) -> Tensor:
    """Mean squared error, 1 for a decoder that knows nothing; features [B,N,Dv]."""
    target = standardised(features)
    return F.mse_loss(decoder(encoder(target)), target)


def train_autoencoder(setup: Setup, encoder: nn.Module, decoder: nn.Module, settings: AutoencoderSettings) -> None:
    """Train both in place."""

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        rng = setup.rng(number, _STAGE)
        data = setup.source.data
        asked = data.take(rng.integers(0, len(data), size=settings.images).tolist())
        features, _ = setup.source.cached.features(asked.images)
        return reconstruction_loss(encoder, decoder, features.float()), {}

    setup.run("autoencoder", [*encoder.parameters(), *decoder.parameters()], step, settings.loop)
