"""The latency report: records that say what was measured, on what, and how often; and their versioned JSON.

Every quantity carries its unit in its name; what is not known is null. ``report_formats`` renders the records for
people (terminal, Markdown) and spreadsheets (CSV).
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

REPORT_KIND = "grip-edge latency report"
REPORT_SCHEMA_VERSION = 1

# The stages of a request in order, then what is made of them.
STAGES = ("preprocess", "vision", "select", "prefill", "decode")
TIMES = (*STAGES, "ttft", "tpot", "total")


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
class Machine:
    """Where it ran. ``threads`` null: the default of the backend."""

    cpu_model: str | None
    cpu_count: int | None
    operating_system: str
    backend: str
    threads: int | None
    versions: dict[str, str]


@dataclass(frozen=True)
class Workload:
    """What was asked. ``warmups`` requests per budget came before the ``repeats`` that count."""

    bundle: str
    model: str
    precision: str
    image: str
    question: str
    new_tokens: int
    warmups: int
    repeats: int


@dataclass(frozen=True)
class Memory:
    """The highest use of host memory by the whole process, and the name of the metric that tells it."""

    peak_host_bytes: int | None
    metric: str


@dataclass(frozen=True)
class BudgetRow:
    """One budget. ``times_ms`` by name as in ``TIMES``; ``tpot`` is the time per token after the first one.

    ``ttft_ratio`` is the median TTFT over that of budget 1.0 in the same run, null where 1.0 was not measured.
    """

    budget: str
    kept_tokens: int
    visual_tokens: int
    times_ms: dict[str, Statistics]
    decode_tokens_per_sec: Statistics
    ttft_ratio: float | None


@dataclass(frozen=True)
class LatencyReport:
    """``load_ms`` and ``first_ttft_ms`` are the cold start: sessions from disk, and the very first request."""

    machine: Machine
    workload: Workload
    memory: Memory
    load_ms: float
    first_ttft_ms: float
    rows: tuple[BudgetRow, ...]

    def to_json(self) -> str:
        head = {"kind": REPORT_KIND, "schema_version": REPORT_SCHEMA_VERSION}
        return json.dumps(_null_for_nan({**head, **dataclasses.asdict(self)}), indent=2) + "\n"

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
            raise UserError(f"{origin}: schema_version is {found!r}, this version reads {REPORT_SCHEMA_VERSION}.")
        try:
            return dacite.from_dict(cls, data, dacite.Config(strict=True, cast=[tuple]))
        except dacite.DaciteError as error:
            raise UserError(f"{origin}: {error}; measure again with this version.") from None


def _null_for_nan(value: object) -> object:
    """JSON has no NaN and no infinity; both mean unknown here."""
    if isinstance(value, dict):
        return {key: _null_for_nan(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_null_for_nan(item) for item in value]
    return None if isinstance(value, float) and not math.isfinite(value) else value
