"""Which of the two packages is installed, ``tensorrt_rtx`` or ``tensorrt``, and what a target needs."""

from __future__ import annotations

import importlib
from dataclasses import dataclass
from typing import Any

from grip_edge.errors import MissingExtraError, UserError
from grip_edge.export.targets.table import TARGETS, TENSORRT, TENSORRT_RTX, Target

_MODULES = {TENSORRT_RTX: "tensorrt_rtx", TENSORRT: "tensorrt"}
_EXTRAS = {TENSORRT_RTX: "rtx", TENSORRT: "tensorrt"}


@dataclass(frozen=True)
class Package:
    """``trt`` is the imported module; the two have one interface as far as it is used here."""

    name: str
    version: str
    engine: str
    trt: Any


def require_engines(target: Target) -> None:
    if not target.is_compiled:
        engines = ", ".join(name for name, other in TARGETS.items() if other.is_compiled)
        raise UserError(f"A bundle for {target.name} runs without engines; they are built for: {engines}.")


def load_package(target: Target) -> Package:
    """The package that makes engines for the target; UserError if its version does not fit."""
    require_engines(target)
    name = _MODULES[target.engine]
    try:
        trt: Any = importlib.import_module(name)
    except ImportError as error:
        if isinstance(error, ModuleNotFoundError) and error.name == name:
            beside = "" if target.engine == TENSORRT_RTX else f"'tensorrt=={_wanted(target)}.*'  (JetPack brings it)"
            raise MissingExtraError(name, _EXTRAS[target.engine], beside) from None
        raise UserError(f"The package '{name}' is installed but does not load ({error}); install it again.") from None
    package = Package(name, str(trt.__version__), target.engine, trt)
    _require_version(package, target)
    return package


def _wanted(target: Target) -> str:
    return target.name.removeprefix("tensorrt-")


def _require_version(package: Package, target: Target) -> None:
    """``tensorrt-10.3`` wants 10.3.x, ``tensorrt-11`` wants 11.x."""
    wanted = _wanted(target)
    if target.engine == TENSORRT and not f"{package.version}.".startswith(f"{wanted}."):
        raise UserError(
            f"The bundle is for TensorRT {wanted}, this machine has {package.version}; export it with the target of "
            "this version (see  grip-edge export --help )."
        )
