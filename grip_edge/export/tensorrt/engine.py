"""One graph to one engine: parse, profiles, build, gates.

Strongly typed: the float types are those of the graph. A parse error, an input that TensorRT drops and a profile that
does not hold are errors, not warnings.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

from grip_edge.engines import ShapeRange, engine_name
from grip_edge.export.targets.table import TENSORRT_RTX
from grip_edge.export.tensorrt.build_log import BuildError, first_error, make_log, require_clean
from grip_edge.export.tensorrt.package import Package
from grip_edge.export.tensorrt.request import Axes, BuildRequest, GraphRequest
from grip_edge.export.tensorrt.source import read_graph, selects_in_one_node
from grip_edge.export.tensorrt.timing_cache import keep_timing_cache, use_timing_cache
from grip_edge.plugin.loading import is_cpp_plugin

_BUDGET = "budget"

# Gets the phase and how much of it is done; says whether to go on.
Step = Callable[[str, float], bool]


class CancelledError(BuildError):
    """The build was stopped on purpose."""


def build_engine(
    package: Package, request: BuildRequest, graph: GraphRequest, step: Step
) -> tuple[tuple[ShapeRange, ...], tuple[str, ...]]:
    """Writes the engine to ``request.out``; the ranges that it holds for, and TensorRT's warnings."""
    trt, log = package.trt, make_log(package.trt)
    builder = trt.Builder(log)
    network = builder.create_network(1 << int(trt.NetworkDefinitionCreationFlag.STRONGLY_TYPED))
    _parse(trt, network, log, request, graph)
    config = builder.create_builder_config()
    config.progress_monitor = _make_monitor(trt, step)
    _set_device(trt, config, package, request)
    ranges = tuple(
        found
        for index, axes in enumerate(graph.axes)
        for found in _add_profile(builder, config, network, graph.file, index, axes)
    )
    _write_engine(builder, network, config, log, request, graph, step)
    return ranges, tuple(log.warnings)


def _parse(trt: Any, network: Any, log: Any, request: BuildRequest, graph: GraphRequest) -> None:
    path = Path(request.bundle) / graph.file
    parser = trt.OnnxParser(network, log)
    if not parser.parse(read_graph(path, request.cache_capacity, _takes_plugin(request, path)), str(path)):
        reasons = "; ".join(" ".join(parser.get_error(i).desc().split()) for i in range(parser.num_errors))
        raise BuildError(f"{graph.file} does not parse: {reasons or first_error(log)}")
    require_clean(graph.file, log)


def _takes_plugin(request: BuildRequest, path: Path) -> bool:
    return request.plugin is not None and selects_in_one_node(path)


def _write_engine(
    builder: Any, network: Any, config: Any, log: Any, request: BuildRequest, graph: GraphRequest, step: Step
) -> None:
    plugin = request.plugin
    if plugin is not None and _takes_plugin(request, Path(request.bundle) / graph.file) and is_cpp_plugin(Path(plugin)):
        config.plugins_to_serialize = [plugin]
    timings = None if request.timing_cache is None else Path(request.timing_cache)
    if timings is not None:
        use_timing_cache(config, timings)
    engine = builder.build_serialized_network(network, config)
    require_clean(graph.file, log)
    if engine is None or not step("", 1.0):
        raise _failure(step, graph.file, log, request)
    if timings is not None:
        keep_timing_cache(config, timings)
    (Path(request.out) / engine_name(graph.file)).write_bytes(memoryview(engine))


def _failure(step: Step, file: str, log: Any, request: BuildRequest) -> BuildError:
    if not step("", 1.0):
        return CancelledError(f"{file}: the build was stopped")
    reason = first_error(log)
    if request.workspace_bytes is not None and "workspace" in reason:
        return BuildError(
            f"{file}: TensorRT finds no kernels that do with so little scratch memory; raise --workspace."
        )
    return BuildError(f"{file}: TensorRT builds no engine: {reason}")


def _set_device(trt: Any, config: Any, package: Package, request: BuildRequest) -> None:
    if request.workspace_bytes is not None:
        config.set_memory_pool_limit(trt.MemoryPoolType.WORKSPACE, request.workspace_bytes)
    if package.engine == TENSORRT_RTX and request.compute_capabilities:
        config.num_compute_capabilities = len(request.compute_capabilities)
        for index, capability in enumerate(request.compute_capabilities):
            config.set_compute_capability(getattr(trt.ComputeCapability, f"SM{capability}"), index)


def _add_profile(builder: Any, config: Any, network: Any, file: str, index: int, axes: Axes) -> tuple[ShapeRange, ...]:
    profile = builder.create_optimization_profile()
    found = []
    for position in range(network.num_inputs):
        tensor = network.get_input(position)
        if tensor.name == _BUDGET:
            ranges: tuple[tuple[int, ...], ...] = tuple((value,) for value in axes["K"])
            if not tensor.is_shape_tensor:
                raise BuildError(f"{file}: the budget is not a shape input; TensorRT would wait for the device")
            profile.set_shape_input(tensor.name, *ranges)
        elif -1 in tuple(tensor.shape):
            ranges = tuple(_shape(tensor, axes, which) for which in range(3))
            profile.set_shape(tensor.name, *ranges)
        else:
            continue
        found.append(ShapeRange(file, index, tensor.name, *ranges))
    if found:
        config.add_optimization_profile(profile)
    return tuple(found)


def _shape(tensor: Any, axes: Axes, which: int) -> tuple[int, ...]:
    sizes = []
    for axis, size in enumerate(tuple(tensor.shape)):
        name = tensor.get_dimension_name(axis)
        if size == -1 and name not in axes:
            raise BuildError(
                f"input '{tensor.name}' has an axis '{name}' of unknown length; expected one of {list(axes)}"
            )
        sizes.append(axes[name][which] if size == -1 else size)
    return tuple(sizes)


def _make_monitor(trt: Any, step: Step) -> Any:
    """Nested phases: the share is that of the innermost."""

    class Monitor(trt.IProgressMonitor):  # type: ignore[misc]
        def __init__(self) -> None:
            super().__init__()
            self._steps: dict[str, int] = {}

        def phase_start(self, phase_name: str, parent_phase: str | None, num_steps: int) -> None:
            self._steps[phase_name] = max(1, num_steps)

        def step_complete(self, phase_name: str, done: int) -> bool:
            return step(phase_name, (done + 1) / self._steps.get(phase_name, 1))

        def phase_finish(self, phase_name: str) -> None:
            self._steps.pop(phase_name, None)

    return Monitor()
