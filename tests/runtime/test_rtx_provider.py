"""TensorRT-RTX's provider for ONNX Runtime. References: ONNX Runtime itself for what goes wrong without a GPU, and the
lengths that ``grip-edge build`` chooses. The package and its devices are made up; nothing runs on a GPU here.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnxruntime as ort
import pytest

from grip_edge.bundle import GRAPH_NAMES, Bundle, open_bundle
from grip_edge.engine_shapes import Shapes
from grip_edge.errors import UserError
from grip_edge.runtime import Pipeline, rtx_provider

MODULE = "onnxruntime_ep_nv_tensorrt_rtx"
GPU, CPU = ort.OrtHardwareDeviceType.GPU, ort.OrtHardwareDeviceType.CPU


@pytest.fixture(autouse=True)
def unregistered() -> Iterator[None]:
    rtx_provider._register.cache_clear()
    yield
    rtx_provider._register.cache_clear()


@pytest.fixture
def package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The library of an installed package; it is no library yet."""
    library = tmp_path / "libprovider.so"
    library.write_bytes(b"no library")
    monkeypatch.setitem(sys.modules, MODULE, SimpleNamespace(get_library_path=lambda: str(library)))
    return library


@pytest.fixture
def registered(package: Path, monkeypatch: pytest.MonkeyPatch) -> list[tuple[str, str]]:
    calls: list[tuple[str, str]] = []
    monkeypatch.setattr(ort, "register_execution_provider_library", lambda *names: calls.append(names))
    return calls


def for_rtx(bundle: Path) -> Bundle:
    opened = open_bundle(bundle)
    return dataclasses.replace(opened, manifest=dataclasses.replace(opened.manifest, target="rtx"))


def device(kind: Any, name: str = rtx_provider.PROVIDER) -> Any:
    return SimpleNamespace(ep_name=name, device=SimpleNamespace(type=kind))


def test_without_the_package_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, MODULE, None)
    with pytest.raises(UserError, match=r"run  pip install onnxruntime-ep-nv-tensorrt-rtx$"):
        rtx_provider.rtx_device()


def test_a_library_that_does_not_load(package: Path) -> None:
    """ONNX Runtime's own refusal, in one line; asked again it is the same."""
    for _ in range(2):
        with pytest.raises(UserError, match=r"does not load .*install the NVIDIA driver") as caught:
            rtx_provider.rtx_device()
        assert package.name in str(caught.value)
        assert "\n" not in str(caught.value)


@pytest.mark.parametrize(("capability", "here"), [(None, "there is none here"), (90, "here is one of sm90")])
def test_no_gpu_that_it_runs_on(
    registered: list[tuple[str, str]], capability: int | None, here: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rtx_provider, "compute_capability", lambda: capability)
    with pytest.raises(UserError, match=f"needs a GPU of sm86, sm89, sm120 or newer; {here}"):
        rtx_provider.rtx_device()


def test_the_first_gpu_of_the_provider_is_taken(
    registered: list[tuple[str, str]], package: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    first, second = device(GPU), device(GPU)
    devices = [device(CPU, "CPUExecutionProvider"), device(GPU, "CUDAExecutionProvider"), device(CPU), first, second]
    monkeypatch.setattr(ort, "get_ep_devices", lambda: devices)
    assert rtx_provider.rtx_device() is first
    assert rtx_provider.rtx_device() is first
    assert registered == [(rtx_provider.PROVIDER, str(package))], "ONNX Runtime refuses a second registration"


def test_a_session_gets_the_device_and_the_lengths_of_an_engine(
    toy_bundle: Path, registered: list[tuple[str, str]], monkeypatch: pytest.MonkeyPatch
) -> None:
    gpu = device(GPU)
    monkeypatch.setattr(ort, "get_ep_devices", lambda: [gpu])
    bundle = for_rtx(toy_bundle)
    shapes, width = Shapes.plan(bundle.manifest), bundle.manifest.model.text.width
    attach = rtx_provider.rtx_provider(bundle)
    told: dict[str, Any] = {}
    for graph in GRAPH_NAMES:
        options = SimpleNamespace(
            add_free_dimension_override_by_name=lambda axis, size: told.update({axis: size}),
            add_provider_for_devices=lambda devices, found, graph=graph: told.update({graph: (devices, found)}),
        )
        attach(options, graph)
    assert told.pop("C") == shapes.cache_capacity
    assert all(devices == [gpu] for devices, _ in told.values())
    assert told["vision.onnx"][1] == {}
    assert told["embed.onnx"][1]["nv_profile_min_shapes"] == "token_ids:1x1"
    budget, question = shapes.axes("select.onnx")[0]["K"], shapes.axes("select.onnx")[0]["T"]
    for which, name in enumerate(("min", "opt", "max")):
        expected = f"question_embeds:1x{question[which]}x{width},budget:{budget[which]}"
        assert told["select.onnx"][1][f"nv_profile_{name}_shapes"] == expected
    longest = shapes.axes("decoder.onnx")[0]["S"][2]
    found = told["decoder.onnx"][1]["nv_profile_max_shapes"]
    assert found == f"embeds:1x{longest}x{width},position_ids:1x{longest}"


def test_every_input_of_varying_length_has_a_profile(toy_bundle: Path) -> None:
    """As the graphs themselves declare them; without a profile the provider allows any length."""
    bundle = for_rtx(toy_bundle)
    for graph in GRAPH_NAMES:
        session = ort.InferenceSession(str(bundle.path(graph)), providers=["CPUExecutionProvider"])
        varying = {
            node.name
            for node in session.get_inputs()
            if any(isinstance(axis, str) and axis != "C" for axis in node.shape)
        }
        assert varying == set(rtx_provider._VARYING.get(graph, {})) - {"budget"}


def test_bundles_that_it_does_not_run(toy_bundle: Path) -> None:
    with pytest.raises(UserError, match="onnxruntime-rtx runs bundles for rtx, this one is for cpu"):
        Pipeline.load(toy_bundle, backend="onnxruntime-rtx")
