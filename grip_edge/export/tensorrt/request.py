"""What the building process is asked for, and what it tells: the two sides of a pipe.

Engines are built in a process of their own: a parser that aborts takes nothing else with it, and a library path that
has to be set before a process starts can be.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from typing import Any

import dacite

from grip_edge.engines import ShapeRange

Axes = dict[str, tuple[int, int, int]]


@dataclass(frozen=True)
class GraphRequest:
    """``axes``: per profile, smallest, likeliest and largest length of each named axis (K: the budget's value)."""

    file: str
    axes: tuple[Axes, ...]


@dataclass(frozen=True)
class BuildRequest:
    """``compute_capabilities`` empty: the GPU of this machine. ``workspace_bytes`` None: TensorRT's own limit.
    ``plugin``: the library that takes over selection. ``timing_cache``: the file that carries TensorRT's measurements
    from build to build.
    """

    target: str
    bundle: str
    out: str
    graphs: tuple[GraphRequest, ...]
    cache_capacity: int
    compute_capabilities: tuple[int, ...]
    workspace_bytes: int | None
    plugin: str | None = None
    timing_cache: str | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> BuildRequest:
        return dacite.from_dict(cls, json.loads(text), dacite.Config(strict=True, cast=[tuple]))


@dataclass(frozen=True)
class Told:
    """One line from the building process. With ``error`` it is the last one."""

    graph: str
    phase: str = ""
    share: float = 0.0
    warnings: tuple[str, ...] = ()
    ranges: tuple[ShapeRange, ...] = ()
    package_version: str = ""
    error: str | None = None

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self))

    @classmethod
    def from_json(cls, text: str) -> Told:
        data: Any = json.loads(text)
        return dacite.from_dict(cls, data, dacite.Config(strict=True, cast=[tuple]))
