"""``grip-edge models``: what can be exported by name, and which policies fit it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from grip_edge.catalog import CONFIG_NAME, EMBEDDED, find_model, parameter_count, read_json, trained_scorer
from grip_edge.errors import UserError
from grip_edge.hub import HUB_MODELS
from grip_edge.policy_catalog import POLICY_SPECS, TRAINING
from grip_edge.policy_fit import ModelTraits, obstacle
from grip_edge.tiles import TilingSpec, max_visual_tokens

if TYPE_CHECKING:
    from rich.table import Column, Table

# The scorer's card (``calibration.scorer_files``), read here without torch.
_CARD_NAME = "scorer.json"
_UNPRUNED = "unpruned"

# What transformers takes where a config.json is silent: tower, side and patch of an image, candidate resolutions. The
# models of the catalog's hub names have these.
_CLIP = {"model_type": "clip_vision_model", "image_size": 336, "patch_size": 14}
_SIGLIP = {"model_type": "siglip_vision_model", "image_size": 384, "patch_size": 14}
_DEFAULTS: dict[str, dict[str, Any]] = {
    "llava": {"vision_config": _CLIP},
    "llava_next": {
        "vision_config": _CLIP,
        "image_grid_pinpoints": [[336, 672], [672, 336], [672, 672], [1008, 336], [336, 1008]],
    },
    "llava_onevision": {
        "vision_config": _SIGLIP,
        "image_grid_pinpoints": [[384 * rows, 384 * columns] for rows in range(1, 7) for columns in range(1, 7)],
        "vision_aspect_ratio": "anyres_max_9",
    },
}
_FAMILY_NAMES = {"llava": "llava-1.5-*", "llava_next": "llava-1.6-*", "llava_onevision": "llava-onevision-*"}


@dataclass(frozen=True)
class _Model:
    """``folder`` is None for what is still on the hub."""

    config: dict[str, Any]
    folder: Path | None = None

    @property
    def scorer(self) -> Path | None:
        return None if self.folder is None else trained_scorer(self.folder)

    @property
    def vision(self) -> dict[str, Any]:
        return {**_DEFAULTS[self.family].get("vision_config", {}), **self.config.get("vision_config", {})}

    @property
    def family(self) -> str:
        found = str(self.config.get("model_type"))
        return found if found in _DEFAULTS else "llava"

    @property
    def traits(self) -> ModelTraits:
        has_cls = self.vision["model_type"] == _CLIP["model_type"] and self.config.get("vision_feature_layer", -2) != 0
        layers = self.config.get("text_config", {}).get("num_hidden_layers")
        method = None if self.scorer is None else read_json(self.scorer / _CARD_NAME).get("method")
        return ModelTraits(has_cls, "image_grid_pinpoints" in _DEFAULTS[self.family], layers, method)

    @property
    def visual_tokens(self) -> str:
        grid = self.vision["image_size"] // self.vision["patch_size"]
        config = {**_DEFAULTS[self.family], **self.config}
        if "image_grid_pinpoints" not in config:
            return str(grid**2)
        resolutions = tuple((height, width) for height, width in config["image_grid_pinpoints"])
        tiles = str(config.get("vision_aspect_ratio", "")).removeprefix("anyres_max_")
        shrink_above = int(tiles) if tiles.isdigit() else None
        return f"up to {max_visual_tokens(TilingSpec(resolutions, self.vision['image_size'], grid, shrink_above))}"


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

    missing = [folder for folder in folders if not Path(folder).is_dir()]
    if missing:
        raise UserError(
            f"There is no folder '{missing[0]}'; expected one in Hugging Face format (nothing is downloaded)."
        )
    found = {name: find_model(name) for name in (*EMBEDDED, *folders)}
    local = {name: _Model(read_json(folder / CONFIG_NAME), folder) for name, folder in found.items()}
    families = {title: _Model({"model_type": family}) for family, title in _FAMILY_NAMES.items()}
    console = Console()
    console.print(_local_models(local))
    console.print(_hub_models())
    console.print(_policies())
    console.print(_fits({**local, **families}))
    click.echo("Models of the hub are downloaded when they are exported. A local folder in Hugging Face format")
    click.echo("(LLaVA-1.5, LLaVA-NeXT or LLaVA-OneVision) works everywhere a name does:  --model FOLDER")


def _local_models(models: dict[str, _Model]) -> Table:
    from rich.table import Table

    table = Table(_name("model"), "visual tokens", "parameters", "scorer", "accuracy by budget")
    for name, model in models.items():
        scores = accuracy_by_budget(model.scorer) if model.scorer else {}
        table.add_row(
            name,
            model.visual_tokens,
            f"{parameter_count(model.folder) / 1e6:.1f} M" if model.folder else "",
            "yes" if model.scorer else "no",
            ", ".join(f"{budget}: {100 * share:.1f} %" for budget, share in scores.items()) or "not recorded",
        )
    return table


def _hub_models() -> Table:
    from rich.table import Column, Table

    table = Table(_name("on the hub"), "visual tokens", Column("id", overflow="fold"))
    for name, model in HUB_MODELS.items():
        table.add_row(name, _Model({"model_type": model.family}).visual_tokens, model.id)
    return table


def _policies() -> Table:
    from rich.table import Table

    table = Table(_name("name"), "policy", "reads", "export with")
    for spec in POLICY_SPECS.values():
        option = "--policy" if spec.exportable else "--scorer FOLDER" if TRAINING in spec.reads else "only evaluated"
        reads = ", ".join(sorted(spec.reads - {TRAINING})) or "the budget alone"
        table.add_row(spec.name, spec.title, reads, option)
    return table


def _fits(models: dict[str, _Model]) -> Table:
    from rich.table import Table

    table = Table(_name("model"), "policies that fit", "policies that do not")
    for name, model in models.items():
        fitting, obstacles = [], dict[str, list[str]]()
        for spec in POLICY_SPECS.values():
            reason = obstacle(spec, model.traits)
            if reason is not None:
                obstacles.setdefault(reason, []).append(spec.name)
            elif TRAINING in spec.reads:
                comes = model.traits.scorer == spec.title
                fitting.append(f"{spec.name} ({'comes with it' if comes else 'to be trained'})")
            else:
                fitting.append(spec.name)
        refused = "; ".join(f"{', '.join(names)}: {reason}" for reason, names in obstacles.items())
        table.add_row(name, ", ".join(fitting), refused)
    return table


def _name(title: str) -> Column:
    from rich.table import Column

    return Column(title, no_wrap=True)


def accuracy_by_budget(scorer: Path) -> dict[str, float]:
    """Budget -> share of right answers over all skills, as the scorer's card records it; unpruned is budget 1.0."""
    card = read_json(scorer / _CARD_NAME)
    rows: list[dict[str, Any]] = card["training"].get("accuracy", [])
    shown = (_UNPRUNED, card["method"])
    return {row["budget"]: row["accuracy"] for row in rows if row["policy"] in shown and row["skill"] == "all"}
