"""TensorRT-RTX in tests: where it is, and programs that use it in a process of their own.

It is looked for in the folder ``GRIP_EDGE_RTX_SITE`` (a site-packages with tensorrt-rtx 1.7), then among the installed
packages; elsewhere the tests that need it are skipped.
"""

from __future__ import annotations

import importlib.util
import os
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

_VARIABLE = "GRIP_EDGE_RTX_SITE"
_PACKAGES = ("tensorrt_rtx", "tensorrt_rtx_bindings", "tensorrt_rtx_libs")


@contextmanager
def rtx_environment() -> Iterator[dict[str, str]]:
    """The environment for a process that imports tensorrt_rtx and otherwise what is installed here."""
    site = os.environ.get(_VARIABLE)
    if site is None:
        if importlib.util.find_spec(_PACKAGES[0]) is None:
            pytest.skip(f"needs tensorrt-rtx 1.7, installed or in the folder {_VARIABLE}")
        yield dict(os.environ)
        return
    with tempfile.TemporaryDirectory() as links:
        for package in _PACKAGES:
            (Path(links) / package).symlink_to(Path(site) / package)
        yield os.environ | {"PYTHONPATH": os.pathsep.join(filter(None, (links, os.environ.get("PYTHONPATH"))))}


def run_program(program: str, *arguments: str) -> subprocess.CompletedProcess[str]:
    """Python source, with ``arguments`` in sys.argv."""
    with rtx_environment() as environment:
        return subprocess.run(
            [sys.executable, "-W", "error", "-c", program, *arguments], capture_output=True, text=True, env=environment
        )


def grip_edge(*arguments: str) -> subprocess.CompletedProcess[str]:
    return run_program("from grip_edge.cli.main import main; main()", *arguments)
