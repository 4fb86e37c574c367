"""A scorer on disk: ``scorer.safetensors`` and its card ``scorer.json`` (shape, training record, accuracy table).

The card's ``method`` tells which network the weights are for.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dacite
import torch
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file

from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.calibration.tprl.network import TprlConfig, TprlScorer
from grip_edge.errors import UserError

WEIGHTS_NAME = "scorer.safetensors"
CARD_NAME = "scorer.json"

GRIP_METHOD = "GRIP"
TPRL_METHOD = "TPRL"

TrainedScorer = GripScorer | TprlScorer


@dataclass(frozen=True)
class ScorerCard:
    """``training`` tells data, steps, seed, time and the accuracy per budget, as measured after training."""

    method: str
    config: ScorerConfig | TprlConfig
    training: dict[str, Any] = field(default_factory=dict)


def save_scorer(folder: Path, scorer: TrainedScorer, card: ScorerCard, force: bool = True) -> None:
    """Writes both files or none; what is in the folder's place is replaced, unless ``force`` is off."""
    check_free(folder, force)
    partial = folder.with_name(f".{folder.name}.partial-{os.getpid()}")
    try:
        partial.mkdir(parents=True)
        weights = {name: tensor.detach().float().cpu().contiguous() for name, tensor in scorer.state_dict().items()}
        save_file(weights, partial / WEIGHTS_NAME)
        (partial / CARD_NAME).write_text(json.dumps(dataclasses.asdict(card), indent=2) + "\n", encoding="utf-8")
        if folder.exists():
            shutil.rmtree(folder)
        partial.rename(folder)
    except OSError as error:
        raise UserError(
            f"The scorer cannot be written to '{folder}' ({error.strerror}); choose another --out."
        ) from None
    finally:
        shutil.rmtree(partial, ignore_errors=True)


def save_random_scorer(folder: Path, config: ScorerConfig, seed: int = 0) -> None:
    """An untrained GRIP scorer: what it costs can be measured, what it keeps means nothing."""
    with torch.random.fork_rng():
        torch.manual_seed(seed)
        scorer = GripScorer(config)
    with torch.no_grad():
        scorer.to_score.weight.mul_(10)  # before training all scores are alike
    save_scorer(folder, scorer, ScorerCard(method="random", config=config, training={"steps": 0}))


def check_free(folder: Path, force: bool) -> None:
    """UserError if ``folder`` is there and may not be replaced; only a scorer's folder ever may."""
    if not folder.exists():
        return
    if not force:
        raise UserError(f"'{folder}' exists already; choose another --out, or replace it with --force.")
    if folder.is_file() or {path.name for path in folder.iterdir()} - {WEIGHTS_NAME, CARD_NAME}:
        raise UserError(f"'{folder}' is not a scorer's folder, so --force does not replace it; choose another --out.")


def load_scorer(folder: Path) -> tuple[TrainedScorer, ScorerCard]:
    """The scorer in fp32, in evaluation mode; UserError says what is missing or does not fit."""
    for name in (CARD_NAME, WEIGHTS_NAME):
        if not (folder / name).is_file():
            raise UserError(f"'{folder}' is no scorer: {name} is missing. Expected the folder that training wrote.")
    try:
        data = json.loads((folder / CARD_NAME).read_text(encoding="utf-8"))
        scorer, card = _network(data)
        scorer.load_state_dict(load_file(folder / WEIGHTS_NAME))
    except (OSError, ValueError, dacite.DaciteError, SafetensorError, RuntimeError) as error:
        first_line = str(error).splitlines()[0]
        raise UserError(f"The scorer in '{folder}' cannot be read ({first_line}); train or copy it again.") from None
    return scorer.eval(), card


def _network(data: Any) -> tuple[TrainedScorer, ScorerCard]:
    if not isinstance(data, dict):
        raise ValueError(f"{CARD_NAME} is no JSON object")
    strict = dacite.Config(strict=True, cast=[tuple])
    shape, rest = data.get("config"), {key: value for key, value in data.items() if key != "config"}
    if not isinstance(shape, dict):
        raise ValueError(f"{CARD_NAME} has no config")
    scorer: TrainedScorer
    if data.get("method") == TPRL_METHOD:
        scorer = TprlScorer(dacite.from_dict(TprlConfig, shape, strict))
    else:
        scorer = GripScorer(dacite.from_dict(ScorerConfig, shape, strict))
    return scorer, dacite.from_dict(ScorerCard, {**rest, "config": scorer.config}, strict)
