"""Time per decoder step against the length of the key-value cache: written in place, and copied for comparison.

    python benchmarks/decode_step.py --bundle grip-bundle --lengths 128,512,2048,8192 --steps 64

In place: each cache buffer is bound as input and as output (what the runtime does). Copied: outputs are bound to a
second set of buffers, so that TensorScatter has to copy the whole cache at every step before it writes one slot.
Both run on the same session and with the same attention work, alternating; the table shows medians.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

from grip_edge.bundle import DEFAULT_BUNDLE
from grip_edge.runtime import Pipeline
from grip_edge.runtime.decoder import CachedDecoder

WARMUP_STEPS = 8


def step_times_ms(pipeline: Pipeline, capacity: int, steps: int) -> dict[str, list[float]]:
    """Times of single decoder steps at the end of a cache of ``capacity`` slots, by way of binding."""
    decoders = {
        "in place": CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, capacity),
        "copied": CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, capacity),
    }
    copies = CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, capacity).cache
    copies.bind_outputs(decoders["copied"].bindings[0])
    embeds = pipeline.graphs.embed((pipeline.manifest.prompt.stop_token_ids[0],))
    last_position = min(capacity, pipeline.manifest.model.text.max_positions) - 1  # a cache may be longer, for timing
    position = np.array([[last_position]], np.int64)
    times: dict[str, list[float]] = {name: [] for name in decoders}
    for step in range(-WARMUP_STEPS, steps):
        for name, decoder in decoders.items():
            decoder.cache.filled = capacity - 1
            start = time.perf_counter()
            decoder.append(embeds, position)
            if step >= 0:
                times[name].append(1000.0 * (time.perf_counter() - start))
    return times


@click.command()
@click.option("--bundle", type=click.Path(path_type=Path), default=DEFAULT_BUNDLE, show_default=True)
@click.option("--lengths", default="128,512,2048,8192", show_default=True, help="Cache lengths in tokens.")
@click.option("--steps", default=64, show_default=True, help="Measured steps per length and way of binding.")
@click.option("--threads", type=int, default=1, show_default=True)
def main(bundle: Path, lengths: str, steps: int, threads: int) -> None:
    """Measure the time per token against cache length."""
    pipeline = Pipeline.load(bundle, threads=threads)
    print(f"{pipeline.manifest.model.name}, {threads} thread(s), median of {steps} steps")
    print("| cache tokens | cache MB | in place ms | copied ms | copied / in place |")
    print("| ---: | ---: | ---: | ---: | ---: |")
    for capacity in (int(length) for length in lengths.split(",")):
        cache = CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, capacity).cache
        medians = {name: float(np.median(times)) for name, times in step_times_ms(pipeline, capacity, steps).items()}
        in_place, copied = medians["in place"], medians["copied"]
        print(f"| {capacity} | {cache.bytes / 1e6:.2f} | {in_place:.3f} | {copied:.3f} | {copied / in_place:.2f} |")


if __name__ == "__main__":
    main()
