"""A loaded toy pipeline and pictures, shared by the runtime's tests."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from grip_edge.runtime import Pipeline


@pytest.fixture(scope="session")
def pipeline(toy_bundle: Path) -> Pipeline:
    """Encodes every image anew, so that tests do not see each other's features."""
    return Pipeline.load(toy_bundle, threads=1, cached_images=0)


@pytest.fixture(scope="session")
def picture(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A colourful PNG, 96x72, whose patches all differ."""
    levels = np.random.default_rng(0).integers(0, 256, (9, 12, 3)).astype(np.uint8)
    path = tmp_path_factory.mktemp("pictures") / "picture.png"
    Image.fromarray(levels).resize((96, 72), Image.Resampling.BICUBIC).save(path)
    return path
