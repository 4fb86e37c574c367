"""Reference: the same graph loaded without the setting, in a process of its own: freed copies must be gone."""

from __future__ import annotations

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from grip_edge.manifest import WeightFormats
from grip_edge.planning.probes import linear_stack

FORMATS = WeightFormats("int4", "int4", "int4", "int8", 32, False)
MATRICES = 4
LOAD = """
import contextlib, sys
import onnxruntime as ort
from grip_edge.allocator import large_blocks_returned
def resident():
    return int(open("/proc/self/statm").read().split()[1]) * 4096
before = resident()
with large_blocks_returned() if sys.argv[2] == "returned" else contextlib.nullcontext():
    session = ort.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
print(resident() - before)
"""


def loaded_bytes(graph: Path, how: str) -> int:
    done = subprocess.run([sys.executable, "-c", LOAD, str(graph), how], capture_output=True, text=True, check=True)
    return int(done.stdout)


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="only glibc keeps large freed blocks")
def test_copies_made_while_loading_do_not_stay_in_memory(tmp_path: Path) -> None:
    graph = tmp_path / "stack.onnx"
    graph.write_bytes(linear_stack("int4", MATRICES, FORMATS))
    kept, returned = loaded_bytes(graph, "kept"), loaded_bytes(graph, "returned")
    stored = graph.stat().st_size
    assert returned < 0.85 * kept, f"{returned / stored:.2f} and {kept / stored:.2f} times the weights"
