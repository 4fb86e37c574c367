"""FLOPs of a request by stage and budget, counted from the graphs of a bundle, or of a published shape without weights.

    python benchmarks/flops.py grip-bundle --budgets 0.1,0.25,0.333
    python benchmarks/flops.py llava-1.5-7b --budgets 0.111,0.25,0.333

The shapes are those of the checkpoints' published configurations; their graphs are traced under fake tensors, so no
weights are needed and memory does not grow with the model. The selector is a scorer of ``GripScorer``'s default shape.
"""

from __future__ import annotations

from pathlib import Path

import click
import onnx_ir as ir
from transformers import LlavaConfig

from grip_edge.budget import Budget
from grip_edge.bundle import open_bundle
from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.calibration.scorer_files import GRIP_METHOD, ScorerCard
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.export.flops import RequestSize, StageFlops, stage_flops
from grip_edge.export.graphs import bundle_graphs
from grip_edge.export.networks.clip import ClipConfig
from grip_edge.export.networks.llama import LlamaConfig
from grip_edge.export.networks.rope import Rope
from grip_edge.export.quiet import quiet_libraries
from grip_edge.export.selector import ScorerSelector, Selector
from grip_edge.export.tracing import trace

_CLIP_LARGE_336 = ClipConfig(
    width=1024, layers=23, heads=16, mlp_width=4096, image_side_px=336, patch_px=14, norm_eps=1e-5,
    activation="quick_gelu",
)  # fmt: skip
_VICUNA_7B = LlamaConfig(
    width=4096, layers=32, heads=32, kv_heads=32, head_dim=128, mlp_width=11008, vocab_size=32064, max_positions=4096,
    norm_eps=1e-5, rope=Rope(10000.0), qkv_bias=False, output_bias=False, mlp_bias=False,
)  # fmt: skip
SHAPES = {"llava-1.5-7b": (_CLIP_LARGE_336, _VICUNA_7B)}


def default_scorer(vision: ClipConfig, text: LlamaConfig) -> Selector:
    config = ScorerConfig(vision.width, text.width, (vision.grid, vision.grid))
    return ScorerSelector(GripScorer(config), ScorerCard(GRIP_METHOD, config))


def shape_graphs(vision: ClipConfig, text: LlamaConfig, selector: Selector) -> dict[str, ir.Graph]:
    config = LlavaConfig(projector_hidden_act="gelu", multimodal_projector_bias=True, tie_word_embeddings=False)
    checkpoint = Checkpoint(Path("shape-only"), config, vision, text, {})
    with quiet_libraries():
        traced = {graph.file_name: trace(graph).graph for graph in bundle_graphs(checkpoint, selector)}
    for graph in traced.values():
        note_transposed_shapes(graph)
    return {name.removesuffix(".onnx"): graph for name, graph in traced.items()}


def note_transposed_shapes(graph: ir.Graph) -> None:
    """Tracing leaves the shape of a transposed weight open; the export turns the weight itself, later."""
    for node in graph:
        if node.op_type == "Transpose" and node.outputs[0].shape is None:
            source = node.inputs[0]
            if source is not None and source.shape is not None:
                order = node.attributes["perm"].as_ints()
                node.outputs[0].shape = ir.Shape([source.shape[axis] for axis in order])


def bundle_stage_graphs(folder: Path) -> dict[str, ir.Graph]:
    return {stage: ir.load(folder / f"{stage}.onnx").graph for stage in ("vision", "select", "decoder")}


@click.command()
@click.argument("model")
@click.option("--budgets", default="0.1,0.25,0.333,0.5", show_default=True)
@click.option("--text-tokens", default=40, show_default=True, help="Of the prompt, beside the image.")
@click.option("--question-tokens", default=12, show_default=True, help="Of the question alone.")
def main(model: str, budgets: str, text_tokens: int, question_tokens: int) -> None:
    """Print GFLOPs of MODEL, a bundle's folder or the name of a published shape."""
    if model in SHAPES:
        vision, text = SHAPES[model]
        selector = default_scorer(vision, text)
        print(f"selector: {selector.record.name}, {selector.record.parameters:,} parameters")
        graphs, visual_tokens = shape_graphs(vision, text, selector), vision.grid**2
    else:
        graphs = bundle_stage_graphs(Path(model))
        visual_tokens = open_bundle(model).manifest.model.vision.visual_tokens

    def count(kept: int) -> StageFlops:
        return stage_flops(graphs, RequestSize(kept, text_tokens, question_tokens))

    unpruned = count(visual_tokens)
    base = unpruned.vision + unpruned.prefill
    print(f"{model}: {text_tokens} text tokens, {question_tokens} of them the question; GFLOPs")
    print("| budget | kept | vision | select | prefill | saved of vision + prefill | select, share of unpruned |")
    print("| ---: | ---: | ---: | ---: | ---: | ---: | ---: |")
    for budget in (*budgets.split(","), "1.0"):
        kept = Budget.of(budget).kept_tokens(visual_tokens)
        flops = count(kept)
        giga = " | ".join(f"{value / 1e9:.4g}" for value in (flops.vision, flops.select, flops.prefill))
        saved = 0.0 if kept == visual_tokens else 1 - flops.total / base
        print(f"| {budget} | {kept} | {giga} | {100 * saved:.2f} % | {100 * flops.select / base:.3f} % |")


if __name__ == "__main__":
    main()
