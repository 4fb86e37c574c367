"""Boards and cards that a bundle may be meant for: what their makers publish, and how much of it was seen in use.

Peaks are dense (without structured sparsity). Orin's fp16 peak is a quarter of the sparse INT8 figure that NVIDIA gives
for the GPU alone (two for sparsity, two for the type); Thor's is an eighth of the sparse FP4 figure; those of RTX cards
are for fp16 with fp32 accumulation. ``int8`` is twice fp16 (GeForce: four times).

Efficiency is the share of the peak that published runs of 4 to 8 B models in int4 reached (batch 1):

    bandwidth, decoding   TinyChat, Vicuna-7B: AGX Orin 26.3 ms per token (0.67), VILA-7B: RTX 4090 5.95 ms (0.60);
                          Edge-LLM 0.9.0, Qwen3-VL-8B: AGX Orin 32.3 tokens/s (0.77), Thor 48.9 (0.87)
    compute, prefill      TinyChat, Llama-3-8B, 512 tokens: AGX Orin 315 ms (0.53); Edge-LLM 0.9.0, Qwen3-VL-8B, 292
                          tokens: AGX Orin 225 ms (0.42), Orin NX 462 ms (0.46), Thor 156 ms (0.10: int4 weights run far
                          below its peak there); Qwen3-VL-2B: Orin Nano 191 ms (0.26)

No prefill of this kind is published for RTX cards, nor any in fp16 for Thor; theirs is Orin's. A forecast is no
measurement.
"""

from __future__ import annotations

from dataclasses import dataclass, replace

from grip_edge.errors import UserError

GB = 1_000_000_000
CPU = "cpu"


@dataclass(frozen=True)
class Device:
    """``reserved_bytes`` is what a running system keeps: desktop and camera stack on boards, the display on cards."""

    name: str
    title: str
    memory_bytes: int
    reserved_bytes: int
    bandwidth_bytes_per_sec: float
    fp16_flops_per_sec: float
    int8_ops_per_sec: float
    compute_efficiency: float
    bandwidth_efficiency: float
    source: str
    block_efficiency: float | None = None
    """Of compute with weights in blocks of 4 or 8 bits, where that differs."""
    targets: tuple[str, ...] = ()
    """Names for ``--target`` that run on it."""


def _jetson(
    name: str, title: str, memory: int, bandwidth: float, tflops: float, efficiency: float, source: str
) -> Device:
    return Device(
        name, title, memory * GB, 3 * GB // 2, bandwidth * 1e9, tflops * 1e12, 2 * tflops * 1e12, efficiency, 0.7,
        source, targets=_ORIN_TARGETS,
    )  # fmt: skip


def _rtx(name: str, title: str, memory: int, bandwidth: float, tflops: float, source: str) -> Device:
    return Device(
        name, title, memory * GB, GB // 2, bandwidth * 1e9, tflops * 1e12, 4 * tflops * 1e12, 0.45, 0.6, source,
        targets=("rtx",),
    )  # fmt: skip


_ORIN_TARGETS = ("jetpack-6.2", "jetpack-7.2")
_THOR_TARGETS = ("jetpack-7.0", "jetpack-7.1", "jetpack-7.2")
_ORIN_BRIEF = "NVIDIA Jetson AGX Orin Series Technical Brief"
_SUPER_BLOG = "NVIDIA developer blog, Jetson Orin Nano Developer Kit Gets a 'Super' Boost (December 2024)"
_ADA = "NVIDIA Ada GPU Architecture whitepaper, appendices"
_BLACKWELL = "NVIDIA RTX Blackwell GPU Architecture whitepaper, appendices"

DEVICES: dict[str, Device] = {
    device.name: device
    for device in (
        _jetson("jetson-orin-nano-8gb", "Jetson Orin Nano 8 GB, Super mode", 8, 102.4, 16.7, 0.26,
              f"{_SUPER_BLOG}: 67 sparse INT8 TOPS, 102 GB/s"),
        _jetson("jetson-orin-nx-16gb", "Jetson Orin NX 16 GB, Super mode", 16, 102.4, 19.2, 0.46,
              f"{_SUPER_BLOG}: GPU at 1173 MHz, 1024 dense fp16 operations x 2 per SM and cycle, 8 SMs; Orin NX data "
              "sheet DS-10712-001: 102.4 GB/s"),
        _jetson("jetson-agx-orin-64gb", "Jetson AGX Orin 64 GB, MAXN", 64, 204.8, 42.5, 0.45,
              f"{_ORIN_BRIEF}: GPU 170 sparse INT8 TOPS, 204.8 GB/s"),
        _jetson("jetson-agx-orin-32gb", "Jetson AGX Orin 32 GB, MAXN", 32, 204.8, 27.0, 0.45,
              f"{_ORIN_BRIEF}: GPU 108 sparse INT8 TOPS, 204.8 GB/s"),
        replace(_jetson("jetson-thor-t5000", "Jetson AGX Thor (T5000)", 128, 273.0, 258.75, 0.45,
                        "NVIDIA Jetson Thor data sheet: 2070 sparse FP4 TFLOPS, 273 GB/s"), block_efficiency=0.10,
                targets=_THOR_TARGETS),
        _rtx("rtx-3060-12gb", "GeForce RTX 3060 12 GB", 12, 360.0, 25.5,
             "NVIDIA GA102 whitepaper (rate per SM), GeForce RTX 3060 specifications: 12.7 fp32 TFLOPS, 360 GB/s"),
        _rtx("rtx-4060-8gb", "GeForce RTX 4060 8 GB", 8, 272.0, 30.2,
             f"{_ADA} (rate per SM), GeForce RTX 4060 specifications: 15.1 fp32 TFLOPS, 272 GB/s"),
        _rtx("rtx-4090", "GeForce RTX 4090", 24, 1008.0, 165.2, f"{_ADA}: 165.2 fp16 TFLOPS, 1008 GB/s"),
        _rtx("rtx-5070-12gb", "GeForce RTX 5070 12 GB", 12, 672.0, 61.7,
             f"{_BLACKWELL} (rate per SM), GeForce RTX 5070 specifications: 30.9 fp32 TFLOPS, 672 GB/s"),
        _rtx("rtx-5090", "GeForce RTX 5090", 32, 1792.0, 209.5, f"{_BLACKWELL}: 209.5 fp16 TFLOPS, 1792 GB/s"),
    )
}  # fmt: skip


def find_device(name: str) -> Device:
    if name not in DEVICES:
        raise UserError(f"--device {name} does not exist; choose from: {', '.join((CPU, *DEVICES))}.")
    return DEVICES[name]
