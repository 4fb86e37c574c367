"""``grip-edge build``: compile a bundle's graphs into engines of TensorRT or TensorRT-RTX."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import click

if TYPE_CHECKING:
    from grip_edge.engines import Engines

# What the building side needs beside TensorRT itself.
_EXTRA_PACKAGES = ("onnx",)


@click.command()
@click.argument("bundle")
@click.option(
    "--device",
    help="What to build for: a board (orin-nano, thor, ...), or compute capabilities such as sm86 or sm86,sm120.  "
    "[default: the GPU of this machine]",
)
@click.option("--target", help="Expected target of the bundle; another one is an error.  [default: the bundle's]")
@click.option("--expected-budget", help="Budget to tune for.  [default: the middle of the bundle's range]")
@click.option(
    "--max-new-tokens",
    type=int,
    help="Longest answer to make room for.  [default: 256, or what the model's positions leave]",
)
@click.option("--workspace", "workspace_mib", type=int, help="Limit of TensorRT's scratch memory, in MiB.")
@click.option(
    "--plugin", type=click.Path(path_type=Path), help="Library of the selection plugin.  [default: TensorRT's layers]"
)
@click.option("--skip-memory-check", is_flag=True, help="Build even if memory looks too small.")
def build(
    bundle: str,
    device: str | None,
    target: str | None,
    expected_budget: str | None,
    max_new_tokens: int | None,
    workspace_mib: int | None,
    plugin: Path | None,
    skip_memory_check: bool,
) -> None:
    """Compile BUNDLE's graphs into engines; TensorRT-RTX needs no GPU for that.

    \b
    Example:
      grip-edge export --model llava-tiny --budget-range 0.1,0.5 --precision fp16 --target rtx --out rtx-bundle
      grip-edge build rtx-bundle --device sm86
    """
    from rich.console import Console
    from rich.progress import Progress

    from grip_edge.bundle import open_bundle
    from grip_edge.cli.extras import needs_extra
    from grip_edge.errors import UserError

    with needs_extra("tensorrt", _EXTRA_PACKAGES):
        from grip_edge.export.tensorrt.build import BuildOptions, build_engines
    from grip_edge.export.targets.table import find_target
    from grip_edge.export.tensorrt.devices import resolve_device
    from grip_edge.export.tensorrt.package import require_engines

    opened = open_bundle(bundle)
    found = find_target(opened.manifest.target)
    if target is not None and find_target(target) != found:
        raise UserError(f"--target is {target}, the bundle was exported for {found.name}; export it for {target}.")
    require_engines(found)
    if workspace_mib is not None and workspace_mib < 1:
        raise UserError(f"--workspace is at least 1 MiB; got {workspace_mib}.")
    options = BuildOptions(
        compute_capabilities=resolve_device(device, found),
        expected_budget=expected_budget,
        max_new_tokens=max_new_tokens,
        workspace_bytes=None if workspace_mib is None else workspace_mib * 2**20,
        plugin=plugin,
        check_memory=not skip_memory_check,
    )
    console = Console(stderr=True)
    with Progress(console=console, transient=True, disable=not console.is_terminal) as bar:
        task = bar.add_task("Starting TensorRT", total=1.0)
        engines = build_engines(
            opened,
            options,
            lambda graph, phase, share: bar.update(task, description=f"{graph}: {phase}"[:60], completed=share),
        )
    _print_summary(engines)


def _print_summary(engines: Engines) -> None:
    manifest = engines.manifest
    click.echo(f"{engines.folder}: {manifest.package} {manifest.package_version}, {manifest.precision}")
    for record in manifest.engines:
        click.echo(f"  {record.path:<16} {record.bytes / 1e6:8.2f} MB")
    selection = "TensorRT's layers" if manifest.plugin_version is None else f"plugin, version {manifest.plugin_version}"
    click.echo(f"Cache for {manifest.cache_capacity} tokens; selection by {selection}.")
    for warning in manifest.warnings:
        click.echo(f"  TensorRT warns: {warning}", err=True)
