"""Sessions of ONNX Runtime: opened with what the runtime wants of all of them, inputs and outputs checked; and run over
arrays in place.

A graph that cannot be loaded, or that is not the graph its name promises, is a ``BundleError`` naming the file.
Not here: which graphs a bundle has (``onnx_backend``).
"""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Callable, Mapping
from pathlib import Path
from types import MappingProxyType
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray

from grip_edge.allocator import large_blocks_returned
from grip_edge.errors import BundleError, GripEdgeError, UserError
from grip_edge.mapped_files import loading
from grip_edge.runtime.shared_arena import use_shared_arena

PROVIDER = "CPUExecutionProvider"

# In ONNX Runtime's message about a graph of an opset that came after it.
_NEWER_OPSET = re.compile(r"Opset (\d+) is under development")

FLOAT_TYPES = {"tensor(float)": np.float32, "tensor(float16)": np.float16}

Attach = Callable[[ort.SessionOptions, str], None]
"""Gives a session's options a provider that is a plugin, for the graph of that file name."""


def load_session(
    path: Path,
    inputs: tuple[str, ...],
    outputs: tuple[str, ...],
    threads: int | None,
    config: Mapping[str, str] = MappingProxyType({}),
    provider: str = PROVIDER,
    attach: Attach | None = None,
    optional_outputs: tuple[str, ...] = (),
) -> ort.InferenceSession:
    """``config`` is what the bundle wants ONNX Runtime to be told. Nodes that ``provider`` lacks run on the CPU, but
    never all of them, and none where it is a plugin, which compiles whole graphs.
    """
    options = ort.SessionOptions()
    options.log_severity_level = 3  # errors come as exceptions
    # Four sessions have four thread pools: waiting threads spin within a run and then leave the cores to the next.
    options.add_session_config_entry("session.force_spinning_stop", "1")
    options.enable_mem_pattern = False  # plans memory for every length of prompt apart, which saves no time here
    for key, value in config.items():
        options.add_session_config_entry(key, value)
    if threads is not None:
        options.intra_op_num_threads = threads
    if provider == PROVIDER:
        use_shared_arena(options)
    else:
        options.add_session_config_entry("session.record_ep_graph_assignment_info", "1")
    providers = list(dict.fromkeys((provider, PROVIDER)))
    if attach is not None:
        attach(options, path.name)
        providers = []
    try:
        with large_blocks_returned(), loading(path.parent):
            session = ort.InferenceSession(str(path), options, providers=providers)
    except Exception as error:  # every ONNX Runtime error is a class of its own below Exception
        raise _not_loaded(path, str(error)) from None
    if provider != PROVIDER:
        _require_provider(session, path, provider, wholly=attach is not None)
    for kind, expected, nodes in (
        ("inputs", inputs, session.get_inputs()),
        ("outputs", outputs, session.get_outputs()),
    ):
        found = [node.name for node in nodes if node.name not in optional_outputs]
        if sorted(found) != sorted(expected):
            raise BundleError(
                f"{path} has the {kind} {', '.join(found)}; expected {', '.join(expected)}. Export the bundle again."
            )
    return session


def _not_loaded(path: Path, error: str) -> GripEdgeError:
    newer = _NEWER_OPSET.search(error)
    if newer is None:
        return BundleError(f"{path} cannot be loaded ({' '.join(error.split())[:200]}); export the bundle again.")
    return UserError(
        f"{path} is of opset {newer.group(1)}, which ONNX Runtime {ort.__version__} does not know: take 1.30 or newer, "
        "for Python 3.11 or newer, or export the bundle with --target jetpack-6.2, for opset 20."
    )


def _require_provider(session: ort.InferenceSession, path: Path, provider: str, wholly: bool) -> None:
    """UserError where the CPU took over: ONNX Runtime says so in its log at most, and may still list the provider."""
    first = session.get_providers()[0]
    if first != provider:
        raise UserError(
            f"ONNX Runtime runs {path.name} with {first}, not with {provider}; install the driver and libraries that "
            "it needs, or choose another --backend."
        )
    assigned = getattr(session, "get_provider_graph_assignment_info", None)
    if assigned is None:  # before ONNX Runtime 1.24
        return
    nodes = Counter((part.ep_name == provider, node.op_type) for part in assigned() for node in part.get_nodes())
    elsewhere = sorted(operator for (there, operator) in nodes if not there)
    if elsewhere and (wholly or not any(there for there, _ in nodes)):
        raise UserError(
            f"{provider} leaves {', '.join(elsewhere[:5])} of {path.name} to the CPU; choose another --backend, or "
            "export the bundle for another target."
        )


def run_in_place(
    session: ort.InferenceSession, feeds: Mapping[str, NDArray[Any]], results: Mapping[str, NDArray[Any]]
) -> None:
    """Reads ``feeds`` and overwrites ``results``."""
    binding = session.io_binding()
    for name, array in feeds.items():
        binding.bind_cpu_input(name, array)
    for name, array in results.items():
        binding.bind_ortvalue_output(name, ort.OrtValue.ortvalue_from_numpy(array))
    session.run_with_iobinding(binding)
