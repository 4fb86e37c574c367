"""``grip-edge inspect``: show what is inside a bundle."""

from __future__ import annotations

import dataclasses
import json
from typing import TYPE_CHECKING

import click

from grip_edge.policy_catalog import POLICY_SPECS

if TYPE_CHECKING:
    from rich.tree import Tree

    from grip_edge.bundle import Bundle
    from grip_edge.calibration_record import CalibrationRecord
    from grip_edge.manifest import Manifest, ParityResult, ScorerRecord

_MB = 1e6


@click.command()
@click.argument("bundle")
@click.option("--json", "as_json", is_flag=True, help="Print one JSON document.")
def inspect(bundle: str, as_json: bool) -> None:
    """Show what is inside BUNDLE: model, budgets, prompt, selector, parity, files.

    \b
    Example:
      grip-edge inspect grip-bundle
    """
    from rich.console import Console

    from grip_edge.bundle import open_bundle

    opened = open_bundle(bundle)
    if as_json:
        document = {"bundle": bundle, "total_bytes": opened.total_bytes, **dataclasses.asdict(opened.manifest)}
        click.echo(json.dumps(document, indent=2))
        return
    Console(highlight=False).print(_tree(opened))


def _tree(bundle: Bundle) -> Tree:
    from rich.markup import escape
    from rich.tree import Tree

    manifest = bundle.manifest
    tree = Tree(f"[bold]{escape(str(bundle.folder))}[/]  {bundle.total_bytes / _MB:.1f} MB")
    for title, facts in _facts(bundle).items():
        branch = tree.add(f"[bold]{title}[/]")
        for name, value in facts.items():
            branch.add(f"[dim]{escape(name)}[/]  {escape(value)}")
    parity = tree.add("[bold]agreement with the reference model[/]")
    for result in manifest.parity:
        parity.add(f"[dim]{result.budget_tokens} tokens kept[/]  {_agreement(result)}")
    return tree


def _agreement(result: ParityResult) -> str:
    logits = f"logits within {result.logits_max_difference:.1e}"
    if result.logits_cosine is not None:
        logits += f", cosine {result.logits_cosine:.4f}"
    if result.tokens_equal and result.kept_sets_equal:
        return f"the same tokens and kept sets, {logits}"
    tokens = f"{result.tokens_agreeing} of {result.tokens_compared} tokens"
    return f"{tokens} and {100 * (result.kept_overlap or 0):.0f} % of the kept set the same, {logits}"


def _graphs(manifest: Manifest) -> dict[str, str]:
    facts = {"target": manifest.target, "precision": manifest.precision}
    formats = manifest.weight_formats
    if formats is not None:
        parts = ("vision", "decoder", "lm_head", "embedding")
        facts["weights"] = ", ".join(f"{part} {getattr(formats, part)}" for part in parts)
        if formats.int4_block is not None:
            kind = "symmetric" if formats.int4_symmetric else "asymmetric"
            facts["int4"] = f"{kind}, one scale per {formats.int4_block} inputs"
        if formats.cache is not None:
            facts["keys and values"] = formats.cache
    return facts


def _calibration(record: CalibrationRecord) -> dict[str, str]:
    cost = record.cost
    facts = {
        "data": record.data,
        "beside the float model": f"KL {cost.mean_kl:.5f} nats, {cost.agreement:.2%} of {cost.tokens} tokens the same",
        "layers in more bits": ", ".join(f"{layer.matrices[0]} ({layer.format})" for layer in record.kept) or "none",
    }
    if record.wide:
        facts["not for fp16"] = ", ".join(f"{one.graph} {one.layer}" for one in record.wide)
    return facts


def _facts(bundle: Bundle) -> dict[str, dict[str, str]]:
    manifest = bundle.manifest
    vision, text, tiling = manifest.model.vision, manifest.model.text, manifest.image.tiling
    per_tile = "" if tiling is None else f" per tile, in up to {tiling.max_tiles} tiles"
    return {
        "model": {
            "name": f"{manifest.model.name} ({manifest.model.architecture})",
            "vision": f"{vision.layers} layers, width {vision.width}, {vision.image_side_px} px in patches of "
            f"{vision.patch_px} px: {vision.grid[0]} x {vision.grid[1]} = {vision.visual_tokens} visual tokens"
            f"{per_tile}",
            "text": f"{text.layers} layers, width {text.width}, {text.heads} heads ({text.kv_heads} for keys and "
            f"values), {text.vocab_size} words, {text.max_positions} positions",
        },
        "budget": {"range": f"{manifest.budget_range}, and 1.0", "positions": manifest.positions},
        "prompt": {"template": repr(manifest.prompt.template)},
        "selector": _selector(manifest.scorer),
        "graphs": _graphs(manifest),
        **({} if manifest.calibration is None else {"calibration": _calibration(manifest.calibration)}),
        "files": {record.path: f"{record.bytes / _MB:.2f} MB" for record in manifest.files},
        "made with": manifest.versions,
    }


def _selector(record: ScorerRecord) -> dict[str, str]:
    if record.is_policy:
        title = POLICY_SPECS[record.name].title if record.name in POLICY_SPECS else record.name
        return {"policy": f"{record.name} ({title})", "training": "none"}
    return {"scorer": record.name, "parameters": f"{record.parameters:,}"}
