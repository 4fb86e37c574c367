"""``grip-edge doctor``: what works on this machine, and what to do about the rest."""

from __future__ import annotations

import dataclasses
import json

import click

from grip_edge.errors import UserError

_COLOURS = {"ok": "green", "missing": "yellow", "broken": "red", "unknown": "bright_black"}
BROKEN_EXIT_CODE = 1


@click.command()
@click.option("--only", help="Comma-separated groups: device, backends, host, machine.  [default: all]")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document instead of lines.")
@click.pass_context
def doctor(ctx: click.Context, only: str | None, as_json: bool) -> None:
    """Check what is installed, which backends work, and what to install for the rest. Every line was tested just now.

    \b
    Exit code 1 if something that is needed on the device is missing or broken.
    Example:
      grip-edge doctor
      grip-edge doctor --only device,backends --json
    """
    from grip_edge.cli.checks.groups import GROUPS, run_checks
    from grip_edge.cli.progress import progress

    wanted = tuple(GROUPS) if only is None else tuple(part.strip() for part in only.split(","))
    unknown = [name for name in wanted if name not in GROUPS]
    if unknown:
        raise UserError(f"--only knows the groups {', '.join(GROUPS)}; got {', '.join(unknown)}.")
    with progress() as on_step:
        findings = run_checks(wanted, on_step)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in findings], indent=2))
    else:
        width = max(len(one.name) for one in findings)
        for one in findings:
            state = click.style(f"{one.state:8}", fg=_COLOURS[one.state])
            click.echo(f"{state} {one.name:{width}}  {one.fact}")
            if one.remedy:
                click.echo(f"{'':9}{'':{width}}  {one.remedy}")
    if any(one.needed and one.state != "ok" for one in findings):
        ctx.exit(BROKEN_EXIT_CODE)
