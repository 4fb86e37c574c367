"""What an export is asked for. Needs no torch, so that a wrong option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grip_edge.errors import UserError
from grip_edge.export.precision import PrecisionOptions

TARGETS = ("cpu",)


@dataclass(frozen=True)
class ExportOptions:
    """``model`` is a name of the catalog or a folder; ``scorer`` None takes the one that comes with the model."""

    model: str
    budget_range: str
    scorer: Path | None
    out: Path
    target: str = "cpu"
    precision: PrecisionOptions = PrecisionOptions()
    force: bool = False

    def __post_init__(self) -> None:
        if self.target not in TARGETS:
            listed = ", ".join(TARGETS)
            raise UserError(f"--target {self.target} does not exist in this version; choose from: {listed}.")
