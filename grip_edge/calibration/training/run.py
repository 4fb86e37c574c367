"""A training run from start to end: what ``grip-edge train`` does.

The work folder holds ``run.json`` (what is being trained, with all settings), checkpoints, journals and the cache; a
killed or interrupted run is continued from it and ends with the same weights, bit for bit. The scorer is written when
all is done, in one step.
"""

from __future__ import annotations

import dataclasses
import json
import os
import shutil
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch

from grip_edge.calibration.data import open_training_data
from grip_edge.calibration.data.jsonl import JsonlData
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.grip import train as grip
from grip_edge.calibration.scorer_files import (
    GRIP_METHOD,
    TPRL_METHOD,
    ScorerCard,
    TrainedScorer,
    check_free,
    save_scorer,
)
from grip_edge.calibration.scorer_interface import Scorer
from grip_edge.calibration.tprl import train as tprl
from grip_edge.calibration.training.batches import BatchSource
from grip_edge.calibration.training.cached_vlm import CachedVlm
from grip_edge.calibration.training.settings import TrainSettings
from grip_edge.calibration.training.setup import Setup
from grip_edge.calibration.training.tensor_store import TensorStore
from grip_edge.calibration.training.validation import Validation
from grip_edge.calibration.workers import Workers
from grip_edge.catalog import find_model
from grip_edge.errors import UserError

RUN_NAME = "run.json"
UNPRUNED = "unpruned"
_CACHE_NAME = "cache"
_DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}


@dataclass(frozen=True)
class TrainRequest:
    """``work`` is beside ``out`` unless it is given. ``cpu`` leaves accelerators alone."""

    model: str
    data: str
    out: Path
    settings: TrainSettings
    work: Path | None = None
    resume: bool = False
    force: bool = False
    cpu: bool = False

    @property
    def work_folder(self) -> Path:
        return self.work or self.out.with_name(f"{self.out.name}.work")

    def record(self) -> dict[str, Any]:
        """What a resumed run must agree in."""
        settings = json.loads(json.dumps(dataclasses.asdict(self.settings)))
        return {"model": self.model, "data": self.data, "settings": settings}


def run_training(request: TrainRequest, say: Callable[[str], None]) -> ScorerCard | None:
    """Trains and writes the scorer; ``say`` gets what is being done. KeyboardInterrupt leaves a resumable state.

    Returns the card in the main worker, None in the others.
    """
    check_free(request.out, request.force)
    check_work(request)
    checkpoint = checkpoint_of(request.model)
    os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")  # read when CUDA starts
    workers = Workers.launched(request.cpu)
    if workers.device.type == "cuda":
        torch.use_deterministic_algorithms(True, warn_only=True)
    started = time.perf_counter()
    if workers.is_main:
        say(f"Loading {request.model}")
    vlm = FrozenVlm.load(checkpoint, _DTYPES[request.settings.precision], workers.device)
    setup, validation = prepare(request, vlm, workers)
    workers.wait()  # all have looked at the work folder as it was
    if workers.is_main:
        open_work(request)
    workers.wait()
    method, scorer, settings = _train(setup, request.settings)
    workers.leave()
    if not workers.is_main:
        return None
    say("Measuring on validation data")
    record = {
        "model": request.model,
        "data": setup.source.data.name,
        "seed": request.settings.seed,
        "minutes": None if request.resume else round((time.perf_counter() - started) / 60, 1),
        **settings,
        "accuracy": _accuracy(validation, scorer, method),
    }
    card = ScorerCard(method, scorer.config, record)
    save_scorer(request.out, scorer, card, request.force)
    return card


def checkpoint_of(model: str) -> Path | str:
    """A folder, or the id of a model on the Hugging Face hub."""
    is_hub_id = model.count("/") == 1 and not Path(model).exists() and not model.startswith((".", "/", "~"))
    return model if is_hub_id else find_model(model)


def check_work(request: TrainRequest) -> None:
    """UserError if the work folder holds something else than what is asked for; writes nothing."""
    work, path = request.work_folder, request.work_folder / RUN_NAME
    if request.resume:
        if not path.is_file():
            raise UserError(f"There is nothing to resume in '{work}': it holds no {RUN_NAME}; leave out --resume.")
        _check_same(json.loads(path.read_text(encoding="utf-8")), request.record(), work)
    elif path.is_file() and not request.force:
        raise UserError(f"'{work}' holds a run already; continue it with --resume, or start over with --force.")
    elif not path.is_file() and work.exists() and (work.is_file() or any(work.iterdir())):
        raise UserError(f"'{work}' exists and is no work folder of a training; choose another --work.")


def open_work(request: TrainRequest) -> None:
    """Makes the work folder, without what an earlier run left there (but with its cache), unless that is resumed."""
    work = request.work_folder
    if request.resume:
        return
    try:
        work.mkdir(parents=True, exist_ok=True)
        for old in [entry for entry in work.iterdir() if entry.name != _CACHE_NAME]:
            shutil.rmtree(old) if old.is_dir() else old.unlink()
        (work / RUN_NAME).write_text(json.dumps(request.record(), indent=2) + "\n", encoding="utf-8")
    except OSError as error:
        raise UserError(f"Cannot write to '{work}' ({error.strerror}); choose another --work.") from None


def _check_same(found: dict[str, Any], wanted: dict[str, Any], work: Path) -> None:
    before, now = _flat(found), _flat(wanted)
    for key in sorted(before.keys() | now.keys()):
        if before.get(key) != now.get(key):
            raise UserError(
                f"The run in '{work}' has {key} = {before.get(key)!r}, not {now.get(key)!r}; "
                "resume it as it was started, or start over with --force."
            )


def _flat(values: dict[str, Any], prefix: str = "") -> dict[str, Any]:
    flat: dict[str, Any] = {}
    for key, value in values.items():
        flat |= _flat(value, f"{prefix}{key}.") if isinstance(value, dict) else {f"{prefix}{key}": value}
    return flat


def prepare(request: TrainRequest, vlm: FrozenVlm, workers: Workers) -> tuple[Setup, Validation]:
    """Everything that can be refused is refused here, before anything is written."""
    settings = request.settings
    if settings.method == "tprl":
        tprl.new_config(vlm, settings.tprl.scorer)
    else:
        grip.new_config(vlm, settings.grip.scorer)
    train, held_out = open_training_data(request.data, vlm.image_side_px, settings.questions_per_image)
    store = None
    if isinstance(train, JsonlData) and settings.cache_bytes > 0:
        store = TensorStore(request.work_folder / _CACHE_NAME, settings.cache_bytes // workers.count)
    cached = CachedVlm(vlm, store)
    validation = Validation(cached, held_out, settings.questions_per_image, settings.validation)
    source = BatchSource(cached, train, settings.questions_per_image)
    return Setup(source, request.work_folder, settings.seed, workers, validation), validation


def _train(setup: Setup, settings: TrainSettings) -> tuple[str, TrainedScorer, dict[str, Any]]:
    """The method's name on cards, the scorer, and the settings that made it."""
    if settings.method == "tprl":
        return TPRL_METHOD, tprl.train_tprl(setup, settings.tprl), dataclasses.asdict(settings.tprl)
    return GRIP_METHOD, grip.train_grip(setup, settings.grip)[1], dataclasses.asdict(settings.grip)


def _accuracy(validation: Validation, scorer: Scorer, method: str) -> list[dict[str, Any]]:
    """Rows of the card's table; none without validation data."""
    unpruned, questions = validation.unpruned()
    shares = {"1.0": (UNPRUNED, unpruned)}
    shares |= {key.removeprefix("accuracy@"): (method, share) for key, share in validation(scorer).items()}
    return [
        {"policy": policy, "budget": budget, "skill": "all", "accuracy": round(share, 4), "questions": questions}
        for budget, (policy, share) in shares.items()
        if questions
    ]
