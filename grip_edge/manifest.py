"""``grip.json``: what a bundle says about itself. The contract between export and runtime.

Plain frozen dataclasses; unknown keys, missing keys and wrong types are errors that name the field.
Not here: files on disk (``bundle``).
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass, field
from typing import Any

import dacite

from grip_edge.budget import BudgetRange
from grip_edge.budget_record import RecommendedBudget
from grip_edge.calibration_record import CalibrationRecord
from grip_edge.errors import BudgetError, BundleError
from grip_edge.tiles import TilingSpec

SCHEMA_VERSION = 2
# Version 1 lacks the fields that have defaults here.
_READABLE_VERSIONS = (1, 2)


@dataclass(frozen=True)
class TextSpec:
    """The decoder. ``head_dim`` may differ from ``width // heads``; ``kv_heads < heads`` is grouped-query attention."""

    width: int
    layers: int
    heads: int
    kv_heads: int
    head_dim: int
    vocab_size: int
    max_positions: int


@dataclass(frozen=True)
class VisionSpec:
    """The vision tower as exported (the layers after the selected one are gone). ``grid`` is rows, columns.

    Of one view: where images are tiled (``ImageSpec.tiling``), ``visual_tokens`` are those of a tile.
    """

    width: int
    layers: int
    image_side_px: int
    patch_px: int
    grid: tuple[int, int]

    @property
    def visual_tokens(self) -> int:
        return self.grid[0] * self.grid[1]


@dataclass(frozen=True)
class ModelSpec:
    name: str
    architecture: str
    vision: VisionSpec
    text: TextSpec


@dataclass(frozen=True)
class ImageSpec:
    """Preprocessing: shortest edge resized to ``resize_px``, centre crop of ``crop_px``, then (x/255 - mean) / std.

    With ``stretch``, the whole image becomes ``crop_px`` x ``crop_px`` instead. With ``tiling``, the image becomes a
    stretched view of the whole and tiles of detail; the number of visual tokens is then a matter of each image.
    """

    resize_px: int
    crop_px: int
    resample: str
    mean: tuple[float, float, float]
    std: tuple[float, float, float]
    stretch: bool = False
    tiling: TilingSpec | None = None


@dataclass(frozen=True)
class PromptSpec:
    """``template`` holds ``{question}`` and one ``image_token``, whose place the kept embeddings take."""

    template: str
    image_token: str
    image_token_id: int
    stop_token_ids: tuple[int, ...]


@dataclass(frozen=True)
class FileRecord:
    path: str
    bytes: int
    sha256: str


@dataclass(frozen=True)
class ParityResult:
    """Agreement of the exported graphs with the reference model at one budget.

    ``logits_cosine`` compares directions of the logits about their means; ``tokens_agreeing`` of ``tokens_compared``
    greedy tokens are the same from the first on; ``kept_overlap`` is the share of kept tokens in both sets;
    ``visual_tokens`` are those of the image that was compared.
    """

    budget_tokens: int
    logits_max_difference: float
    logits_mean_difference: float
    tokens_equal: bool
    kept_sets_equal: bool
    logits_cosine: float | None = None
    tokens_agreeing: int | None = None
    tokens_compared: int | None = None
    kept_overlap: float | None = None
    visual_tokens: int | None = None


@dataclass(frozen=True)
class WeightFormats:
    """Number format of the weights by part (see ``export.precision``); the int4 fields are null where nothing is.

    ``vision`` is the tower and the projector, ``decoder`` its linear layers but the LM head. ``cache`` is that of keys
    and values on targets that leave the choice; null is what the target computes in.
    """

    vision: str
    decoder: str
    lm_head: str
    embedding: str
    int4_block: int | None
    int4_symmetric: bool | None
    cache: str | None = None


@dataclass(frozen=True)
class ScorerRecord:
    """Which selector is inside ``select.onnx``: a trained scorer, or a policy of ``policy_catalog`` by its name.

    ``training`` is the scorer's card: data, steps, seed, accuracy table. With ``reads_cls_attention``, ``vision.onnx``
    has the output ``cls_attention`` [1,N] and ``select.onnx`` the input of that name.
    """

    name: str
    parameters: int
    training: dict[str, Any]
    is_policy: bool = False
    reads_cls_attention: bool = False


@dataclass(frozen=True)
class Manifest:
    """``positions`` is ``reindexed`` (kept tokens get consecutive positions) or ``original``.

    ``parity_method``: ``whole`` compared both models as they are; ``streamed`` compared them piece by piece, the same
    numbers within little memory. ``session_config`` is what ONNX Runtime must be told when it loads the graphs.
    ``calibration`` stands in bundles that ``grip-edge calibrate`` made; their ``parity`` is empty.
    ``recommended_budget`` is what ``infer --budget auto`` uses.
    """

    schema_version: int
    model: ModelSpec
    budget_range: BudgetRange
    positions: str
    prompt: PromptSpec
    image: ImageSpec
    target: str
    precision: str
    scorer: ScorerRecord
    parity: tuple[ParityResult, ...]
    versions: dict[str, str]
    files: tuple[FileRecord, ...]
    weight_formats: WeightFormats | None = None
    session_config: dict[str, str] = field(default_factory=dict)
    parity_method: str = "whole"
    calibration: CalibrationRecord | None = None
    recommended_budget: RecommendedBudget | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> Manifest:
        """``origin`` is the file's name in error messages."""
        try:
            data = json.loads(text)
        except json.JSONDecodeError as error:
            raise BundleError(f"{origin} is not valid JSON ({error}); export the bundle again.") from None
        if not isinstance(data, dict) or "schema_version" not in data:
            raise BundleError(f"{origin} has no schema_version, so this is no grip-edge bundle.")
        found = data["schema_version"]
        if found not in _READABLE_VERSIONS:
            hint = "upgrade grip-edge" if isinstance(found, int) and found > SCHEMA_VERSION else "export it again"
            raise BundleError(f"{origin}: schema_version is {found!r}, this version reads {SCHEMA_VERSION}; {hint}.")
        try:
            return dacite.from_dict(cls, data, dacite.Config(strict=True, cast=[tuple]))
        except (dacite.DaciteError, BudgetError, TypeError) as error:
            raise BundleError(f"{origin}: {error}; export the bundle again.") from None
