"""All settings of ``grip-edge train``: defaults, then a file (JSON or TOML), then ``key=value`` from the command line.

Keys are the fields of the dataclasses, nested: ``grip.grpo.group``. An unknown key or a value of the wrong type is an
error that names it.
"""

from __future__ import annotations

import dataclasses
import json
import tomllib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from grip_edge.calibration.grip.train import GripSettings
from grip_edge.calibration.scorer import ScorerConfig
from grip_edge.calibration.tprl.network import TprlConfig
from grip_edge.calibration.tprl.train import TprlSettings
from grip_edge.calibration.training.validation import ValidationSettings
from grip_edge.errors import UserError

METHODS = ("grip", "tprl")
PRECISIONS = ("bf16", "fp16", "fp32")

# Groups that are empty by default: the fields of these classes that the model does not decide.
_SHAPES: dict[str, type[ScorerConfig | TprlConfig]] = {"grip.scorer": ScorerConfig, "tprl.scorer": TprlConfig}
_DECIDED = {"vision_width", "text_width", "grid"}


@dataclass(frozen=True)
class TrainSettings:
    """``precision`` is that of the frozen model; scorers are fp32. ``cache_bytes`` bounds the cache of features and
    attention of a user's own images; rendered scenes are not cached.
    """

    method: str = "grip"
    seed: int = 0
    precision: str = "bf16"
    questions_per_image: int = 4
    cache_bytes: int = 8 * 2**30
    validation: ValidationSettings = ValidationSettings()
    grip: GripSettings = GripSettings()
    tprl: TprlSettings = TprlSettings()

    def __post_init__(self) -> None:
        if self.method not in METHODS:
            raise UserError(f"There is no method '{self.method}'; expected one of {', '.join(METHODS)}.")
        if self.precision not in PRECISIONS:
            raise UserError(f"There is no precision '{self.precision}'; expected one of {', '.join(PRECISIONS)}.")
        if self.questions_per_image < 1:
            raise UserError(f"questions_per_image is at least 1; got {self.questions_per_image}.")


def read_settings(file: Path | None, assignments: Sequence[tuple[str, Any]]) -> TrainSettings:
    """From an optional file and from (dotted key, value) pairs, the later ones winning."""
    values = dataclasses.asdict(TrainSettings())
    if file is not None:
        _merge(values, _read(file), "")
    for key, value in assignments:
        nested: Any = value
        for part in reversed(key.split(".")):
            nested = {part: nested}
        _merge(values, nested, "")
    return from_mapping(values)


def from_mapping(values: Mapping[str, Any]) -> TrainSettings:
    try:
        return dacite.from_dict(TrainSettings, dict(values), dacite.Config(strict=True, cast=[tuple, float]))
    except (dacite.DaciteError, ValueError, TypeError) as error:
        raise UserError(f"Settings: {error}.") from None


def parse_assignment(text: str) -> tuple[str, Any]:
    """``key=value``; the value is JSON, or else a text."""
    key, equals, value = text.partition("=")
    if not equals or not key.strip():
        raise UserError(f"A setting is written key=value, as in grip.grpo.group=8; got '{text}'.")
    try:
        return key.strip(), json.loads(value)
    except json.JSONDecodeError:
        return key.strip(), value


def _read(file: Path) -> dict[str, Any]:
    try:
        text = file.read_text(encoding="utf-8")
        data = tomllib.loads(text) if file.suffix == ".toml" else json.loads(text)
    except (OSError, ValueError) as error:
        raise UserError(
            f"{file} cannot be read as settings ({error}); expected JSON, or TOML in a .toml file."
        ) from None
    if not isinstance(data, dict):
        raise UserError(f"{file} holds no settings; expected one JSON object.")
    return data


def _merge(values: dict[str, Any], changes: Mapping[str, Any], prefix: str) -> None:
    """Puts ``changes`` into ``values``, group by group; UserError names a key that is not there."""
    for key, value in changes.items():
        path = f"{prefix}{key}"
        known = _known(values, prefix.rstrip("."))
        if key not in known:
            raise UserError(f"There is no setting '{path}'; expected one of {', '.join(sorted(known))}.")
        if isinstance(values.get(key), dict):
            if not isinstance(value, Mapping):
                raise UserError(f"Setting '{path}' is a group of settings, not a value; got {value!r}.")
            _merge(values[key], value, f"{path}.")
        else:
            values[key] = value


def _known(values: Mapping[str, Any], group: str) -> set[str]:
    shape = _SHAPES.get(group)
    return set(values) if shape is None else {field.name for field in dataclasses.fields(shape)} - _DECIDED
