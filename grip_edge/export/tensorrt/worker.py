"""The building process: ``python -m grip_edge.export.tensorrt.worker REQUEST.json``.

Tells its progress in lines of JSON (``request.Told``). Ctrl-C stops the build at TensorRT's next step.
"""

from __future__ import annotations

import os
import signal
import sys
from pathlib import Path
from typing import Any

from grip_edge.errors import GripEdgeError
from grip_edge.export.targets.table import find_target
from grip_edge.export.tensorrt.engine import build_engine
from grip_edge.export.tensorrt.package import load_package
from grip_edge.export.tensorrt.request import BuildRequest, Told
from grip_edge.plugin.loading import load_plugin


class _Stop:
    """Remembers that Ctrl-C came."""

    def __init__(self) -> None:
        self.asked = False
        signal.signal(signal.SIGINT, self._ask)
        signal.signal(signal.SIGTERM, self._ask)

    def _ask(self, number: int, frame: Any) -> None:
        self.asked = True


def run(request: BuildRequest, stop: _Stop) -> None:
    package = load_package(find_target(request.target))
    registry = package.trt.get_plugin_registry()
    plugin = None if request.plugin is None else load_plugin(package.trt, registry, Path(request.plugin))
    for graph in request.graphs:

        def step(phase: str, share: float, file: str = graph.file) -> bool:
            if phase and not stop.asked:
                _tell(Told(file, phase, min(share, 1.0)))
            return not stop.asked

        _tell(Told(graph.file, "Parsing"))
        ranges, warnings = build_engine(package, request, graph, step)
        _tell(Told(graph.file, "Built", 1.0, warnings, ranges, package.version))
    del plugin  # registered up to here


def _tell(told: Told) -> None:
    try:
        sys.stdout.write(told.to_json() + "\n")
        sys.stdout.flush()
    except BrokenPipeError:  # whoever asked for the engines is gone; TensorRT would go on
        os._exit(1)


def main() -> int:
    try:
        run(BuildRequest.from_json(Path(sys.argv[1]).read_text(encoding="utf-8")), _Stop())
    except GripEdgeError as error:
        _tell(Told("", error=str(error)))
        return error.exit_code
    return 0


if __name__ == "__main__":
    sys.exit(main())
