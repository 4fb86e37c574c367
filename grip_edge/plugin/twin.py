"""The plugin in Python, for TensorRT's Python runtime and for builds without a C++ compiler.

It promises what the C++ plugin promises, and launches the same kernels from ``libgrip_budget_select.so`` through
ctypes. An engine that was built with one of the two runs with the other. ``trt`` is ``tensorrt`` or ``tensorrt_rtx``.
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
    """Classes of ``trt``'s interfaces can only be made when it is there."""

    core: Any = trt.IPluginV3OneCore
    building: Any = trt.IPluginV3OneBuild
    running: Any = trt.IPluginV3OneRuntime

    class BudgetSelect(trt.IPluginV3, core, building, running):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginV3.__init__(self)
            core.__init__(self)
            building.__init__(self)
            running.__init__(self)
            self.plugin_name = interface.NAME
            self.plugin_namespace = interface.NAMESPACE
            self.plugin_version = interface.VERSION
            self.num_outputs = len(interface.OUTPUTS)

        def get_capability_interface(self, kind: Any) -> Any:
            return self

        def clone(self) -> Any:
            return BudgetSelect()

        def get_output_data_types(self, input_types: list[Any]) -> list[Any]:
            return [input_types[1], trt.DataType.INT64]

        def get_output_shapes(self, inputs: list[Any], shape_inputs: list[Any], exprs: Any) -> list[Any]:
            kept, indices = trt.DimsExprs(3), trt.DimsExprs(2)
            kept[0], kept[1], kept[2] = inputs[1][0], shape_inputs[0][0], inputs[1][2]
            indices[0], indices[1] = inputs[1][0], shape_inputs[0][0]
            return [kept, indices]

        def supports_format_combination(self, position: int, tensors: list[Any], num_inputs: int) -> bool:
            tensor = tensors[position].desc
            if tensor.format != trt.TensorFormat.LINEAR:
                return False
            if position < _INPUTS:
                return tensor.type.name in interface.FLOAT_TYPES
            if position < num_inputs:
                return bool(tensor.type == trt.DataType.INT64)
            expected = tensors[1].desc.type if position == num_inputs else trt.DataType.INT64
            return bool(tensor.type == expected)

        def configure_plugin(self, inputs: list[Any], outputs: list[Any]) -> None: ...

        def on_shape_change(self, inputs: list[Any], outputs: list[Any]) -> None: ...

        def get_valid_tactics(self) -> list[int]:
            return []

        def set_tactic(self, tactic: int) -> None: ...

        def attach_to_context(self, context: Any) -> Any:
            return self.clone()

        def get_fields_to_serialize(self) -> Any:
            return trt.PluginFieldCollection([])

        def enqueue(
            self, inputs: list[Any], outputs: list[Any], input_data: Any, output_data: Any, workspace: int, stream: int
        ) -> None:
            if kernels is None:
                raise RuntimeError("This plugin was registered for building; register it with its library to run.")
            batch, tokens, width = tuple(inputs[1].dims)
            score_type = _SCORE_TYPES[inputs[0].type.name]
            row_bytes = width * _BYTES[inputs[1].type.name]
            kept = outputs[0].dims[1]
            status = kernels(
                input_data[0], score_type, input_data[1], row_bytes, batch, tokens, kept, *output_data[:2], stream
            )
            if status != 0:
                raise RuntimeError(f"{interface.NAME}: CUDA error {status}")

    class Creator(trt.IPluginCreatorV3One):  # type: ignore[misc]
        def __init__(self) -> None:
            trt.IPluginCreatorV3One.__init__(self)
            self.name = interface.NAME
            self.plugin_namespace = interface.NAMESPACE
            self.plugin_version = interface.VERSION
            self.field_names = trt.PluginFieldCollection([])

        def create_plugin(self, name: str, fields: Any, phase: Any) -> Any:
            return BudgetSelect()

    return Creator()
