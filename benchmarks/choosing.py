"""``--only`` of the benchmarks: things by name."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol, TypeVar

import click


class _Named(Protocol):
    @property
    def name(self) -> str: ...


_Thing = TypeVar("_Thing", bound=_Named)


def named(things: Sequence[_Thing], only: str | None, kind: str) -> list[_Thing]:
    """Those of ``only``, separated by commas; None: all. ``kind`` is their word in the error."""
    known = {thing.name: thing for thing in things}
    wanted = list(known) if only is None else only.split(",")
    for name in wanted:
        if name not in known:
            raise click.BadParameter(f"there is no {kind} '{name}'; known: {', '.join(known)}", param_hint="--only")
    return [thing for thing in things if thing.name in wanted]
