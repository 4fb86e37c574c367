"""What must not become an engine. References: TensorRT-RTX's own warnings on graphs that it builds all the same, and
the limits that it keeps to itself until an engine runs.
"""

from __future__ import annotations

import dataclasses
from pathlib import Path

import pytest
from onnx import TensorProto, helper

from grip_edge.bundle import open_bundle
from grip_edge.engine_shapes import Shapes, require_sound
from grip_edge.engines import ShapeRange
from grip_edge.errors import UserError
from grip_edge.export.targets.table import TARGETS
from grip_edge.export.tensorrt import build
from grip_edge.export.tensorrt.build import BuildOptions, _check_options, _require_memory
from grip_edge.export.tensorrt.build_log import BuildError, require_clean
from grip_edge.export.tensorrt.request import BuildRequest, GraphRequest
from tests.export.rtx import run_program
from tests.toy_model import VISUAL_TOKENS

RTX = TARGETS["rtx"]
HALF, WHOLE = TensorProto.FLOAT16, TensorProto.INT64
port = helper.make_tensor_value_info


def test_warnings_that_are_errors() -> None:
    log = type("Log", (), {"errors": [], "warnings": ["Unused Input: nonpad_kv_seqlen"]})()
    with pytest.raises(BuildError, match=r"decoder.onnx: the engine would not be the graph: Unused Input: nonpad"):
        require_clean("decoder.onnx", log)
    log.warnings = ["Profile kMAX values are not self-consistent"]
    with pytest.raises(BuildError, match="not self-consistent"):
        require_clean("decoder.onnx", log)
    log.warnings = ["something harmless"]
    require_clean("decoder.onnx", log)


def test_shapes_follow_budget_and_cache(toy_bundle: Path) -> None:
    manifest = open_bundle(toy_bundle).manifest
    shapes = Shapes.plan(manifest)
    assert shapes.cache_capacity == manifest.model.text.max_positions
    assert shapes.axes("select.onnx")[0]["K"] == (2, 5, VISUAL_TOKENS)
    prefill, decode = shapes.axes("decoder.onnx")
    assert decode == {"S": (1, 1, prefill["S"][2])}
    assert prefill["S"][0] <= prefill["S"][1] <= prefill["S"][2] <= shapes.cache_capacity
    with pytest.raises(UserError, match="this bundle serves"):
        Shapes.plan(manifest, None, "1")


def test_answers_that_the_model_has_no_positions_for(toy_bundle: Path) -> None:
    """A prompt takes up to 64 + 256 tokens of text and 16 of the image."""
    manifest = open_bundle(toy_bundle).manifest

    def plan(positions: int, new_tokens: int | None) -> Shapes:
        text = dataclasses.replace(manifest.model.text, max_positions=positions)
        model = dataclasses.replace(manifest.model, text=text)
        return Shapes.plan(dataclasses.replace(manifest, model=model), new_tokens)

    assert plan(400, 64).cache_capacity == plan(400, None).cache_capacity == 400
    assert plan(4096, None).cache_capacity == 336 + 256
    for refused in (0, 65, 100_000):
        with pytest.raises(UserError, match=f"--max-new-tokens goes from 1 to 64: .* 400 positions.*; got {refused}"):
            plan(400, refused)
    assert plan(128, None).cache_capacity == 128
    with pytest.raises(UserError, match="--max-new-tokens has to be left out: the model has 128 positions"):
        plan(128, 16)


def test_profiles_beyond_what_there_is() -> None:
    def budget(largest: int) -> tuple[ShapeRange, ...]:
        return (ShapeRange("select.onnx", 0, "budget", (1,), (1,), (largest,)),)

    require_sound(budget(576), 576, 3840)
    with pytest.raises(UserError, match="keeps up to 577 of 576 visual tokens"):
        require_sound(budget(577), 576, 3840)
    with pytest.raises(UserError, match="keeps up to 4000 tokens, and TensorRT's own top-k ends at 3840"):
        require_sound(budget(4000), 5000, 3840)
    require_sound(budget(4000), 5000, None)


@pytest.mark.parametrize(
    ("plugin", "expected"),
    [
        (None, "has 4000 visual tokens, TensorRT's top-k ends at 3840; use --plugin"),
        (Path("gone.so"), "There is no plugin library 'gone.so'"),
    ],
)
def test_more_tokens_than_tensorrt_selects(plugin: Path | None, expected: str, toy_bundle: Path) -> None:
    """Before anything is built. With the plugin that is no obstacle: only its library is missing here."""
    bundle = open_bundle(toy_bundle)
    many = dataclasses.replace(bundle.manifest.budget_range, visual_tokens=4000)
    bundle = dataclasses.replace(bundle, manifest=dataclasses.replace(bundle.manifest, budget_range=many))
    with pytest.raises(UserError, match=expected):
        _check_options(BuildOptions((86,), plugin=plugin), RTX, bundle)


def test_memory_is_checked_first(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    bundle = open_bundle(toy_bundle)
    monkeypatch.setattr(build, "_available_bytes", lambda: 500_000_000)
    with pytest.raises(UserError, match=r"needs about 0\.7 GB of memory, 0\.5 GB are available; .*--skip-memory-check"):
        _require_memory(bundle, BuildOptions((86,)))
    _require_memory(bundle, BuildOptions((86,), check_memory=False))
    monkeypatch.setattr(build, "_available_bytes", lambda: None)
    _require_memory(bundle, BuildOptions((86,)))


BUILD = """
import sys
from pathlib import Path
from grip_edge.export.targets.table import TARGETS
from grip_edge.export.tensorrt.build_log import BuildError
from grip_edge.export.tensorrt.engine import build_engine
from grip_edge.export.tensorrt.package import load_package
from grip_edge.export.tensorrt.request import BuildRequest
request = BuildRequest.from_json(Path(sys.argv[1]).read_text())
try:
    build_engine(load_package(TARGETS["rtx"]), request, request.graphs[0], lambda phase, share: True)
except BuildError as error:
    print(error)
"""


def dropped_input() -> tuple[bytes, GraphRequest]:
    """Attention whose lengths TensorRT leaves out."""
    inputs = [port(name, HALF, [1, 4, "S", 64]) for name in "qkv"]
    node = helper.make_node("Attention", ["q", "k", "v", "", "", "", "lengths"], ["y"])
    graph = helper.make_graph([node], "g", [*inputs, port("lengths", WHOLE, [1])], [port("y", HALF, [1, 4, "S", 64])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 24)], ir_version=11)
    return model.SerializeToString(), GraphRequest("vision.onnx", ({"S": (1, 8, 16)},))


def endless_budget() -> tuple[bytes, GraphRequest]:
    """A profile of which TensorRT's top-k holds the smaller part."""
    inputs = [port("scores", HALF, [1, 5000]), port("budget", WHOLE, [1])]
    node = helper.make_node("TopK", ["scores", "budget"], ["best", "indices"])
    graph = helper.make_graph([node], "g", inputs, [port("best", HALF, [1, "K"])])
    model = helper.make_model(graph, opset_imports=[helper.make_opsetid("", 20)], ir_version=10)
    return model.SerializeToString(), GraphRequest("select.onnx", ({"K": (1, 8, 4096)},))


@pytest.mark.parametrize(
    ("made", "reason"),
    [(dropped_input(), "Unused Input: lengths"), (endless_budget(), "not self-consistent")],
    ids=["dropped input", "endless budget"],
)
def test_what_tensorrt_builds_with_a_warning(made: tuple[bytes, GraphRequest], reason: str, tmp_path: Path) -> None:
    model, graph = made
    (tmp_path / graph.file).write_bytes(model)
    request = BuildRequest("rtx", str(tmp_path), str(tmp_path), (graph,), 64, (86,), None)
    (tmp_path / "request.json").write_text(request.to_json())
    done = run_program(BUILD, str(tmp_path / "request.json"))
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{graph.file}: the engine would not be the graph: ")
    assert reason in done.stdout
    assert not list(tmp_path.glob("*.engine"))
