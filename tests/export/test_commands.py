"""Reference: the commands' contract in their help, and the exit codes of ``grip_edge.errors``."""

from __future__ import annotations

import json
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result

from grip_edge import catalog
from grip_edge.bundle import RESUME_NAME, open_bundle, partial_folder
from grip_edge.cli.main import cli
from grip_edge.export import exporter
from grip_edge.export.exporter import ExportOptions, Progress
from grip_edge.export.precision import PrecisionOptions


def run(*arguments: Any) -> Result:
    return CliRunner().invoke(cli, [str(argument) for argument in arguments])


@pytest.fixture
def requested(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> list[ExportOptions]:
    """What the command asks of the exporter, which answers with the toy's bundle."""
    requests: list[ExportOptions] = []

    def answer(options: ExportOptions, report: Any) -> Any:
        report(Progress("Working", 0.5, 3, 4, 1, 2))
        requests.append(options)
        return open_bundle(toy_bundle)

    monkeypatch.setattr(exporter, "export_bundle", answer)
    return requests


def test_export_passes_every_option_on_and_summarises(requested: list[ExportOptions], toy_bundle: Path) -> None:
    result = run("export", "--model", "m", "--budget-range", "0.1,0.5")
    assert result.exit_code == 0, result.output
    assert requested.pop() == ExportOptions("m", "0.1,0.5", None, Path("grip-bundle"))
    for text in ("decoder.onnx.data", "total", "Against transformers", "16 of 16", "2 to 8 tokens"):
        assert text in result.stdout
    assert f"grip-edge infer IMAGE QUESTION --budget 8 --bundle {toy_bundle}\n" in result.stdout

    run("export", "--model", "m", "--budget-range", "1,2", "--scorer", "s", "--out", "o", "--target", "cpu",
        "--precision", "int4", "--lm-head-precision", "int8", "--embedding-precision", "fp16", "--int4-block", "128",
        "--int4-asymmetric", "--cache-precision", "fp32", "--force")  # fmt: skip
    formats = PrecisionOptions("int4", "int8", "fp16", 128, False, "fp32")
    assert requested.pop() == ExportOptions("m", "1,2", Path("s"), Path("o"), precision=formats, force=True)


def test_wrong_options_are_one_line_with_exit_code_2(requested: list[ExportOptions]) -> None:
    result = run("export", "--model", "m", "--budget-range", "0.1,0.5", "--target", "tpu")
    assert result.exit_code == 2
    (line,) = result.stderr.splitlines()
    assert line.startswith("grip-edge: error: --target tpu does not exist; choose from: cpu, cuda, openvino, rtx,")
    assert run("export", "--model", "m").exit_code == 2
    assert requested == []


def test_a_missing_extra_names_the_pip_command(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delitem(sys.modules, "grip_edge.export.exporter")
    monkeypatch.setitem(sys.modules, "grip_edge.export.checkpoint", None)
    with pytest.raises(ModuleNotFoundError):  # our own module missing is no missing extra
        CliRunner().invoke(cli, ["export", "--model", "m", "--budget-range", "1,2"], catch_exceptions=False)
    monkeypatch.delitem(sys.modules, "grip_edge.export.checkpoint")
    monkeypatch.delitem(sys.modules, "grip_edge.export.architecture")
    monkeypatch.setitem(sys.modules, "transformers", None)
    result = run("export", "--model", "m", "--budget-range", "1,2")
    assert result.exit_code == 2
    assert "'transformers'" in result.stderr
    assert "pip install 'grip-edge[export]'" in result.stderr


@pytest.mark.skipif(sys.platform == "win32", reason="sends SIGINT")
def test_ctrl_c_before_the_first_weight_leaves_nothing(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path) -> None:
    """The real command, interrupted while it traces."""
    out = tmp_path / "bundle"
    arguments = ["export", "--model", toy_checkpoint, "--budget-range", "0.1,0.5", "--scorer", toy_scorer, "--out", out]
    command = [sys.executable, "-m", "grip_edge.cli.main", *map(str, arguments)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True) as process:
        while not list(tmp_path.glob(".bundle.partial")):
            assert process.poll() is None, process.communicate()
            time.sleep(0.01)
        process.send_signal(signal.SIGINT)
        stdout, stderr = process.communicate()
    assert process.returncode == 130
    assert stdout == ""
    assert "Traceback" not in stderr
    assert list(tmp_path.iterdir()) == []


def test_ctrl_c_while_weights_are_written_says_how_to_go_on(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    partial = partial_folder(tmp_path / "b")

    def interrupted(options: ExportOptions, report: Any) -> None:
        report(Progress("Writing decoder.onnx", 0.5, 3_000_000_000, 4_000_000_000, 1, 2))
        partial.mkdir()
        (partial / RESUME_NAME).write_text("")
        raise KeyboardInterrupt

    monkeypatch.setattr(exporter, "export_bundle", interrupted)
    result = run("export", "--model", "m", "--budget-range", "0.1,0.5", "--out", tmp_path / "b")
    assert result.exit_code == 130
    assert f"Finished weights are kept in '{partial}'; the same command goes on.\n" in result.stderr
    assert result.stderr.endswith("grip-edge: interrupted\n")


@pytest.fixture
def embedded(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The toy as the only model of the catalog, with a scorer whose card tells its accuracy."""
    folder = shutil.copytree(toy_checkpoint, tmp_path / "embedded")
    shutil.copytree(toy_scorer, folder / "scorer")
    monkeypatch.setitem(catalog.EMBEDDED, "llava-tiny", folder)
    return folder


def test_models_shows_what_the_scorer_scored(embedded: Path) -> None:
    path = embedded / "scorer" / "scorer.json"
    card = json.loads(path.read_text())
    rows = [("unpruned", "1.0", "all", 0.93), ("random", "0.1", "all", 0.41), ("uniform", "0.1", "all", 0.55),
            ("random", "0.1", "text", 0.22)]  # fmt: skip
    names = ("policy", "budget", "skill", "accuracy")
    card["training"]["accuracy"] = [dict(zip(names, row, strict=True)) for row in rows]
    path.write_text(json.dumps(card))
    result = CliRunner().invoke(cli, ["models"], env={"COLUMNS": "300"})
    assert result.exit_code == 0, result.output
    for text in ("llava-tiny", "16", "0.1 M", "yes", "1.0: 93.0 %, 0.1: 41.0 %", "--model FOLDER"):
        assert text in result.stdout
    assert "55.0" not in result.stdout


def test_models_shows_which_policies_fit_which_model(embedded: Path, toy_checkpoint: Path, tmp_path: Path) -> None:
    """A toy with CLIP, and one whose tower has no CLS token; two decoder layers are too few for FastV."""
    other = shutil.copytree(toy_checkpoint, tmp_path / "siglip")
    config = json.loads((other / "config.json").read_text())
    config["vision_config"]["model_type"] = "siglip_vision_model"
    (other / "config.json").write_text(json.dumps(config))
    result = CliRunner().invoke(cli, ["models", str(other)], env={"COLUMNS": "1000"})
    assert result.exit_code == 0, result.output
    rows = {row.split("│")[1].strip(): row.split("│")[2:] for row in result.stdout.splitlines() if row.startswith("│")}
    assert rows["divprune"][-2].strip() == "--policy"
    assert rows["random"][-2].strip() == "only evaluated"
    for name in ("llava-tiny", str(other), "llava-1.5-*"):
        fitting, refused = rows[name][:2]
        assert "divprune" in fitting
        assert "grip (to be trained)" in fitting
        assert ("fastv: 2 decoder layers, needs 3" in refused) == (name != "llava-1.5-*")
        assert ("cls, visionzip: its vision tower has no CLS attention" in refused) == (name == str(other))
    tiled = "it cuts images into tiles"
    assert rows["llava-1.6-*"][0].strip() == "uniform, cls, divprune, cdpruner, cen-cdpruner"
    assert f"visionzip, eadp: chooses within one view, {tiled}" in rows["llava-1.6-*"][1]
    assert f"random, fastv, pyramiddrop: evaluated on one view only, {tiled}" in rows["llava-1.6-*"][1]
    assert f"grip, tprl: scorers are made for one view, {tiled}" in rows["llava-1.6-*"][1]
    assert rows["llava-onevision-*"][0].strip() == "uniform, divprune, cdpruner, cen-cdpruner"
    assert rows["llava-1.6-mistral-7b"][0].strip() == "up to 2928"
    assert rows["llava-onevision-0.5b"][1].strip() == "llava-hf/llava-onevision-qwen2-0.5b-ov-hf"


def test_models_downloads_nothing(embedded: Path) -> None:
    result = run("models", "llava-1.5-7b")
    assert result.exit_code == 2
    assert "There is no folder 'llava-1.5-7b'" in result.stderr
    assert "nothing is downloaded" in result.stderr


def test_policy_and_scorer_exclude_each_other(requested: list[ExportOptions]) -> None:
    arguments = ("export", "--model", "m", "--budget-range", "1,2")
    assert run(*arguments, "--policy", "divprune").exit_code == 0
    assert requested.pop() == ExportOptions("m", "1,2", None, Path("grip-bundle"), policy="divprune")
    for given, expected in (
        (("--policy", "divprune", "--scorer", "s"), "--policy and --scorer exclude each other"),
        (("--policy", "magic"), "--policy magic does not exist; choose from: uniform, cls, visionzip, divprune, "),
        (("--policy", "random"), "--policy random cannot be exported, it needs a new draw per question"),
        (("--policy", "fastv"), "--policy fastv cannot be exported, it needs attention maps of the language model"),
        (("--policy", "grip"), "--policy grip cannot be exported, it needs training"),
    ):
        result = run(*arguments, *given)
        assert result.exit_code == 2
        assert result.stderr.startswith(f"grip-edge: error: {expected}")
        assert result.stderr.count("\n") == 1
    assert requested == []


def test_models_without_a_scorer(embedded: Path) -> None:
    shutil.rmtree(embedded / "scorer")
    result = run("models")
    assert result.exit_code == 0
    assert "not recorded" in result.stdout


def test_names_and_folders_are_found(embedded: Path, toy_checkpoint: Path) -> None:
    assert catalog.find_model("llava-tiny") == embedded
    assert catalog.find_model(str(toy_checkpoint)) == toy_checkpoint
    assert catalog.trained_scorer(embedded) == embedded / "scorer"
    assert catalog.trained_scorer(toy_checkpoint) is None


def test_parameters_are_those_that_transformers_counts(toy_checkpoint: Path) -> None:
    from transformers import LlavaForConditionalGeneration

    from grip_edge.export.quiet import quiet_libraries

    with quiet_libraries():
        model = LlavaForConditionalGeneration.from_pretrained(toy_checkpoint)
    assert catalog.parameter_count(toy_checkpoint) == model.num_parameters()
