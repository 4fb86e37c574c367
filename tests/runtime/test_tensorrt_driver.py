"""Reference: what CUDA and TensorRT document of the calls, as stand-ins that keep it; nothing here is a GPU.

The device itself, the calls of CUDA's runtime, an engine's file and contexts, and the plugin's library.
"""

from __future__ import annotations

import ctypes
import shutil
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

from grip_edge import cuda_device
from grip_edge.errors import BundleError, MissingExtraError, UserError
from grip_edge.plugin import interface
from grip_edge.plugin.loading import load_plugin
from grip_edge.runtime.tensorrt.driver import CudaDriver, CudaError
from grip_edge.runtime.tensorrt.engine import Context, Engine


class FakeCuda:
    """``cuda.bindings.runtime``: every call gives its status first; ``calls`` remembers the names."""

    def __init__(self, failing: str = "", status: Any = 0) -> None:
        self.calls: list[str] = []
        self._failing, self._status = failing, status
        self._next = 4096
        self.cudaMemcpyKind = SimpleNamespace(
            cudaMemcpyHostToDevice=1, cudaMemcpyDeviceToHost=2, cudaMemcpyDeviceToDevice=3
        )
        self.cudaStreamCaptureMode = SimpleNamespace(cudaStreamCaptureModeThreadLocal=1)

    def __getattr__(self, name: str) -> Any:
        if not name.startswith("cuda"):
            raise AttributeError(name)

        def call(*arguments: Any) -> tuple[Any, ...]:
            self.calls.append(name)
            if name == self._failing:
                return (self._status, None)
            self._next += 4096
            return (0, self._next) if name in _GIVING else (0,)

        return call


_GIVING = ("cudaStreamCreate", "cudaMalloc", "cudaStreamEndCapture", "cudaGraphInstantiate")


class Status(int):
    name = "cudaErrorInsufficientDriver"


def driver_over(monkeypatch: pytest.MonkeyPatch, cuda: FakeCuda) -> CudaDriver:
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", cuda)
    monkeypatch.setitem(sys.modules, "cuda.bindings", SimpleNamespace(runtime=cuda))
    monkeypatch.setitem(sys.modules, "cuda", SimpleNamespace())
    return CudaDriver("rtx")


def test_memory_that_is_given_back_serves_the_next_array_of_its_size(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    driver = driver_over(monkeypatch, cuda)
    first, other = driver.allocate(100), driver.allocate(200)
    driver.free(first)
    assert driver.allocate(200) != first
    assert driver.allocate(100) == first
    assert first != other
    assert cuda.calls.count("cudaMalloc") == 3
    assert "cudaFree" not in cuda.calls


def test_a_recording_leaves_only_what_is_launched(monkeypatch: pytest.MonkeyPatch) -> None:
    cuda = FakeCuda()
    driver = driver_over(monkeypatch, cuda)
    driver.begin_capture()
    driver.launch(driver.end_capture())
    driver.to_host(np.empty(3), driver.allocate(24))
    assert cuda.calls[1:] == [
        "cudaStreamBeginCapture", "cudaStreamEndCapture", "cudaGraphInstantiate", "cudaGraphDestroy", "cudaGraphLaunch",
        "cudaMalloc", "cudaMemcpyAsync", "cudaStreamSynchronize",
    ]  # fmt: skip


def test_a_call_that_fails_is_named_with_its_remedy(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(CudaError, match=r"cudaStreamCreate failed: cudaErrorInsufficientDriver; .*cuda-bindings<13"):
        driver_over(monkeypatch, FakeCuda("cudaStreamCreate", Status(35)))
    driver = driver_over(monkeypatch, FakeCuda("cudaMalloc", 2))
    with pytest.raises(CudaError, match="cudaMalloc failed: 2; check the device with  nvidia-smi"):
        driver.allocate(8)


def test_without_the_package_the_command_is_told(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "cuda", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings", None)
    monkeypatch.setitem(sys.modules, "cuda.bindings.runtime", None)
    with pytest.raises(MissingExtraError, match=r"'cuda-bindings': run  pip install 'grip-edge\[rtx\]'"):
        CudaDriver("rtx")


@pytest.mark.parametrize(("device_count", "expected"), [(1, 87), (0, None)])
def test_the_compute_capability_comes_from_the_driver(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, device_count: int, expected: int | None
) -> None:
    """A library with the driver's four functions, as their header declares them."""
    if shutil.which("gcc") is None:
        pytest.skip("needs gcc")
    source = tmp_path / "driver.c"
    source.write_text(
        "int cuInit(unsigned flags) { return flags; }\n"
        f"int cuDeviceGet(int *device, int ordinal) {{ *device = 7; return ordinal < {device_count} ? 0 : 101; }}\n"
        "int cuDeviceGetAttribute(int *value, int what, int device) {\n"
        "  if (device != 7) return 101;\n"
        "  *value = what == 75 ? 8 : what == 76 ? 7 : -1;\n"
        "  return 0;\n}\n"
    )
    library = tmp_path / "libdriver.so"
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(library)], check=True)
    monkeypatch.setattr(cuda_device, "_DRIVER", str(library))
    assert cuda_device.compute_capability() == expected
    monkeypatch.setattr(cuda_device, "_DRIVER", "libno-such-driver.so.1")
    assert cuda_device.compute_capability() is None


class FakeRtx:
    """The part of TensorRT-RTX that an engine meets: one engine, whose contexts remember how they were made."""

    DynamicShapesKernelSpecializationStrategy = SimpleNamespace(LAZY="lazy", EAGER="eager")

    def create_runtime_config(self) -> Any:
        return SimpleNamespace(dynamic_shapes_kernel_specialization_strategy="lazy")

    def create_execution_context(self, config: Any = None) -> Any:
        strategy = "lazy" if config is None else config.dynamic_shapes_kernel_specialization_strategy
        return SimpleNamespace(strategy=strategy, set_optimization_profile_async=lambda profile, stream: True)

    def deserialize_cuda_engine(self, data: Any) -> FakeRtx | None:
        return self if bytes(data) == b"engine" else None


def test_recorded_launches_get_kernels_for_their_shapes(tmp_path: Path) -> None:
    path = tmp_path / "decoder.engine"
    path.write_bytes(b"engine")
    engine = Engine(FakeRtx, path, FakeRtx())
    assert engine.context(0, 1).context.strategy == "lazy"
    assert engine.context(1, 1, captured=True).context.strategy == "eager"
    plain = Engine(SimpleNamespace(), path, FakeRtx())  # TensorRT has no such choice
    assert plain.context(1, 1, captured=True).context.strategy == "lazy"


def test_whether_a_context_may_be_recorded() -> None:
    engine: Any = None
    assert Context("decoder", engine, SimpleNamespace(), 3).may_be_captured
    assert not Context(
        "decoder", engine, SimpleNamespace(is_stream_capturable=lambda stream: stream != 3), 3
    ).may_be_captured


@pytest.mark.parametrize(("content", "message"), [(b"", "cannot be read"), (b"other", "does not load on this device")])
def test_an_engine_file_that_is_none(tmp_path: Path, content: bytes, message: str) -> None:
    (tmp_path / "vision.engine").write_bytes(content)
    with pytest.raises(BundleError, match=f"vision.engine {message}.*; build the engines again"):
        Engine(FakeRtx, tmp_path / "vision.engine", FakeRtx())


class Registry:
    def __init__(self, version: str, loads: bool = True) -> None:
        self.all_creators = [SimpleNamespace(name=interface.NAME, plugin_version=version)]
        self._loads = loads

    def load_library(self, path: str) -> int | None:
        return 7 if self._loads else None


def library(folder: Path, *functions: str) -> Path:
    source, path = folder / "library.c", folder / "library.so"
    source.write_text("".join(f"int {name}(void) {{ return 0; }}\n" for name in functions))
    subprocess.run(["gcc", "-shared", "-fPIC", str(source), "-o", str(path)], check=True)
    return path


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_library_with_the_plugin_is_loaded_by_tensorrt(tmp_path: Path) -> None:
    path = library(tmp_path, "grip_budget_select", "getCreators")
    assert load_plugin(None, Registry(interface.VERSION), path) == 7
    with pytest.raises(UserError, match=f"of version 0, expected {interface.VERSION}; build it on this machine"):
        load_plugin(None, Registry("0"), path)
    with pytest.raises(UserError, match="does not load as a plugin"):
        load_plugin(None, Registry(interface.VERSION, loads=False), path)


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_a_library_of_kernels_gets_the_plugin_in_python(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    registered: list[Any] = []
    monkeypatch.setattr("grip_edge.plugin.twin.make_creator", lambda trt, kernels: kernels)

    def register_creator(creator: Any, namespace: str) -> bool:
        registered.append((creator, namespace))
        return True

    trt = SimpleNamespace(get_plugin_registry=lambda: SimpleNamespace(register_creator=register_creator))
    kept = load_plugin(trt, None, library(tmp_path, "grip_budget_select"))
    assert registered == [(kept, interface.NAMESPACE)]
    assert kept.restype is ctypes.c_int


@pytest.mark.skipif(shutil.which("gcc") is None, reason="needs gcc")
def test_other_files_are_no_plugin(tmp_path: Path) -> None:
    with pytest.raises(UserError, match=f"holds no {interface.NAME}; build it on this machine"):
        load_plugin(None, Registry("1"), library(tmp_path, "something"))
    (tmp_path / "text.so").write_text("text")
    with pytest.raises(UserError, match="does not load as a library"):
        load_plugin(None, Registry("1"), tmp_path / "text.so")
