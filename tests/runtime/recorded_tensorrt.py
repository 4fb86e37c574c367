"""A stand-in for TensorRT and its device: memory of the host, and engines that are ONNX graphs in ONNX Runtime.

It keeps TensorRT's rules as far as the runtime could break them: addresses must be bound and inside what was
allocated, shapes lie in the profile, an input keeps its shape until it is set, a recorded launch replays with the
addresses of its recording. It proves nothing about a GPU.
"""

from __future__ import annotations

import ctypes
import math
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import onnx
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.bundle import GRAPH_NAMES, Bundle, record_file
from grip_edge.engines import (
    ENGINES_FOLDER,
    ENGINES_NAME,
    NEXT_EMBEDS,
    SCHEMA_VERSION,
    EngineManifest,
    Engines,
    engine_name,
    read_engines,
    source_hashes,
)

_TYPES = {1: "FLOAT", 10: "HALF", 7: "INT64", 9: "BOOL"}
_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "BOOL": np.bool_}


class HostDriver:
    """``runtime.tensorrt.driver.Driver`` in host memory."""

    stream = 7

    def __init__(self) -> None:
        self.memory: dict[int, Any] = {}
        self.copied_to_host = 0
        self.waits = 0
        self.launches = 0
        self.recording: list[Callable[[], None]] | None = None
        self._graphs: list[list[Callable[[], None]]] = []

    def allocate(self, size_bytes: int) -> int:
        buffer = ctypes.create_string_buffer(b"\xff" * size_bytes, size_bytes)  # not zero: nobody may count on it
        self.memory[ctypes.addressof(buffer)] = buffer
        return ctypes.addressof(buffer)

    def free(self, address: int) -> None:
        del self.memory[address]

    def zero(self, address: int, size_bytes: int) -> None:
        ctypes.memset(address, 0, size_bytes)

    def to_device(self, address: int, array: NDArray[Any]) -> None:
        ctypes.memmove(address, array.ctypes.data, array.nbytes)

    def to_host(self, array: NDArray[Any], address: int) -> None:
        self.copied_to_host += array.nbytes
        ctypes.memmove(array.ctypes.data, address, array.nbytes)

    def copy(self, to: int, source: int, size_bytes: int) -> None:
        ctypes.memmove(to, source, size_bytes)

    def synchronise(self) -> None:
        self.waits += 1

    def begin_capture(self) -> None:
        self.recording = []

    def end_capture(self) -> int:
        assert self.recording is not None
        self._graphs.append(self.recording)
        self.recording = None
        return len(self._graphs)

    def launch(self, graph: int) -> None:
        self.launches += 1
        for work in self._graphs[graph - 1]:
            work()


class _Context:
    def __init__(self, engine: _Engine) -> None:
        self._engine = engine
        self._shapes: dict[str, tuple[int, ...]] = {}
        self._addresses: dict[str, int] = {}

    def set_optimization_profile_async(self, profile: int, stream: int) -> bool:
        return 0 <= profile < 2

    def set_input_shape(self, name: str, shape: tuple[int, ...]) -> bool:
        fixed = self._engine.inputs[name]
        self._shapes[name] = shape
        return len(shape) == len(fixed) and all(not isinstance(f, int) or f == s for f, s in zip(fixed, shape))  # noqa: B905

    def set_tensor_address(self, name: str, address: int) -> bool:
        self._addresses[name] = address
        return name in self._engine.types

    def execute_async_v3(self, stream: int) -> bool:
        assert stream == HostDriver.stream
        shapes, addresses, engine = dict(self._shapes), dict(self._addresses), self._engine
        assert set(addresses) == set(engine.types), set(engine.types) - set(addresses)

        def work() -> None:
            feeds = {name: _view(addresses[name], shapes.get(name, (1,)), engine.types[name]) for name in engine.inputs}
            outputs = engine.session.run(None, {name: array.copy() for name, array in feeds.items()})
            for node, array in zip(engine.session.get_outputs(), outputs, strict=True):
                ctypes.memmove(addresses[node.name], array.ctypes.data, array.nbytes)

        if engine.driver.recording is not None:
            engine.driver.recording.append(work)
        else:
            work()
        return True


class _Engine:
    def __init__(self, data: bytes, driver: HostDriver) -> None:
        model = onnx.load_from_string(data)
        self.driver = driver
        options = ort.SessionOptions()
        options.log_severity_level = 3  # that caches are copied here is no news
        self.session = ort.InferenceSession(data, options, providers=["CPUExecutionProvider"])
        values = (*model.graph.input, *model.graph.output)
        self.types = {value.name: _TYPES[value.type.tensor_type.elem_type] for value in values}
        self.inputs = {node.name: tuple(node.shape) for node in self.session.get_inputs()}

    def get_tensor_dtype(self, name: str) -> Any:
        return SimpleNamespace(name=self.types[name])

    def create_execution_context(self) -> _Context:
        return _Context(self)


class Runtime:
    def __init__(self, driver: HostDriver) -> None:
        self._driver = driver

    def deserialize_cuda_engine(self, data: Any) -> _Engine:
        return _Engine(bytes(data), self._driver)


def write_engines(bundle: Bundle, folder: Path, capacity: int, in_place: bool = True) -> Engines:
    """The bundle's graphs in the place of engines, as ``grip-edge build`` lays them out."""
    folder.mkdir(parents=True)
    for graph in GRAPH_NAMES:
        model = onnx.load(bundle.path(graph))  # of a bundle for cpu, whose decoder chooses the token too,
        for output in [output for output in model.graph.output if output.name == NEXT_EMBEDS]:  # and embeds it
            model.graph.output.remove(output)
        (folder / engine_name(graph)).write_bytes(model.SerializeToString())
    manifest = EngineManifest(
        SCHEMA_VERSION, "tensorrt_rtx", "1.7.1.116", (86,), "rtx", "fp32", None, capacity, in_place, (),
        source_hashes(bundle), tuple(record_file(folder, path) for path in sorted(folder.glob("*.engine"))),
    )  # fmt: skip
    (folder / ENGINES_NAME).write_text(manifest.to_json())
    return read_engines(folder)


def engines_folder(bundle: Bundle) -> Path:
    return bundle.folder / ENGINES_FOLDER / "tensorrt_rtx-1.7.1.116-sm86"


def _view(address: int, shape: tuple[int, ...], kind: str) -> NDArray[Any]:
    dtype = np.dtype(_NUMPY[kind])
    raw = (ctypes.c_char * (math.prod(shape) * dtype.itemsize)).from_address(address)
    return np.asarray(np.frombuffer(memoryview(raw).cast("B"), dtype)).reshape(shape)
