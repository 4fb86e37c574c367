"""Rendered scenes on disk: images and patch labels as memory-mapped arrays, made once by all cores, resumable.

Questions are not stored: ``questions.ask`` makes them from the seed in a millisecond.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from rich.progress import track

from grip_edge.calibration.scenes import draw_scene, render, scene_seed
from grip_edge.calibration.scenes.labels import LABEL_CLASSES, patch_labels

_CHUNK = 500


@dataclass(frozen=True)
class Corpus:
    """``images`` [n, side, side, 3] uint8 and ``labels`` [n, kinds, grid, grid] uint8, scene i at index i."""

    split: str
    images: NDArray[np.uint8]
    labels: NDArray[np.uint8]

    def __len__(self) -> int:
        return len(self.images)


def open_corpus(folder: Path, split: str, count: int, side_px: int = 168, patch_px: int = 14) -> Corpus:
    """The first ``count`` scenes of ``split``; renders what is not on disk yet."""
    folder.mkdir(parents=True, exist_ok=True)
    grid = side_px // patch_px
    stem = f"{split}-{count}-{side_px}px"
    shapes = {"images": (count, side_px, side_px, 3), "labels": (count, len(LABEL_CLASSES), grid, grid)}
    arrays = {kind: _open(folder / f"{stem}-{kind}.npy", shape) for kind, shape in shapes.items()}
    done_file = folder / f"{stem}-done.txt"
    done = set(done_file.read_text().split()) if done_file.exists() else set()
    todo = [start for start in range(0, count, _CHUNK) if str(start) not in done]
    if todo:
        jobs = [(split, start, min(start + _CHUNK, count), side_px, patch_px) for start in todo]
        with ProcessPoolExecutor(os.cpu_count()) as pool, done_file.open("a") as log:
            chunks = pool.map(_render_chunk, jobs)
            for start, (images, labels) in zip(todo, track(chunks, f"render {split}", len(todo)), strict=True):
                arrays["images"][start : start + len(images)] = images
                arrays["labels"][start : start + len(labels)] = labels
                log.write(f"{start}\n")
                log.flush()
    return Corpus(split, **arrays)


def _open(path: Path, shape: tuple[int, ...]) -> NDArray[np.uint8]:
    mode = "r+" if path.exists() else "w+"
    return np.lib.format.open_memmap(path, mode=mode, dtype=np.uint8, shape=shape)


def _render_chunk(job: tuple[str, int, int, int, int]) -> tuple[NDArray[np.uint8], NDArray[np.uint8]]:
    split, start, stop, side_px, patch_px = job
    scenes = [draw_scene(scene_seed(split, i)) for i in range(start, stop)]
    images = np.stack([np.asarray(render(scene, side_px)) for scene in scenes])
    labels = np.stack([patch_labels(scene, side_px // patch_px, patch_px).stacked() for scene in scenes])
    return images, labels
