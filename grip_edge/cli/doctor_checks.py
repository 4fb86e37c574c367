"""The checks of ``grip-edge doctor``: each one does what it speaks of, and says what came of it.

    device     what ``infer`` needs: packages that do their work on a small example
    backends   what else can run a bundle: each one computes something, or says why not
    host       what export, training and reports need, tried in processes of their own: they are large, and a broken
               one must not take this program down
    machine    what can be read of the machine itself

``missing`` is not installed; ``broken`` is installed and does not work; ``unknown`` cannot be told here.
"""

from __future__ import annotations

import io
import platform
import shutil
import subprocess
import sys
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np

OK, MISSING, BROKEN, UNKNOWN = "ok", "missing", "broken", "unknown"
_PATIENCE_S = 300
_LEAST_PYTHON = (3, 11)
_MIB = 2**20
_CUDA = "CUDAExecutionProvider"
_TENSORRT_REMEDY = (
    "On Jetson it comes with JetPack (python -m venv --system-site-packages); elsewhere:  "
    "pip install 'grip-edge[tensorrt]' tensorrt"
)


@dataclass(frozen=True)
class Finding:
    """``needed``: the device side does not work without it."""

    name: str
    state: str
    fact: str
    remedy: str = ""
    needed: bool = False


Check = Callable[[], Finding]


def run_checks(groups: Sequence[str], on_step: Callable[[str, int, int], None] = lambda *_: None) -> list[Finding]:
    checks = [check for group in groups for check in GROUPS[group]]
    findings = []
    for number, check in enumerate(checks):
        on_step("doctor", number, len(checks))
        findings.append(check())
    return findings


def _tried(name: str, work: Callable[[], str], package: str, remedy: str) -> Finding:
    """``work`` gives the fact, or raises what is wrong; without ``package`` it is missing, not broken."""
    try:
        return Finding(name, OK, work(), needed=True)
    except ModuleNotFoundError as error:
        return Finding(name, MISSING, f"no module named {error.name}", remedy, needed=True)
    except Exception as error:  # whatever a broken installation raises
        return Finding(name, BROKEN, f"{package}: {_one_line(str(error) or type(error).__name__)}", remedy, needed=True)


def check_python() -> Finding:
    found = f"Python {platform.python_version()} at {sys.executable}"
    if sys.version_info >= _LEAST_PYTHON:
        return Finding("python", OK, found, needed=True)
    return Finding("python", BROKEN, found, f"Install Python {_LEAST_PYTHON[0]}.{_LEAST_PYTHON[1]} or newer.", True)


def check_images() -> Finding:
    def work() -> str:
        from PIL import Image, __version__

        levels = np.full((8, 8, 3), 200, np.uint8)
        for kind in ("PNG", "JPEG", "WEBP"):
            file = io.BytesIO()
            Image.fromarray(levels).save(file, kind)
            file.seek(0)
            difference = np.abs(np.asarray(Image.open(file).convert("RGB"), np.int64) - 200).max()
            if difference > 8:
                raise ValueError(f"{kind} gives back other colours")
        return f"Pillow {__version__} wrote and read PNG, JPEG and WebP"

    return _tried("images", work, "Pillow", "pip install --force-reinstall pillow")


def check_tokenizer() -> Finding:
    def work() -> str:
        from tokenizers import Tokenizer, __version__
        from tokenizers.models import WordLevel
        from tokenizers.pre_tokenizers import Whitespace

        tokenizer = Tokenizer(WordLevel({"red": 0, "circle": 1, "?": 2}, unk_token="?"))
        tokenizer.pre_tokenizer = Whitespace()
        if tokenizer.encode("red circle ?").ids != [0, 1, 2]:
            raise ValueError("wrong tokens")
        return f"tokenizers {__version__} read a question"

    return _tried("tokenizer", work, "tokenizers", "pip install --force-reinstall tokenizers")


def check_cpu() -> Finding:
    """The newest operator that bundles use, opset 24's Attention, against NumPy."""

    def work() -> str:
        import onnxruntime as ort

        _check_attention("CPUExecutionProvider")
        return f"ONNX Runtime {ort.__version__} computed opset-24 Attention as NumPy does"

    return _tried("cpu", work, "onnxruntime", "pip install 'onnxruntime>=1.30'")


def check_model() -> Finding:
    def work() -> str:
        from grip_edge import __version__
        from grip_edge.catalog import EMBEDDED, find_model

        name = next(iter(EMBEDDED))
        size = sum(path.stat().st_size for path in find_model(name).rglob("*") if path.is_file())
        return f"grip-edge {__version__} with {name} ({size / _MIB:.1f} MiB)"

    return _tried("grip-edge", work, "grip-edge", "pip install --force-reinstall grip-edge")


def check_cuda() -> Finding:
    import onnxruntime as ort

    remedy = "For an NVIDIA GPU:  pip uninstall onnxruntime; pip install onnxruntime-gpu"
    if _CUDA not in ort.get_available_providers():
        return Finding("cuda", MISSING, f"this ONNX Runtime offers {', '.join(ort.get_available_providers())}", remedy)
    try:
        _check_attention(_CUDA)
    except Exception as error:  # driver, libraries, no GPU
        return Finding("cuda", BROKEN, _one_line(str(error)), "Check the driver and CUDA libraries:  nvidia-smi")
    return Finding("cuda", OK, f"ONNX Runtime {ort.__version__} computed Attention on the GPU")


def check_tensorrt(module: str, remedy: str) -> Finding:
    program = (
        f"import {module} as trt\n"
        "builder = trt.Builder(trt.Logger(trt.Logger.ERROR))\n"
        "print(f'{trt.__name__} {trt.__version__} made a builder')"
    )
    return _in_child(module.replace("_", "-"), program, remedy)


def check_nvml() -> Finding:
    from grip_edge.runtime.nvml import Gpu

    gpu = Gpu.find()
    if gpu is None:
        return Finding("gpu", MISSING, "NVML finds no NVIDIA GPU", "If there is one, install its driver.")
    return Finding("gpu", OK, f"{gpu.name or 'unnamed GPU'}, driver {gpu.driver or 'unknown'}")


def check_memory() -> Finding:
    from grip_edge.runtime.machine import machine, meminfo_bytes

    here, free = machine(None), meminfo_bytes("MemAvailable")
    disk = shutil.disk_usage(Path.cwd()).free
    memory = "unknown" if free is None else f"{free / _MIB:.0f} MiB"
    board = f"{here.board}; " if here.board else ""
    fact = f"{board}{here.cpu_model or 'unknown CPU'}, {here.cpu_count} cores; {memory} of memory free"
    return Finding("machine", OK, f"{fact}, {disk / _MIB:.0f} MiB of disk in this folder")


def check_state() -> Finding:
    from grip_edge.runtime.machine_state import machine_state

    state = machine_state()
    known = [f"power mode {state.power_mode}"] if state.power_mode else []
    known += [f"governor {state.cpu_governor}"] if state.cpu_governor else []
    known += [f"{name} at {mhz:.0f} MHz" for name, mhz in state.clocks_mhz.items()]
    if not known:
        return Finding("clocks", UNKNOWN, "this system tells neither power mode nor clocks; reports say null")
    return Finding("clocks", OK, ", ".join(known))


def check_energy() -> Finding:
    """Reads the meter for a moment."""
    from grip_edge.runtime.energy import find_meter
    from grip_edge.runtime.nvml import Gpu

    meter = find_meter(gpu=Gpu.find())
    if meter is None:
        remedy = "Reports say null. On Jetson the sensors may need root; on Intel and AMD:  sudo chmod a+r "
        return Finding("energy", UNKNOWN, "no meter can be read", f"{remedy}/sys/class/powercap/*/energy_uj")
    with meter:
        sum(range(2_000_000))
    rail = meter.main_rail
    if rail is None:
        return Finding("energy", BROKEN, f"{meter.source} gave no reading")
    return Finding("energy", OK, f"{meter.source}: {rail} {meter.joules[rail] / meter.seconds:.2f} W")


def _in_child(name: str, program: str, remedy: str) -> Finding:
    """``program`` prints its fact."""
    try:
        done = subprocess.run(
            [sys.executable, "-W", "ignore", "-c", program],
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except subprocess.TimeoutExpired:
        return Finding(name, BROKEN, f"no answer after {_PATIENCE_S} s", remedy)
    if done.returncode == 0:
        return Finding(name, OK, done.stdout.strip().splitlines()[-1])
    last = (done.stderr.strip().splitlines() or [f"ended with {done.returncode}"])[-1]
    if last.startswith("ModuleNotFoundError"):
        return Finding(name, MISSING, last.partition(": ")[2], remedy)
    return Finding(name, BROKEN, _one_line(last), remedy)


def _check_attention(provider: str) -> None:
    import onnxruntime as ort

    from grip_edge.planning.onnx_bytes import FLOAT, Node, Port, model_bytes

    shape = (1, 2, 3, 4)
    ports = [Port(name, FLOAT, shape) for name in ("query", "key", "value")]
    model = model_bytes([Node("Attention", ("query", "key", "value"), ("y",))], [], ports, [Port("y", FLOAT, shape)])
    options = ort.SessionOptions()
    options.log_severity_level = 4
    session = ort.InferenceSession(model, options, providers=[provider])
    if session.get_providers()[0] != provider:
        raise RuntimeError(f"{provider} does not start; ONNX Runtime fell back to {session.get_providers()[0]}")
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal(shape, np.float32) for _ in range(3))
    weights = np.exp(query @ key.swapaxes(-1, -2) / np.sqrt(shape[-1]))
    expected = weights / weights.sum(-1, keepdims=True) @ value
    found = np.asarray(session.run(None, {"query": query, "key": key, "value": value})[0])
    difference = np.abs(found - expected)
    if difference.max() > 1e-3:
        raise ValueError(f"wrong numbers (largest difference {difference.max():.3g}, mean {difference.mean():.3g})")


def _one_line(text: str) -> str:
    return " ".join(text.split())[:200]


_TORCH = """
import torch
x = torch.ones(4, 4, requires_grad=True)
(x @ x).sum().backward()
assert x.grad is not None and x.grad.sum() == 128
where = 'CUDA' if torch.cuda.is_available() else 'CPU only'
"""
_HOST_PROGRAMS = {
    "export": (
        _TORCH + "import onnx, onnx_ir, onnxscript, safetensors, transformers\n"
        "print(f'PyTorch {torch.__version__} ({where}) took a gradient; transformers {transformers.__version__}, '\n"
        "      f'ONNX {onnx.__version__} import')"
    ),
    "train": _TORCH
    + "import accelerate\nprint(f'PyTorch {torch.__version__} ({where}), accelerate {accelerate.__version__}')",
    "report": (
        "import io, matplotlib\nfrom matplotlib.figure import Figure\nfile = io.BytesIO()\n"
        "Figure().savefig(file, format='png')\n"
        "print(f'matplotlib {matplotlib.__version__} drew a picture of {len(file.getvalue())} bytes')"
    ),
}


def _host_check(extra: str) -> Check:
    return lambda: _in_child(extra, _HOST_PROGRAMS[extra], f"pip install 'grip-edge[{extra}]'")


GROUPS: dict[str, tuple[Check, ...]] = {
    "device": (check_python, check_images, check_tokenizer, check_cpu, check_model),
    "backends": (
        check_nvml,
        check_cuda,
        lambda: check_tensorrt("tensorrt", _TENSORRT_REMEDY),
        lambda: check_tensorrt("tensorrt_rtx", "For GeForce RTX:  pip install 'grip-edge[rtx]'"),
    ),
    "host": tuple(_host_check(extra) for extra in _HOST_PROGRAMS),
    "machine": (check_memory, check_state, check_energy),
}
