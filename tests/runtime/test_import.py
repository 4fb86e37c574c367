"""What the device needs: importing the runtime loads no torch and no transformers, and is quick."""

from __future__ import annotations

import json
import subprocess
import sys

import grip_edge.runtime

_PROGRAM = """
import sys, time, json
start = time.process_time()  # of the processor: the clock on the wall would measure what else the machine does
import grip_edge.runtime
print(json.dumps([time.process_time() - start, sorted(sys.modules)]))
"""


def test_import_is_light_and_quick() -> None:
    tries = [
        json.loads(subprocess.run([sys.executable, "-c", _PROGRAM], check=True, capture_output=True).stdout)
        for _ in range(3)
    ]
    modules = set(tries[0][1])
    assert not modules & {"torch", "transformers", "onnx", "onnx_ir", "click", "rich"}
    assert min(seconds for seconds, _ in tries) < 0.5


def test_public_names_are_sorted_and_there() -> None:
    names = grip_edge.runtime.__all__
    assert names == sorted(names)
    assert all(hasattr(grip_edge.runtime, name) for name in names)
    assert "Pipeline" in names
