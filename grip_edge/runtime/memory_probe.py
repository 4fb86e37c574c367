"""Memory of one budget, measured in a process of its own: no other budget's buffers are in it, nor the bench's.

    python -m grip_edge.runtime.memory_probe < request.json      prints one JSON document

Host: the peak resident set (VmHWM, which unlike ru_maxrss starts anew with the program). Device: what NVML says of
this process, else by how much the GPU's use grew, sampled while requests run. Times are not taken here, since sampling
disturbs them.
"""

from __future__ import annotations

import dataclasses
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grip_edge.report import RowMemory
from grip_edge.runtime.machine import peak_memory
from grip_edge.runtime.nvml import Gpu

_SAMPLED_EVERY_S = 0.05
_PATIENCE_S = 1800
_UNAVAILABLE = "unavailable"


@dataclass(frozen=True)
class ProbeRequest:
    bundle: str
    budget: str
    image: str
    question: str
    new_tokens: int
    requests: int = 2
    threads: int | None = None
    backend: str | None = None


def probe_memory(request: ProbeRequest) -> RowMemory:
    """What the process said; where it ended badly, nothing is known and the metric says why."""
    command = [sys.executable, "-m", "grip_edge.runtime.memory_probe"]
    try:
        done = subprocess.run(
            command,
            input=json.dumps(dataclasses.asdict(request)),
            capture_output=True,
            text=True,
            timeout=_PATIENCE_S,
            check=False,
        )
    except (OSError, subprocess.TimeoutExpired) as error:
        return _unknown(type(error).__name__)
    if done.returncode:
        reason = f"signal {-done.returncode}" if done.returncode < 0 else f"exit code {done.returncode}"
        return _unknown(f"the probe ended with {reason}")
    return RowMemory(**json.loads(done.stdout.splitlines()[-1]))


def main() -> None:
    request = ProbeRequest(**json.load(sys.stdin))
    device = DeviceMemory(Gpu.find(), os.getpid())
    with device:
        _serve(request, device.sample)
    host, metric = peak_resident_bytes()
    print(json.dumps(dataclasses.asdict(RowMemory(host, metric, device.peak_bytes, device.metric))))  # noqa: T201


def _serve(request: ProbeRequest, between: Callable[[], None]) -> None:
    from grip_edge.runtime.pipeline import Pipeline

    pipeline = Pipeline.load(request.bundle, request.threads, 0, request.backend)
    for _ in range(request.requests):
        pipeline.generate(
            request.image, request.question, request.budget, max_new_tokens=request.new_tokens, ignore_stop=True
        )
        between()


def peak_resident_bytes(status: Path = Path("/proc/self/status")) -> tuple[int | None, str]:
    """Bytes and the name of the metric."""
    if status.is_file():
        for line in status.read_text(encoding="ascii", errors="replace").splitlines():
            if line.startswith("VmHWM:"):
                return 1024 * int(line.split()[1]), "VmHWM"
    memory = peak_memory()
    return memory.peak_host_bytes, memory.metric


class DeviceMemory:
    """A thread that asks the GPU every now and then. ``metric`` names what ``peak_bytes`` is."""

    def __init__(self, gpu: Gpu | None, pid: int) -> None:
        self._gpu, self._pid = gpu, pid
        self._before = None if gpu is None else gpu.used_bytes
        self._own: int | None = None
        self._grown: int | None = None
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._watch, daemon=True)

    def __enter__(self) -> DeviceMemory:
        self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        self._thread.join()

    @property
    def peak_bytes(self) -> int | None:
        return self._grown if self._own is None else self._own

    @property
    def metric(self) -> str:
        if self._own is not None:
            return "nvml_process_allocation"
        return _UNAVAILABLE if self._grown is None else "nvml_used_memory_delta"

    def sample(self) -> None:
        if self._gpu is None:
            return
        own, used = self._gpu.process_bytes(self._pid), self._gpu.used_bytes
        if own is not None:
            self._own = max(own, self._own or 0)
        if used is not None and self._before is not None:
            self._grown = max(used - self._before, self._grown or 0)

    def _watch(self) -> None:
        while self._gpu is not None and not self._ended.wait(_SAMPLED_EVERY_S):
            self.sample()


def _unknown(reason: str) -> RowMemory:
    return RowMemory(None, reason, None, _UNAVAILABLE)


if __name__ == "__main__":
    main()
