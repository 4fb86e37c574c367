"""Reference: TensorRT-RTX itself, which parses and builds every graph here without a GPU. No engine is run."""

from __future__ import annotations

import dataclasses
import json
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import pytest
from click.testing import CliRunner

from grip_edge.bundle import MANIFEST_NAME, TOKENIZER_NAME, Bundle, open_bundle, record_file
from grip_edge.cli.main import cli
from grip_edge.engines import read_engines
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.fill import write_weights
from grip_edge.export.journal import Journal
from grip_edge.export.layout import lay_out, save_graph
from grip_edge.export.selector import Selector
from grip_edge.export.targets.table import TARGETS
from grip_edge.export.tensorrt.devices import resolve_device
from grip_edge.export.tensorrt.timing_cache import keep_timing_cache, use_timing_cache
from tests.export.lowered import GRAPHS, lowered, traced_graphs
from tests.export.rtx import grip_edge, run_program
from tests.toy_model import VISUAL_TOKENS

RTX = TARGETS["rtx"]
KEY = "tensorrt_rtx-1.7.1.116-sm86"


@pytest.fixture(scope="module")
def traced(checkpoint: Checkpoint, selector: Selector) -> dict[str, ir.Model]:
    return traced_graphs(checkpoint, selector)


def rtx_bundle(toy_bundle: Path, models: dict[str, ir.Model], folder: Path, precision: str) -> Bundle:
    """A bundle of the lowered graphs, as an export for rtx writes it."""
    folder.mkdir()
    files = []
    for file_name, model in models.items():
        layout = lay_out(model, file_name)
        save_graph(layout, folder)
        files += [
            record_file(folder, folder / file_name),
            write_weights(layout, folder, Journal(folder), lambda _: None),
        ]
    (folder / TOKENIZER_NAME).write_bytes((toy_bundle / TOKENIZER_NAME).read_bytes())
    files.append(record_file(folder, folder / TOKENIZER_NAME))
    manifest = dataclasses.replace(
        open_bundle(toy_bundle).manifest, target="rtx", precision=precision, files=tuple(files)
    )
    (folder / MANIFEST_NAME).write_text(manifest.to_json())
    return open_bundle(folder)


@pytest.mark.parametrize("precision", ["fp16", "int8-weight", "int4"])
def test_build_makes_engines_of_all_graphs(
    precision: str, toy_bundle: Path, traced: dict[str, ir.Model], tmp_path: Path
) -> None:
    models = {name: lowered(traced[name], name, RTX, precision) for name in GRAPHS}
    bundle = rtx_bundle(toy_bundle, models, tmp_path / "bundle", precision)
    done = grip_edge("build", str(bundle.folder), "--device", "sm86", "--expected-budget", "4")
    assert done.returncode == 0, done.stderr
    engines = read_engines(bundle.folder / "engines" / KEY)
    manifest = engines.manifest
    assert [record.path for record in manifest.engines] == [
        "decoder.engine", "embed.engine", "select.engine", "vision.engine",
    ]  # fmt: skip
    assert (manifest.package, manifest.compute_capabilities, manifest.plugin_version) == ("tensorrt_rtx", (86,), None)
    assert (manifest.package_version, manifest.target, manifest.precision) == ("1.7.1.116", "rtx", precision)
    assert manifest.sources == {file.path: file.sha256 for file in bundle.manifest.files if ".onnx" in file.path}
    assert all(record.bytes == (engines.folder / record.path).stat().st_size for record in manifest.engines)
    assert manifest.cache_in_place
    assert manifest.warnings == ()
    (budget,) = (found for found in manifest.profiles if found.input == "budget")
    assert (budget.smallest, budget.likeliest, budget.largest) == ((2,), (4,), (VISUAL_TOKENS,))
    prefill, decode = (
        found for found in manifest.profiles if (found.engine, found.input) == ("decoder.onnx", "embeds")
    )
    assert prefill.likeliest[1] > decode.likeliest[1] == 1
    assert not list(engines.folder.parent.glob(".*"))


STOPPED_PROGRAM = """
import sys
from grip_edge.bundle import open_bundle
from grip_edge.export.tensorrt.build import BuildOptions, build_engines
def stop(graph, phase, share):
    print(graph, phase)
    raise KeyboardInterrupt
try:
    build_engines(open_bundle(sys.argv[1]), BuildOptions((86,)), stop)
except KeyboardInterrupt:
    print("stopped")
"""


def test_a_build_that_is_stopped_leaves_nothing(toy_bundle: Path, traced: dict[str, ir.Model], tmp_path: Path) -> None:
    models = {name: lowered(traced[name], name, RTX, "fp16") for name in GRAPHS}
    bundle = rtx_bundle(toy_bundle, models, tmp_path / "bundle", "fp16")
    done = run_program(STOPPED_PROGRAM, str(bundle.folder))
    assert (done.returncode, done.stderr) == (0, "")
    assert done.stdout.splitlines() == ["vision.onnx Parsing", "stopped"]
    assert list((bundle.folder / "engines").iterdir()) == []


PLUGIN_PROGRAM = """
import os, sys
from pathlib import Path
from grip_edge.export.targets.table import TARGETS
from grip_edge.export.tensorrt.package import load_package
from grip_edge.export.tensorrt.plugin_library import library_environment
from grip_edge.export.tensorrt.source import read_graph
from grip_edge.plugin.twin import register
target = TARGETS["rtx"]
if "AGAIN" not in os.environ:
    import subprocess
    with library_environment(target, True) as variables:
        sys.exit(subprocess.call([sys.executable, *sys.orig_argv[1:]], env={**variables, "AGAIN": "1"}))
trt = load_package(target).trt
creator = register(trt)
log = trt.Logger(trt.Logger.WARNING)
builder = trt.Builder(log)
network = builder.create_network(0)
parser = trt.OnnxParser(network, log)
path = Path(sys.argv[1])
assert parser.parse(read_graph(path, 8, with_plugin=True), str(path)), parser.get_error(0).desc()
kinds = [network.get_layer(index).type.name for index in range(network.num_layers)]
assert "PLUGIN_V3" in kinds, kinds
assert "TOPK" not in kinds, kinds
profile = builder.create_optimization_profile()
profile.set_shape("question_embeds", (1, 1, 48), (1, 8, 48), (1, 32, 48))
profile.set_shape_input("budget", (1,), (4,), (16,))
config = builder.create_builder_config()
config.add_optimization_profile(profile)
assert builder.build_serialized_network(network, config) is not None
print("built with the plugin")
"""


def test_the_plugin_takes_the_place_of_the_function(
    toy_bundle: Path, traced: dict[str, ir.Model], tmp_path: Path
) -> None:
    models = {name: lowered(traced[name], name, RTX, "fp16") for name in GRAPHS}
    bundle = rtx_bundle(toy_bundle, models, tmp_path / "bundle", "fp16")
    done = run_program(PLUGIN_PROGRAM, str(bundle.path("select.onnx")))
    assert done.returncode == 0, done.stderr
    assert "built with the plugin" in done.stdout


def test_timings_are_kept_for_the_next_build(tmp_path: Path) -> None:
    """The calls are those of TensorRT's bindings; a cache of another device is refused by them, and replaced."""

    class Config:
        def __init__(self, device: bytes) -> None:
            self.device, self.cache = device, b""

        def create_timing_cache(self, data: bytes) -> bytes:
            return data

        def set_timing_cache(self, cache: bytes, ignore_mismatch: bool) -> bool:
            fits = cache in (b"", self.device) or ignore_mismatch
            self.cache = cache if fits else self.cache
            return fits

        def get_timing_cache(self) -> Any:
            return SimpleNamespace(serialize=lambda: self.device)

    path = tmp_path / "engines.timings"
    use_timing_cache(first := Config(b"orin"), path)
    assert first.cache == b""
    keep_timing_cache(first, path)
    use_timing_cache(again := Config(b"orin"), path)
    assert again.cache == b"orin"
    use_timing_cache(other := Config(b"thor"), path)
    assert other.cache == b""
    keep_timing_cache(other, path)
    assert path.read_bytes() == b"thor"


def test_devices() -> None:
    assert resolve_device("sm120,sm86", RTX) == (86, 120)
    with pytest.raises(UserError, match=r"compute capabilities such as sm86; got 'fast'"):
        resolve_device("fast", RTX)


@pytest.mark.parametrize(
    ("changes", "options", "expected"),
    [
        ({"target": "cpu"}, [], "A bundle for cpu runs without engines; they are built for: rtx, tensorrt-11"),
        ({}, ["--target", "tensorrt-11"], "--target is tensorrt-11, the bundle was exported for rtx"),
        ({}, ["--workspace", "0"], "--workspace is at least 1 MiB; got 0"),
    ],
)
def test_wrong_requests_are_one_line(
    changes: dict[str, str], options: list[str], expected: str, toy_bundle: Path, tmp_path: Path
) -> None:
    import shutil

    shutil.copytree(toy_bundle, tmp_path / "bundle")
    path = tmp_path / "bundle" / MANIFEST_NAME
    path.write_text(json.dumps(json.loads(path.read_text()) | {"target": "rtx"} | changes))
    result = CliRunner().invoke(cli, ["build", str(tmp_path / "bundle"), "--device", "sm86", *options])
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert expected in line
    assert not (tmp_path / "bundle" / "engines").exists()
