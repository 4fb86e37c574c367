"""The latency report: records that say what was measured, on what, and how often; and their versioned JSON.

Every quantity carries its unit in its name; what is not known is null. The raw samples are part of the report, so that
two reports can be compared with intervals (``reporting.compare``). ``report_formats`` and ``reporting`` render the
records for people; ``reporting/latency-report.schema.json`` describes the JSON.
"""

from __future__ import annotations

import dataclasses
import json
import math
from collections.abc import Sequence
from dataclasses import dataclass

import dacite
import numpy as np
from numpy.typing import NDArray

from grip_edge.errors import UserError
from grip_edge.machine_record import Machine, MachineState

REPORT_KIND = "grip-edge latency report"
REPORT_SCHEMA_VERSION = 2

# The stages of a request in order, then what is made of them.
STAGES = ("preprocess", "vision", "select", "prefill", "decode")
TIMES = (*STAGES, "ttft", "tpot", "itl", "total")

# Fewer samples than these make a 99th percentile little more than the maximum.
SAMPLES_FOR_P99 = 100


@dataclass(frozen=True)
class Statistics:
    """Of ``n`` samples. ``std`` is the sample standard deviation (n - 1), null for a single sample."""

    n: int
    mean: float
    min: float
    max: float
    std: float | None
    p50: float
    p90: float
    p95: float
    p99: float

    @classmethod
    def of(cls, samples: Sequence[float] | NDArray[np.floating]) -> Statistics:
        values = np.asarray(samples, np.float64)
        if not values.size:
            raise ValueError("Statistics need at least one sample.")
        percentiles = (float(value) for value in np.percentile(values, (50, 90, 95, 99)))
        std = float(values.std(ddof=1)) if values.size > 1 else None
        return cls(values.size, float(values.mean()), float(values.min()), float(values.max()), std, *percentiles)


@dataclass(frozen=True)
class Asked:
    """One image and question that took turns with the others."""

    image: str
    question: str


@dataclass(frozen=True)
class Workload:
    """What was asked. ``warmups`` requests per row came before the ``repeats`` that count.

    ``bundle_sha256`` is that of ``grip.json``, which holds those of all files; ``inputs_sha256`` that of all images'
    bytes and questions in order.
    """

    bundle: str
    bundle_sha256: str
    model: str
    target: str
    precision: str
    inputs: tuple[Asked, ...]
    inputs_sha256: str
    new_tokens: int
    warmups: int
    repeats: int
    command: str | None = None


@dataclass(frozen=True)
class Memory:
    """The highest use of host memory by the whole process, and the name of the metric that tells it."""

    peak_host_bytes: int | None
    metric: str


@dataclass(frozen=True)
class RowMemory:
    """Of a process of its own that serves this row alone. Host and device may be the same memory: never add them."""

    peak_host_bytes: int | None
    host_metric: str
    peak_device_bytes: int | None
    device_metric: str


@dataclass(frozen=True)
class Energy:
    """Of ``answers`` answers in a row, idle power included. ``rail`` is the one that covers most of the machine."""

    answers: int
    source: str
    rail: str
    joules_per_answer: float
    joules_per_token: float
    watts: dict[str, float]


@dataclass(frozen=True)
class Ceiling:
    """The least time that this machine's measured rates allow a stage, beside what it took (medians)."""

    stage: str
    flops: float
    bytes: float
    ceiling_ms: float
    measured_ms: float
    ratio: float


@dataclass(frozen=True)
class Accuracy:
    """Share of right answers at this budget with its 95 % interval, as the bundle's scorer was evaluated."""

    share: float
    low: float
    high: float
    questions: int


@dataclass(frozen=True)
class Sample:
    """One request. ``asked`` is its place in the workload's inputs; ``itl_ms`` the gaps between its tokens."""

    asked: int
    kept_tokens: int
    visual_tokens: int
    preprocess_ms: float
    vision_ms: float
    select_ms: float
    prefill_ms: float
    decode_ms: float
    ttft_ms: float
    tpot_ms: float
    total_ms: float
    itl_ms: tuple[float, ...]


@dataclass(frozen=True)
class BudgetRow:
    """One budget at one concurrency. ``times_ms`` by name as in ``TIMES``; ``tpot`` is the mean time per token after
    the first one, ``itl`` each single gap. Token counts are the largest of the row's images.

    ``ttft_ratio`` is the median TTFT over that of budget 1.0 in the same run, null where 1.0 was not measured.
    """

    budget: str
    kept_tokens: int
    visual_tokens: int
    times_ms: dict[str, Statistics]
    decode_tokens_per_sec: Statistics
    ttft_ratio: float | None
    concurrency: int = 1
    answers_per_sec: float | None = None
    memory: RowMemory | None = None
    energy: Energy | None = None
    accuracy: Accuracy | None = None
    ceilings: tuple[Ceiling, ...] = ()
    samples: tuple[Sample, ...] = ()


@dataclass(frozen=True)
class LatencyReport:
    """``load_ms`` and ``first_ttft_ms`` are the cold start: sessions from disk, and the very first request.

    ``ceiling_basis`` says where the rates of the ceilings come from; ``verdict`` is the report in words.
    """

    machine: Machine
    workload: Workload
    memory: Memory
    load_ms: float
    first_ttft_ms: float
    rows: tuple[BudgetRow, ...]
    state_before: MachineState | None = None
    state_after: MachineState | None = None
    ceiling_basis: str | None = None
    target_ttft_ms: float | None = None
    verdict: tuple[str, ...] = ()

    def to_json(self) -> str:
        head = {"kind": REPORT_KIND, "schema_version": REPORT_SCHEMA_VERSION}
        return json.dumps(null_for_nan({**head, **dataclasses.asdict(self)}), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> LatencyReport:
        """``origin`` is the file's name in error messages."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise UserError(f"{origin} is not valid JSON ({error}); expected a file written by grip-edge.") from None
        if not isinstance(data, dict) or data.pop("kind", None) != REPORT_KIND:
            raise UserError(f"{origin} is no {REPORT_KIND}; expected what  grip-edge bench --format json  writes.")
        found = data.pop("schema_version", None)
        if found != REPORT_SCHEMA_VERSION:
            raise UserError(
                f"{origin}: schema_version is {found!r}, this version reads {REPORT_SCHEMA_VERSION}; measure again."
            )
        try:
            return dacite.from_dict(cls, data, dacite.Config(strict=True, cast=[tuple]))
        except dacite.DaciteError as error:
            raise UserError(f"{origin}: {error}; measure again with this version.") from None


def null_for_nan(value: object) -> object:
    """JSON has no NaN and no infinity; both mean unknown here."""
    if isinstance(value, dict):
        return {key: null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [null_for_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
