"""The runtime's use of CUDA on a GPU, without TensorRT: memory, copies, one stream, a recorded graph of launches.

    python benchmarks/gpu/check_driver.py out.json

Needs cuda-bindings. Ends with code 1 if a number that comes back differs.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np

from grip_edge.cuda_device import compute_capability
from grip_edge.runtime.tensorrt.device_array import DeviceArray
from grip_edge.runtime.tensorrt.driver import CudaDriver

SIZES = (1, 1024, 1 << 20, 1 << 24)
REPEATS = 200


def check_copies(driver: CudaDriver) -> int:
    for size in SIZES:
        numbers = np.random.default_rng(size).standard_normal(size).astype(np.float32)
        first, second = (DeviceArray(driver, (size,), np.float32) for _ in range(2))
        first.fill(numbers)
        second.zero()
        np.testing.assert_array_equal(second.read(), np.zeros_like(numbers))
        driver.copy(second.address, first.address, first.size_bytes)
        np.testing.assert_array_equal(second.read(), numbers)
    return len(SIZES)


def check_memory(driver: CudaDriver) -> None:
    """What is given back serves the next array of its size."""
    array = DeviceArray(driver, (1000,), np.float32)
    address = array.address
    del array
    assert DeviceArray(driver, (1000,), np.float32).address == address


def check_recording(driver: CudaDriver) -> None:
    """A recorded copy reads what its source holds when it is launched, not when it was recorded."""
    source, target = (DeviceArray(driver, (64,), np.int64) for _ in range(2))
    target.zero()
    driver.begin_capture()
    driver.copy(target.address, source.address, source.size_bytes)
    graph = driver.end_capture()
    for number in range(3):
        source.fill(np.full(64, number, np.int64))
        driver.launch(graph)
        np.testing.assert_array_equal(target.read(), np.full(64, number))


def median_us(driver: CudaDriver, work: Any) -> float:
    times = []
    for _ in range(REPEATS):
        start = time.perf_counter()
        work()
        driver.synchronise()
        times.append(1e6 * (time.perf_counter() - start))
    return float(np.median(times))


def main() -> None:
    driver = CudaDriver("tensorrt")
    copies = check_copies(driver)
    check_memory(driver)
    check_recording(driver)
    token = DeviceArray(driver, (1, 1), np.int64)
    token.zero()
    document = {
        "kind": "driver",
        "compute_capability": compute_capability(),
        "sizes_copied": copies,
        "rows": [
            {"work": "wait for an idle stream", "median_us": median_us(driver, lambda: None)},
            {"work": "read one token (8 bytes)", "median_us": median_us(driver, token.read)},
            {"work": "write one token (8 bytes)", "median_us": median_us(driver, lambda: token.fill(np.array([[1]])))},
        ],
    }
    Path(sys.argv[1]).write_text(json.dumps(document, indent=2) + "\n")
    print("copies, memory and recording are right")


if __name__ == "__main__":
    main()
