"""Compiled engines of a bundle: ``engines/<device key>/`` with one engine per graph and ``engines.json``.

The contract between ``export.tensorrt``, which builds them, and ``runtime.tensorrt``, which runs them. An engine runs
only where it was built for; every difference is an error that names the field, what was found, what was expected, and
the command that builds it again. An engine is executable code: load only those that you built.
"""

from __future__ import annotations

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import dacite

from grip_edge.bundle import Bundle
from grip_edge.errors import BundleError
from grip_edge.manifest import FileRecord

SCHEMA_VERSION = 1
ENGINES_FOLDER = "engines"
ENGINES_NAME = "engines.json"

# An output that the decoder's engine has beside those of decoder.onnx: the likeliest token, int64 [1,1].
GREEDY_TOKEN = "next_token"

# An output that decoder.onnx may have beside it: that token's embedding [1,1,D].
NEXT_EMBEDS = "next_embeds"


@dataclass(frozen=True)
class ShapeRange:
    """Of one input: its shape, or, of a shape input, its values. ``profile`` counts from 0."""

    engine: str
    profile: int
    input: str
    smallest: tuple[int, ...]
    likeliest: tuple[int, ...]
    largest: tuple[int, ...]


@dataclass(frozen=True)
class EngineManifest:
    """``compute_capabilities`` as in 86 for 8.6. ``plugin_version`` null: selection is in native layers;
    ``plugin_embedded``: the engine that selects holds the plugin's library.

    ``sources`` are the hashes of the bundle's files that the engines were built from. ``cache_in_place``: the decoder's
    cache inputs and outputs are one buffer. ``cache_capacity`` counts the tokens of the whole conversation.
    """

    schema_version: int
    package: str
    package_version: str
    compute_capabilities: tuple[int, ...]
    target: str
    precision: str
    plugin_version: str | None
    cache_capacity: int
    cache_in_place: bool
    profiles: tuple[ShapeRange, ...]
    sources: dict[str, str]
    engines: tuple[FileRecord, ...]
    warnings: tuple[str, ...] = ()
    plugin_embedded: bool = False

    def to_json(self) -> str:
        return json.dumps(dataclasses.asdict(self), indent=2) + "\n"

    @classmethod
    def from_json(cls, text: str, origin: str) -> EngineManifest:
        try:
            data: Any = json.loads(text)
            found = data.get("schema_version") if isinstance(data, dict) else None
            if found != SCHEMA_VERSION:
                raise BundleError(f"{origin}: schema_version is {found!r}, expected {SCHEMA_VERSION}; {_hint()}.")
            return dacite.from_dict(cls, data, dacite.Config(strict=True, cast=[tuple]))
        except (json.JSONDecodeError, dacite.DaciteError) as error:
            raise BundleError(f"{origin}: {' '.join(str(error).split())}; {_hint()}.") from None


@dataclass(frozen=True)
class Engines:
    folder: Path
    manifest: EngineManifest

    def path(self, graph: str) -> Path:
        """The engine of a graph, such as ``decoder.onnx``."""
        return self.folder / engine_name(graph)


def engine_name(graph: str) -> str:
    return graph.removesuffix(".onnx") + ".engine"


def device_key(package: str, package_version: str, compute_capabilities: tuple[int, ...]) -> str:
    """The folder's name, such as ``tensorrt_rtx-1.7.1.116-sm86``."""
    return f"{package}-{package_version}-sm{'-'.join(map(str, compute_capabilities))}"


def source_hashes(bundle: Bundle) -> dict[str, str]:
    """Hashes of the graphs and their weights."""
    return {record.path: record.sha256 for record in bundle.manifest.files if ".onnx" in record.path}


def find_engines(bundle: Bundle, package: str, package_version: str, compute_capability: int) -> Engines:
    """The engines that run with this package on this device; BundleError naming what differs if there are none."""
    candidates = [read_engines(path.parent) for path in sorted(_root(bundle).glob(f"*/{ENGINES_NAME}"))]
    if not candidates:
        raise BundleError(f"'{bundle.folder}' holds no engines; {_hint(bundle)}.")
    problems = []
    for engines in candidates:
        problem = _mismatch(engines, bundle, package, package_version, compute_capability)
        if problem is None:
            return engines
        problems.append(f"{engines.folder.name}: {problem}")
    raise BundleError(f"No engine in '{_root(bundle)}' fits ({'; '.join(problems)}); {_hint(bundle)}.")


def read_engines(folder: Path) -> Engines:
    path = folder / ENGINES_NAME
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as error:
        raise BundleError(f"{path} cannot be read ({error}); {_hint()}.") from None
    return Engines(folder, EngineManifest.from_json(text, str(path)))


def _mismatch(
    engines: Engines, bundle: Bundle, package: str, package_version: str, compute_capability: int
) -> str | None:
    manifest = engines.manifest
    sources = source_hashes(bundle)
    changed = sorted(name for name in sources if sources[name] != manifest.sources.get(name))
    if changed:
        name = changed[0]
        return f"sources: {name} is {sources[name][:12]}…, the engine is of {manifest.sources.get(name, 'none')[:12]}…"
    for field, expected, found in (
        ("package", manifest.package, package),
        ("package_version", manifest.package_version, package_version),
    ):
        if expected != found:
            return f"{field} is {found}, the engine is for {expected}"
    if compute_capability not in manifest.compute_capabilities:
        listed = ", ".join(map(str, manifest.compute_capabilities))
        return f"compute_capability is {compute_capability}, the engine is for {listed}"
    for record in manifest.engines:
        path = engines.folder / record.path
        size = path.stat().st_size if path.is_file() else None
        if size != record.bytes:
            return f"{record.path} has {size} bytes, expected {record.bytes}"
    return None


def _root(bundle: Bundle) -> Path:
    return bundle.folder / ENGINES_FOLDER


def _hint(bundle: Bundle | None = None) -> str:
    return f"build them with:  grip-edge build {'BUNDLE' if bundle is None else bundle.folder}"
