"""Imports that need an optional extra: a package of it that is missing is one line with the pip command."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

from grip_edge.errors import MissingExtraError


@contextmanager
def needs_extra(extra: str, packages: tuple[str, ...]) -> Iterator[None]:
    """Around imports; ``packages`` are what ``extra`` brings. A module that is missing for another reason is a bug."""
    try:
        yield
    except ModuleNotFoundError as error:
        package = (error.name or "").partition(".")[0]
        if package not in packages:
            raise
        raise MissingExtraError(package, extra) from None
