"""The options about 4-bit weights, the same for every command that chooses number formats."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import click

from grip_edge.export.precision import DEFAULT_INT4_BLOCK, INT4_BLOCKS

_BLOCKS = ", ".join(map(str, INT4_BLOCKS))


def int4_options(command: Callable[..., Any]) -> Callable[..., Any]:
    for option in (
        click.option(
            "--int4-symmetric/--int4-asymmetric", default=None, help="Without or with zero points; default: with."
        ),
        click.option(
            "--int4-block", type=int, help=f"Inputs per scale, one of: {_BLOCKS}; default: {DEFAULT_INT4_BLOCK}."
        ),
    ):
        command = option(command)
    return command
