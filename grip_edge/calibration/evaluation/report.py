"""The evaluation report: what was asked of whom, how right it was, how fast, and how sure; and its versioned JSON.

Shares are in [0, 1]; every other quantity carries its unit in its name; what is not known is null. Intervals are 95 %
(``intervals``). Not here: how rows come about (``tables``), renderings for people (``report_formats``, ``plots``).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass

import dacite

from grip_edge.errors import UserError
from grip_edge.machine_record import Machine

REPORT_KIND = "grip-edge evaluation report"
REPORT_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Setting:
    """What was asked. ``scoring`` is the rule; ``precision`` the type that PyTorch computed in (null: bundles only).
    ``against`` is the policy that all others are compared with, if there is one.
    """

    model: str
    data: str
    images: int
    questions: int
    scoring: str
    precision: str | None
    new_tokens: int
    against: str | None
    bootstrap_draws: int
    versions: dict[str, str]


@dataclass(frozen=True)
class Participant:
    """One policy or bundle. ``runs`` names the scorers of a learned policy's training runs, else is empty."""

    name: str
    title: str
    runs: tuple[str, ...]
    bundle: str | None


@dataclass(frozen=True)
class AccuracyRow:
    """One policy, budget and group of questions ("all": every one). ``accuracy`` is the mean over ``runs``.

    ``run_std`` is the sample standard deviation over training runs, null for one. ``agreement`` is the share of answers
    that equal the unpruned ones. ``metrics`` are the benchmark's own, of the first run.
    """

    policy: str
    budget: str
    kept_tokens: int
    group: str
    questions: int
    accuracy: float
    low: float
    high: float
    runs: tuple[float, ...]
    run_std: float | None
    agreement: float
    agreement_low: float
    agreement_high: float
    metrics: dict[str, float | None]


@dataclass(frozen=True)
class DifferenceRow:
    """Accuracy of ``policy`` minus that of ``against`` (at the same budget, or unpruned), on the same questions."""

    policy: str
    against: str
    budget: str
    difference: float
    low: float
    high: float


@dataclass(frozen=True)
class AgreementRow:
    """Share of a bundle's answers that equal PyTorch's of the same policy and budget: what the export changed."""

    bundle: str
    policy: str
    budget: str
    agreement: float
    low: float
    high: float


@dataclass(frozen=True)
class LatencyRow:
    """Medians in ms of ``requests`` requests through the runtime; stages, ``ttft`` and ``total`` (end to end)."""

    policy: str
    budget: str
    kept_tokens: int
    requests: int
    new_tokens: int
    p50_ms: dict[str, float]


@dataclass(frozen=True)
class FlopsRow:
    """Floating-point operations counted from the graphs for one request of ``prompt_tokens`` text tokens.

    ``saved_share`` is what vision, select and prefill together save against vision and prefill of the unpruned model.
    """

    policy: str
    budget: str
    kept_tokens: int
    prompt_tokens: int
    vision_flops: int
    select_flops: int
    prefill_flops: int
    saved_share: float


@dataclass(frozen=True)
class EvaluationReport:
    visual_tokens: int
    setting: Setting
    participants: tuple[Participant, ...]
    accuracy: tuple[AccuracyRow, ...]
    differences: tuple[DifferenceRow, ...]
    agreement: tuple[AgreementRow, ...]
    machine: Machine | None
    latency: tuple[LatencyRow, ...]
    flops: tuple[FlopsRow, ...]

    def to_json(self) -> str:
        head = {"kind": REPORT_KIND, "schema_version": REPORT_SCHEMA_VERSION}
        return json.dumps({**head, **dataclasses.asdict(self)}, indent=2, allow_nan=False) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> EvaluationReport:
        """``origin`` is the file's name in error messages."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{origin} is not valid JSON ({error}); expected a file written by grip-edge.") from None
        if not isinstance(data, dict) or data.pop("kind", None) != REPORT_KIND:
            raise UserError(f"{origin} is no {REPORT_KIND}; expected the report.json of  grip-edge evaluate.")
        found = data.pop("schema_version", None)
        if found != REPORT_SCHEMA_VERSION:
            raise UserError(f"{origin}: schema_version is {found!r}, this version reads {REPORT_SCHEMA_VERSION}.")
        try:
            return dacite.from_dict(cls, data, dacite.Config(strict=True, cast=[tuple]))
        except dacite.DaciteError as error:
            raise UserError(f"{origin}: {error}; evaluate again with this version.") from None
