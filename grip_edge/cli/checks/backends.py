"""What can run a bundle beside ONNX Runtime's CPU: each computes something, or says why not."""

from __future__ import annotations

from grip_edge.cli.checks.attention import check_attention
from grip_edge.cli.checks.finding import BROKEN, MISSING, OK, Finding, in_child, one_line

_CUDA = "CUDAExecutionProvider"
_ENGINE_REMEDIES = {
    "tensorrt": "On Jetson it comes with JetPack (python -m venv --system-site-packages); elsewhere:  "
    "pip install 'grip-edge[tensorrt]' tensorrt",
    "tensorrt_rtx": "For GeForce RTX:  pip install 'grip-edge[rtx]'",
}


def check_nvml() -> Finding:
    from grip_edge.runtime.nvml import Gpu

    gpu = Gpu.find()
    if gpu is None:
        return Finding("gpu", MISSING, "NVML finds no NVIDIA GPU", "If there is one, install its driver.")
    return Finding("gpu", OK, f"{gpu.name or 'unnamed GPU'}, driver {gpu.driver or 'unknown'}")


def check_cuda() -> Finding:
    import onnxruntime as ort

    remedy = "For an NVIDIA GPU:  pip uninstall onnxruntime; pip install onnxruntime-gpu"
    if _CUDA not in ort.get_available_providers():
        return Finding("cuda", MISSING, f"this ONNX Runtime offers {', '.join(ort.get_available_providers())}", remedy)
    try:
        check_attention(_CUDA)
    except Exception as error:  # driver, libraries, no GPU
        return Finding("cuda", BROKEN, one_line(str(error)), "Check the driver and CUDA libraries:  nvidia-smi")
    return Finding("cuda", OK, f"ONNX Runtime {ort.__version__} computed Attention on the GPU")


def check_openvino() -> Finding:
    program = (
        "import numpy as np, openvino as ov\n"
        "from openvino import opset15 as op\n"
        "x = op.parameter([2, 3], np.float32)\n"
        "model = ov.Model([op.matmul(x, op.constant(np.eye(3, dtype=np.float32)), False, False)], [x])\n"
        "core, ones = ov.Core(), np.ones((2, 3), np.float32)\n"
        "assert np.allclose(core.compile_model(model, 'CPU')(ones)[0], ones), 'wrong numbers'\n"
        "kind = core.get_property('CPU', 'INFERENCE_PRECISION_HINT').get_type_name()\n"
        "print(f'OpenVINO {ov.get_version()} multiplied two matrices; its best float type here is {kind}')"
    )
    return in_child("openvino", program, "For x86 CPUs:  pip install 'grip-edge[openvino]'")


def check_rtx_provider() -> Finding:
    program = (
        "import onnxruntime_ep_nv_tensorrt_rtx as package\n"
        "from grip_edge.runtime.rtx_provider import rtx_device\n"
        "print(f'{rtx_device().ep_name} of package {package.__version__} has a GPU')"
    )
    remedy = "For GeForce RTX:  pip install onnxruntime-ep-nv-tensorrt-rtx , and the NVIDIA driver"
    return in_child("onnxruntime-rtx", program, remedy)


def check_engines(module: str) -> Finding:
    """``module``: of TensorRT or TensorRT-RTX."""
    program = (
        f"import {module} as trt\n"
        "builder = trt.Builder(trt.Logger(trt.Logger.ERROR))\n"
        "print(f'{trt.__name__} {trt.__version__} made a builder')"
    )
    return in_child(module.replace("_", "-"), program, _ENGINE_REMEDIES[module])
