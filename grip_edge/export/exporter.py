"""Checkpoint and scorer in, bundle out: ``export_bundle``.

All checks that need no work come first; then the graphs are written to a partial folder, compared with the
reference, described in ``grip.json``, and renamed. Whatever fails or interrupts leaves nothing behind.
"""

from __future__ import annotations

import platform
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grip_edge import __version__
from grip_edge.budget import BudgetRange
from grip_edge.bundle import MANIFEST_NAME, TOKENIZER_NAME, Bundle, open_bundle, record_file, writing_bundle
from grip_edge.calibration.scorer import GripScorer
from grip_edge.calibration.scorer_files import ScorerCard, load_scorer
from grip_edge.catalog import find_model, trained_scorer
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.graph_runner import GraphRunner
from grip_edge.export.graphs import Graph, bundle_graphs
from grip_edge.export.options import ExportOptions
from grip_edge.export.parity import check_parity
from grip_edge.export.prompt import freeze_image, freeze_prompt, load_processor
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import Reference, make_request
from grip_edge.export.tracing import check_weights, write_graph
from grip_edge.manifest import SCHEMA_VERSION, ImageSpec, Manifest, ParityResult, PromptSpec, ScorerRecord

__all__ = ["ExportOptions", "Report", "export_bundle"]

_VERSIONED = ("torch", "transformers", "onnx", "onnx-ir", "onnxruntime")

Report = Callable[[str, float], None]


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before work begins."""

    checkpoint: Checkpoint
    processor: Any
    scorer: GripScorer
    card: ScorerCard
    budgets: BudgetRange
    prompt: PromptSpec
    image: ImageSpec
    graphs: tuple[Graph, ...]


def export_bundle(options: ExportOptions, report: Report | None = None) -> Bundle:
    """Writes the bundle to ``options.out``. ``report`` gets what is being done and the fraction done before it."""
    say = report or (lambda step, fraction: None)
    with quiet_libraries():
        say("Reading the checkpoint", 0.0)
        plan = _plan(options)
        with writing_bundle(options.out, options.force) as folder:
            _write_files(plan, folder, say)
            say("Comparing with transformers", 0.65)
            parity = _check(plan, folder)
            say("Describing the bundle", 0.95)
            manifest = _manifest(plan, options, parity, folder)
            (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    say("Done", 1.0)
    return open_bundle(options.out)


def _plan(options: ExportOptions) -> _Plan:
    checkpoint = open_checkpoint(find_model(options.model))
    budgets = BudgetRange.parse(options.budget_range, checkpoint.spec.vision.visual_tokens)
    scorer, card = _scorer(options, checkpoint)
    graphs = bundle_graphs(checkpoint, scorer)
    for graph in graphs:
        check_weights(graph, checkpoint)
    processor = load_processor(checkpoint.folder)
    prompt, image = freeze_prompt(checkpoint, processor), freeze_image(checkpoint, processor)
    return _Plan(checkpoint, processor, scorer, card, budgets, prompt, image, graphs)


def _scorer(options: ExportOptions, checkpoint: Checkpoint) -> tuple[GripScorer, ScorerCard]:
    folder = options.scorer or trained_scorer(checkpoint.folder)
    if folder is None:
        raise UserError(f"No trained scorer comes with '{options.model}'; give one with --scorer FOLDER.")
    scorer, card = load_scorer(folder)
    spec, config = checkpoint.spec, card.config
    for what, found, expected in (
        ("vision width", config.vision_width, spec.vision.width),
        ("text width", config.text_width, spec.text.width),
        ("grid", config.grid, spec.vision.grid),
    ):
        if found != expected:
            raise UserError(
                f"The scorer in '{folder}' is made for {what} {found}, but '{options.model}' has {expected}; "
                "give the scorer that was trained on this model."
            )
    return scorer, card


def _write_files(plan: _Plan, folder: Path, say: Report) -> None:
    try:
        for index, graph in enumerate(plan.graphs):
            say(f"Writing {graph.file_name}", 0.05 + 0.6 * index / len(plan.graphs))
            write_graph(graph, plan.checkpoint, folder)
        shutil.copyfile(plan.checkpoint.folder / TOKENIZER_NAME, folder / TOKENIZER_NAME)
    except OSError as error:
        raise UserError(f"The bundle cannot be written to '{folder.parent}' ({error}); choose another --out.") from None


def _check(plan: _Plan, folder: Path) -> tuple[ParityResult, ...]:
    runner = GraphRunner(folder, plan.checkpoint.spec.text, plan.prompt)
    reference = Reference(plan.checkpoint, plan.scorer, plan.prompt)
    return check_parity(
        runner, reference, make_request(plan.processor, plan.prompt, folder / TOKENIZER_NAME), plan.budgets
    )


def _manifest(plan: _Plan, options: ExportOptions, parity: tuple[ParityResult, ...], folder: Path) -> Manifest:
    scorer_parameters = sum(parameter.numel() for parameter in plan.scorer.parameters())
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=plan.checkpoint.spec,
        budget_range=plan.budgets,
        positions="reindexed",
        prompt=plan.prompt,
        image=plan.image,
        target=options.target,
        precision=options.precision,
        scorer=ScorerRecord(plan.card.method, scorer_parameters, plan.card.training),
        parity=parity,
        versions=_versions(),
        files=tuple(record_file(folder, path) for path in sorted(folder.iterdir())),
    )


def _versions() -> dict[str, str]:
    made_by = {"grip-edge": __version__, "python": platform.python_version()}
    return made_by | {package: version(package) for package in _VERSIONED}
