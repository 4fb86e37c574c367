"""``optimum-cli export grip``: the same as ``grip-edge export``, where Optimum's users look for it.

Optimum imports the modules that packages put into its namespace ``optimum.commands.register`` and adds what stands in
``REGISTER_COMMANDS``. Options and their help are read from our own command, which also runs: nothing is written twice.
Imported at every start of ``optimum-cli``, so nothing heavy is imported before the command runs.
"""

from __future__ import annotations

from argparse import SUPPRESS, ArgumentParser, Namespace
from collections.abc import Iterator

import click
from optimum.commands.base import BaseOptimumCLICommand, CommandInfo
from optimum.commands.export.base import ExportCommand

from grip_edge.cli.export import export


class GripExportCommand(BaseOptimumCLICommand):
    COMMAND = CommandInfo(name="grip", help="Vision-language models with pruned visual tokens (grip-edge export).")

    @staticmethod
    def parse_args(parser: ArgumentParser) -> None:
        """Values stay text, and what is not given stays away: our command checks them and knows the defaults."""
        for option in _options():
            text = (option.help or "").replace("%", "%%")
            if option.is_flag:
                for names, value in ((option.opts, True), (option.secondary_opts, False)):
                    if names:
                        parser.add_argument(
                            *names, action="store_const", const=value, default=SUPPRESS, help=text, dest=option.name
                        )
            else:
                parser.add_argument(
                    *option.opts, default=SUPPRESS, help=text, dest=option.name, required=option.required
                )

    def run(self) -> None:
        from grip_edge.cli.main import cli

        cli.main(["export", *words(self.args)], prog_name="grip-edge")


def words(given: Namespace | None) -> list[str]:
    """The options as ``grip-edge export`` takes them."""
    found: list[str] = []
    for option in _options():
        value = getattr(given, str(option.name), None)
        if isinstance(value, bool):
            found.append((option.opts if value else option.secondary_opts)[0])
        elif value is not None:
            found += [option.opts[0], str(value)]
    return found


def _options() -> Iterator[click.Option]:
    yield from (parameter for parameter in export.params if isinstance(parameter, click.Option))


REGISTER_COMMANDS = [(GripExportCommand, ExportCommand)]
