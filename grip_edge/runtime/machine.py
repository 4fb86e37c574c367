"""What the program runs on, as far as the operating system tells; what it does not tell is None."""

from __future__ import annotations

import os
import platform
import sys
from importlib.metadata import version
from pathlib import Path

from grip_edge import __version__
from grip_edge.report import Machine, Memory
from grip_edge.runtime.onnx_backend import BACKEND


def machine(threads: int | None) -> Machine:
    packages = ("onnxruntime", "numpy", "pillow", "tokenizers")
    return Machine(
        cpu_model=_cpu_model(),
        cpu_count=os.cpu_count(),
        operating_system=f"{platform.system()} {platform.release()} {platform.machine()}",
        backend=BACKEND,
        threads=threads,
        versions={
            "grip-edge": __version__,
            "python": platform.python_version(),
            **{package: version(package) for package in packages},
        },
    )


def peak_memory() -> Memory:
    """The process's peak resident set so far: weights, caches, interpreter and all."""
    try:
        import resource
    except ImportError:  # Windows
        return Memory(None, "unknown")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Memory(peak if sys.platform == "darwin" else 1024 * peak, "ru_maxrss")


def _cpu_model() -> str | None:
    """From /proc/cpuinfo (x86: "model name"; some ARM kernels: "Model"), else what Python knows."""
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or None
