"""Checkpoint and scorer in, bundle out: ``export_bundle``.

All checks that need no work come first, the room on disk among them; then the weights are streamed into a partial
folder, the graphs compared with the reference and described in ``grip.json``, and the folder renamed. A failure leaves
nothing behind but finished weights, and these only where the same export can go on from them.
"""

from __future__ import annotations

import platform
import shutil
from contextlib import nullcontext
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any

from grip_edge import __version__
from grip_edge.allocator import large_blocks_returned
from grip_edge.budget import BudgetRange
from grip_edge.bundle import (
    MANIFEST_NAME,
    RESUME_NAME,
    TOKENIZER_NAME,
    Bundle,
    open_bundle,
    record_file,
    writing_bundle,
)
from grip_edge.catalog import find_model, trained_scorer
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint, open_checkpoint
from grip_edge.export.fill import write_weights
from grip_edge.export.graph_runner import GraphRunner, whole_session
from grip_edge.export.graphs import Graph, bundle_graphs
from grip_edge.export.image_settings import freeze_image
from grip_edge.export.journal import Journal
from grip_edge.export.layout import Layout, lay_out, save_graph
from grip_edge.export.options import ExportOptions
from grip_edge.export.own_blocks import own_blocks
from grip_edge.export.parity import check_parity
from grip_edge.export.precision import session_config
from grip_edge.export.processor import load_processor
from grip_edge.export.progress import Meter, Progress, Report
from grip_edge.export.prompt import freeze_prompt
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.reference import Reference, make_request
from grip_edge.export.selector import Selector, choose_selector
from grip_edge.export.streamed_graph import StreamedSession
from grip_edge.export.streamed_reference import StreamedReference
from grip_edge.export.targets.formats import formats_for_heads, target_formats
from grip_edge.export.targets.next_embeds import embed_next_token
from grip_edge.export.targets.table import Target
from grip_edge.export.tracing import check_weights, make_model
from grip_edge.manifest import (
    SCHEMA_VERSION,
    FileRecord,
    ImageSpec,
    Manifest,
    ParityResult,
    PromptSpec,
    WeightFormats,
)
from grip_edge.tiles import max_visual_tokens

__all__ = ["ExportOptions", "Progress", "Report", "export_bundle"]

_VERSIONED = ("torch", "transformers", "onnx", "onnx-ir", "onnxruntime")

# Shares of the work that are done when the graphs are traced, the weights written, and the models compared.
_TRACED, _WRITTEN, _COMPARED = 0.15, 0.6, 0.98

# A checkpoint of more parameters is compared piece by piece: whole, it would take 12 bytes of memory for each.
_WHOLE_PARAMETERS = 100_000_000

# Room beyond the weights: graphs, tokenizer, manifest.
_SMALL_FILES_BYTES = 32_000_000


@dataclass(frozen=True)
class _Plan:
    """Everything that is known before work begins."""

    checkpoint: Checkpoint
    processor: Any
    selector: Selector
    budgets: BudgetRange
    prompt: PromptSpec
    image: ImageSpec
    graphs: tuple[Graph, ...]
    target: Target
    formats: WeightFormats


def export_bundle(options: ExportOptions, report: Report | None = None) -> Bundle:
    """Writes the bundle to ``options.out``. ``report`` is told what is being done.

    Interrupted while weights are written, it leaves them in ``bundle.partial_folder(options.out)``, from where the
    same call goes on; the result is the same to the bit.
    """
    tell = report or (lambda progress: None)
    with quiet_libraries():
        tell(Progress("Reading the checkpoint", 0.0))
        plan = _plan(options)
        with writing_bundle(options.out, options.force) as folder:
            files = _write_files(plan, folder, tell)
            tell(Progress("Loading transformers", _WRITTEN))
            parity, method = _compare(plan, folder, tell)
            tell(Progress("Describing the bundle", _COMPARED))
            manifest = _manifest(plan, options, parity, method, files)
            (folder / MANIFEST_NAME).write_text(manifest.to_json(), encoding="utf-8")
    tell(Progress("Done", 1.0))
    return open_bundle(options.out)


def _plan(options: ExportOptions) -> _Plan:
    checkpoint = open_checkpoint(find_model(options.model))
    tiling, target = checkpoint.tiling, options.found_target
    if tiling is not None and target.is_compiled:
        raise UserError(
            f"--target {options.target}: '{options.model}' cuts images into tiles, which engines do not take in this "
            "version; choose --target cpu or cuda."
        )
    visual_tokens = checkpoint.spec.vision.visual_tokens if tiling is None else max_visual_tokens(tiling)
    budgets = BudgetRange.parse(options.budget_range, visual_tokens)
    scorer = options.scorer or trained_scorer(checkpoint.folder)
    selector = choose_selector(options.policy, scorer, options.model, checkpoint)
    graphs = bundle_graphs(checkpoint, selector)
    for graph in graphs:
        check_weights(graph, checkpoint)
    processor = load_processor(checkpoint.folder, checkpoint.config.model_type)
    prompt, image = freeze_prompt(checkpoint, processor), freeze_image(checkpoint, processor)
    formats = target_formats(options.precision, target, own_blocks(options.precision, checkpoint))
    formats = formats_for_heads(formats, options.precision, checkpoint.spec.text.head_dim)
    return _Plan(checkpoint, processor, selector, budgets, prompt, image, graphs, target, formats)


def _write_files(plan: _Plan, folder: Path, tell: Report) -> tuple[FileRecord, ...]:
    """All files but the manifest; their records, sorted by path."""
    layouts = tuple(_traced(plan, tell))
    meter = Meter(layouts, tell, _TRACED, _WRITTEN)
    files = []
    try:
        _clear(folder, layouts)
        _require_room(folder, meter.bytes_total)
        journal = Journal(folder)
        for layout in layouts:
            meter.begin(layout)
            save_graph(layout, folder)
            files.append(record_file(folder, folder / layout.graph_file))
            files.append(write_weights(layout, folder, journal, meter.written))
        shutil.copyfile(plan.checkpoint.folder / TOKENIZER_NAME, folder / TOKENIZER_NAME)
        files.append(record_file(folder, folder / TOKENIZER_NAME))
    except OSError as error:
        raise UserError(
            f"The bundle cannot be written to '{folder.parent}' ({error}); mend that and repeat the command, which "
            f"goes on from '{folder.name}', or choose another --out."
        ) from None
    return tuple(sorted(files, key=lambda record: record.path))


def _traced(plan: _Plan, tell: Report) -> list[Layout]:
    layouts = []
    for index, graph in enumerate(plan.graphs):
        tell(Progress(f"Tracing {graph.file_name}", 0.02 + (_TRACED - 0.02) * index / len(plan.graphs)))
        layouts.append(lay_out(make_model(graph, plan.checkpoint, plan.formats, plan.target), graph.file_name))
    if plan.target.embeds_next:
        models = {layout.graph_file: layout.model for layout in layouts}
        embed_next_token(models["decoder.onnx"], models["embed.onnx"])
    return layouts


def _clear(folder: Path, layouts: tuple[Layout, ...]) -> None:
    """Of an interrupted export, only weights and their journal are of use."""
    useful = {RESUME_NAME, *(layout.data_file for layout in layouts)}
    for path in folder.iterdir():
        if path.name not in useful:
            path.unlink()


def _require_room(folder: Path, data_bytes: int) -> None:
    there = sum(path.stat().st_size for path in folder.iterdir())
    missing = data_bytes + _SMALL_FILES_BYTES - there
    free = shutil.disk_usage(folder).free
    if missing > free:
        raise UserError(
            f"The bundle needs {missing / 1e9:.2f} GB more in '{folder.parent}', where {free / 1e9:.2f} GB are free; "
            "make room or choose another --out."
        )


def _compare(plan: _Plan, folder: Path, tell: Report) -> tuple[tuple[ParityResult, ...], str]:
    """The results, and whether both models were held whole or streamed."""
    checkpoint = plan.checkpoint
    # transformers loads packed weights with kernels that are not needed here; streamed, it gets restored ones.
    elements = sum(tensor.elements for tensor in checkpoint.tensors.values())
    streamed = checkpoint.is_packed or elements > _WHOLE_PARAMETERS
    reference = (StreamedReference if streamed else Reference)(checkpoint, plan.selector, plan.prompt)
    open_session = StreamedSession if streamed else whole_session
    runner = GraphRunner(folder, checkpoint.spec.text, plan.prompt, session_config(plan.formats), open_session)
    request = make_request(plan.processor, plan.prompt, folder / TOKENIZER_NAME, checkpoint.tiling)
    budgets = plan.budgets if request.plan is None else plan.budgets.for_image(request.plan.visual_tokens)

    def say(what: str, share: float) -> None:
        tell(Progress(f"Comparing {what}", _WRITTEN + (_COMPARED - _WRITTEN) * share))

    # Hundreds of pieces come and go; without it glibc would keep 0.7 GB of a 7B model's for later.
    with large_blocks_returned() if streamed else nullcontext():
        results = check_parity(runner, reference, request, budgets, plan.formats, say)
    return results, "streamed" if streamed else "whole"


def _manifest(
    plan: _Plan,
    options: ExportOptions,
    parity: tuple[ParityResult, ...],
    parity_method: str,
    files: tuple[FileRecord, ...],
) -> Manifest:
    return Manifest(
        schema_version=SCHEMA_VERSION,
        model=plan.checkpoint.spec,
        budget_range=plan.budgets,
        positions="reindexed",
        prompt=plan.prompt,
        image=plan.image,
        target=plan.target.name,
        precision=options.precision.precision,
        scorer=plan.selector.record,
        parity=parity,
        versions=_versions(),
        files=files,
        weight_formats=plan.formats,
        session_config=session_config(plan.formats),
        parity_method=parity_method,
    )


def _versions() -> dict[str, str]:
    made_by = {"grip-edge": __version__, "python": platform.python_version()}
    return made_by | {package: version(package) for package in _VERSIONED}
