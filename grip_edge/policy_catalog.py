"""The selectors by name: what each reads, what it needs, and so what it can be used for.

Needs neither torch nor a model. Not here: what they do (``calibration.policies``, one file each).
"""

from __future__ import annotations

from dataclasses import dataclass

from grip_edge.errors import UserError

FEATURES = "features"
PROJECTED = "projected tokens"
QUESTION = "question"
CLS_ATTENTION = "CLS attention"
DECODER_ATTENTION = "attention inside the decoder"
TRAINING = "training"
CHANCE = "chance"


@dataclass(frozen=True)
class PolicySpec:
    """``reads`` is all that decides which tokens are kept, beside the budget; ``title`` is for reports.

    ``one_view``: the choice makes sense within one grid of tokens only.
    """

    name: str
    title: str
    reads: frozenset[str]
    least_decoder_layers: int = 1
    one_view: bool = False

    @property
    def exportable(self) -> bool:
        """Can it stand in ``select.onnx`` without training?"""
        return not self.reads & {DECODER_ATTENTION, TRAINING, CHANCE}


def _spec(name: str, title: str, *reads: str, least_decoder_layers: int = 1, one_view: bool = False) -> PolicySpec:
    return PolicySpec(name, title, frozenset(reads), least_decoder_layers, one_view)


POLICY_SPECS = {
    spec.name: spec
    for spec in (
        _spec("random", "random", CHANCE),
        _spec("uniform", "uniform stride"),
        _spec("cls", "CLS attention (FasterVLM)", CLS_ATTENTION),
        _spec("visionzip", "VisionZip without merging", CLS_ATTENTION, one_view=True),
        _spec("divprune", "DivPrune", PROJECTED),
        _spec("cdpruner", "CDPruner", PROJECTED, QUESTION),
        _spec("cen-cdpruner", "Cen-CDPruner", PROJECTED, QUESTION),
        _spec("eadp", "EADP", PROJECTED, QUESTION, one_view=True),
        _spec("fastv", "FastV", DECODER_ATTENTION, QUESTION, least_decoder_layers=3),
        _spec("pyramiddrop", "PyramidDrop", DECODER_ATTENTION, QUESTION, least_decoder_layers=4),
        _spec("grip", "GRIP", TRAINING, FEATURES, QUESTION),
        _spec("tprl", "TPRL", TRAINING, FEATURES, QUESTION),
    )
}


def exportable_policy(name: str) -> PolicySpec:
    """UserError if there is no such policy, or none that can be exported."""
    known = ", ".join(spec.name for spec in POLICY_SPECS.values() if spec.exportable)
    spec = POLICY_SPECS.get(name)
    if spec is None:
        raise UserError(f"--policy {name} does not exist; choose from: {known}.")
    if not spec.exportable:
        raise UserError(f"--policy {name} cannot be exported, it needs {_obstacle(spec)}; choose from: {known}.")
    return spec


def _obstacle(spec: PolicySpec) -> str:
    if TRAINING in spec.reads:
        return "training (train a scorer and give it with --scorer)"
    return "attention maps of the language model" if DECODER_ATTENTION in spec.reads else "a new draw per question"
