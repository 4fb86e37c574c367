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
import logging
import sys
import time
from pathlib import Path
from typing import Any

import click

from grip_edge import __version__
from grip_edge.cli.logs import LEVELS, SHOWN, set_up_logging
from grip_edge.errors import GripEdgeError

_LOG = logging.getLogger("grip_edge.cli.main")  # also where this file is run by its path
INTERRUPTED_EXIT_CODE = 130
COMMANDS = (
    "train",
    "evaluate",
    "plan",
    "export",
    "build",
    "calibrate",
    "infer",
    "explain",
    "bench",
    "compare",
    "inspect",
    "verify",
    "doctor",
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
        start = time.perf_counter()
        try:
            outcome = super().invoke(ctx)
            _log_end(start, 0)
            return outcome
        except GripEdgeError as error:
            message = " ".join(str(error).split())
            click.echo(f"grip-edge: error: {message}", err=True)
            _log_end(start, error.exit_code, message)
            ctx.exit(error.exit_code)
        except KeyboardInterrupt:
            click.echo("grip-edge: interrupted", err=True)
            _log_end(start, INTERRUPTED_EXIT_CODE)
            ctx.exit(INTERRUPTED_EXIT_CODE)
        except click.exceptions.Exit as ending:
            _log_end(start, ending.exit_code)
            raise
        except click.ClickException as usage:
            _log_end(start, usage.exit_code, usage.format_message())
            raise
        except Exception:
            _LOG.error("bug", exc_info=True, extra={SHOWN: True})
            raise


@click.group(cls=_LazyGroup, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(__version__, prog_name="grip-edge")
@click.option("--log-level", type=click.Choice(LEVELS), help="What to say on stderr.  [default: warning]")
@click.option("--log-file", type=click.Path(path_type=Path), help="Add what happens to this file, as JSON lines.")
@click.pass_context
def cli(ctx: click.Context, log_level: str | None, log_file: Path | None) -> None:
    """Put a token-pruned vision-language model on a small device."""
    ctx.call_on_close(set_up_logging(log_level, log_file))
    _LOG.info("start", extra={"fields": {"command": ctx.invoked_subcommand, "arguments": sys.argv[1:]}})


def _log_end(start: float, exit_code: int, error: str | None = None) -> None:
    fields: dict[str, object] = {"seconds": round(time.perf_counter() - start, 3), "exit_code": exit_code}
    if error is None:
        _LOG.info("end", extra={"fields": fields})
    else:
        _LOG.error("end", extra={"fields": fields | {"error": error}, SHOWN: True})


def main() -> None:
    """Entry point. Characters that the terminal cannot show are replaced, not fatal."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, io.TextIOWrapper):
            stream.reconfigure(errors="replace")
    cli(prog_name="grip-edge")


if __name__ == "__main__":
    main()
