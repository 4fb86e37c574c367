"""Who answers: the PyTorch model with its policies, and bundles through ONNX Runtime, opened and checked together."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from grip_edge.bundle import MANIFEST_NAME, Bundle, sha256_of
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case, case_grid
from grip_edge.calibration.evaluation.report import Participant
from grip_edge.catalog import find_model, trained_scorer
from grip_edge.cli.evaluation.bundles import BundleAnswerer, bundle_label, open_bundles
from grip_edge.cli.evaluation.request import EvaluationRequest
from grip_edge.cli.extras import needs_extra

if TYPE_CHECKING:
    from grip_edge.calibration.evaluation.collecting import Answerer
    from grip_edge.calibration.evaluation.contestants import Contestant
    from grip_edge.calibration.frozen_vlm import FrozenVlm

# What the extra ``train`` brings, as far as evaluation needs it.
_EXTRA_PACKAGES = ("safetensors", "torch", "transformers")


@dataclass(frozen=True)
class Sides:
    """``model`` is its name in the report; ``bundles`` are by the name of the policy that they belong to.

    ``identity`` is all about the sides that decides the answers, as JSON can hold it.
    """

    model: str
    visual_tokens: int
    side_px: int
    bundles: dict[str, Bundle]
    answerers: tuple[Answerer, ...]
    participants: tuple[Participant, ...]
    identity: dict[str, Any]

    @property
    def cases(self) -> tuple[Case, ...]:
        return tuple(case for answerer in self.answerers for case in answerer.cases)


def open_sides(request: EvaluationRequest) -> Sides:
    torch_side = None if request.model is None else _open_torch(request, request.model)
    folders, budgets, new_tokens = request.bundle_folders(), request.budget_texts, request.max_new_tokens
    bundles = open_bundles(folders, budgets, None if torch_side is None else torch_side.vlm.visual_tokens)
    answerers: list[Answerer] = []
    participants: list[Participant] = []
    if torch_side is None:
        spec = next(iter(bundles.values())).manifest.model
        model, visual_tokens, side_px = spec.name, spec.vision.visual_tokens, spec.vision.image_side_px
    else:
        vlm = torch_side.vlm
        model, visual_tokens, side_px = torch_side.folder.resolve().name, vlm.visual_tokens, vlm.image_side_px
        answerers.append(torch_side.answerer(budgets, new_tokens))
        participants += torch_side.participants
    for name, bundle in bundles.items():
        answerers.append(BundleAnswerer(name, bundle, budgets, new_tokens))
        participants.append(_bundle_participant(name, bundle))
    identity = {
        **({} if torch_side is None else torch_side.identity),
        "bundles": {name: sha256_of(bundle.path(MANIFEST_NAME)) for name, bundle in bundles.items()},
        "cases": [(case.policy, case.kept_tokens, case.run) for one in answerers for case in one.cases],
        "new_tokens": new_tokens,
    }
    return Sides(model, visual_tokens, side_px, bundles, tuple(answerers), tuple(participants), identity)


@dataclass(frozen=True)
class _TorchSide:
    folder: Path
    precision: str
    vlm: FrozenVlm
    contestants: tuple[Contestant, ...]

    def answerer(self, budgets: Sequence[str], new_tokens: int) -> Answerer:
        from grip_edge.calibration.evaluation.answering import TorchAnswerer

        cases = case_grid({one.name: one.runs for one in self.contestants}, budgets, self.vlm.visual_tokens)
        return TorchAnswerer(self.vlm, self.contestants, cases, new_tokens)

    @property
    def participants(self) -> list[Participant]:
        unpruned = Participant(UNPRUNED, "all visual tokens", (), None)
        return [
            unpruned,
            *(Participant(one.name, one.title, tuple(map(str, one.scorers)), None) for one in self.contestants),
        ]

    @property
    def identity(self) -> dict[str, Any]:
        scorers = {one.name: [_folder_digest(folder) for folder in one.scorers] for one in self.contestants}
        return {"model": _folder_digest(self.folder), "scorers": scorers, "precision": self.precision}


def _open_torch(request: EvaluationRequest, model: str) -> _TorchSide:
    folder = find_model(model)
    with needs_extra("train", _EXTRA_PACKAGES):
        import torch

        from grip_edge.calibration.evaluation.contestants import make_contestants, parse_policies
        from grip_edge.calibration.frozen_vlm import FrozenVlm
    policies = parse_policies(request.policies, trained_scorer(folder))
    vlm = FrozenVlm.load(folder, torch.float32 if request.precision == "fp32" else torch.bfloat16)
    return _TorchSide(folder, request.precision, vlm, tuple(make_contestants(policies, vlm, request.budget_texts)))


def _bundle_participant(name: str, bundle: Bundle) -> Participant:
    manifest = bundle.manifest
    title = f"{manifest.scorer.name}, {manifest.target}, {manifest.precision}"
    return Participant(bundle_label(name), title, (), str(bundle.folder))


def _folder_digest(folder: Path) -> str:
    """Of names and sizes of a checkpoint's files, and of the bytes of its configuration and small files."""
    digest = hashlib.sha256()
    for path in sorted(path for path in folder.iterdir() if path.is_file()):
        size = path.stat().st_size
        digest.update(f"{path.name} {size} ".encode())
        if size < 2**24:
            digest.update(path.read_bytes())
    return digest.hexdigest()
