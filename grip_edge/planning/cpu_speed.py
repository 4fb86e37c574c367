"""This machine's CPU, measured in place with the kernels that a bundle runs on: products by weight format, attention,
plain reading. Takes seconds; the best of a few tries counts, since what else runs can only slow it down.

A model's weights do not fit into the processor's caches, so those that one row is multiplied by must not either: their
number follows the largest cache that the system tells of. Not here: devices other than this one (``devices``).
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import onnxruntime as ort

from grip_edge.manifest import WeightFormats
from grip_edge.planning import probes
from grip_edge.planning.formats import WIDENED, Matrix, matrix_bytes
from grip_edge.planning.speed import Speed

_MATRICES = 4
_ROWS = 256
_TRIES = 3

# What is read once per row: larger than the largest cache, within these limits.
_LEAST_BYTES, _MOST_BYTES = 128_000_000, 1_000_000_000
_CACHES = Path("/sys/devices/system/cpu/cpu0/cache")
_STAGE_MS = 0.5

# Programs waiting to run, as a share of the processors, from which on a measurement is disturbed.
_BUSY = 0.5


@dataclass(frozen=True)
class HostMemory:
    total_bytes: int | None
    available_bytes: int | None


def measured_speed(
    formats: WeightFormats, schemes: tuple[str, ...], config: dict[str, str], threads: int | None = None
) -> Speed:
    """``config`` is what ONNX Runtime is told about these formats (``export.precision.session_config``)."""
    busy = _busy_note()  # before this process makes itself busy
    products, rows = {}, {}
    for scheme in schemes:
        products[scheme] = product_rate(scheme, formats, config, threads)
        rows[scheme] = _row_rate(scheme, formats, config, threads)
    return Speed(
        products=products,
        rows=rows,
        attention=_attention_rate(threads),
        memory=read_rate(threads),
        stage_ms=_STAGE_MS,
        basis=f"measured here with ONNX Runtime {ort.__version__}, {_thread_count(threads)} threads{busy}",
    )


def product_rate(scheme: str, formats: WeightFormats, config: dict[str, str], threads: int | None) -> float:
    """Operations per second of large products, two per multiply-add."""
    session = _session(probes.linear_stack(scheme, _MATRICES, formats), config, threads)
    return 2 * _ROWS * _MATRICES * probes.WIDTH**2 / _seconds(_linear_run(session, _ROWS))


def read_rate(threads: int | None) -> float:
    """Bytes per second: the largest number of a large array, one slice per thread."""
    count = _thread_count(threads)
    numbers = np.ones(_streamed_bytes() // 4, np.float32)
    slices = np.array_split(numbers, count)
    with ThreadPoolExecutor(count) as pool:
        seconds = _seconds(lambda: list(pool.map(lambda part: np.maximum.reduce(part), slices)))
    return numbers.nbytes / seconds


def _busy_note() -> str:
    load = os.getloadavg()[0] if hasattr(os, "getloadavg") else 0.0
    if load < _BUSY * (os.cpu_count() or 1):
        return ""
    return f", beside other programs (load average {load:.1f}): without them it is faster"


def host_memory() -> HostMemory:
    """From /proc/meminfo; None where the system does not tell."""
    found: dict[str, int] = {}
    meminfo = Path("/proc/meminfo")
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key in ("MemTotal", "MemAvailable"):
                found[key] = 1024 * int(value.split()[0])
    return HostMemory(found.get("MemTotal"), found.get("MemAvailable"))


def _row_rate(scheme: str, formats: WeightFormats, config: dict[str, str], threads: int | None) -> float:
    # 16-bit weights are widened when they are loaded, so a row costs fp32's bytes.
    stored = "fp32" if scheme in WIDENED else scheme
    one = matrix_bytes(Matrix(probes.WIDTH, probes.WIDTH), stored, formats)
    count = -(-_streamed_bytes() // one)
    session = _session(probes.linear_stack(scheme, count, formats), config, threads)
    return count * one / _seconds(_linear_run(session, 1))


def _streamed_bytes() -> int:
    """A quarter more than the largest cache."""
    sizes = [path.read_text().strip() for path in _CACHES.glob("index*/size")]
    largest = max((1024 * int(size.removesuffix("K")) for size in sizes if size.endswith("K")), default=0)
    return min(max(5 * largest // 4, _LEAST_BYTES), _MOST_BYTES)


def _session(model: bytes, config: dict[str, str], threads: int | None) -> ort.InferenceSession:
    options = ort.SessionOptions()
    options.log_severity_level = 3
    options.enable_cpu_mem_arena = False
    options.intra_op_num_threads = threads or 0
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    return ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])


def _linear_run(session: ort.InferenceSession, rows: int) -> Callable[[], object]:
    x = np.random.default_rng(0).standard_normal((rows, probes.WIDTH), np.float32)
    return lambda: session.run(["y"], {"x": x})


def _attention_rate(threads: int | None) -> float:
    session = _session(probes.attention(), {}, threads)
    x = np.random.default_rng(0).standard_normal((1, probes.HEADS, _ROWS, probes.WIDTH // probes.HEADS), np.float32)
    feeds = {"query": x, "key": x, "value": x}
    return 4 * _ROWS * _ROWS * probes.WIDTH / _seconds(lambda: session.run(["y"], feeds))


def _thread_count(threads: int | None) -> int:
    return threads or len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def _seconds(run: Callable[[], object]) -> float:
    """The fastest of a few runs, after one that does not count."""
    run()
    best = float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best
