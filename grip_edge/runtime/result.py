"""What an answer comes with. ``Result.to_dict`` is the document that ``grip-edge infer --json`` prints."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class BudgetUse:
    """``requested`` as the caller wrote it: a ratio (float) or a token count (int)."""

    requested: float | int
    kept_tokens: int
    visual_tokens: int


@dataclass(frozen=True)
class Timings:
    """Milliseconds by the clock on the wall, from the request on; the first four stages add up to ``ttft_ms``.

    ``preprocess`` is opening and preparing the image and tokenising; ``vision`` the tower; ``select`` scoring and
    choosing; ``prefill`` the prompt through the decoder up to the first token; ``decode`` the tokens after it.
    With ``vision_cached`` the image was known already, and ``vision_ms`` is only the look-up. ``token_ms``: when each
    token was there, the stop token too; the first one after ``ttft_ms``.
    """

    preprocess_ms: float
    vision_ms: float
    select_ms: float
    prefill_ms: float
    decode_ms: float
    vision_cached: bool = False
    token_ms: tuple[float, ...] = ()

    @property
    def ttft_ms(self) -> float:
        """Time to first token, image work included."""
        return self.preprocess_ms + self.vision_ms + self.select_ms + self.prefill_ms

    @property
    def total_ms(self) -> float:
        return self.ttft_ms + self.decode_ms


@dataclass(frozen=True)
class Result:
    """``tokens`` are the ids behind ``answer``, without the stop token; ``kept_indices`` ascend in raster order;
    ``scores`` are the selector's, one for each visual token.
    """

    answer: str
    tokens: tuple[int, ...]
    budget: BudgetUse
    kept_indices: tuple[int, ...]
    timings: Timings
    decode_tokens_per_sec: float | None
    backend: str
    bundle: str
    scores: tuple[float, ...] = field(default=(), repr=False)

    def to_dict(self) -> dict[str, Any]:
        timings = self.timings
        return {
            "answer": self.answer,
            "tokens": list(self.tokens),
            "budget": {
                "requested": self.budget.requested,
                "kept_tokens": self.budget.kept_tokens,
                "visual_tokens": self.budget.visual_tokens,
            },
            "kept_indices": list(self.kept_indices),
            "timings_ms": {
                "preprocess": timings.preprocess_ms,
                "vision": timings.vision_ms,
                "select": timings.select_ms,
                "prefill": timings.prefill_ms,
                "decode": timings.decode_ms,
                "ttft": timings.ttft_ms,
                "total": timings.total_ms,
            },
            "decode_tokens_per_sec": self.decode_tokens_per_sec,
            "backend": self.backend,
            "bundle": self.bundle,
        }
