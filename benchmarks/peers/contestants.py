"""The words for who takes part: a peer has an environment, steps that convert the yardstick, and contestants.

Not here: the peers themselves (``peers``), what is done with them (``preparing``, ``rounds``).
"""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.peers.shape import SHAPES, Shape

REPOSITORY = Path(__file__).parents[2]


@dataclass(frozen=True)
class Work:
    """The folder that everything goes to, and what is measured in it."""

    root: Path
    shape_name: str = "yardstick"
    threads: int = 2

    @property
    def shape(self) -> Shape:
        return SHAPES[self.shape_name]

    @property
    def model(self) -> Path:
        return self.root / "model"

    @property
    def language_model(self) -> Path:
        return self.root / "language-model"

    @property
    def picture(self) -> Path:
        return self.root / "picture.png"

    @property
    def budgets(self) -> tuple[int, int]:
        """All visual tokens, and a quarter of them."""
        return self.shape.visual_tokens, self.shape.visual_tokens // 4

    def converted(self, name: str) -> Path:
        return self.root / "converted" / name

    def interpreter(self, peer: str, pins: tuple[tuple[str, ...], ...]) -> Path:
        return self.root / "environments" / peer / "bin" / "python" if pins else Path(sys.executable)

    def log(self, name: str) -> Path:
        return self.root / "logs" / f"{name}.log"

    def process_environment(self) -> dict[str, str]:
        """Our modules can be found, nothing is looked up on the network, and no library takes more threads."""
        count = str(self.threads)
        limits = {f"{name}_NUM_THREADS": count for name in ("OMP", "MKL", "OPENBLAS")}
        offline = {"HF_HUB_OFFLINE": "1", "TOKENIZERS_PARALLELISM": "false", "PYTHONDONTWRITEBYTECODE": "1"}
        return os.environ | limits | offline | {"PYTHONPATH": str(REPOSITORY)}


@dataclass(frozen=True)
class Step:
    """A command in the peer's environment that makes ``made``, a file or folder."""

    name: str
    arguments: tuple[str, ...]
    made: Path


@dataclass(frozen=True)
class Contestant:
    """One row of the report. ``worker`` is a module of ``workers``; ``settings`` go to it as they are.

    ``weights`` names the format, ``bits`` the nominal bits per weight, for comparing like with like. ``decoder_bytes``
    counts what each new token reads, once the conversion is there. ``sees``: it takes the image, not only text.
    ``prunes``: it can be given fewer visual tokens. ``by_hand``: its runtime is driven by the worker, not by the
    peer's own pipeline. ``note`` is printed under the table.
    """

    name: str
    worker: str
    weights: str
    bits: int
    folder: Path
    decoder_bytes: Callable[[], int]
    settings: dict[str, str] = field(default_factory=dict)
    sees: bool = True
    prunes: bool = True
    by_hand: bool = False
    note: str = ""


@dataclass(frozen=True)
class Peer:
    """``pins``: the arguments of one ``pip install`` after the other; none means this interpreter."""

    name: str
    title: str
    pins: tuple[tuple[str, ...], ...]
    steps: tuple[Step, ...]
    contestants: tuple[Contestant, ...]


def file_bytes(*files: Path, unread: int = 0) -> Callable[[], int]:
    """The files' sizes, less what is in them and not read for a new token (an embedding table)."""
    return lambda: sum(file.stat().st_size for file in files) - unread
