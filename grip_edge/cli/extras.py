"""Imports that need an optional extra: a package of it that is missing is one line with the pip command.

Exporting and training want a newer Python than the device: transformers and ONNX Runtime's opset 24 are made for none
older.
"""

from __future__ import annotations

import platform
import sys
from collections.abc import Iterator
from contextlib import contextmanager

from grip_edge.errors import MissingExtraError, UserError

_HOST_EXTRAS = ("export", "train")
_LEAST_HOST_PYTHON = (3, 11)


def too_old_for(extra: str) -> bool:
    """Whether this Python is one that ``extra`` is not made for."""
    return extra in _HOST_EXTRAS and sys.version_info < _LEAST_HOST_PYTHON


@contextmanager
def needs_extra(extra: str, packages: tuple[str, ...]) -> Iterator[None]:
    """Around imports; ``packages`` are what ``extra`` brings. A module that is missing for another reason is a bug."""
    if too_old_for(extra):
        raise UserError(
            f"This needs the extra [{extra}], which is for Python 3.11 or newer; this is {platform.python_version()}. "
            "Do it on another machine, and copy what it writes: running a bundle takes Python 3.10."
        )
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise MissingExtraError(package, extra) from None
