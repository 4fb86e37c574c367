"""Reference: the contract of ``export_bundle``: a complete bundle, or one clear error and nothing on disk."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from grip_edge.bundle import GRAPH_NAMES, MANIFEST_NAME, TOKENIZER_NAME, damage, open_bundle
from grip_edge.errors import BudgetError, ParityError, UserError
from grip_edge.export import exporter
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.exporter import ExportOptions, export_bundle
from grip_edge.export.graphs import Graph
from tests.toy_model import save_toy_checkpoint, save_toy_scorer

Options = Callable[..., ExportOptions]


@pytest.fixture
def options(toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path) -> Options:
    """The toy's export to an empty folder, with changes."""

    def make(**changes: Any) -> ExportOptions:
        base = ExportOptions(str(toy_checkpoint), "0.1,0.5", toy_scorer, tmp_path / "parent" / "bundle")
        return dataclasses.replace(base, **changes)

    return make


@pytest.fixture
def copied_graphs(toy_bundle: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Graphs come from the toy's bundle instead of being traced anew: the same bytes, sooner."""

    def copy(graph: Graph, checkpoint: Checkpoint, folder: Path) -> None:
        for name in (graph.file_name, f"{graph.file_name}.data"):
            shutil.copyfile(toy_bundle / name, folder / name)

    monkeypatch.setattr(exporter, "write_graph", copy)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*arguments: Any) -> None:
        raise AssertionError("work began before the checks were done")

    monkeypatch.setattr(exporter, "write_graph", work)


def left_on_disk(options: ExportOptions) -> list[str]:
    parent = options.out.parent
    return sorted(path.name for path in parent.iterdir()) if parent.exists() else []


def test_the_bundle_describes_itself(toy_bundle: Path, toy_checkpoint: Path) -> None:
    bundle = open_bundle(toy_bundle)
    manifest = bundle.manifest
    listed = {record.path for record in manifest.files}
    assert listed == {*GRAPH_NAMES, *(f"{name}.data" for name in GRAPH_NAMES), TOKENIZER_NAME}
    assert {path.name for path in toy_bundle.iterdir()} == listed | {MANIFEST_NAME}
    assert [problem for _, problem in damage(bundle) if problem] == []
    assert (toy_bundle / TOKENIZER_NAME).read_bytes() == (toy_checkpoint / TOKENIZER_NAME).read_bytes()
    assert (manifest.target, manifest.precision, manifest.positions) == ("cpu", "fp32", "reindexed")
    assert (manifest.budget_range.min_tokens, manifest.budget_range.max_tokens) == (2, 8)
    assert manifest.prompt.stop_token_ids == (2,)
    assert {"grip-edge", "torch", "transformers", "onnxruntime"} <= manifest.versions.keys()
    assert (manifest.scorer.name, manifest.scorer.training) == ("random", {"steps": 0})
    assert manifest.scorer.parameters > 1000


def test_a_sharded_untied_checkpoint_exports_without_a_word(
    options: Options, tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    """A full export, with its comparison; nothing is printed, and progress goes from 0 to 1."""
    folder = save_toy_checkpoint(tmp_path / "untied", seed=3, tied=False, shard_size="100KB")
    capfd.readouterr()
    steps: list[tuple[str, float]] = []
    bundle = export_bundle(options(model=str(folder)), lambda step, done: steps.append((step, done)))
    assert tuple(capfd.readouterr()) == ("", "")
    assert len(bundle.manifest.parity) == 3
    fractions = [done for _, done in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len({step for step, _ in steps}) == len(steps) > 6


def test_the_scorer_inside_the_checkpoint_is_the_default(
    options: Options, toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path, copied_graphs: None
) -> None:
    folder = shutil.copytree(toy_checkpoint, tmp_path / "with-scorer")
    shutil.copytree(toy_scorer, folder / "scorer")
    bundle = export_bundle(options(model=str(folder), scorer=None))
    assert bundle.manifest.scorer.name == "random"


def test_failed_parity_leaves_nothing(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    load = Checkpoint.load

    def tampered(self: Checkpoint, name: str) -> Tensor:
        return load(self, name) * (1.01 if name == "language_model.layers.0.mlp.up_proj.weight" else 1.0)

    monkeypatch.setattr(Checkpoint, "load", tampered)
    with pytest.raises(ParityError, match="Logits differ"):
        export_bundle(options())
    assert left_on_disk(options()) == []


@pytest.mark.parametrize("step", ["write_graph", "check_parity", "record_file"])
def test_an_interrupt_leaves_nothing(
    options: Options, copied_graphs: None, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    proceed, calls = getattr(exporter, step), []

    def interrupt_second_call(*arguments: Any) -> Any:
        calls.append(arguments)
        if len(calls) == (1 if step == "check_parity" else 2):
            assert left_on_disk(options()), "the partial folder is there while work goes on"
            raise KeyboardInterrupt
        return proceed(*arguments)

    monkeypatch.setattr(exporter, step, interrupt_second_call)
    with pytest.raises(KeyboardInterrupt):
        export_bundle(options())
    assert left_on_disk(options()) == []


def test_an_existing_bundle_is_kept_without_force(options: Options, toy_bundle: Path, no_work: None) -> None:
    shutil.copytree(toy_bundle, options().out)
    with pytest.raises(UserError, match=r"exists already; choose another --out, or replace it with --force"):
        export_bundle(options())
    assert left_on_disk(options()) == ["bundle"]


def test_force_replaces_a_bundle_only_by_a_complete_one(
    options: Options, toy_bundle: Path, copied_graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    shutil.copytree(toy_bundle, options().out)
    (options().out / "old").write_text("old")
    with monkeypatch.context() as failing:
        failing.setattr(exporter, "check_parity", _raise(ParityError("no")))
        with pytest.raises(ParityError):
            export_bundle(options(force=True))
    assert (options().out / "old").exists()
    export_bundle(options(force=True))
    assert not (options().out / "old").exists()
    assert left_on_disk(options()) == ["bundle"]


def test_a_folder_that_cannot_be_written(options: Options, tmp_path: Path, no_work: None) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="choose another --out"):
        export_bundle(options(out=tmp_path / "file" / "bundle"))


def test_a_full_disk(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "write_graph", _raise(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match="No space left on device"):
        export_bundle(options())
    assert left_on_disk(options()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target": "tensorrt"}, "--target tensorrt does not exist in this version; choose from: cpu"),
        ({"precision": "int4"}, "--precision int4 does not exist in this version; choose from: fp32"),
        ({"model": "llava-7b"}, "no model 'llava-7b'. Known: llava-tiny; a local folder in Hugging Face format"),
        ({"scorer": None}, "No trained scorer comes with .*--scorer"),
        ({"scorer": Path("nowhere")}, "'nowhere' is no scorer"),
    ],
)
def test_requests_that_cannot_be_met(options: Options, no_work: None, changes: dict[str, Any], expected: str) -> None:
    with pytest.raises(UserError, match=expected):
        export_bundle(options(**changes))
    assert left_on_disk(options()) == []


@pytest.mark.parametrize("budget_range", ["0.5,0.1", "0.5", "1,2,3", "0,4", "nan,1.0", "0.1,17", "a,b", "-1,4"])
def test_budget_ranges_that_make_no_sense(options: Options, no_work: None, budget_range: str) -> None:
    with pytest.raises(BudgetError):
        export_bundle(options(budget_range=budget_range))


@pytest.mark.parametrize(
    ("shape", "expected"),
    [
        ({"vision_width": 64}, "vision width 64, but .* has 32"),
        ({"text_width": 40}, "text width 40, but .* has 48"),
        ({"grid": 12}, r"grid \(12, 12\), but .* has \(4, 4\)"),
    ],
)
def test_a_scorer_of_another_model(
    options: Options, tmp_path: Path, no_work: None, shape: dict[str, int], expected: str
) -> None:
    with pytest.raises(UserError, match=expected):
        export_bundle(options(scorer=save_toy_scorer(tmp_path / "other", **shape)))


def _raise(error: Exception) -> Callable[..., Any]:
    def fail(*arguments: Any) -> Any:
        raise error

    return fail
