"""Reference: the contract of ``export_bundle``: a complete bundle, or one clear error and nothing on disk."""

from __future__ import annotations

import dataclasses
import errno
import shutil
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import onnx_ir as ir
import pytest
from torch import Tensor

from grip_edge.bundle import (
    GRAPH_NAMES,
    MANIFEST_NAME,
    RESUME_NAME,
    TOKENIZER_NAME,
    damage,
    open_bundle,
    partial_folder,
    record_file,
    writing_bundle,
)
from grip_edge.errors import BudgetError, ParityError, UserError
from grip_edge.export import exporter
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.exporter import ExportOptions, Progress, export_bundle
from grip_edge.export.journal import Entry, Journal
from grip_edge.export.layout import Layout
from grip_edge.manifest import FileRecord
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
    """Graphs and weights come from the toy's bundle instead of being traced anew: the same bytes, sooner."""

    def trace(plan: Any, tell: Any) -> list[Layout]:
        return [Layout(graph.file_name, f"{graph.file_name}.data", ir.load(toy_bundle / graph.file_name), ())
                for graph in plan.graphs]  # fmt: skip

    def write_weights(layout: Layout, folder: Path, journal: Journal, written: Any) -> FileRecord:
        shutil.copyfile(toy_bundle / layout.data_file, folder / layout.data_file)
        journal.add(Entry(layout.data_file, "all", "", 0, ""))
        return record_file(folder, folder / layout.data_file)

    def save_graph(layout: Layout, folder: Path) -> None:
        shutil.copyfile(toy_bundle / layout.graph_file, folder / layout.graph_file)

    monkeypatch.setattr(exporter, "_traced", trace)
    monkeypatch.setattr(exporter, "write_weights", write_weights)
    monkeypatch.setattr(exporter, "save_graph", save_graph)


@pytest.fixture
def no_work(monkeypatch: pytest.MonkeyPatch) -> None:
    def work(*arguments: Any) -> None:
        raise AssertionError("work began before the checks were done")

    monkeypatch.setattr(exporter, "make_model", work)


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
    steps: list[Progress] = []
    bundle = export_bundle(options(model=str(folder)), steps.append)
    assert tuple(capfd.readouterr()) == ("", "")
    assert len(bundle.manifest.parity) == 3
    fractions = [progress.fraction for progress in steps]
    assert fractions == sorted(fractions)
    assert (fractions[0], fractions[-1]) == (0.0, 1.0)
    assert len({progress.step for progress in steps}) > 10
    writing = [progress for progress in steps if progress.weights_total]
    assert [progress.weights_done for progress in writing if progress.bytes_done] == sorted(
        progress.weights_done for progress in writing if progress.bytes_done
    )
    last = writing[-1]
    assert (last.weights_done, last.weights_total) == (len({p.weights_done for p in writing}) - 1, last.weights_done)
    sizes = {record.path: record.bytes for record in bundle.manifest.files}
    assert last.bytes_done <= last.bytes_total == sum(size for name, size in sizes.items() if name.endswith(".data"))


def test_the_scorer_inside_the_checkpoint_is_the_default(
    options: Options, toy_checkpoint: Path, toy_scorer: Path, tmp_path: Path, copied_graphs: None
) -> None:
    folder = shutil.copytree(toy_checkpoint, tmp_path / "with-scorer")
    shutil.copytree(toy_scorer, folder / "scorer")
    bundle = export_bundle(options(model=str(folder), scorer=None))
    assert bundle.manifest.scorer.name == "random"


def test_failed_parity_leaves_nothing(options: Options, monkeypatch: pytest.MonkeyPatch) -> None:
    """Not even weights to resume from: they are wrong."""
    read = Checkpoint.read

    def tampered(self: Checkpoint, name: str) -> Tensor:
        return read(self, name) * (1.01 if name == "language_model.layers.0.mlp.up_proj.weight" else 1.0)

    monkeypatch.setattr(Checkpoint, "read", tampered)
    with pytest.raises(ParityError, match="Logits differ"):
        export_bundle(options())
    assert left_on_disk(options()) == []


@pytest.mark.parametrize("step", ["make_model", "check_parity", "record_file"])
def test_an_interrupt_keeps_finished_weights_only(
    options: Options, copied_graphs: None, monkeypatch: pytest.MonkeyPatch, step: str
) -> None:
    if step == "make_model":
        monkeypatch.undo()
    monkeypatch.setattr(exporter, step, _raise(KeyboardInterrupt()))
    with pytest.raises(KeyboardInterrupt):
        export_bundle(options())
    assert left_on_disk(options()) == ([".bundle.partial"] if step == "check_parity" else [])


def test_nothing_of_an_interrupted_export_gets_into_the_bundle(
    options: Options, copied_graphs: None, toy_bundle: Path
) -> None:
    partial = partial_folder(options().out)
    partial.mkdir(parents=True)
    for name in (RESUME_NAME, "grip.json", "vision.onnx", "stray"):
        (partial / name).write_text("left over")
    bundle = export_bundle(options())
    assert {path.name for path in bundle.folder.iterdir()} == {path.name for path in toy_bundle.iterdir()}
    assert [problem for _, problem in damage(bundle) if problem] == []
    assert left_on_disk(options()) == ["bundle"]


def test_two_exports_to_one_folder_at_once(options: Options, copied_graphs: None) -> None:
    with (
        writing_bundle(options().out, force=False),
        pytest.raises(UserError, match="Another export is writing"),
    ):
        export_bundle(options())


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


def test_a_disk_that_fills_up(options: Options, copied_graphs: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(exporter, "write_weights", _raise(OSError(errno.ENOSPC, "No space left on device")))
    with pytest.raises(UserError, match=r"No space left on device.*goes on from '\.bundle\.partial'"):
        export_bundle(options())
    assert left_on_disk(options()) == []


def test_too_little_room_is_said_before_anything_is_written(
    options: Options, copied_graphs: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(exporter, "save_graph", _raise(AssertionError("something was written")))
    monkeypatch.setattr(shutil, "disk_usage", lambda path: SimpleNamespace(free=31_000_000))
    with pytest.raises(UserError, match=r"needs 0\.03 GB more in .*, where 0\.03 GB are free"):
        export_bundle(options())
    assert left_on_disk(options()) == []


@pytest.mark.parametrize(
    ("changes", "expected"),
    [
        ({"target": "tensorrt"}, "--target tensorrt does not exist; choose from: cpu, cuda, openvino, rtx"),
        ({"model": "llava-7b"}, "no model 'llava-7b'. Known: llava-tiny, llava-1.5-7b, "),
        ({"scorer": None}, "No trained scorer comes with .*--scorer, or choose a policy that needs no .* --policy"),
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


def _raise(error: BaseException) -> Callable[..., Any]:
    def fail(*arguments: Any) -> Any:
        raise error

    return fail
