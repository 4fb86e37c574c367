"""What every trained scorer offers to training, evaluation and export."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Protocol

from torch import Tensor, nn


class Shape(Protocol):
    """Of the model that a scorer serves, as far as it concerns the scorer; N is ``visual_tokens``."""

    @property
    def vision_width(self) -> int: ...

    @property
    def text_width(self) -> int: ...

    @property
    def grid(self) -> tuple[int, int]: ...

    @property
    def visual_tokens(self) -> int: ...


class Scorer(Protocol):
    """An ``nn.Module``. The higher the score of a token, the sooner it is kept."""

    @property
    def config(self) -> Shape: ...

    def __call__(
        self, features: Tensor, question_embeds: Tensor, budget: Tensor, question_mask: Tensor | None = None
    ) -> Tensor:
        """features [B,N,Dv], question_embeds [B,T,D], budget int64 [1] or [B] (tokens to keep) -> scores [B,N].

        ``question_mask`` bool [B,T] is False on padding; None when there is none.
        """

    @property
    def training(self) -> bool: ...

    def train(self, mode: bool = True) -> nn.Module: ...

    def parameters(self) -> Iterator[nn.Parameter]: ...

    def named_buffers(self) -> Iterator[tuple[str, Tensor]]: ...

    def state_dict(self) -> Mapping[str, Tensor]: ...
