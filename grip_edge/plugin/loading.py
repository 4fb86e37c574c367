"""Brings the plugin into a registry of TensorRT from ``libgrip_budget_select.so``, for a build or for a run.

With TensorRT's headers that library is the plugin in C++; without them it holds the kernels alone, and the plugin in
Python (``twin``) launches these. ``trt`` is ``tensorrt`` or ``tensorrt_rtx``.
"""

from __future__ import annotations

import ctypes
from pathlib import Path
from typing import Any

from grip_edge.errors import UserError
from grip_edge.plugin import interface, twin

_CPP_ENTRY, _KERNELS_ENTRY = "getCreators", "grip_budget_select"
_HINT = "build it on this machine with CMake (docs/gpu.md)"


def is_cpp_plugin(library: Path) -> bool:
    """UserError if the library is neither the plugin nor its kernels."""
    try:
        loaded = ctypes.CDLL(str(library.resolve()))
    except OSError as error:
        raise UserError(f"'{library}' does not load as a library ({error}); {_HINT}.") from None
    if not hasattr(loaded, _KERNELS_ENTRY):
        raise UserError(f"'{library}' holds no {interface.NAME}; {_HINT}.")
    return hasattr(loaded, _CPP_ENTRY)


def load_plugin(trt: Any, registry: Any, library: Path) -> Any:
    """Registers the plugin; what it gives has to be kept as long as that is used. UserError for another version."""
    if not is_cpp_plugin(library):
        return twin.register(trt, library)
    handle = registry.load_library(str(library.resolve()))
    if handle is None:
        raise UserError(f"'{library}' does not load as a plugin; {_HINT}.")
    found = {c.plugin_version for c in registry.all_creators if c.name == interface.NAME}
    if interface.VERSION not in found:
        listed = ", ".join(sorted(found)) or "none"
        raise UserError(
            f"'{library}' holds {interface.NAME} of version {listed}, expected {interface.VERSION}; {_HINT}."
        )
    return handle
