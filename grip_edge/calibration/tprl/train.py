"""The TPRL scorer from nothing to trained: autoencoder, demonstrations, PPO."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import dacite
import torch

from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.calibration.tprl.autoencoder import AutoencoderSettings, TokenDecoder, train_autoencoder
from grip_edge.calibration.tprl.demonstrations import DemonstrationSettings, learn_from_demonstrations
from grip_edge.calibration.tprl.environment import EnvironmentSettings
from grip_edge.calibration.tprl.improve import PpoSettings, improve
from grip_edge.calibration.tprl.network import TprlConfig, TprlScorer, ValueHead
from grip_edge.calibration.training.setup import Setup
from grip_edge.errors import UserError


@dataclass(frozen=True)
class TprlSettings:
    """A stage without steps does not take place; ``scorer`` overrides fields of ``TprlConfig``."""

    scorer: dict[str, Any] = field(default_factory=dict)
    autoencoder: AutoencoderSettings = AutoencoderSettings()
    demonstrations: DemonstrationSettings = DemonstrationSettings()
    environment: EnvironmentSettings = EnvironmentSettings()
    ppo: PpoSettings = PpoSettings()


def train_tprl(setup: Setup, settings: TprlSettings) -> TprlScorer:
    """The finished scorer, in evaluation mode."""
    teacher = None
    if settings.demonstrations.teacher is not None:
        teacher = load_scorer(Path(settings.demonstrations.teacher))[0].to(setup.workers.device)
    config = new_config(setup.vlm, settings.scorer)
    torch.manual_seed(setup.seed)
    scorer = TprlScorer(config).to(setup.workers.device)
    decoder = TokenDecoder(config.vision_width, config.encoder_hidden, config.code).to(setup.workers.device)
    value_head = ValueHead(config.width).to(setup.workers.device)
    train_autoencoder(setup, scorer.encoder, decoder, settings.autoencoder)
    scorer.encoder.requires_grad_(False)
    learn_from_demonstrations(setup, scorer, settings.demonstrations, settings.environment, teacher)
    improve(setup, scorer, value_head, settings.ppo, settings.environment)
    return scorer.eval()


def new_config(vlm: FrozenVlm, shape: Mapping[str, Any]) -> TprlConfig:
    """``shape`` overrides the fields that the model does not decide."""
    decided = {"vision_width": vlm.vision_width, "text_width": vlm.text_width, "grid": vlm.grid}
    try:
        return dacite.from_dict(TprlConfig, {**shape, **decided}, dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise UserError(f"Settings: tprl.scorer: {error}.") from None
