"""What a device achieves, as opposed to what it could: the rates from which a forecast is made.

For boards and cards these are published peaks times stated efficiencies (``devices``); for this machine's CPU they are
measured with ONNX Runtime's own kernels (``cpu_speed``).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from grip_edge.planning.devices import Device

# Fixed cost of starting a stage's kernels and of one decoder step beyond its bytes.
_GPU_LAUNCH_MS = 1.0


@dataclass(frozen=True)
class Speed:
    """``products``: FLOP/s of many rows times weights of a format. ``rows``: bytes of weights per second while one row
    is multiplied by them. ``attention``: FLOP/s. ``memory``: bytes/s of plain reading. ``basis`` says where from.
    """

    products: Mapping[str, float]
    rows: Mapping[str, float]
    attention: float
    memory: float
    stage_ms: float
    basis: str


def published_speed(device: Device, schemes: tuple[str, ...]) -> Speed:
    """16-bit arithmetic for all formats but int8, which has integer products; fp32 runs at half of fp16's rate."""
    reading = device.bandwidth_bytes_per_sec * device.bandwidth_efficiency
    products = {scheme: _peak(device, scheme) * _efficiency(device, scheme) for scheme in schemes}
    shares = ", ".join(dict.fromkeys(f"{_efficiency(device, scheme):.2f}" for scheme in schemes))
    return Speed(
        products=products,
        rows=dict.fromkeys(schemes, reading),
        attention=device.fp16_flops_per_sec * device.compute_efficiency,
        memory=reading,
        stage_ms=_GPU_LAUNCH_MS,
        basis=f"published peaks, {shares} of compute and {device.bandwidth_efficiency:.2f} of bandwidth",
    )


def _peak(device: Device, scheme: str) -> float:
    if scheme == "int8":
        return device.int8_ops_per_sec
    return device.fp16_flops_per_sec / 2 if scheme == "fp32" else device.fp16_flops_per_sec


def _efficiency(device: Device, scheme: str) -> float:
    in_blocks = scheme in ("int8-weight", "int4") and device.block_efficiency is not None
    return (device.block_efficiency or 0.0) if in_blocks else device.compute_efficiency
