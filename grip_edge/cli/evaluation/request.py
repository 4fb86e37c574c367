"""What an evaluation is asked for; whatever can be wrong with it is found before torch is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grip_edge.budget import Budget
from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.calibration.scenes import SPLITS
from grip_edge.errors import UserError

PRECISIONS = ("fp32", "bf16")


@dataclass(frozen=True)
class EvaluationRequest:
    """The options of ``grip-edge evaluate``, as given; ``images`` and ``questions_per_image`` None: by the data."""

    model: str | None
    policies: tuple[str, ...]
    bundles: tuple[str, ...]
    budgets: str
    data: str
    split: str
    images: int | None
    questions_per_image: int | None
    scoring: str
    out: Path
    against: str | None
    latency: bool
    flops: bool
    requests: int
    precision: str
    max_new_tokens: int
    batch_images: int
    seed: int
    no_plots: bool
    force: bool

    def __post_init__(self) -> None:
        if self.model is None and not self.bundles:
            raise UserError("There is nothing to evaluate; give --model, --bundle, or both.")
        if self.model is None and self.policies:
            raise UserError("--policies choose tokens of a PyTorch model; give it with --model.")
        for option, value, known in (
            ("scoring", self.scoring, tuple(RULES)),
            ("split", self.split, tuple(SPLITS)),
            ("precision", self.precision, PRECISIONS),
        ):
            if value not in known:
                raise UserError(f"--{option} {value} does not exist; choose from: {', '.join(known)}.")
        for option in ("images", "questions_per_image", "requests", "max_new_tokens", "batch_images"):
            value = getattr(self, option)
            if value is not None and value < 1:
                raise UserError(f"--{option.replace('_', '-')} is at least 1; got {value}.")
        for budget in self.budget_texts:
            Budget.of(budget)
        if self.out.exists() and not self.out.is_dir():
            raise UserError(f"--out '{self.out}' exists and is no folder; choose another.")

    @property
    def budget_texts(self) -> tuple[str, ...]:
        return tuple(text.strip() for text in self.budgets.split(","))

    @property
    def is_scenes(self) -> bool:
        return self.data.partition(":")[0] == "scenes"

    def bundle_folders(self) -> dict[str, Path]:
        """By the name of the policy that they belong to; a folder without a name is called as it is."""
        found: dict[str, Path] = {}
        for value in self.bundles:
            name, given, folder = value.partition("=")
            path = Path(folder if given else value)
            name = name.strip() if given else path.resolve().name
            if not name or name in found:
                raise UserError(f"--bundle {value}: expected NAME=DIR, with a name that is not taken.")
            found[name] = path
        return found
