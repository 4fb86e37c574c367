"""What the machine gives at this moment: bytes read per second, and int8 products per second.

Reading: the largest element of an array larger than the caches, one slice per thread. Products: dynamically quantised
matrix products (W8A8) of 608 rows through ONNX Runtime, as an int8 bundle runs them. The best of a few tries counts,
since what else runs can only slow them down.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import onnxruntime as ort

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import versions
from grip_edge.export.precision import PrecisionOptions
from grip_edge.planning.probes import WIDTH, linear_stack

_READ_BYTES = 640_000_000
_ROWS = 608
_MATRICES = 2
_TRIES = 3


class Probe:
    def __init__(self, settings: Message) -> None:
        threads = settings["threads"]
        self._pool = ThreadPoolExecutor(threads)
        self._slices = np.array_split(np.ones(_READ_BYTES // 4, np.float32), threads)
        options = ort.SessionOptions()
        options.intra_op_num_threads = threads
        options.add_session_config_entry("session.intra_op.allow_spinning", "0")
        model = linear_stack("int8", _MATRICES, PrecisionOptions("int8").formats)
        self._session = ort.InferenceSession(model, options, providers=["CPUExecutionProvider"])
        self._rows = np.random.default_rng(0).standard_normal((_ROWS, WIDTH), np.float32)

    def versions(self) -> Mapping[str, str]:
        return versions("onnxruntime", "numpy")

    def answer(self, kept: int, new_tokens: int) -> Message:
        """Takes no notice of what a model would be asked."""
        read_s = _best_s(lambda: list(self._pool.map(np.maximum.reduce, self._slices)))
        product_s = _best_s(lambda: self._session.run(["y"], {"x": self._rows}))
        return {
            "read_bytes_per_sec": _READ_BYTES / read_s,
            "int8_operations_per_sec": 2 * _ROWS * _MATRICES * WIDTH**2 / product_s,
        }

    def check(self, folder: Path) -> Message:
        raise NotImplementedError("A probe computes nothing that could be compared.")


def _best_s(run: Callable[[], object]) -> float:
    best = float("inf")
    for _ in range(_TRIES):
        start = time.perf_counter()
        run()
        best = min(best, time.perf_counter() - start)
    return best


if __name__ == "__main__":
    serve(Probe)
