"""What the program runs on, as far as the operating system tells; what it does not tell is None.

``root`` is the root of the file system, so that a recorded board can be read. What changes from minute to minute is in
``machine_state``.
"""

from __future__ import annotations

import os
import platform
import re
import sys
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from grip_edge import __version__
from grip_edge.machine_record import Machine
from grip_edge.report import Memory
from grip_edge.runtime.nvml import Gpu
from grip_edge.runtime.onnx_backend import BACKEND

_PACKAGES = ("onnxruntime", "onnxruntime-gpu", "openvino", "tensorrt", "tensorrt-rtx", "numpy", "pillow", "tokenizers")
# "# R36 (release), REVISION: 4.3, GCID: ..." is Linux for Tegra 36.4.3.
_TEGRA_RELEASE = re.compile(r"# R(\d+) \(release\), REVISION: ([\d.]+)")


def machine(threads: int | None, backend: str = BACKEND, root: Path = Path("/")) -> Machine:
    gpu = Gpu.find()
    versions = {"grip-edge": __version__, "python": platform.python_version()}
    versions |= {name: found for name in _PACKAGES if (found := package_version(name)) is not None}
    if gpu is not None and gpu.driver is not None:
        versions["nvidia-driver"] = gpu.driver
    tegra = tegra_release(root)
    if tegra is not None:
        versions["linux-for-tegra"] = tegra
    return Machine(
        cpu_model=_cpu_model(root),
        cpu_count=os.cpu_count(),
        operating_system=f"{platform.system()} {platform.release()} {platform.machine()}",
        backend=backend,
        threads=threads,
        versions=versions,
        board=board_model(root),
        gpu_model=None if gpu is None else gpu.name,
        memory_bytes=meminfo_bytes("MemTotal", root),
    )


def peak_memory() -> Memory:
    """The process's peak resident set so far: weights, caches, interpreter and all."""
    try:
        import resource
    except ImportError:  # Windows
        return Memory(None, "unknown")
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return Memory(peak if sys.platform == "darwin" else 1024 * peak, "ru_maxrss")


def package_version(name: str) -> str | None:
    try:
        return version(name)
    except PackageNotFoundError:
        return None


def board_model(root: Path = Path("/")) -> str | None:
    """A board's own name, as "NVIDIA Jetson AGX Orin Developer Kit"."""
    model = root / "proc/device-tree/model"
    return model.read_text(errors="replace").strip("\0\n ") or None if model.is_file() else None


def tegra_release(root: Path = Path("/")) -> str | None:
    """Version of NVIDIA's Linux on a Jetson, as "36.4.3"."""
    release = root / "etc/nv_tegra_release"
    found = _TEGRA_RELEASE.match(release.read_text(errors="replace")) if release.is_file() else None
    return None if found is None else f"{found[1]}.{found[2]}"


def meminfo_bytes(key: str, root: Path = Path("/")) -> int | None:
    """A line of /proc/meminfo."""
    meminfo = root / "proc/meminfo"
    if meminfo.is_file():
        for line in meminfo.read_text(encoding="ascii", errors="replace").splitlines():
            name, _, value = line.partition(":")
            if name == key:
                return 1024 * int(value.split()[0])
    return None


def _cpu_model(root: Path) -> str | None:
    """From /proc/cpuinfo (x86: "model name"; some ARM kernels: "Model"), else what Python knows."""
    cpuinfo = root / "proc/cpuinfo"
    if cpuinfo.is_file():
        for line in cpuinfo.read_text(encoding="utf-8", errors="replace").splitlines():
            key, _, value = line.partition(":")
            if key.strip() in ("model name", "Model"):
                return value.strip()
    return platform.processor() or None
