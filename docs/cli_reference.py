"""Writes reference/cli.md from the commands themselves; with --check, says whether it is up to date (exit code 1: no).

    python docs/cli_reference.py [--check]

What a command prints with --help is all there is: its usage, its text, its arguments' and options' help.
"""

from __future__ import annotations

import inspect
import itertools
import sys
from collections.abc import Iterator
from pathlib import Path

import click

from grip_edge.cli.main import COMMANDS, cli

PAGE = Path(__file__).parent / "reference" / "cli.md"
_AS_IT_IS = "\b"
_INTRODUCTION = """\
# Commands

<!-- Made by  python docs/cli_reference.py  from the commands; changes here are lost. -->

What `grip-edge COMMAND --help` says, on one page.

Exit codes: 0 for success; 2 for what the user can mend, with one line on stderr (see
[Troubleshooting](../troubleshooting.md)); 1 for a finding (`compare --fail-above`, `verify`, `doctor`, an export that
does not agree with its reference) or a bug; 130 after Ctrl-C.

Completion of commands and options in bash (zsh and fish likewise):

```sh
eval "$(_GRIP_EDGE_COMPLETE=bash_source grip-edge)"
```
"""


def page() -> str:
    lines = [_INTRODUCTION]
    context = click.Context(cli, info_name="grip-edge")
    lines += _section("grip-edge", cli, context)
    for name in COMMANDS:
        command = cli.get_command(context, name)
        if command is None:
            raise RuntimeError(f"grip-edge lists the command {name} and does not have it")
        lines += _section(f"grip-edge {name}", command, click.Context(command, context, name))
    return "\n".join(lines).rstrip() + "\n"


def _section(title: str, command: click.Command, context: click.Context) -> Iterator[str]:
    yield f"## {title}\n"
    yield _commands([f"{context.command_path} {' '.join(command.collect_usage_pieces(context))}"])
    yield from _text(command.help or "")
    options = [option for option in command.params if isinstance(option, click.Option)]
    records = [record for option in options if (record := option.get_help_record(context)) is not None]
    if records:
        yield "| option | meaning |\n| --- | --- |"
        yield from (f"| `{_cell(name)}` | {_cell(_escaped(meaning))} |" for name, meaning in records)
        yield ""


def _text(help_text: str) -> Iterator[str]:
    """Paragraphs as prose. Indented lines, which click keeps as they are, are commands."""
    for paragraph in inspect.cleandoc(help_text).split("\n\n"):
        lines = paragraph.removeprefix(_AS_IT_IS).strip("\n").splitlines()
        for kind, run in itertools.groupby(lines, _kind):
            if kind == "command":
                yield _commands([line.strip() for line in run])
            else:
                yield f"{_escaped(' '.join(' '.join(run).split()))}\n"


def _kind(line: str) -> str:
    if line.startswith(" "):
        return "command"
    return "heading" if line.endswith(":") else "prose"


def _commands(lines: list[str]) -> str:
    return "\n".join(["```text", *lines, "```", ""])


def _escaped(text: str) -> str:
    """Markdown that shows ``text`` as it is."""
    return "".join(f"\\{character}" if character in "\\`*_<>[]#$" else character for character in text)


def _cell(text: str) -> str:
    return text.replace("|", r"\|").replace("\n", " ")


def main(arguments: list[str]) -> int:
    if arguments == ["--check"]:
        if PAGE.is_file() and PAGE.read_text(encoding="utf-8") == page():
            return 0
        sys.stderr.write(f"{PAGE} is not what the commands say now; run  python docs/cli_reference.py\n")
        return 1
    if arguments:
        sys.stderr.write(f"{__doc__}")
        return 2
    PAGE.write_text(page(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
