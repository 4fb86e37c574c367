"""Data by the name that a user writes: ``scenes``, a JSONL file, or a folder of JSONL files.

    scenes            rendered scenes; endless, split by seed
    scenes:PRESET     harder ones (``calibration.scenes.presets``)
    FILE.jsonl        exactly these questions, whatever the split
    FOLDER            FOLDER/{train,validation,test}.jsonl, or FOLDER/data.jsonl, split by the hash of the image's name

``open_data`` is for one split; ``open_training_data`` also holds validation images back where only one file is given.
"""

from __future__ import annotations

from pathlib import Path

from grip_edge.calibration.data.asked import AskedData, AskedImages, AskedQuestion
from grip_edge.calibration.data.jsonl import JsonlData
from grip_edge.calibration.data.scenes import SceneData
from grip_edge.calibration.scenes import SPLITS
from grip_edge.calibration.scenes.presets import scene_settings
from grip_edge.errors import UserError

__all__ = [
    "AskedData",
    "AskedImages",
    "AskedQuestion",
    "JsonlData",
    "SceneData",
    "open_data",
    "open_training_data",
]

SCENES = "scenes"
_WHOLE_NAME = "data.jsonl"


def open_data(spec: str, split: str, side_px: int, questions_per_image: int) -> AskedData:
    """``side_px`` and ``questions_per_image`` shape rendered scenes; of a file's questions about one image, the first
    ``questions_per_image`` are taken.
    """
    if split not in SPLITS:
        raise UserError(f"Unknown split '{split}'; expected one of {', '.join(SPLITS)}.")
    if spec.partition(":")[0] == SCENES:
        return _scenes(spec, split, side_px, questions_per_image)
    return _open_files(Path(spec), split, questions_per_image)


def open_training_data(spec: str, side_px: int, questions_per_image: int) -> tuple[AskedData, AskedData]:
    """Training and validation data without a common image. Of a file's questions about one image all are given: a
    batch draws ``questions_per_image`` of them anew each time.
    """
    if spec.partition(":")[0] == SCENES:
        train = _scenes(spec, "train", side_px, questions_per_image)
        return train, _scenes(spec, "validation", side_px, questions_per_image)
    path = Path(spec)
    if path.is_file():
        whole = JsonlData.open(path)
        return whole.part("train"), whole.part("validation")
    return _open_files(path, "train", None), _open_files(path, "validation", questions_per_image)


def _scenes(spec: str, split: str, side_px: int, questions_per_image: int) -> SceneData:
    if spec == SCENES:
        return SceneData(split, side_px, questions_per_image)
    preset = spec.partition(":")[2]
    settings = scene_settings(preset, side_px)
    return SceneData(split, side_px, questions_per_image, settings, preset=preset)


def _open_files(path: Path, split: str, questions_per_image: int | None) -> JsonlData:
    if path.is_file():
        return JsonlData.open(path, questions_per_image)
    if not path.is_dir():
        raise UserError(f"There is no data '{path}'; expected '{SCENES}', a .jsonl file, or a folder with such files.")
    own, whole = path / f"{split}.jsonl", path / _WHOLE_NAME
    if own.is_file():
        return JsonlData.open(own, questions_per_image)
    if whole.is_file():
        return JsonlData.open(whole, questions_per_image).part(split)
    raise UserError(f"'{path}' holds neither {own.name} nor {_WHOLE_NAME}; expected one of them.")
