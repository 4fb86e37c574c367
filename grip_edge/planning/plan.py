"""The whole forecast of one model in one precision, and its versioned JSON."""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Mapping
from dataclasses import dataclass

from grip_edge.budget import Budget, BudgetRange
from grip_edge.errors import UserError
from grip_edge.manifest import WeightFormats
from grip_edge.planning.bundle_size import BundleBytes, bundle_bytes
from grip_edge.planning.cpu_speed import host_memory, measured_speed
from grip_edge.planning.devices import CPU, find_device
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.forecast import DeviceForecast, Forecaster, StageCost, Workload, forecast_device, stage_costs
from grip_edge.planning.memory import ExportNeeds, export_needs, parameter_count
from grip_edge.planning.shape import ModelShape
from grip_edge.planning.speed import published_speed

PLAN_KIND = "grip-edge plan"
PLAN_SCHEMA_VERSION = 1


@dataclass(frozen=True)
class Precision:
    """``config`` is what ONNX Runtime is told about such weights."""

    name: str
    formats: WeightFormats
    config: dict[str, str]


@dataclass(frozen=True)
class PlanRequest:
    """``budget_range`` and ``budgets`` as the user wrote them; the unpruned model is always forecast too. ``others``
    are the precisions that are tried for what else fits, by name; ``target_precisions`` what each target takes.
    """

    model: str
    precision: Precision
    devices: tuple[str, ...]
    budget_range: str | None
    budgets: tuple[str, ...]
    work: Workload
    others: Mapping[str, WeightFormats]
    target_precisions: Mapping[str, tuple[str, ...]]
    threads: int | None = None

    def __post_init__(self) -> None:
        for option, value in (("prompt-tokens", self.work.prompt_tokens), ("new-tokens", self.work.new_tokens)):
            if value < 1:
                raise UserError(f"--{option} is at least 1; got {value}.")


@dataclass(frozen=True)
class BudgetCosts:
    """``stages`` by name: vision, select, prefill, and one step of decode."""

    kept_tokens: int
    stages: dict[str, StageCost]


@dataclass(frozen=True)
class Plan:
    """``model`` tells the sizes that all else follows from."""

    model: ModelShape
    parameters: int
    precision: str
    formats: WeightFormats
    work: Workload
    bundle: BundleBytes
    bundle_total_bytes: int
    export: ExportNeeds
    costs: tuple[BudgetCosts, ...]
    devices: tuple[DeviceForecast, ...]

    def to_json(self) -> str:
        head = {"kind": PLAN_KIND, "schema_version": PLAN_SCHEMA_VERSION}
        return json.dumps(head | dataclasses.asdict(self), indent=2) + "\n"


def make_plan(request: PlanRequest) -> Plan:
    """Reads the configuration, measures this machine's CPU if it is asked for, and counts."""
    for name in request.devices:
        if name != CPU:
            find_device(name)
    model, tokenizer_bytes = find_shape(request.model)
    kept = _kept_tokens(request, model)
    formats = request.precision.formats
    bundle = bundle_bytes(model, formats, tokenizer_bytes)
    return Plan(
        model=model,
        parameters=parameter_count(model),
        precision=request.precision.name,
        formats=formats,
        work=request.work,
        bundle=bundle,
        bundle_total_bytes=bundle.total,
        export=export_needs(model, bundle),
        costs=tuple(BudgetCosts(tokens, stage_costs(model, bundle, tokens, request.work)) for tokens in kept),
        devices=tuple(
            dataclasses.replace(
                forecast_device(_forecaster(name, model, bundle, request), kept, request.work, request.others),
                targets=_targets(name, request),
            )
            for name in request.devices
        ),
    )


def _kept_tokens(request: PlanRequest, model: ModelShape) -> tuple[int, ...]:
    kept = {Budget.of(budget).kept_tokens(model.visual_tokens) for budget in (*request.budgets, "1.0")}
    if request.budget_range is not None:
        limits = BudgetRange.parse(request.budget_range, model.visual_tokens)
        kept |= {limits.min_tokens, limits.max_tokens}
    return tuple(sorted(kept))


def _targets(device: str, request: PlanRequest) -> dict[str, bool]:
    names = () if device == CPU else find_device(device).targets
    return {name: request.precision.name in request.target_precisions[name] for name in names}


def _forecaster(name: str, model: ModelShape, bundle: BundleBytes, request: PlanRequest) -> Forecaster:
    formats = request.precision.formats
    schemes = tuple(sorted({formats.vision, formats.decoder, formats.lm_head}))
    if name == CPU:
        speed = measured_speed(formats, schemes, request.precision.config, request.threads)
        return Forecaster(model, formats, bundle, speed, None, host_memory().available_bytes)
    device = find_device(name)
    usable = device.memory_bytes - device.reserved_bytes
    return Forecaster(model, formats, bundle, published_speed(device, schemes), device, usable)
