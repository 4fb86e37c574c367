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
    return ctypes.CDLL(str(library)).select_on_threads


def run(
    kernels: Any, scores: NDArray[np.float32], features: NDArray[np.float32], kept: int, threads: int
) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    batch, tokens, width = features.shape
    found = np.full((batch, kept, width), np.nan, np.float32)
    indices = np.full((batch, kept), -1, np.int64)
    pointers = [array.ctypes.data_as(ctypes.c_void_p) for array in (scores, features, found, indices)]
    kernels(pointers[0], pointers[1], ctypes.c_int64(width), batch, tokens, kept, threads, *pointers[2:])
    return found, indices


@pytest.mark.parametrize(("count", "threads"), [(1, 32), (33, 64), (100, 32), (300, 64)])
def test_the_kernels_keep_what_the_oracle_keeps(kernels: Any, count: int, threads: int) -> None:
    cases = adversaries(count)
    scores = np.stack(list(cases.values()))
    features = np.random.default_rng(0).standard_normal((len(cases), count, 3)).astype(np.float32)
    for kept in sorted({1, max(1, count // 3), count}):
        found, indices = run(kernels, scores, features, kept, threads)
        for row, name in enumerate(cases):
            expected = keep_best_numpy(scores[row], kept)
            np.testing.assert_array_equal(indices[row], expected, f"{name}, {kept} of {count}")
            np.testing.assert_array_equal(found[row], features[row][expected])
