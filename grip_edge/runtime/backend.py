"""What runs a bundle's graphs: chosen by what is here, with the reason; or the one that was asked for, or an error.

    onnxruntime-cpu        always there
    openvino               the package openvino, and a bundle for it; CPUs
    onnxruntime-cuda       onnxruntime-gpu and an NVIDIA driver
    onnxruntime-tensorrt   the same, and TensorRT 10 beside it; engines are built when the bundle is loaded
    onnxruntime-rtx        an NVIDIA driver, and the package that holds TensorRT-RTX's provider (``rtx_provider``)
    tensorrt               engines that  grip-edge build  made, with the package that they are for

Nothing is built or replaced silently: an engine that does not fit is a reason to say, or an error.
"""

from __future__ import annotations

import importlib
import importlib.util
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import onnxruntime as ort

from grip_edge.bundle import Bundle
from grip_edge.cuda_device import compute_capability
from grip_edge.engines import ENGINES_FOLDER, find_engines
from grip_edge.errors import BundleError, MissingExtraError, UserError
from grip_edge.runtime.onnx_backend import BACKEND
from grip_edge.runtime.onnx_generation import OnnxRuntimeGraphs
from grip_edge.runtime.session import PROVIDER

TENSORRT = "tensorrt"
OPENVINO = "openvino"
PROVIDERS = {
    BACKEND: PROVIDER,
    "onnxruntime-cuda": "CUDAExecutionProvider",
    "onnxruntime-tensorrt": "TensorrtExecutionProvider",
}
RTX = "onnxruntime-rtx"
BACKENDS = (*PROVIDERS, RTX, OPENVINO, TENSORRT)

# The packages that run engines, by the start of the bundle's target.
_PACKAGES = {"rtx": "tensorrt_rtx", "tensorrt": "tensorrt"}
_EXTRAS = {"tensorrt_rtx": "rtx", "tensorrt": "tensorrt"}
_OPENVINO_COMMAND = f"pip install 'grip-edge[{OPENVINO}]'"
_PLUGIN_VARIABLE = "GRIP_EDGE_PLUGIN"


@dataclass(frozen=True)
class OpenedBackend:
    """``graphs`` has the interface of ``onnx_generation.OnnxRuntimeGraphs``."""

    graphs: Any
    reason: str


def open_backend(bundle: Bundle, wanted: str | None, threads: int | None) -> OpenedBackend:
    if wanted is not None and wanted not in BACKENDS:
        raise UserError(f"--backend {wanted} does not exist; choose from: {', '.join(BACKENDS)}.")
    name, reason = choose_backend(bundle) if wanted is None else (wanted, "asked for")
    if name == TENSORRT:
        return OpenedBackend(_open_engines(bundle), reason)
    if name == OPENVINO:
        return OpenedBackend(_open_openvino(bundle, threads), reason)
    return OpenedBackend(_open_onnx_runtime(bundle, name, threads), reason)


def choose_backend(bundle: Bundle) -> tuple[str, str]:
    """The best that can run here, and why."""
    if bundle.manifest.target == OPENVINO:
        if importlib.util.find_spec(OPENVINO) is not None:
            return OPENVINO, "the bundle is for it"
        return BACKEND, f"the bundle is for OpenVINO, which is not installed: {_OPENVINO_COMMAND}"
    capability = compute_capability()
    if capability is None:
        return BACKEND, "there is no CUDA device"
    if (bundle.folder / ENGINES_FOLDER).is_dir():
        try:
            trt = _import_package(bundle)
            found = find_engines(bundle, trt.__name__, str(trt.__version__), capability)
        except (BundleError, UserError) as error:
            note = f"; engines are there, but: {error}"
        else:
            return TENSORRT, f"engines of {trt.__name__} {trt.__version__} for this device in '{found.folder}'"
    else:
        note = ""
    if PROVIDERS["onnxruntime-cuda"] in ort.get_available_providers():
        return "onnxruntime-cuda", f"there is a CUDA device (sm{capability}){note}"
    return BACKEND, f"there is a CUDA device, but this ONNX Runtime has no CUDA provider{note}"


def _open_onnx_runtime(bundle: Bundle, name: str, threads: int | None) -> OnnxRuntimeGraphs:
    if name == RTX:
        from grip_edge.runtime import rtx_provider

        attach = rtx_provider.rtx_provider(bundle)
        return OnnxRuntimeGraphs(bundle, threads, name, rtx_provider.PROVIDER, "cuda", attach)
    provider = PROVIDERS[name]
    available = ort.get_available_providers()
    if provider not in available:
        raise UserError(
            f"--backend {name} needs {provider}, this ONNX Runtime has {', '.join(available)}; run  pip uninstall "
            "onnxruntime  and  pip install onnxruntime-gpu , or choose another backend."
        )
    return OnnxRuntimeGraphs(bundle, threads, name, provider, "cpu" if provider == PROVIDER else "cuda")


def _open_openvino(bundle: Bundle, threads: int | None) -> Any:
    try:
        from grip_edge.runtime.openvino.graphs import OpenVinoGraphs
    except ImportError:
        raise MissingExtraError(OPENVINO, OPENVINO) from None
    return OpenVinoGraphs(bundle, threads)


def _open_engines(bundle: Bundle) -> Any:
    from grip_edge.runtime.tensorrt.graphs import open_engines

    trt = _import_package(bundle)
    capability = compute_capability()
    if capability is None:
        raise UserError("--backend tensorrt needs a CUDA device and its driver; none was found.")
    engines = find_engines(bundle, trt.__name__, str(trt.__version__), capability)
    plugin = os.environ.get(_PLUGIN_VARIABLE)
    return open_engines(bundle, engines, trt, _EXTRAS[trt.__name__], None if plugin is None else Path(plugin))


def _import_package(bundle: Bundle) -> Any:
    target = bundle.manifest.target
    name = _PACKAGES.get(target.partition("-")[0])
    if name is None:
        raise UserError(f"This bundle is for {target}, which runs without engines; export it for rtx or tensorrt.")
    try:
        return importlib.import_module(name)
    except ImportError as error:
        command = f"pip install 'grip-edge[{_EXTRAS[name]}]'"
        raise UserError(f"The bundle's engines need the package '{name}' ({error}); run  {command}") from None
