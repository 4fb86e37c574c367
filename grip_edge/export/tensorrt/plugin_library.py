"""The library path that TensorRT-RTX 1.7 needs to build with a plugin.

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
from grip_edge.export.targets.table import TENSORRT_RTX, Target

_LIBRARY = "libtensorrt_rtx.so"
_LIBRARIES_PACKAGE = "tensorrt_rtx_libs"


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
