"""``grip-edge verify``: check a bundle byte by byte."""

from __future__ import annotations

import click

DAMAGED_EXIT_CODE = 1


@click.command()
@click.argument("bundle")
@click.pass_context
def verify(ctx: click.Context, bundle: str) -> None:
    """Check BUNDLE: schema, sizes, hashes, and that every graph loads. Exit code 1 names what is damaged.

    \b
    Example:
      grip-edge verify grip-bundle
    """
    from pathlib import Path

    from grip_edge.bundle import MANIFEST_NAME, damage, read_bundle
    from grip_edge.cli.progress import progress
    from grip_edge.errors import BundleError, UserError
    from grip_edge.runtime import Pipeline

    if not Path(bundle).is_dir():
        raise UserError(f"There is no folder '{bundle}'; expected a bundle that  grip-edge export  made.")
    try:
        opened = read_bundle(bundle)
    except BundleError as error:
        click.echo(f"DAMAGED  {MANIFEST_NAME}: {error}")
        ctx.exit(DAMAGED_EXIT_CODE)
    click.echo(f"ok       {MANIFEST_NAME}")
    damaged = False
    with progress() as on_step:
        for number, (record, problem) in enumerate(damage(opened), 1):
            damaged |= problem is not None
            click.echo(f"ok       {record.path}" if problem is None else f"DAMAGED  {record.path}: {problem}")
            on_step("verify", number, len(opened.manifest.files))
    if damaged:
        ctx.exit(DAMAGED_EXIT_CODE)
    try:
        Pipeline.load(bundle)
    except BundleError as error:
        click.echo(f"DAMAGED  {error}")
        ctx.exit(DAMAGED_EXIT_CODE)
    click.echo(f"All {len(opened.manifest.files)} files are as exported, and every graph loads.")
