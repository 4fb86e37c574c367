"""The plugin's library in a build: registering it, and the path that TensorRT-RTX 1.7 needs for that.

Its parser looks for ``libtensorrt_rtx.so``, which the package does not hold (only ``libtensorrt_rtx.so.1``), and aborts
without it. A link of that name in a temporary folder, on the library path of a new process, is enough; the package
stays as it is.
"""

from __future__ import annotations

import importlib.util
import os
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from grip_edge.errors import UserError
from grip_edge.export.targets.budget_select import BUDGET_SELECT, DOMAIN, PLUGIN_VERSION
from grip_edge.export.targets.table import TENSORRT_RTX, Target
from grip_edge.export.tensorrt.build_log import BuildError
from grip_edge.export.tensorrt.package import Package

_LIBRARY = "libtensorrt_rtx.so"
_LIBRARIES_PACKAGE = "tensorrt_rtx_libs"


def register_plugin(package: Package, library: Path) -> None:
    """Loads the library and checks that it holds the plugin of this version."""
    registry = package.trt.get_plugin_registry()
    if registry.load_library(str(library)) is None:
        raise BuildError(f"'{library}' does not load as a plugin library; build it on this machine with CMake.")
    found = {(c.plugin_namespace, c.name, c.plugin_version) for c in registry.all_creators if c.name == BUDGET_SELECT}
    if (DOMAIN, BUDGET_SELECT, PLUGIN_VERSION) not in found:
        versions = ", ".join(sorted(version for _, _, version in found)) or "none"
        raise BuildError(f"'{library}' holds {BUDGET_SELECT} of version {versions}, expected {PLUGIN_VERSION}.")


@contextmanager
def library_environment(target: Target, with_plugin: bool) -> Iterator[dict[str, str]]:
    """The environment for a building process."""
    environment = dict(os.environ)
    if not with_plugin or target.engine != TENSORRT_RTX:
        yield environment
        return
    with tempfile.TemporaryDirectory() as folder:
        (Path(folder) / _LIBRARY).symlink_to(_rtx_library())
        known = environment.get("LD_LIBRARY_PATH")
        environment["LD_LIBRARY_PATH"] = folder if not known else f"{folder}:{known}"
        yield environment


def _rtx_library() -> Path:
    spec = importlib.util.find_spec(_LIBRARIES_PACKAGE)
    folders = [] if spec is None else list(spec.submodule_search_locations or [])
    found = [path for folder in folders for path in sorted(Path(folder).glob(f"{_LIBRARY}.*"))]
    if not found:
        raise UserError(f"'{_LIBRARIES_PACKAGE}' holds no {_LIBRARY}; run  pip install 'grip-edge[rtx]'")
    return found[0]
