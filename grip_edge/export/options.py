"""What an export is asked for. Needs no torch, so that a wrong option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grip_edge.errors import UserError
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.targets.formats import target_formats
from grip_edge.export.targets.table import Target, find_target
from grip_edge.policy_catalog import exportable_policy


@dataclass(frozen=True)
class ExportOptions:
    """``model`` is a name of the catalog or a folder. What selects tokens is ``policy``, or the scorer in the folder
    ``scorer``, or (both None) the one that comes with the model.
    """

    model: str
    budget_range: str
    scorer: Path | None
    out: Path
    target: str = "cpu"
    precision: PrecisionOptions = PrecisionOptions()
    force: bool = False
    policy: str | None = None

    def __post_init__(self) -> None:
        if self.policy is not None:
            exportable_policy(self.policy)
            if self.scorer is not None:
                raise UserError("--policy and --scorer exclude each other: a bundle selects by one of them; give one.")
        target_formats(self.precision, self.found_target)

    @property
    def found_target(self) -> Target:
        """``target`` by its name, alias or board."""
        return find_target(self.target)
