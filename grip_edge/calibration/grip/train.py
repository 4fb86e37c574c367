"""The GRIP scorer from nothing to trained: warm-up, then GRPO."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import dacite
import torch

from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.grip.grpo import GrpoSettings, grpo
from grip_edge.calibration.grip.warmup import WarmupSettings, warm_up
from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.calibration.training.setup import Setup
from grip_edge.errors import UserError


@dataclass(frozen=True)
class GripSettings:
    """Ablations are settings: a stage without steps does not take place, ``scorer`` overrides fields of
    ``ScorerConfig`` (such as ``sees_budget``), ``grpo.reward`` and ``grpo.group`` speak for themselves.
    """

    scorer: dict[str, Any] = field(default_factory=dict)
    warmup: WarmupSettings = WarmupSettings()
    grpo: GrpoSettings = GrpoSettings()


def train_grip(setup: Setup, settings: GripSettings) -> tuple[GripScorer, GripScorer]:
    """The warmed-up scorer and the finished one, in evaluation mode."""
    config = new_config(setup.vlm, settings.scorer)
    torch.manual_seed(setup.seed)
    scorer = GripScorer(config).to(setup.workers.device)
    warm_up(setup, scorer, settings.warmup)
    warmed = copy.deepcopy(scorer)
    grpo(setup, scorer, settings.grpo)
    return warmed.eval(), scorer.eval()


def new_config(vlm: FrozenVlm, shape: Mapping[str, Any]) -> ScorerConfig:
    """``shape`` overrides the fields that the model does not decide."""
    decided = {"vision_width": vlm.vision_width, "text_width": vlm.text_width, "grid": vlm.grid}
    try:
        return dacite.from_dict(ScorerConfig, {**shape, **decided}, dacite.Config(strict=True, cast=[tuple]))
    except dacite.DaciteError as error:
        raise UserError(f"Settings: grip.scorer: {error}.") from None
