"""Reference: the numpy oracle. What runs is the source of the CUDA kernels, compiled by g++ for threads of the CPU.

This proves the algorithm and its synchronisation, not that a GPU runs it: that is benchmarks/gpu/run.sh.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray

import grip_edge.plugin
from grip_edge.calibration.selection import keep_best_numpy
from tests.plugin.test_algorithm import adversaries

NATIVE = Path(grip_edge.plugin.__file__).parent / "native"
HERE = Path(__file__).parent


@pytest.fixture(scope="module")
def kernels(tmp_path_factory: pytest.TempPathFactory) -> Any:
    if shutil.which("g++") is None:
        pytest.skip("needs g++")
    library = tmp_path_factory.mktemp("kernels") / "kernels.so"
    command = ["g++", "-std=c++20", "-O1", "-pthread", "-shared", "-fPIC", "-Wall", "-Werror", "-I", str(NATIVE)]
    done = subprocess.run(
        [*command, str(HERE / "select_on_threads.cpp"), "-o", str(library)], capture_output=True, text=True
    )
    assert done.returncode == 0, done.stderr
    return ctypes.CDLL(str(library))


def pointer(array: NDArray[Any]) -> Any:
    return array.ctypes.data_as(ctypes.c_void_p)


def select(kernels: Any, scores: NDArray[np.float32], kept: int, threads: int) -> NDArray[np.int64]:
    batch, tokens = scores.shape
    indices = np.full((batch, kept), -1, np.int64)
    kernels.select_on_threads(pointer(scores), batch, tokens, kept, threads, pointer(indices))
    return indices


def gather(kernels: Any, features: NDArray[np.float32], indices: NDArray[np.int64]) -> NDArray[np.float32]:
    (batch, tokens, width), kept = features.shape, indices.shape[1]
    found = np.full((batch, kept, width), np.nan, np.float32)
    units = ctypes.c_int64(width)
    kernels.gather_on_threads(pointer(features), units, batch, tokens, kept, pointer(indices), pointer(found))
    return found


@pytest.mark.parametrize(
    ("count", "threads"), [(1, 32), (33, 64), (100, 32), (300, 64), (576, 256), (1025, 32), (16_384, 256)]
)
def test_the_kernels_keep_what_the_oracle_keeps(kernels: Any, count: int, threads: int) -> None:
    cases = adversaries(count)
    scores = np.stack(list(cases.values()))
    for kept in sorted({1, max(1, count // 3), count}):
        found = select(kernels, scores, kept, threads)
        for row, name in enumerate(cases):
            expected = keep_best_numpy(scores[row], kept)
            np.testing.assert_array_equal(found[row], expected, f"{name}, {kept} of {count}")


@pytest.mark.parametrize("count", [1, 33, 300])
def test_the_kernels_copy_the_rows_that_were_kept(kernels: Any, count: int) -> None:
    random = np.random.default_rng(0)
    features = random.standard_normal((3, count, 5)).astype(np.float32)
    indices = np.stack([np.sort(random.choice(count, (count + 1) // 2, replace=False)) for _ in features])
    found = gather(kernels, features, indices)
    np.testing.assert_array_equal(found, np.take_along_axis(features, indices[..., None], axis=1))
