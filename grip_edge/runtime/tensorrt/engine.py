"""One engine and one of its profiles: addresses and shapes in, one launch on the stream.

``load_engines`` deserialises what ``grip-edge build`` wrote. Nothing here allocates tensors.
"""

from __future__ import annotations

import mmap
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np

from grip_edge.errors import BundleError
from grip_edge.runtime.tensorrt.device_array import DeviceArray
from grip_edge.runtime.tensorrt.driver import CudaError

_NUMPY = {"FLOAT": np.float32, "HALF": np.float16, "INT64": np.int64, "INT32": np.int32, "BOOL": np.bool_}


class Engine:
    """A deserialised engine; its contexts share the weights."""

    def __init__(self, trt: Any, path: Path, runtime: Any) -> None:
        self._trt, self._runtime, self.path = trt, runtime, path
        try:
            # Mapped, so that a large engine is not in memory twice while it is read.
            with path.open("rb") as file, mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ) as data:
                self._engine = runtime.deserialize_cuda_engine(data)
        except (OSError, ValueError) as error:  # an empty file cannot be mapped
            raise BundleError(f"{path} cannot be read ({error}); build the engines again.") from None
        if self._engine is None:
            raise BundleError(f"{path} does not load on this device; build the engines again with  grip-edge build .")

    def dtype(self, tensor: str) -> np.dtype[Any]:
        return np.dtype(_NUMPY[self._engine.get_tensor_dtype(tensor).name])

    def context(self, profile: int, stream: int, captured: bool = False) -> Context:
        """``captured``: its launches, all of the same shapes, are to be recorded."""
        context = self._create_context(captured)
        if context is None:
            raise BundleError(f"{self.path}: no memory on the device for an execution context; use a smaller bundle.")
        if not context.set_optimization_profile_async(profile, stream):
            raise BundleError(f"{self.path} has no profile {profile}; build the engines again with  grip-edge build .")
        return Context(self.path.name, self, context, stream)

    def _create_context(self, captured: bool) -> Any:
        """TensorRT-RTX compiles kernels for the shapes that it meets, in the background unless told otherwise. A
        recording keeps the kernels that it was made with.
        """
        strategies = getattr(self._trt, "DynamicShapesKernelSpecializationStrategy", None)
        if not captured or strategies is None:
            return self._engine.create_execution_context()
        config = self._engine.create_runtime_config()
        config.dynamic_shapes_kernel_specialization_strategy = strategies.EAGER
        return self._engine.create_execution_context(config)


@dataclass(frozen=True)
class Context:
    """``engine`` is held as long as one of its contexts is."""

    name: str
    engine: Engine
    context: Any
    stream: int

    def bind(self, inputs: Mapping[str, DeviceArray], outputs: Mapping[str, DeviceArray]) -> None:
        """Shapes of inputs are those of the arrays."""
        for name, array in inputs.items():
            if not self.context.set_input_shape(name, array.shape):
                raise BundleError(
                    f"{self.name}: input '{name}' of shape {list(array.shape)} lies outside the profile; build the "
                    "engines again with a larger --max-new-tokens."
                )
        for name, array in (*inputs.items(), *outputs.items()):
            self.set_address(name, array.address)

    def set_address(self, name: str, address: int) -> None:
        if not self.context.set_tensor_address(name, address):
            raise BundleError(f"{self.name} has no tensor '{name}'; build the engines again with  grip-edge build .")

    @property
    def may_be_captured(self) -> bool:
        """TensorRT-RTX tells; TensorRT shows when it is tried."""
        asked = getattr(self.context, "is_stream_capturable", None)
        return asked is None or bool(asked(self.stream))

    def launch(self) -> None:
        if not self.context.execute_async_v3(self.stream):
            raise CudaError(f"{self.name} could not be launched; check the device with  nvidia-smi .")
