"""``grip-edge models``: what can be exported by name, and which policies fit it."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grip_edge.catalog import CONFIG_NAME, EMBEDDED, find_model, parameter_count, read_json, trained_scorer
from grip_edge.policy_catalog import CLS_ATTENTION, POLICY_SPECS, TRAINING, PolicySpec

if TYPE_CHECKING:
    from rich.table import Table

# The scorer's card (``calibration.scorer_files``), read here without torch.
_CARD_NAME = "scorer.json"
_UNPRUNED = "unpruned"

_CLIP = "clip_vision_model"
# What transformers takes where LLaVA's config.json is silent.
_VISION_DEFAULTS = {"image_size": 336, "patch_size": 14}


@click.command()
@click.argument("folders", nargs=-1, metavar="[FOLDER]...")
def models(folders: tuple[str, ...]) -> None:
    """List the models that can be exported by name, with any FOLDER in Hugging Face format, and what can select tokens.

    \b
    Example:
      grip-edge models
      grip-edge models checkpoints/my-llava
    """
    from rich.console import Console

    names = (*EMBEDDED, *folders)
    configs = {name: read_json(find_model(name) / CONFIG_NAME) for name in names}
    console = Console()
    console.print(_models(configs))
    console.print(_policies(configs))
    click.echo("A local folder in Hugging Face format (LLaVA-1.5 architecture) works too:  --model FOLDER")


def _models(configs: dict[str, dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("model", "visual tokens", "parameters", "scorer", "accuracy by budget")
    for name, config in configs.items():
        folder, vision = find_model(name), {**_VISION_DEFAULTS, **config.get("vision_config", {})}
        scorer = trained_scorer(folder)
        scores = accuracy_by_budget(scorer) if scorer else {}
        table.add_row(
            name,
            str((vision["image_size"] // vision["patch_size"]) ** 2),
            f"{parameter_count(folder) / 1e6:.1f} M",
            "yes" if scorer else "no",
            ", ".join(f"{budget}: {100 * share:.1f} %" for budget, share in scores.items()) or "not recorded",
        )
    return table


def _policies(configs: dict[str, dict[str, Any]]) -> Table:
    from rich.table import Table

    table = Table("name", "policy", "reads", "export with", *configs)
    for spec in POLICY_SPECS.values():
        option = "--policy" if spec.exportable else "--scorer FOLDER" if TRAINING in spec.reads else "only evaluated"
        fits = [fit(spec, config, trained_scorer(find_model(name))) for name, config in configs.items()]
        reads = ", ".join(sorted(spec.reads - {TRAINING})) or "the budget alone"
        table.add_row(spec.name, spec.title, reads, option, *fits)
    return table


def fit(spec: PolicySpec, config: dict[str, Any], scorer: Path | None) -> str:
    """Can the policy select tokens of this model? ``yes``, or what stands against it."""
    vision, text = config.get("vision_config", {}), config.get("text_config", {})
    has_cls = vision.get("model_type", _CLIP) == _CLIP and config.get("vision_feature_layer", -2) != 0
    if CLS_ATTENTION in spec.reads and not has_cls:
        return "no: its vision tower has no CLS attention"
    layers = text.get("num_hidden_layers")
    if layers is not None and layers < spec.least_decoder_layers:
        return f"no: {layers} decoder layers, needs {spec.least_decoder_layers}"
    if TRAINING in spec.reads:
        method = scorer and read_json(scorer / _CARD_NAME).get("method")
        return "yes, comes with it" if method == spec.title else "to be trained"
    return "yes"


def accuracy_by_budget(scorer: Path) -> dict[str, float]:
    """Budget -> share of right answers over all skills, as the scorer's card records it; unpruned is budget 1.0."""
    card = read_json(scorer / _CARD_NAME)
    rows: list[dict[str, Any]] = card["training"].get("accuracy", [])
    shown = (_UNPRUNED, card["method"])
    return {row["budget"]: row["accuracy"] for row in rows if row["policy"] in shown and row["skill"] == "all"}
