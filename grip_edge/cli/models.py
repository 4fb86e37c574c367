"""``grip-edge models``: what can be exported by name."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from grip_edge.catalog import CONFIG_NAME, EMBEDDED, find_model, parameter_count, read_json, trained_scorer

# The scorer's card (``calibration.scorer_files``), read here without torch.
_CARD_NAME = "scorer.json"
_UNPRUNED = "unpruned"


@click.command()
def models() -> None:
    """List the models that can be exported by name. A local folder in Hugging Face format works too.

    \b
    Example:
      grip-edge models
    """
    from rich.console import Console
    from rich.table import Table

    table = Table("model", "visual tokens", "parameters", "scorer", "accuracy by budget")
    for name in EMBEDDED:
        folder = find_model(name)
        vision = read_json(folder / CONFIG_NAME)["vision_config"]
        tokens = (vision["image_size"] // vision["patch_size"]) ** 2
        scorer = trained_scorer(folder)
        scores = accuracy_by_budget(scorer) if scorer else {}
        table.add_row(
            name,
            str(tokens),
            f"{parameter_count(folder) / 1e6:.1f} M",
            "yes" if scorer else "no",
            ", ".join(f"{budget}: {100 * share:.1f} %" for budget, share in scores.items()) or "not recorded",
        )
    Console().print(table)
    click.echo("A local folder in Hugging Face format (LLaVA-1.5 architecture) works too:  --model FOLDER")


def accuracy_by_budget(scorer: Path) -> dict[str, float]:
    """Budget -> share of right answers over all skills, as the scorer's card records it; unpruned is budget 1.0."""
    card = read_json(scorer / _CARD_NAME)
    rows: list[dict[str, Any]] = card["training"].get("accuracy", [])
    shown = (_UNPRUNED, card["method"])
    return {row["budget"]: row["accuracy"] for row in rows if row["policy"] in shown and row["skill"] == "all"}
