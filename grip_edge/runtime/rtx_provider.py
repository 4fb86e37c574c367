"""ONNX Runtime's provider of TensorRT-RTX: a plugin in a package of its own, for bundles of the target ``rtx``.

The package stands beside the ordinary ``onnxruntime`` and holds TensorRT-RTX itself. It is registered when it is asked
for, and compiles the graphs whenever a bundle is loaded, for the lengths that  grip-edge build  would choose: without
them it would allow budgets that TensorRT's top-k refuses. The cache has one length, since TensorRT writes it in place.
Not here: engines that were built before (``tensorrt``), and models that cut images into tiles.
"""

from __future__ import annotations

import ctypes
import functools
import importlib
from pathlib import Path
from typing import Any

import onnxruntime as ort

from grip_edge.bundle import Bundle
from grip_edge.cuda_device import compute_capability
from grip_edge.engine_shapes import Shapes
from grip_edge.errors import UserError
from grip_edge.runtime.session import Attach

PROVIDER = "NvTensorRTRTXExecutionProvider"
_PACKAGE = "onnxruntime-ep-nv-tensorrt-rtx"
_TARGET = "rtx"
_CAPACITY_AXIS = "C"

# The inputs whose lengths vary, by graph: axes in letters; K is the value of the input, not an axis.
_VARYING: dict[str, dict[str, str]] = {
    "embed.onnx": {"token_ids": "1xT"},
    "select.onnx": {"question_embeds": "1xTxD", "budget": "K"},
    "decoder.onnx": {"embeds": "1xSxD", "position_ids": "1xS"},
}


def rtx_provider(bundle: Bundle) -> Attach:
    """What gives a session of one of the bundle's graphs this provider; UserError where it cannot run."""
    manifest = bundle.manifest
    if manifest.target != _TARGET:
        raise UserError(f"--backend onnxruntime-rtx runs bundles for {_TARGET}, this one is for {manifest.target}.")
    if manifest.image.tiling is not None:
        raise UserError("--backend onnxruntime-rtx takes one view per image; this model cuts images into tiles.")
    device = rtx_device()
    shapes = Shapes.plan(manifest)

    def attach(options: Any, graph: str) -> None:
        options.add_free_dimension_override_by_name(_CAPACITY_AXIS, shapes.cache_capacity)
        options.add_provider_for_devices([device], profile_options(shapes, graph, manifest.model.text.width))

    return attach


def profile_options(shapes: Shapes, graph: str, width: int) -> dict[str, str]:
    """The provider's options for a graph of a decoder of ``width``: smallest, likeliest and largest lengths."""
    axes, inputs = shapes.axes(graph)[0], _VARYING.get(graph)
    if inputs is None:
        return {}
    options = {}
    for which, name in enumerate(("min", "opt", "max")):
        lengths = {"1": 1, "D": width} | {axis: sizes[which] for axis, sizes in axes.items()}
        shown = {
            key: "x".join(str(lengths[letter]) for letter in letters.split("x")) for key, letters in inputs.items()
        }
        options[f"nv_profile_{name}_shapes"] = ",".join(f"{key}:{shape}" for key, shape in shown.items())
    return options


def rtx_device() -> Any:
    """The GPU that CUDA counts first, as ONNX Runtime knows it (OrtEpDevice)."""
    _register()
    found = [
        one
        for one in ort.get_ep_devices()
        if one.ep_name == PROVIDER and one.device.type == ort.OrtHardwareDeviceType.GPU
    ]
    if not found:
        capability = compute_capability()
        here = "there is none here" if capability is None else f"here is one of sm{capability}"
        raise UserError(f"--backend onnxruntime-rtx needs a GPU of sm86, sm89, sm120 or newer; {here}.")
    return found[0]


@functools.cache
def _register() -> None:
    """Once per process: ONNX Runtime refuses a second time."""
    try:
        package = importlib.import_module(_PACKAGE.replace("-", "_"))
    except ImportError as error:
        raise UserError(f"--backend onnxruntime-rtx: {error}; run  pip install {_PACKAGE}") from None
    library = Path(package.get_library_path())
    try:
        # CUDA's runtime lies beside it, under a name that the linker does not look for until it is loaded.
        for runtime in library.parent.glob("libcudart.so.*"):
            ctypes.CDLL(str(runtime))
        ort.register_execution_provider_library(PROVIDER, str(library))
    except Exception as error:  # every ONNX Runtime error is a class of its own below Exception
        reason = " ".join(str(error).split()).rpartition(" error: ")[2][:200]
        raise UserError(
            f"--backend onnxruntime-rtx does not load ({reason}); install the NVIDIA driver, or choose another backend."
        ) from None
