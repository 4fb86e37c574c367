"""What chooses tokens in ``select.onnx``: a trained scorer or a policy that needs no training, behind one interface.

The graph gets its network and weights from here, the comparison at the end of the export its reference, and the
manifest its record.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from grip_edge.calibration.policies import POLICIES
from grip_edge.calibration.policies.interface import Evidence
from grip_edge.calibration.policies.set_policy import SetPolicy
from grip_edge.calibration.scorer_files import ScorerCard, load_scorer
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.selection import keep_best
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.networks.clip import ClipConfig
from grip_edge.export.networks.projector import Projector
from grip_edge.export.networks.select import Select, SelectByPolicy
from grip_edge.export.networks.tiled_select import SelectFromTiles, shared_among_tiles
from grip_edge.manifest import ScorerRecord
from grip_edge.policy_catalog import CLS_ATTENTION, PolicySpec, exportable_policy
from grip_edge.policy_fit import ModelTraits, obstacle
from grip_edge.tiles import TilePlan

# A greedy order is right if no pick missed more than this share of the first pick's gain: what rounding can swap.
_NEAR_TIE = 1e-5


@dataclass(frozen=True)
class Seen:
    """What a selector judges for one request: ``features`` [1,N,Dv], ``visual`` the same behind the projector [1,N,D],
    ``question_embeds`` [1,T,D], ``cls_attention`` [1,N] for policies that read it; ``scores`` [1,N] are what the
    graph made of it. Of an image in tiles, all but the scores are of the L tokens that are no newlines.
    """

    features: Tensor
    visual: Tensor
    question_embeds: Tensor
    cls_attention: Tensor | None
    scores: Tensor | None
    plan: TilePlan | None = None


class Selector(ABC):
    """``reads_cls_attention``: the vision graph gives it and the select graph takes it, beside the features."""

    reads_cls_attention = False

    @property
    @abstractmethod
    def record(self) -> ScorerRecord: ...

    @abstractmethod
    def network(self, projector: Projector) -> nn.Module:
        """Like ``networks.select.Select``: weights under ``scorer.`` and ``projector.``. Called under fake tensors."""

    def weights(self) -> Mapping[str, Tensor]:
        """Those under ``scorer.``; the others are the checkpoint's."""
        return {}

    @abstractmethod
    def kept(self, seen: Seen, kept: int) -> Tensor:
        """The reference of the select graph: int64 [1,K]."""


class ScorerSelector(Selector):
    def __init__(self, scorer: Scorer, card: ScorerCard) -> None:
        self.scorer, self.card = scorer, card

    @property
    def record(self) -> ScorerRecord:
        parameters = sum(parameter.numel() for parameter in self.scorer.parameters())
        return ScorerRecord(self.card.method, parameters, self.card.training)

    def network(self, projector: Projector) -> nn.Module:
        make: Any = type(self.scorer)
        return Select(make(self.scorer.config), projector)

    def weights(self) -> Mapping[str, Tensor]:
        return {**dict(self.scorer.named_buffers()), **self.scorer.state_dict()}

    def kept(self, seen: Seen, kept: int) -> Tensor:
        return keep_best(self.scorer(seen.features, seen.question_embeds, torch.tensor([kept])), kept)


class PolicySelector(Selector):
    """``tiled``: images are cut into tiles, and every request comes with the plan of its image."""

    def __init__(self, spec: PolicySpec, grid: tuple[int, int], tiled: bool = False) -> None:
        self.policy, self.spec, self.grid, self.tiled = POLICIES[spec.name](), spec, grid, tiled
        self.reads_cls_attention = CLS_ATTENTION in spec.reads

    @property
    def record(self) -> ScorerRecord:
        return ScorerRecord(self.spec.name, 0, {}, is_policy=True, reads_cls_attention=self.reads_cls_attention)

    def network(self, projector: Projector) -> nn.Module:
        network = SelectFromTiles if self.tiled else SelectByPolicy
        return network(self.policy, self.spec, self.grid, projector)

    def kept(self, seen: Seen, kept: int) -> Tensor:
        """As the policy chooses in PyTorch."""
        evidence = Evidence(
            features=seen.features,
            visual=seen.visual,
            cls_attention=seen.features[..., 0] if seen.cls_attention is None else seen.cls_attention,
            question_embeds=seen.question_embeds,
            question_mask=torch.ones(seen.question_embeds.shape[:2], dtype=torch.bool),
            grid=self.grid,
        )
        if seen.plan is None:
            return keep_best(self._scores(evidence, seen.scores, kept), kept)
        made, order = len(seen.plan.sources), torch.from_numpy(seen.plan.order)
        of_graph = None if seen.scores is None else seen.scores[:, order < made]
        scores = self._scores(evidence, of_graph, min(kept, made))
        if self.reads_cls_attention:
            patches = self.grid[0] * self.grid[1]
            scores = shared_among_tiles(scores, torch.from_numpy(seen.plan.sources[:, 0]) // patches)
        newline = torch.full((1, 1), -torch.inf)
        return keep_best(torch.cat([scores, newline], dim=1)[:, order], kept)

    def _scores(self, evidence: Evidence, of_graph: Tensor | None, kept: int) -> Tensor:
        """Greedy choices swap tokens of equal gain by rounding, and take another way from there. So an order that is
        greedy up to rounding counts as the reference's own.
        """
        greedy = self.policy if isinstance(self.policy, SetPolicy) else None
        if greedy and of_graph is not None and greedy.shortfall(evidence, kept, of_graph) <= _NEAR_TIE:
            return of_graph
        return self.policy.scores(evidence, torch.tensor([kept]))


def choose_selector(policy: str | None, scorer: Path | None, model: str, checkpoint: Checkpoint) -> Selector:
    """``scorer`` is the one given or the model's own; UserError if there is neither, or it is another model's."""
    spec, traits = checkpoint.spec, model_traits(checkpoint)
    if policy is not None:
        chosen = exportable_policy(policy)
        reason = obstacle(chosen, traits)
        if reason is not None:
            raise UserError(f"--policy {policy} does not fit '{model}': {reason}; see 'grip-edge models' for others.")
        return PolicySelector(chosen, spec.vision.grid, traits.tiled)
    if traits.tiled:
        raise UserError(
            f"'{model}' cuts images into tiles, for which there are no trained scorers; choose a policy with --policy "
            "(see 'grip-edge models')."
        )
    if scorer is None:
        raise UserError(
            f"No trained scorer comes with '{model}': give the folder of one that was trained on it with --scorer, "
            "or choose a policy that needs no training with --policy (see 'grip-edge models')."
        )
    loaded, card = load_scorer(scorer)
    config = loaded.config
    for what, found, expected in (
        ("vision width", config.vision_width, spec.vision.width),
        ("text width", config.text_width, spec.text.width),
        ("grid", config.grid, spec.vision.grid),
    ):
        if found != expected:
            raise UserError(
                f"The scorer in '{scorer}' is made for {what} {found}, but '{model}' has {expected}; "
                "give the scorer that was trained on this model."
            )
    return ScorerSelector(loaded, card)


def model_traits(checkpoint: Checkpoint) -> ModelTraits:
    has_cls = isinstance(checkpoint.vision, ClipConfig) and checkpoint.vision.layers > 0
    return ModelTraits(has_cls, checkpoint.tiling is not None, checkpoint.text.layers)
