"""What ``grip-edge calibrate`` chose for a bundle and what that costs: part of ``grip.json``.

The costs are measured on questions that nothing was chosen on, beside the bundle in floats that it was made from.
"""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True)
class PrecisionCost:
    """Over all tokens of the right answers, each after the right ones before it: ``mean_kl`` and ``p99_kl`` of the
    distributions, in nats, from the float model's to this one's, and the share of equal first choices (``agreement``).
    ``accuracy``: share of answers whose every token is the first choice; ``float_accuracy`` the float model's; null
    where no answer was short enough to be compared whole.
    """

    questions: int
    tokens: int
    mean_kl: float
    p99_kl: float
    agreement: float
    accuracy: float | None
    float_accuracy: float | None


@dataclass(frozen=True)
class KeptLayer:
    """Matrices of ``graph`` that read the same input and stay in ``format``. ``error`` is the relative error of their
    outputs that was avoided; null where the reason is another one.
    """

    graph: str
    matrices: tuple[str, ...]
    format: str
    reason: str
    error: float | None


@dataclass(frozen=True)
class RescaledLayer:
    """Matrices whose input channels were rescaled, and what that did to the relative error of their outputs."""

    graph: str
    matrices: tuple[str, ...]
    exponents: tuple[float, float]
    plain_error: float
    error: float


@dataclass(frozen=True)
class WideLayer:
    """A layer with values that fp16 does not hold, or hardly. ``largest`` is null where a value was not finite."""

    graph: str
    layer: str
    largest: float | None


@dataclass(frozen=True)
class CalibrationRecord:
    """``limits`` are those asked for: ``max_kl``, ``min_agreement``. ``wide`` layers must not be computed in fp16."""

    data: str
    seen_questions: int
    limits: dict[str, float]
    cost: PrecisionCost
    kept: tuple[KeptLayer, ...]
    rescaled: tuple[RescaledLayer, ...]
    wide: tuple[WideLayer, ...]
