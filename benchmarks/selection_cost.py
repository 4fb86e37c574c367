"""What scoring and selecting costs of the unpruned TTFT, and whether there is less than the aim of 3 %.

    python benchmarks/selection_cost.py --bundle grip-bundle --image examples/scene.png --repeats 100

The select stage holds the question's embedding, the scorer, the top-k, the gather, and the projector over the kept
tokens. The projector belongs to the model: without pruning it runs too, over all N tokens. So it is cut out of
select.onnx as a graph of its own and timed over N tokens, alternating with whole requests at budget 1.0; scoring and
selecting is the stage without it. Medians of one run.
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import click
import numpy as np
import onnx

from grip_edge.bundle import DEFAULT_BUNDLE
from grip_edge.runtime import Pipeline
from grip_edge.runtime.session import load_session

WARMUPS = 10
QUESTION = "What letter is on the purple circle?"


def projector_graph(select: Path, folder: Path) -> tuple[Path, str]:
    """The part of select.onnx behind the gather, as a file, and its input's name."""
    model = onnx.load(str(select), load_external_data=False)
    producers = {output: node for node in model.graph.node for output in node.output}
    name = "kept_embeds"
    while producers[name].op_type != "Gather":
        name = next(source for source in producers[name].input if source in producers)
    path = folder / "projector.onnx"
    whole = onnx.load(str(select))
    onnx.save(onnx.utils.Extractor(whole).extract_model([name], ["kept_embeds"]), str(path))
    return path, name


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=DEFAULT_BUNDLE, show_default=True)
@click.option("--image", type=click.Path(path_type=Path, exists=True), required=True)
@click.option("--repeats", default=100, show_default=True)
@click.option("--threads", type=int, help="Threads of ONNX Runtime.  [default: its own choice]")
def main(bundle: Path, image: Path, repeats: int, threads: int | None) -> None:
    """Measure the share of scoring and selecting in the unpruned TTFT."""
    pipeline = Pipeline.load(bundle, threads=threads, cached_images=0)
    spec = pipeline.manifest.model.vision
    stages: list[float] = []
    ttfts: list[float] = []
    projections: list[float] = []
    with tempfile.TemporaryDirectory() as folder:
        path, name = projector_graph(bundle / "select.onnx", Path(folder))
        projector = load_session(path, (name,), ("kept_embeds",), threads)
        features = np.zeros((1, spec.visual_tokens, spec.width), np.float32)
        for index in range(-WARMUPS, repeats):
            timings = pipeline.generate(image, QUESTION, 1.0, max_new_tokens=2).timings
            start = time.perf_counter()
            projector.run(None, {name: features})
            projection_ms = 1000.0 * (time.perf_counter() - start)
            if index >= 0:
                stages.append(timings.select_ms)
                ttfts.append(timings.ttft_ms)
                projections.append(projection_ms)
    stage_ms, ttft_ms, projection_ms = (float(np.median(times)) for times in (stages, ttfts, projections))
    print(f"{pipeline.manifest.model.name}, budget 1.0, {repeats} requests, medians")
    print("| part | ms | share of TTFT |")
    print("| --- | ---: | ---: |")
    for part, part_ms in (
        ("TTFT, unpruned", ttft_ms),
        ("select stage", stage_ms),
        ("of it: projector over all tokens", projection_ms),
        ("of it: scoring and selecting", stage_ms - projection_ms),
    ):
        print(f"| {part} | {part_ms:.3f} | {part_ms / ttft_ms:.1%} |")


if __name__ == "__main__":
    main()
