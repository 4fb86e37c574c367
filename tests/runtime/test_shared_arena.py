"""Reference: the same sessions with an arena each, in a process of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import onnx
import onnxruntime as ort
import pytest
from onnx import TensorProto, helper

from grip_edge.runtime.shared_arena import use_shared_arena

SESSIONS = 4
ROWS = 1 << 20  # of 4 bytes: each run holds some of these at once
RUN = """
import sys
import numpy as np
import onnxruntime as ort
from grip_edge.runtime.shared_arena import use_shared_arena
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
sessions = []
for _ in range(int(sys.argv[2])):
    options = ort.SessionOptions()
    if sys.argv[3] == "shared":
        use_shared_arena(options)
    sessions.append(ort.InferenceSession(sys.argv[1], options, providers=["CPUExecutionProvider"]))
feed = {"x": np.ones(int(sys.argv[4]), np.float32)}
before = resident()
for session in sessions:
    session.run(["sum"], feed)
print(resident() - before)
"""


@pytest.fixture
def graph(tmp_path: Path) -> Path:
    """[N] -> the sum of exp(x) * tanh(x), whose parts are as large as x."""
    nodes = [
        helper.make_node("Exp", ["x"], ["risen"]),
        helper.make_node("Tanh", ["x"], ["bent"]),
        helper.make_node("Mul", ["risen", "bent"], ["both"]),
        helper.make_node("ReduceSum", ["both"], ["sum"], keepdims=0),
    ]
    x = helper.make_tensor_value_info("x", TensorProto.FLOAT, ["N"])
    total = helper.make_tensor_value_info("sum", TensorProto.FLOAT, [])
    model = helper.make_model(
        helper.make_graph(nodes, "sums", [x], [total]), opset_imports=[helper.make_opsetid("", 21)], ir_version=10
    )
    path = tmp_path / "sums.onnx"
    onnx.save(model, path)
    return path


def held_bytes(graph: Path, how: str) -> int:
    command = [sys.executable, "-c", RUN, str(graph), str(SESSIONS), how, str(ROWS)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


@pytest.mark.skipif(sys.platform != "linux", reason="memory is read from Linux's /proc")
def test_sessions_that_run_in_turn_hold_the_memory_of_one(graph: Path) -> None:
    apart, shared = held_bytes(graph, "apart"), held_bytes(graph, "shared")
    assert shared < 0.5 * apart, (shared, apart)


def test_results_are_those_of_an_arena_of_its_own(graph: Path) -> None:
    options = ort.SessionOptions()
    use_shared_arena(options)
    x = np.random.default_rng(0).standard_normal(1000).astype(np.float32)
    runs = [
        ort.InferenceSession(str(graph), given, providers=["CPUExecutionProvider"]).run(["sum"], {"x": x})[0]
        for given in (options, ort.SessionOptions())
    ]
    assert runs[0] == runs[1], runs
