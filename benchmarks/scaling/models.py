"""The measured models: the yardstick's shape, with other image sides and with other decoder sizes, as int8 bundles.

Written and exported by the functions and the command that the comparison with peers uses. Only bundles stay.
"""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from collections.abc import Callable, Collection
from dataclasses import replace
from pathlib import Path

from benchmarks.peers.contestants import REPOSITORY
from benchmarks.peers.shape import TOY, YARDSTICK, Shape

BASE = "base"
PRECISION = "int8"

_BUDGET_RANGE = "0.05,1.0"
_POSITIONS = 4096  # room for the longest prompt and all tokens of the largest image


def family(shape_name: str) -> dict[str, Shape]:
    """By name: one base, others that differ in the image's side or in the decoder alone. Largest first."""
    if shape_name == "toy":
        base = replace(TOY, max_positions=_POSITIONS)
        sides: tuple[int, ...] = (112, 84)
        sizes = {"small": replace(base, width=32, layers=1, mlp=64)}
    else:
        base = replace(YARDSTICK, max_positions=_POSITIONS)
        sides = (448, 280, 224, 168)
        sizes = {
            "1.0B": replace(base, width=1536, heads=24, mlp=6144),
            "0.24B": replace(base, width=768, layers=16, heads=12, mlp=3072),
            "0.12B": replace(base, width=512, layers=12, heads=8, mlp=2048),
        }
    others = {f"side-{side}": replace(base, image_side_px=side) for side in sides}
    return {**sizes, BASE: base, **others}


def bundle_of(folder: Path, model: str) -> Path:
    return folder / "models" / model / "bundle"


def picture_of(folder: Path, model: str) -> Path:
    return folder / "models" / model / "picture.png"


def prepare(folder: Path, shape_name: str, wanted: Collection[str], say: Callable[[str], None]) -> None:
    """Each wanted model once; a bundle that is there was finished, since exports appear whole."""
    for name, shape in family(shape_name).items():
        if name in wanted and not bundle_of(folder, name).is_dir():
            say(f"{name}: writing and exporting")
            _make(folder / "models" / name, shape, bundle_of(folder, name))


def _make(work: Path, shape: Shape, bundle: Path) -> None:
    from benchmarks.peers import yardstick
    from grip_edge.export.quiet import quiet_libraries

    work.mkdir(parents=True, exist_ok=True)
    with quiet_libraries():
        yardstick.write_models(work, shape)
    shutil.rmtree(work / yardstick.LANGUAGE_MODEL)
    yardstick.picture(shape.image_side_px).save(work / yardstick.PICTURE)
    checkpoint = work / yardstick.MODEL
    command = [sys.executable, "-m", "grip_edge.cli.main", "export", "--model", str(checkpoint)]
    command += ["--budget-range", _BUDGET_RANGE, "--precision", PRECISION, "--out", str(bundle)]
    done = subprocess.run(command, env=our_environment(), stdout=subprocess.DEVNULL, check=False)
    if done.returncode:
        raise RuntimeError(f"The export of {checkpoint} ended with exit code {done.returncode}; its message is above.")
    shutil.rmtree(checkpoint)


def our_environment() -> dict[str, str]:
    """This repository's modules, wherever the command is started; nothing is looked up on the network."""
    return os.environ | {"PYTHONPATH": str(REPOSITORY), "HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false"}
