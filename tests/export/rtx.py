"""TensorRT-RTX in tests: where it is, and programs that use it in a process of their own.

Version 1.7 is looked for in the folder ``GRIP_EDGE_RTX_SITE`` (a site-packages that holds it), then among the
installed packages; version 1.4, whose parser is that of TensorRT 10.16, in ``GRIP_EDGE_RTX14_SITE`` only. Elsewhere the
tests that need it are skipped. ``make test-rtx`` installs both and runs these tests.
"""

from __future__ import annotations

import importlib.util
import json
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from grip_edge.export.targets.table import Target
from grip_edge.export.tensorrt.request import BuildRequest, GraphRequest

SITE, OLD_SITE = "GRIP_EDGE_RTX_SITE", "GRIP_EDGE_RTX14_SITE"
CAPABILITIES = (86,)
_PACKAGES = ("tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_rtx_libs")


@contextmanager
def rtx_environment(variable: str = SITE) -> Iterator[dict[str, str]]:
    """The environment for a process that imports tensorrt_rtx and otherwise what is installed here."""
    site = os.environ.get(variable)
    if site is None:
        if variable != SITE:
            pytest.skip(f"needs tensorrt-rtx 1.4.0.76 in the folder {variable} (make test-rtx)")
        if importlib.util.find_spec(_PACKAGES[0]) is None:
            pytest.skip(f"needs tensorrt-rtx 1.7, installed or in the folder {variable} (make test-rtx)")
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as links:
        for package in _PACKAGES:
            (Path(links) / package).symlink_to(Path(site).resolve() / package)
        yield os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (links, os.environ.get("PYTHONPATH"))))}


def run_program(program: str, *arguments: str, variable: str = SITE) -> subprocess.CompletedProcess[str]:
    """Python source, with ``arguments`` in sys.argv."""
    with rtx_environment(variable) as environment:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *arguments], capture_output=True, text=True, env=environment
        )


def grip_edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program("from grip_edge.cli.main import main; main()", *arguments)


# Graphs built as ``grip-edge build`` does it, whatever the target. With "twin", selection is left to the plugin in
# Python, for which TensorRT-RTX needs a library path that is set before its process starts. With "parse", no engine is
# made of what the parser took.
_BUILD = """
import json, os, subprocess, sys
from pathlib import Path
from grip_edge.export.targets.table import TARGETS, TENSORRT_RTX
from grip_edge.export.tensorrt import engine
from grip_edge.export.tensorrt.package import Package
from grip_edge.export.tensorrt.plugin_library import library_environment
from grip_edge.export.tensorrt.request import BuildRequest
from grip_edge.plugin.twin import register
twin = "twin" in sys.argv
if twin and "AGAIN" not in os.environ:
    with library_environment(TARGETS["rtx"], True) as variables:
        sys.exit(subprocess.call([sys.executable, *sys.orig_argv[1:]], env={**variables, "AGAIN": "1"}))
import tensorrt_rtx as trt
request = BuildRequest.from_json(Path(sys.argv[1]).read_text())
creator = register(trt) if twin else None
if twin:
    read = engine.read_graph
    engine.read_graph = lambda path, capacity, with_plugin: read(path, capacity, True)
if "parse" in sys.argv:
    engine._write_engine = lambda *_: None
package = Package("tensorrt_rtx", str(trt.__version__), TENSORRT_RTX, trt)
for graph in request.graphs:
    ranges, warnings = engine.build_engine(package, request, graph, lambda phase, share: True)
    print(json.dumps({"graph": graph.file, "version": package.version, "warnings": warnings, "ranges": len(ranges)}))
"""


def build_graphs(
    folder: Path,
    target: Target,
    graphs: tuple[GraphRequest, ...],
    cache_capacity: int,
    *,
    twin: bool = False,
    parse_only: bool = False,
    variable: str = SITE,
) -> list[dict[str, Any]]:
    """What was told of each graph; the engines lie beside the graphs in ``folder``."""
    request = BuildRequest(target.name, str(folder), str(folder), graphs, cache_capacity, CAPABILITIES, None)
    (folder / "request.json").write_text(request.to_json())
    how = [name for name, wanted in (("twin", twin), ("parse", parse_only)) if wanted]
    done = run_program(_BUILD, str(folder / "request.json"), *how, variable=variable)
    assert done.returncode == 0, done.stderr
    return [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
