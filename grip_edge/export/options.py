"""What an export is asked for. Needs no torch, so that a wrong option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grip_edge.errors import UserError

TARGETS = ("cpu",)
PRECISIONS = ("fp32",)


@dataclass(frozen=True)
class ExportOptions:
    """``model`` is a name of the catalog or a folder; ``scorer`` None takes the one that comes with the model."""

    model: str
    budget_range: str
    scorer: Path | None
    out: Path
    target: str = "cpu"
    precision: str = "fp32"
    force: bool = False

    def __post_init__(self) -> None:
        for option, value, known in (("target", self.target, TARGETS), ("precision", self.precision, PRECISIONS)):
            if value not in known:
                raise UserError(f"--{option} {value} does not exist in this version; choose from: {', '.join(known)}.")
