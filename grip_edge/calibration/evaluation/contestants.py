"""Who takes part in an evaluation: from the names that a user writes to policies.

random,uniform,cls       heuristics, by the names of ``HEURISTICS``, separated by commas
grip                     the trained scorer that comes with the model
NAME=DIR[,DIR...]        a trained scorer, or several training runs of one, under a name of the user's choice
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from grip_edge.calibration.evaluation.cases import UNPRUNED, pruning_budgets
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.policies import IN_DECODER_POLICIES, POLICIES, Grip, InDecoderPolicy, Policy, Random
from grip_edge.calibration.scorer_files import load_scorer
from grip_edge.errors import UserError

SHIPPED = "grip"

# Makes the policy for one batch of images. A policy that draws is seeded by the batch: resumed runs then equal whole
# ones. The others are made once.
MakePolicy = Callable[[int], Policy]


@dataclass(frozen=True)
class Contestant:
    """``title`` is the policy's name in full. ``scorers`` are the folders of a learned policy's runs, else empty.
    ``in_decoder`` is set for a policy that prunes inside the language model, which has no ``makers``.
    """

    name: str
    title: str
    makers: tuple[MakePolicy, ...]
    scorers: tuple[Path, ...] = ()
    in_decoder: InDecoderPolicy | None = None

    @property
    def runs(self) -> int:
        return max(1, len(self.scorers))

    def policy(self, run: int, seed: int) -> Policy:
        return self.makers[run](seed)


def parse_policies(values: Sequence[str], shipped: Path | None) -> dict[str, tuple[Path, ...]]:
    """Name -> folders of scorers (none for a heuristic). ``shipped`` is the scorer that comes with the model."""
    found: dict[str, tuple[Path, ...]] = {}
    for value in values:
        name, given, folders = value.partition("=")
        if given and "," in name:
            raise UserError(f"--policies {value}: give 'NAME=DIR,DIR' a --policies of its own.")
        if given:
            names = {name.strip(): tuple(Path(folder) for folder in folders.split(",") if folder)}
        else:
            names = {part.strip(): _heuristic_or_shipped(part.strip(), shipped) for part in value.split(",")}
        for key, scorers in names.items():
            if key in found or key == UNPRUNED:
                raise UserError(f"--policies names '{key}' twice; the unpruned model always takes part.")
            if given and not (key and scorers):
                raise UserError(f"--policies {value}: expected NAME=DIR, or NAME=DIR,DIR,DIR for several runs.")
            found[key] = scorers
    return found


def _heuristic_or_shipped(name: str, shipped: Path | None) -> tuple[Path, ...]:
    if name in POLICIES or name in IN_DECODER_POLICIES:
        return ()
    if name == SHIPPED and shipped is not None:
        return (shipped,)
    hint = "" if name != SHIPPED else "; no trained scorer comes with this model"
    raise UserError(
        f"There is no policy '{name}'{hint}. Expected one of {', '.join((*POLICIES, *IN_DECODER_POLICIES))}, or a "
        "trained scorer as NAME=DIR."
    )


def make_contestants(
    policies: dict[str, tuple[Path, ...]], vlm: FrozenVlm, budgets: Sequence[str] = ()
) -> list[Contestant]:
    """Loads the scorers; a UserError names one that was trained for another model. ``budgets`` are for titles."""
    return [
        _learned(name, folders, vlm) if folders else _untrained(name, vlm, budgets)
        for name, folders in policies.items()
    ]


def _untrained(name: str, vlm: FrozenVlm, budgets: Sequence[str]) -> Contestant:
    if name in IN_DECODER_POLICIES:
        inside = IN_DECODER_POLICIES[name]()
        layers, count = len(vlm.model.model.language_model.layers), vlm.visual_tokens
        means = [
            f"{inside.mean_tokens(layers, count, kept):.0f} at {budget}"
            for kept, budget in pruning_budgets(budgets, count).items()
        ]
        title = f"{inside.name}, inside the decoder: early layers see more (mean tokens per layer: {', '.join(means)})"
        return Contestant(name, title, (), in_decoder=inside)
    policy = POLICIES[name]()
    make: MakePolicy = Random if isinstance(policy, Random) else always(policy)
    return Contestant(name, policy.name, (make,))


def always(policy: Policy) -> MakePolicy:
    """The same policy for every batch."""
    return lambda seed: policy


def _learned(name: str, folders: tuple[Path, ...], vlm: FrozenVlm) -> Contestant:
    makers: list[MakePolicy] = []
    title = name
    for folder in folders:
        scorer, card = load_scorer(folder)
        config = card.config
        found = (config.vision_width, config.text_width, config.grid)
        if found != (vlm.vision_width, vlm.text_width, vlm.grid):
            raise UserError(
                f"The scorer in '{folder}' is made for widths {found[0]} and {found[1]} and a grid of {found[2]}; this "
                f"model has {vlm.vision_width}, {vlm.text_width} and {vlm.grid}. Give the scorer trained on this model."
            )
        title = card.method
        makers.append(always(Grip(scorer, title)))
    return Contestant(name, title, tuple(makers), folders)
