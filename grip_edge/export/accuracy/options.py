"""What a calibration is asked for. Needs no torch, so that a wrong option is answered at once."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grip_edge.errors import UserError
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.targets.formats import target_formats
from grip_edge.export.targets.table import CPU, Target, find_target
from grip_edge.manifest import WeightFormats

# The format of layers that stay in more bits.
FINER = {"int4": "int8-weight", "int8": "int8-weight", "int8-weight": "fp16", "fp16": "fp32", "bf16": "fp32"}
# Engines have no faster form between int8 products and fp16 ones.
FINER_IN_ENGINES = FINER | {"int8": "fp16"}


@dataclass(frozen=True)
class CalibrationOptions:
    """``max_kl`` and ``min_agreement`` are limits on what may be lost (see ``PrecisionCost``); None sets no limit."""

    bundle: Path
    out: Path
    precision: PrecisionOptions
    max_kl: float | None = None
    min_agreement: float | None = None
    rescale: bool = True
    force: bool = False
    target: str = CPU.name

    def __post_init__(self) -> None:
        if self.precision.precision == "fp32":
            raise UserError(f"--precision fp32 leaves nothing to choose; expected one of: {', '.join(FINER)}.")
        self.formats  # noqa: B018  wrong ones are told before any work
        if self.max_kl is not None and not self.max_kl > 0:
            raise UserError(f"--max-kl is above 0; got {self.max_kl}.")
        if self.min_agreement is not None and not 0 < self.min_agreement <= 1:
            raise UserError(f"--min-token-agreement is a share in (0, 1]; got {self.min_agreement}.")
        if self.out.resolve() == self.bundle.resolve():
            raise UserError(f"--out '{self.out}' is the bundle that is read; choose another.")

    @property
    def found_target(self) -> Target:
        return find_target(self.target)

    @property
    def formats(self) -> WeightFormats:
        return target_formats(self.precision, self.found_target, calibrated=True)

    @property
    def finer(self) -> dict[str, str]:
        return FINER_IN_ENGINES if self.found_target.is_compiled else FINER

    @property
    def limits(self) -> dict[str, float]:
        given = {"max_kl": self.max_kl, "min_agreement": self.min_agreement}
        return {name: value for name, value in given.items() if value is not None}
