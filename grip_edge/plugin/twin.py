"""The plugin in Python, for TensorRT's Python runtime and for builds without a C++ compiler.

It promises what the C++ plugin promises, and launches the same kernels from ``libgrip_budget_select.so`` through
ctypes; that library can be built without TensorRT's headers then. An engine that was built with one of the two runs
with the other. ``trt`` is ``tensorrt`` or ``tensorrt_rtx``, and is only there when the classes are made.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from grip_edge.plugin import interface

_SCORE_TYPES = {"FLOAT": 0, "HALF": 1, "BF16": 2}
_BYTES = {"FLOAT": 4, "HALF": 2, "BF16": 2}
_INPUTS = 2  # the budget is a shape input


def register(trt: Any, library: Path | None = None) -> Any:
    """Registers the plugin and returns its creator, which has to be kept. ``library`` None: for building only."""
    creator = make_creator(trt, None if library is None else load_kernels(library))
    if not trt.get_plugin_registry().register_creator(creator, interface.NAMESPACE):
        raise RuntimeError(f"A plugin {interface.NAME} of version {interface.VERSION} is registered already.")
    return creator


def load_kernels(library: Path) -> Any:
    """The C function of ``native/budget_select.h``."""
    function = ctypes.CDLL(str(library)).grip_budget_select
    pointer, number, wide = ctypes.c_void_p, ctypes.c_int, ctypes.c_int64
    function.argtypes = [pointer, number, pointer, wide, number, number, number, pointer, pointer, pointer]
    function.restype = number
    return function


def make_creator(trt: Any, kernels: Any) -> Any:
    """``kernels`` None: its plugins can be built, not run."""
    make_plugin = _plugin_class(trt, kernels)

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = interface.NAME
            self.plugin_namespace = interface.NAMESPACE
            self.plugin_version = interface.VERSION
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return make_plugin()

    return Creator()


def _plugin_class(trt: Any, kernels: Any) -> Any:
    core, building, running = trt.IPluginV3OneCore, trt.IPluginV3OneBuild, trt.IPluginV3OneRuntime

    class BudgetSelect(_Building, _Running, trt.IPluginV3, core, building, running):  # type: ignore[misc, valid-type]
        def __init__(self) -> None:
            for base in (trt.IPluginV3, core, building, running):
                base.__init__(self)
            self.trt, self.kernels = trt, kernels
            self.plugin_name = interface.NAME
            self.plugin_namespace = interface.NAMESPACE
            self.plugin_version = interface.VERSION
            self.num_outputs = len(interface.OUTPUTS)

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return BudgetSelect()

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

    return BudgetSelect


class _Building:
    """What TensorRT asks while it builds: types, shapes, formats."""

    trt: Any

    def get_output_data_types(self, input_types: list[Any]) -> list[Any]:
        return [input_types[1], self.trt.DataType.INT64]

    def get_output_shapes(self, inputs: list[Any], shape_inputs: list[Any], exprs: Any) -> list[Any]:
        kept, indices = self.trt.DimsExprs(3), self.trt.DimsExprs(2)
        kept[0], kept[1], kept[2] = inputs[1][0], shape_inputs[0][0], inputs[1][2]
        indices[0], indices[1] = inputs[1][0], shape_inputs[0][0]
        return [kept, indices]

    def supports_format_combination(self, position: int, tensors: list[Any], num_inputs: int) -> bool:
        tensor, int64 = tensors[position].desc, self.trt.DataType.INT64
        if tensor.format != self.trt.TensorFormat.LINEAR:
            return False
        if position < _INPUTS:
            return tensor.type.name in interface.FLOAT_TYPES
        if position < num_inputs:
            return bool(tensor.type == int64)
        return bool(tensor.type == (tensors[1].desc.type if position == num_inputs else int64))

    def configure_plugin(self, inputs: list[Any], outputs: list[Any]) -> None: ...

    def get_valid_tactics(self) -> list[int]:
        return []


class _Running:
    """What TensorRT calls on the device."""

    trt: Any
    kernels: Any

    def on_shape_change(self, inputs: list[Any], outputs: list[Any]) -> None: ...

    def set_tactic(self, tactic: int) -> None: ...

    def get_fields_to_serialize(self) -> Any:
        return self.trt.PluginFieldCollection([])

    def enqueue(
        self, inputs: list[Any], outputs: list[Any], input_data: Any, output_data: Any, workspace: int, stream: int
    ) -> None:
        if self.kernels is None:
            raise RuntimeError("This plugin was registered for building; register it with its library to run.")
        batch, tokens, width = tuple(inputs[1].dims)
        score_type = _SCORE_TYPES[inputs[0].type.name]
        row_bytes = width * _BYTES[inputs[1].type.name]
        kept = outputs[0].dims[1]
        status = self.kernels(
            input_data[0], score_type, input_data[1], row_bytes, batch, tokens, kept, *output_data[:2], stream
        )
        if status != 0:
            raise RuntimeError(f"{interface.NAME}: CUDA error {status}")
