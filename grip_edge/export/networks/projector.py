"""LLaVA's projector: two linear layers from the vision width to the decoder's."""

from __future__ import annotations

from torch import Tensor, nn

from grip_edge.export.networks.activations import ACTIVATIONS


class Projector(nn.Module):
    def __init__(self, vision_width: int, text_width: int, activation: str, bias: bool) -> None:
        super().__init__()
        self.linear_1 = nn.Linear(vision_width, text_width, bias=bias)
        self.linear_2 = nn.Linear(text_width, text_width, bias=bias)
        self.activation = ACTIVATIONS[activation]

    def forward(self, features: Tensor) -> Tensor:
        """features [1,K,Dv] -> embeddings [1,K,D]."""
        projected: Tensor = self.linear_2(self.activation(self.linear_1(features)))
        return projected
