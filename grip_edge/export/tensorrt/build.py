"""``build_engines``: a bundle's graphs become engines under ``engines/<device key>/``, all of them or none.

Checked first: that the target has engines, that its package is installed, that the profiles hold, that memory suffices.
Written to a temporary sibling and renamed.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from grip_edge.bundle import GRAPH_NAMES, Bundle, record_file
from grip_edge.engine_shapes import Shapes, require_sound
from grip_edge.engines import (
    ENGINES_FOLDER,
    ENGINES_NAME,
    SCHEMA_VERSION,
    EngineManifest,
    Engines,
    ShapeRange,
    device_key,
    read_engines,
    source_hashes,
)
from grip_edge.errors import UserError
from grip_edge.export.targets.table import TENSORRT, TENSORRT_RTX, Target, find_target
from grip_edge.export.tensorrt.build_log import BuildError
from grip_edge.export.tensorrt.package import load_package
from grip_edge.export.tensorrt.plugin_library import library_environment
from grip_edge.export.tensorrt.request import BuildRequest, GraphRequest, Told
from grip_edge.export.tensorrt.source import selects_in_one_node
from grip_edge.plugin import interface
from grip_edge.plugin.loading import is_cpp_plugin

# Compute capabilities that TensorRT-RTX 1.7 builds for.
RTX_CAPABILITIES = (75, 80, 86, 89, 120, 121)

# Building was seen to take three times the weights, and what the library itself takes.
_MEMORY_PER_WEIGHT = 3
_LIBRARY_BYTES = 700_000_000

# TensorRT looks for a stop between its steps, the longest of which were seen to take some seconds.
_PATIENCE_S = 60

Report = Callable[[str, str, float], None]
"""Gets the graph, TensorRT's phase and the share of it that is done."""


@dataclass(frozen=True)
class BuildOptions:
    """``expected_budget`` is what engines are tuned for (None: the middle of the bundle's range); ``plugin`` the
    library that selects tokens (None: TensorRT's own layers do).
    """

    compute_capabilities: tuple[int, ...]
    expected_budget: str | None = None
    max_new_tokens: int | None = None
    workspace_bytes: int | None = None
    plugin: Path | None = None
    check_memory: bool = True


def build_engines(bundle: Bundle, options: BuildOptions, report: Report = lambda graph, phase, share: None) -> Engines:
    target = find_target(bundle.manifest.target)
    package = load_package(target)
    _check_options(options, target, bundle)
    shapes = Shapes.plan(bundle.manifest, options.max_new_tokens, options.expected_budget)
    _require_memory(bundle, options)
    root = bundle.folder / ENGINES_FOLDER
    folder = root / device_key(package.name, package.version, options.compute_capabilities)
    partial = folder.with_name(f".{folder.name}.partial")
    shutil.rmtree(partial, ignore_errors=True)
    try:
        partial.mkdir(parents=True)
    except OSError as error:
        raise UserError(f"Cannot write to '{root}' ({error.strerror}); make the bundle's folder writable.") from None
    try:
        request = _request(bundle, options, target, shapes, partial, folder.with_name(f"{folder.name}.timings"))
        told = _run_worker(request, target, report)
        manifest = _manifest(bundle, options, target, shapes, partial, told)
        require_sound(manifest.profiles, shapes.budgets.visual_tokens, _top_k_limit(options, target))
        (partial / ENGINES_NAME).write_text(manifest.to_json(), encoding="utf-8")
        shutil.rmtree(folder, ignore_errors=True)
        partial.rename(folder)
    except BaseException:
        shutil.rmtree(partial, ignore_errors=True)
        raise
    return read_engines(folder)


def _check_options(options: BuildOptions, target: Target, bundle: Bundle) -> None:
    unknown = set(options.compute_capabilities) - set(RTX_CAPABILITIES)
    if target.engine == TENSORRT_RTX and unknown:
        listed = ", ".join(f"sm{capability}" for capability in RTX_CAPABILITIES)
        raise UserError(f"TensorRT-RTX builds for {listed}; got sm{min(unknown)}.")
    if options.plugin is not None:
        if not options.plugin.is_file():
            raise UserError(f"There is no plugin library '{options.plugin}'; build it with CMake (docs/gpu.md).")
        is_cpp_plugin(options.plugin)
        if not selects_in_one_node(bundle.path("select.onnx")):
            raise UserError("This bundle's select.onnx leaves nothing to the plugin; build without --plugin.")
    elif (limit := _top_k_limit(options, target)) and bundle.manifest.budget_range.visual_tokens > limit:
        visual_tokens = bundle.manifest.budget_range.visual_tokens
        raise UserError(
            f"This model has {visual_tokens} visual tokens, TensorRT's top-k ends at {limit}; use --plugin."
        )


def _top_k_limit(options: BuildOptions, target: Target) -> int | None:
    return None if options.plugin is not None else target.top_k_limit


def _require_memory(bundle: Bundle, options: BuildOptions) -> None:
    """By the largest graph, since one is built at a time."""
    sizes = (
        sum(record.bytes for record in bundle.manifest.files if record.path.startswith(graph)) for graph in GRAPH_NAMES
    )
    needed = _LIBRARY_BYTES + _MEMORY_PER_WEIGHT * max(sizes)
    available = _available_bytes()
    if options.check_memory and available is not None and needed > available:
        raise UserError(
            f"Building needs about {needed / 1e9:.1f} GB of memory, {available / 1e9:.1f} GB are available; free some, "
            "or go on with --skip-memory-check."
        )


def _available_bytes() -> int | None:
    try:
        lines = Path("/proc/meminfo").read_text(encoding="ascii").splitlines()
    except OSError:
        return None
    found = [int(line.split()[1]) * 1024 for line in lines if line.startswith("MemAvailable:")]
    return found[0] if found else None


def _request(
    bundle: Bundle, options: BuildOptions, target: Target, shapes: Shapes, out: Path, timings: Path
) -> BuildRequest:
    return BuildRequest(
        target=target.name,
        bundle=str(bundle.folder),
        out=str(out),
        graphs=tuple(GraphRequest(graph, shapes.axes(graph)) for graph in GRAPH_NAMES),
        cache_capacity=shapes.cache_capacity,
        compute_capabilities=options.compute_capabilities,
        workspace_bytes=options.workspace_bytes,
        plugin=None if options.plugin is None else str(options.plugin.resolve()),
        timing_cache=str(timings) if target.engine == TENSORRT else None,
    )


def _run_worker(request: BuildRequest, target: Target, report: Report) -> list[Told]:
    """What was told of each finished graph."""
    finished: list[Told] = []
    last = ""
    with tempfile.TemporaryDirectory() as scratch, library_environment(target, request.plugin is not None) as variables:
        path = Path(scratch) / "request.json"
        path.write_text(request.to_json(), encoding="utf-8")
        command = [sys.executable, "-m", "grip_edge.export.tensorrt.worker", str(path)]
        with subprocess.Popen(command, stdout=subprocess.PIPE, env=variables, text=True) as process:
            assert process.stdout is not None
            try:
                for line in process.stdout:
                    told = Told.from_json(line)
                    if told.error is not None:
                        raise BuildError(told.error)
                    last = told.graph
                    report(told.graph, told.phase, told.share)
                    if told.package_version:
                        finished.append(told)
            except BaseException:
                _end(process)
                raise
        if process.returncode:
            raise BuildError(f"{last}: the building process ended with code {process.returncode}")
    return finished


def _end(process: subprocess.Popen[str]) -> None:
    """Asks for the end and waits for it: until then the worker may write."""
    process.terminate()
    try:
        process.communicate(timeout=_PATIENCE_S)
    except (subprocess.TimeoutExpired, KeyboardInterrupt):
        process.kill()


def _manifest(
    bundle: Bundle, options: BuildOptions, target: Target, shapes: Shapes, folder: Path, told: list[Told]
) -> EngineManifest:
    package = load_package(target)
    ranges: tuple[ShapeRange, ...] = tuple(found for one in told for found in one.ranges)
    return EngineManifest(
        schema_version=SCHEMA_VERSION,
        package=package.name,
        package_version=package.version,
        compute_capabilities=options.compute_capabilities,
        target=target.name,
        precision=bundle.manifest.precision,
        plugin_version=None if options.plugin is None else interface.VERSION,
        plugin_embedded=options.plugin is not None and target.engine == TENSORRT_RTX and is_cpp_plugin(options.plugin),
        cache_capacity=shapes.cache_capacity,
        cache_in_place=target.cache_in_place,
        profiles=ranges,
        sources=source_hashes(bundle),
        engines=tuple(record_file(folder, path) for path in sorted(folder.glob("*.engine"))),
        warnings=tuple(f"{one.graph}: {line}" for one in told for line in one.warnings),
    )
