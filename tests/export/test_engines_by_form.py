"""Reference: TensorRT-RTX's own parser and builder, on a machine without a GPU. No engine is run.

Every graph of the embedded model and of LLaVA-1.5-7B's shape, in each precision, with TensorRT's own selection and with
the plugin; in the form of TensorRT 10.16 by version 1.4, whose parser is of that time; and in that of TensorRT 10.3.
"""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import onnx_ir as ir
import pytest

from grip_edge.budget import BudgetRange
from grip_edge.calibration.scorer import ScorerConfig
from grip_edge.calibration.scorer_files import load_scorer, save_random_scorer
from grip_edge.catalog import SCORER_FOLDER, find_model
from grip_edge.engine_shapes import Shapes
from grip_edge.engines import engine_name
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.fill import write_weights
from grip_edge.export.journal import Journal
from grip_edge.export.layout import lay_out, save_graph
from grip_edge.export.passes.drop_notes import DropNotes
from grip_edge.export.passes.plan import matrix_schemes
from grip_edge.export.precision import PrecisionOptions
from grip_edge.export.selector import ScorerSelector
from grip_edge.export.targets.formats import target_formats
from grip_edge.export.targets.lowering import LayerChoices, lower
from grip_edge.export.targets.table import TARGETS, Target
from grip_edge.export.tensorrt.request import GraphRequest
from tests.export.lowered import GRAPHS, traced_graphs
from tests.export.rtx import OLD_SITE, SITE, build_graphs, rtx_environment
from tests.export.seven_b import save_seven_b_shape

RTX = TARGETS["rtx"]
MODELS = ("llava-tiny", "llava-1.5-7b shape")
# What TensorRT adds to the weights: kernels, and copies that it should not make.
_LARGEST_RATIO, _KERNEL_BYTES = 1.1, 16_000_000


@dataclass(frozen=True)
class Traced:
    checkpoint: Checkpoint
    graphs: dict[str, ir.Model]

    @property
    def shapes(self) -> Shapes:
        tokens = self.checkpoint.spec.vision.visual_tokens
        budgets = BudgetRange.parse("0.1,0.5", tokens)
        return Shapes(budgets, budgets.max_tokens // 2, min(1152, self.checkpoint.text.max_positions))


@pytest.fixture(scope="module")
def traced(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[str], Traced]]:
    known: dict[str, Traced] = {}
    shape = tmp_path_factory.mktemp("shape")

    def get(model: str) -> Traced:
        if model not in known:
            if model == "llava-tiny":
                folder = find_model(model)
                scorer = folder / SCORER_FOLDER
            else:
                folder = save_seven_b_shape(shape / "seven-b")
                scorer = folder / SCORER_FOLDER
                save_random_scorer(scorer, ScorerConfig(1024, 4096, (24, 24)))
            checkpoint = open_checkpoint(folder)
            known[model] = Traced(checkpoint, traced_graphs(checkpoint, ScorerSelector(*load_scorer(scorer))))
        return known[model]

    yield get
    shutil.rmtree(shape)


def write(traced: Traced, file_name: str, folder: Path, target: Target, precision: str) -> GraphRequest:
    """The lowered graph with its weights; int8 with ranges as if every input went up to 6."""
    model = traced.graphs[file_name].clone()
    formats = target_formats(PrecisionOptions(precision), target, calibrated=True)
    schemes = matrix_schemes(model, file_name, formats) if file_name != "embed.onnx" else {}
    lower(model, file_name, target, formats, LayerChoices(largest_inputs=dict.fromkeys(schemes, 6.0)))
    DropNotes()(model)
    layout = lay_out(model, file_name)
    save_graph(layout, folder)
    write_weights(layout, folder, Journal(folder), lambda place: None)
    return GraphRequest(file_name, traced.shapes.axes(file_name))


def build(
    traced: Traced, folder: Path, target: Target, precision: str, graphs: tuple[str, ...] = GRAPHS, **how: bool | str
) -> list[str]:
    """The versions that built; engines hold the weights once, and nothing is warned of."""
    requests = tuple(write(traced, name, folder, target, precision) for name in graphs)
    told = build_graphs(folder, target, requests, traced.shapes.cache_capacity, **how)  # type: ignore[arg-type]
    assert [one["graph"] for one in told] == list(graphs)
    assert [one["warnings"] for one in told] == [[]] * len(graphs)
    for name in graphs:
        data = folder / f"{name}.data"
        weights = data.stat().st_size if data.exists() else 0
        engine = (folder / engine_name(name)).stat().st_size
        assert engine < _LARGEST_RATIO * weights + _KERNEL_BYTES, f"{name}: {engine} bytes from {weights} of weights"
    shutil.rmtree(folder)  # up to a gigabyte, which pytest would keep for three runs
    return [one["version"] for one in told]


@pytest.fixture
def rtx() -> None:
    with rtx_environment(SITE):
        pass


@pytest.fixture
def old_rtx() -> None:
    with rtx_environment(OLD_SITE):
        pass


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "int8", "int8-weight", "int4"])
@pytest.mark.parametrize("model", MODELS)
def test_every_graph_builds(model: str, precision: str, traced: Callable[[str], Traced], tmp_path: Path) -> None:
    versions = build(traced(model), tmp_path, RTX, precision)
    assert all(version.startswith("1.7.") for version in versions)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "int8", "int4"])
@pytest.mark.parametrize("model", MODELS)
def test_selection_builds_with_the_plugin(
    model: str, precision: str, traced: Callable[[str], Traced], tmp_path: Path
) -> None:
    build(traced(model), tmp_path, RTX, precision, ("select.onnx",), twin=True)


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["fp16", "int8"])
def test_the_form_of_tensorrt_10_3_builds(precision: str, traced: Callable[[str], Traced], tmp_path: Path) -> None:
    """Its own parser is older; this shows that the graphs are sound, not that it takes them."""
    build(traced("llava-tiny"), tmp_path, TARGETS["tensorrt-10.3"], precision)


@pytest.mark.usefixtures("old_rtx")
@pytest.mark.parametrize("model", MODELS)
def test_the_form_of_tensorrt_10_16_builds_with_the_parser_of_its_time(
    model: str, traced: Callable[[str], Traced], tmp_path: Path
) -> None:
    versions = build(traced(model), tmp_path, TARGETS["tensorrt-10.16"], "fp16", variable=OLD_SITE)
    assert all(version.startswith("1.4.") for version in versions)


@pytest.mark.usefixtures("old_rtx")
@pytest.mark.parametrize("precision", ["int8", "int8-weight", "int4"])
def test_quantised_graphs_parse_with_the_parser_of_10_16(
    precision: str, traced: Callable[[str], Traced], tmp_path: Path
) -> None:
    """Without a GPU version 1.4 builds nothing that holds a DequantizeLinear, be it one product."""
    found = traced("llava-tiny")
    requests = tuple(write(found, name, tmp_path, TARGETS["tensorrt-10.16"], precision) for name in GRAPHS)
    told = build_graphs(
        tmp_path, TARGETS["tensorrt-10.16"], requests, found.shapes.cache_capacity, parse_only=True, variable=OLD_SITE
    )
    assert [(one["graph"], one["warnings"]) for one in told] == [(name, []) for name in GRAPHS]


@pytest.mark.usefixtures("rtx")
@pytest.mark.parametrize("precision", ["int8", "int8-weight", "int4"])
def test_quantised_graphs_for_10_16_build_with_a_newer_parser(
    precision: str, traced: Callable[[str], Traced], tmp_path: Path
) -> None:
    build(traced("llava-tiny"), tmp_path, TARGETS["tensorrt-10.16"], precision)
