"""SigLIP's vision tower up to the layer whose features the language model reads.

Pixels -> patches, learned positions, pre-norm transformer. There is no CLS token, so every token is a patch, and no
attention of one token could rank the others. transformers' hidden states are those before the closing norm, which is
therefore not built, nor is the pooling head.
"""

from __future__ import annotations

from dataclasses import dataclass

from torch import Tensor, nn

from grip_edge.export.networks.tower import Encoder, TowerConfig


@dataclass(frozen=True)
class SiglipConfig(TowerConfig):
    """No CLS token; where the side is no multiple of the patch, the last pixels are not read."""


class SiglipTower(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.embeddings = _Embeddings(config)
        self.encoder = Encoder(config)

    def forward(self, pixels: Tensor) -> Tensor:
        """pixels [A,3,H,W] -> features [A,P,Dv]."""
        features: Tensor = self.encoder(self.embeddings(pixels))[0]
        return features


class _Embeddings(nn.Module):
    def __init__(self, config: SiglipConfig) -> None:
        super().__init__()
        self.patch_embedding = nn.Conv2d(3, config.width, config.patch_px, stride=config.patch_px)
        self.position_embedding = nn.Embedding(config.grid**2, config.width)

    def forward(self, pixels: Tensor) -> Tensor:
        patches: Tensor = self.patch_embedding(pixels).flatten(2).transpose(1, 2)
        return patches + self.position_embedding.weight
