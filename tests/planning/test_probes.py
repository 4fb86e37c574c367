"""References: ``onnx`` reads the bytes and checks them; numpy computes what the probes must give."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnx
import pytest
from onnx import numpy_helper
from onnx.reference import ReferenceEvaluator

from grip_edge.export.precision import PrecisionOptions, session_config
from grip_edge.planning import cpu_speed, probes
from grip_edge.planning.cpu_speed import host_memory, measured_speed

FORMATS = PrecisionOptions("int4").formats
SCHEMES = ("fp32", "int8", "int8-weight", "int4")


@pytest.fixture(autouse=True)
def small(monkeypatch: pytest.MonkeyPatch) -> None:
    """Matrices of 256 x 256, in stacks of a megabyte."""
    monkeypatch.setattr(probes, "WIDTH", 256)
    monkeypatch.setattr(cpu_speed, "_MOST_BYTES", 1_000_000)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_onnx_accepts_the_bytes(scheme: str) -> None:
    model = onnx.load_model_from_string(probes.linear_stack(scheme, 2, FORMATS))
    onnx.checker.check_model(model, full_check=True)
    assert [value.name for value in model.graph.output] == ["y"]


def test_onnx_accepts_the_attention() -> None:
    onnx.checker.check_model(onnx.load_model_from_string(probes.attention()), full_check=True)


@pytest.mark.parametrize("scheme", SCHEMES)
def test_onnx_runtime_computes_what_the_reference_does(scheme: str) -> None:
    data = probes.linear_stack(scheme, 1, FORMATS)
    x = np.random.default_rng(1).standard_normal((3, 256), np.float32)
    session = cpu_speed._session(data, session_config(FORMATS), 1)
    found = session.run(["y"], {"x": x})[0]
    reference: Any = ReferenceEvaluator(onnx.load_model_from_string(data))
    expected = reference.run(["y"], {"x": x})[0]
    difference = np.abs(found - expected)
    assert difference.max() < 0.05 * np.abs(expected).max(), f"max {difference.max()}, mean {difference.mean()}"


def test_different_matrices_have_different_weights() -> None:
    """Equal ones would be stored once, and read from the cache."""
    model = onnx.load_model_from_string(probes.linear_stack("fp32", 2, FORMATS))
    first, second = (numpy_helper.to_array(tensor) for tensor in model.graph.initializer[:2])
    assert not np.array_equal(first, second)


def test_all_rates_are_measured() -> None:
    speed = measured_speed(FORMATS, SCHEMES, session_config(FORMATS), threads=1)
    rates = (*speed.products.values(), *speed.rows.values(), speed.attention, speed.memory)
    assert len(rates) == 2 * len(SCHEMES) + 2
    assert all(rate > 1e6 for rate in rates)
    assert "1 threads" in speed.basis


def test_stacks_exceed_the_largest_cache_within_limits(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "index3").mkdir()
    (tmp_path / "index3" / "size").write_text("200000K\n")
    monkeypatch.setattr(cpu_speed, "_CACHES", tmp_path)
    monkeypatch.setattr(cpu_speed, "_MOST_BYTES", 1_000_000_000)
    assert cpu_speed._streamed_bytes() == 250_000 * 1024
    monkeypatch.setattr(cpu_speed, "_CACHES", tmp_path / "absent")
    assert cpu_speed._streamed_bytes() == 128_000_000


def test_the_memory_of_this_machine_is_told() -> None:
    memory = host_memory()
    if memory.total_bytes is None:
        pytest.skip("no /proc/meminfo")
    assert memory.available_bytes is not None
    assert 0 < memory.available_bytes <= memory.total_bytes


@pytest.mark.parametrize(("load", "told"), [(0.1, False), (64.0, True)])
def test_a_busy_machine_is_told_of(monkeypatch: pytest.MonkeyPatch, load: float, told: bool) -> None:
    monkeypatch.setattr("os.getloadavg", lambda: (load, 0.0, 0.0))
    monkeypatch.setattr("os.cpu_count", lambda: 4)
    basis = measured_speed(FORMATS, ("fp32",), session_config(FORMATS), threads=1).basis
    assert ("beside other programs (load average 64.0)" in basis) is told
