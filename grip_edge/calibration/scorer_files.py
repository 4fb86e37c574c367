"""A scorer on disk: ``scorer.safetensors`` and its card ``scorer.json`` (shape, training record, accuracy table)."""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dacite
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.errors import UserError

WEIGHTS_NAME = "scorer.safetensors"
CARD_NAME = "scorer.json"


@dataclass(frozen=True)
class ScorerCard:
    """``training`` tells data, steps, seed, time and the accuracy per budget, as measured after training."""

    method: str
    config: ScorerConfig
    training: dict[str, Any] = field(default_factory=dict)


def save_scorer(folder: Path, scorer: GripScorer, card: ScorerCard) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    save_file(
        {name: tensor.detach().float().contiguous() for name, tensor in scorer.state_dict().items()},
        folder / WEIGHTS_NAME,
    )
    (folder / CARD_NAME).write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n", encoding="utf-8")


def load_scorer(folder: Path) -> tuple[GripScorer, ScorerCard]:
    """The scorer in fp32, in evaluation mode; UserError says what is missing or does not fit."""
    for name in (CARD_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' is no scorer: {name} is missing. Expected the folder that training wrote.")
    try:
        data = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        card = dacite.from_dict(ScorerCard, data, dacite.Config(strict=True, cast=[tuple]))
        scorer = GripScorer(card.config)
        scorer.load_state_dict(load_file(folder / WEIGHTS_NAME))
    except (OSError, ValueError, dacite.DaciteError, SafetensorError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"The scorer in '{folder}' cannot be read ({first_line}); train or copy it again.") from None
    return scorer.eval(), card
