"""Time by roofline: a stage takes as long as its products, or as reading its weights once, whichever is longer; then
its attention and other operations, and a fixed cost. What fits into memory, and what pruning can save at most.

TTFT is vision + select + prefill: preprocessing of the image (5 to 20 ms on a CPU) is not in it. Tiles are encoded one
after another. Vision and decode are what pruning does not touch, so they are a floor.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from grip_edge.manifest import WeightFormats
from grip_edge.planning.bundle_size import BundleBytes, bundle_bytes
from grip_edge.planning.devices import CPU, Device
from grip_edge.planning.formats import WIDENED
from grip_edge.planning.memory import DeviceMemory, cpu_memory, gpu_memory, kv_cache_bytes
from grip_edge.planning.operations import (
    StageOperations,
    decoder_operations,
    select_operations,
    vision_operations,
)
from grip_edge.planning.shape import ModelShape
from grip_edge.planning.speed import Speed


@dataclass(frozen=True)
class Workload:
    """``prompt_tokens`` of text around the image, the question's among them."""

    prompt_tokens: int
    new_tokens: int


@dataclass(frozen=True)
class StageCost:
    """What a stage has to do: operations, and the bytes of weights (and keys and values) that it reads."""

    flops: int
    bytes: int


@dataclass(frozen=True)
class BudgetForecast:
    """``tpot_ms`` is the time per token after the first, in the middle of the answer. ``fits`` null: memory unknown."""

    kept_tokens: int
    sequence_tokens: int
    memory: DeviceMemory
    fits: bool | None
    vision_ms: float
    select_ms: float
    prefill_ms: float
    ttft_ms: float
    tpot_ms: float
    decode_tokens_per_sec: float
    total_ms: float


@dataclass(frozen=True)
class PruningCeiling:
    """With no visual token left at all: what remains of the unpruned request. No budget saves more."""

    least_ttft_ms: float
    saved_ttft_share: float
    least_total_ms: float
    saved_total_share: float
    saved_kv_cache_bytes: int


@dataclass(frozen=True)
class DeviceForecast:
    """``usable_bytes`` is the memory less what the system keeps; null where it is not known. ``targets``: those that
    run on the device, and whether each takes the precision.
    """

    device: str
    title: str
    source: str
    basis: str
    usable_bytes: int | None
    rows: tuple[BudgetForecast, ...]
    pruning: PruningCeiling
    fitting_precisions: tuple[str, ...]
    targets: dict[str, bool] = field(default_factory=dict)


def stage_costs(model: ModelShape, bundle: BundleBytes, kept_tokens: int, work: Workload) -> dict[str, StageCost]:
    """Of vision, select, prefill and one decoder step, as the graphs count them; caches in fp16."""
    sequence = work.prompt_tokens + kept_tokens
    slots = sequence + work.new_tokens
    decoder = bundle.decoder + bundle.lm_head
    step = decoder_operations(model.text, 1, slots)
    return {
        "vision": StageCost(vision_operations(model).total, bundle.vision * model.tiles),
        "select": StageCost(
            select_operations(model, kept_tokens, work.prompt_tokens).total, bundle.projector + bundle.scorer
        ),
        "prefill": StageCost(decoder_operations(model.text, sequence, sequence).total, decoder),
        "decode": StageCost(step.total, decoder + kv_cache_bytes(model, slots, 2)),
    }


@dataclass(frozen=True)
class Forecaster:
    """One model in one precision on one device. ``device`` None is this machine's CPU."""

    model: ModelShape
    formats: WeightFormats
    bundle: BundleBytes
    speed: Speed
    device: Device | None
    usable_bytes: int | None

    def row(self, kept_tokens: int, work: Workload) -> BudgetForecast:
        model, formats, speed = self.model, self.formats, self.speed
        sequence = work.prompt_tokens + kept_tokens
        slots = sequence + work.new_tokens
        vision = self._stage(vision_operations(model), formats.vision, self.bundle.vision * model.tiles)
        select = self._stage(
            select_operations(model, kept_tokens, work.prompt_tokens), formats.vision, self.bundle.projector
        )
        prefill = self._stage(decoder_operations(model.text, sequence, sequence), formats.decoder, self.bundle.decoder)
        prefill += 1000 * self._read_bytes(self.bundle.lm_head, formats.lm_head) / speed.rows[formats.lm_head]
        tpot = self._step_ms(sequence + work.new_tokens // 2)
        ttft = vision + select + prefill
        memory = self.memory(sequence, slots)
        return BudgetForecast(
            kept_tokens=kept_tokens,
            sequence_tokens=sequence,
            memory=memory,
            fits=None if self.usable_bytes is None else memory.total <= self.usable_bytes,
            vision_ms=vision,
            select_ms=select,
            prefill_ms=prefill,
            ttft_ms=ttft,
            tpot_ms=tpot,
            decode_tokens_per_sec=1000 / tpot,
            total_ms=ttft + tpot * max(work.new_tokens - 1, 0),
        )

    def memory(self, sequence: int, slots: int) -> DeviceMemory:
        if self.device is None:
            return cpu_memory(self.model, self.formats, self.bundle, sequence, slots)
        return gpu_memory(self.model, self.bundle, sequence, slots)

    def ceiling(self, work: Workload) -> PruningCeiling:
        full, none = self.row(self.model.visual_tokens, work), self.row(0, work)
        return PruningCeiling(
            least_ttft_ms=none.ttft_ms,
            saved_ttft_share=1 - none.ttft_ms / full.ttft_ms,
            least_total_ms=none.total_ms,
            saved_total_share=1 - none.total_ms / full.total_ms,
            saved_kv_cache_bytes=full.memory.kv_cache - none.memory.kv_cache,
        )

    def _stage(self, operations: StageOperations, scheme: str, weight_bytes: int) -> float:
        products = operations.weights / self.speed.products[scheme]
        reading = self._read_bytes(weight_bytes, scheme) / self.speed.rows[scheme]
        return 1000 * (max(products, reading) + operations.other / self.speed.attention) + self.speed.stage_ms

    def _step_ms(self, slots: int) -> float:
        formats, bundle, speed = self.formats, self.bundle, self.speed
        weights = self._read_bytes(bundle.decoder, formats.decoder) / speed.rows[formats.decoder]
        head = self._read_bytes(bundle.lm_head, formats.lm_head) / speed.rows[formats.lm_head]
        cache = kv_cache_bytes(self.model, slots, self._cache_step_bytes) / speed.memory
        return 1000 * (weights + head + cache) + speed.stage_ms

    @property
    def _cache_step_bytes(self) -> int:
        """Attention of the CPU widens keys and values in fp16: one token takes no less time than with fp32."""
        return 4 if self.device is None else 2

    def _read_bytes(self, stored: int, scheme: str) -> int:
        """The CPU widens 16-bit weights to fp32 when it loads them."""
        return 2 * stored if self.device is None and scheme in WIDENED else stored


def forecast_device(
    forecaster: Forecaster, budgets: tuple[int, ...], work: Workload, other_precisions: Mapping[str, WeightFormats]
) -> DeviceForecast:
    """``other_precisions`` are tried for what else fits, at the smallest budget."""
    device = forecaster.device
    sequence = work.prompt_tokens + min(budgets)
    return DeviceForecast(
        device=CPU if device is None else device.name,
        title="this machine" if device is None else device.title,
        source=forecaster.speed.basis if device is None else device.source,
        basis=forecaster.speed.basis,
        usable_bytes=forecaster.usable_bytes,
        rows=tuple(forecaster.row(kept, work) for kept in budgets),
        pruning=forecaster.ceiling(work),
        fitting_precisions=_fitting(forecaster, sequence, sequence + work.new_tokens, other_precisions),
    )


def _fitting(
    forecaster: Forecaster, sequence: int, slots: int, precisions: Mapping[str, WeightFormats]
) -> tuple[str, ...]:
    usable = forecaster.usable_bytes
    if usable is None:
        return ()
    fitting = []
    for name, formats in precisions.items():
        bundle = bundle_bytes(forecaster.model, formats)
        other = Forecaster(forecaster.model, formats, bundle, forecaster.speed, forecaster.device, usable)
        if other.memory(sequence, slots).total <= usable:
            fitting.append(name)
    return tuple(fitting)
