"""Reference: the peak resident memory of fresh processes that export, load and answer (``VmHWM``)."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from grip_edge.export.precision import PrecisionOptions, session_config
from grip_edge.planning import probes
from grip_edge.planning.bundle_size import bundle_bytes
from grip_edge.planning.find_config import find_shape
from grip_edge.planning.formats import Matrix, matrix_bytes, scale_bytes
from grip_edge.planning.layers import ScorerShape
from grip_edge.planning.memory import cpu_memory, export_needs

TOLERANCE = 0.1

PEAK = """
def peak():
    return next(1024 * int(line.split()[1]) for line in open("/proc/self/status") if line.startswith("VmHWM"))
"""
EXPORT = """
import sys
from pathlib import Path
from grip_edge.export.exporter import ExportOptions, export_bundle
checkpoint, scorer, out = sys.argv[1:]
export_bundle(ExportOptions(checkpoint, "0.1,0.5", Path(scorer), Path(out)))
print(peak())
"""
ANSWER = """
import sys
from grip_edge.runtime import Pipeline
Pipeline.load(sys.argv[1]).generate(sys.argv[2], "what?", budget=1.0, max_new_tokens=4, ignore_stop=True)
print(peak())
"""
LOAD = """
import sys
import numpy as np
from pathlib import Path
from grip_edge.runtime.session import load_session
before = peak()
config = dict(item.split("=") for item in sys.argv[2:])
session = load_session(Path(sys.argv[1]), ("x",), ("y",), 1, config)
session.run(["y"], {"x": np.ones((1, 4096), np.float32)})
print(peak() - before)
"""

pytestmark = pytest.mark.skipif(not Path("/proc/self/status").is_file(), reason="peak memory is read from /proc")


def peak_of(program: str, *arguments: object) -> int:
    command = [sys.executable, "-W", "ignore", "-c", PEAK + program, *map(str, arguments)]
    return int(subprocess.run(command, capture_output=True, text=True, check=True).stdout.split()[-1])


@pytest.mark.skipif(torch.version.cuda is not None, reason="PyTorch with CUDA takes more from the start")
def test_an_export(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path) -> None:
    model, tokenizer_bytes = find_shape(str(toy_checkpoint))
    needs = export_needs(model, bundle_bytes(model, PrecisionOptions("fp32").formats, tokenizer_bytes))
    found = peak_of(EXPORT, toy_checkpoint, toy_scorer, tmp_path / "bundle")
    assert needs.ram_bytes == pytest.approx(found, rel=TOLERANCE)


def test_an_answer(toy_checkpoint: Path, toy_bundle: Path, tmp_path: Path) -> None:
    Image.fromarray(np.zeros((60, 60, 3), np.uint8)).save(tmp_path / "black.png")
    model, tokenizer_bytes = find_shape(str(toy_checkpoint))
    formats = PrecisionOptions("fp32").formats
    bundle = bundle_bytes(model, formats, tokenizer_bytes, ScorerShape(width=16))
    forecast = cpu_memory(model, formats, bundle, prompt_tokens=60, slots=64)
    found = peak_of(ANSWER, toy_bundle, tmp_path / "black.png")
    assert forecast.total == pytest.approx(found, rel=TOLERANCE)


def test_weights_in_blocks_keep_their_scales_twice_more(tmp_path: Path) -> None:
    formats, count = PrecisionOptions("int4").formats, 12
    graph = tmp_path / "stack.onnx"
    graph.write_bytes(probes.linear_stack("int4", count, formats))
    matrix = Matrix(probes.WIDTH, probes.WIDTH, count)
    inside = graph.stat().st_size  # the file itself is read into memory, unlike a bundle's data
    expected = matrix_bytes(matrix, "int4", formats) + 2 * scale_bytes(matrix, "int4", formats) + inside
    found = peak_of(LOAD, graph, *(f"{key}={value}" for key, value in session_config(formats).items()))
    assert found == pytest.approx(expected, rel=TOLERANCE)
