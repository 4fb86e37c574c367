"""``grip-edge``: the group of commands, and what becomes of errors.

    GripEdgeError       one line on stderr, and the exit code of its class (the user's mistakes: 2)
    wrong usage         click's own message, exit code 2
    Ctrl-C              one line, exit code 130
    anything else       a bug: traceback, exit code 1

A command's module is imported when the command is asked for, so that ``infer`` never loads torch.
"""

from __future__ import annotations

import importlib
import io
import sys
from typing import Any

import click

from grip_edge import __version__
from grip_edge.errors import GripEdgeError

INTERRUPTED_EXIT_CODE = 130
COMMANDS = (
    "train",
    "evaluate",
    "plan",
    "export",
    "build",
    "calibrate",
    "infer",
    "bench",
    "inspect",
    "verify",
    "models",
)


class _LazyGroup(click.Group):
    """Command ``x`` is the object ``x`` of ``grip_edge.cli.x``."""

    def list_commands(self, ctx: click.Context) -> list[str]:
        return list(COMMANDS)

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        if cmd_name not in COMMANDS:
            return None
        command: click.Command = getattr(importlib.import_module(f"grip_edge.cli.{cmd_name}"), cmd_name)
        return command

    def invoke(self, ctx: click.Context) -> Any:
        try:
            return super().invoke(ctx)
        except GripEdgeError as error:
            click.echo(f"grip-edge: error: {' '.join(str(error).split())}", err=True)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("grip-edge: interrupted", err=True)
            ctx.exit(INTERRUPTED_EXIT_CODE)


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="grip-edge")
def cli() -> None:
    """Put a token-pruned vision-language model on a small device."""


def main() -> None:
    """Entry point. Characters that the terminal cannot show are replaced, not fatal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli(prog_name="grip-edge")


if __name__ == "__main__":
    main()
