"""A bundle on a backend: the same answers as on the CPU at every budget, and its latency.

    python benchmarks/gpu/end_to_end.py BUNDLE BACKEND out.json

Answers are compared token by token with onnxruntime-cpu on the same bundle, on pictures that the repository renders.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort

from grip_edge.runtime import Pipeline

BUDGETS = (0.1, 0.2, 0.3, 0.4, 0.5, 1.0)
QUESTIONS = ("What colour is the circle?", "How many shapes are there?", "Is there a triangle?")
IMAGES = 4
REPEATS = 30
NEW_TOKENS = 16


def pictures() -> list[np.ndarray[Any, Any]]:
    """Blocks of colour with noise: the answers need not be right, only equal."""
    random = np.random.default_rng(0)
    blocks = random.integers(0, 256, (IMAGES, 7, 7, 3))
    noise = random.integers(-20, 21, (IMAGES, 168, 168, 3))
    return list(np.clip(blocks.repeat(24, axis=1).repeat(24, axis=2) + noise, 0, 255).astype(np.uint8))


def compare(found: Pipeline, expected: Pipeline, budget: float) -> dict[str, Any]:
    tokens_equal = kept_equal = asked = 0
    for image in pictures():
        for question in QUESTIONS:
            one = found.generate(image, question, budget, NEW_TOKENS)
            other = expected.generate(image, question, budget, NEW_TOKENS)
            asked += 1
            tokens_equal += one.tokens == other.tokens
            kept_equal += one.kept_indices == other.kept_indices
    return {"asked": asked, "answers_equal": tokens_equal, "kept_sets_equal": kept_equal}


def latency(pipeline: Pipeline, budget: float) -> dict[str, Any]:
    image = pictures()[0]
    samples = [
        pipeline.generate(image, QUESTIONS[0], budget, NEW_TOKENS, ignore_stop=True).timings for _ in range(REPEATS + 5)
    ][5:]
    stages = ("preprocess", "vision", "select", "prefill", "decode", "ttft")
    result: dict[str, Any] = {
        f"{stage}_p50_ms": float(np.median([getattr(sample, f"{stage}_ms") for sample in samples])) for stage in stages
    }
    return result | {"tpot_p50_ms": result["decode_p50_ms"] / (NEW_TOKENS - 1)}


def main() -> None:
    bundle, backend, out = sys.argv[1:]
    found = Pipeline.load(bundle, cached_images=0, backend=backend)
    expected = Pipeline.load(bundle, cached_images=0, backend="onnxruntime-cpu")
    rows = []
    for budget in BUDGETS:
        row: dict[str, Any] = {"budget": budget, "kept_tokens": None}
        row |= compare(found, expected, budget) | latency(found, budget)
        row["kept_tokens"] = found.manifest.budget_range.resolve(budget)
        rows.append(row)
        print(row)
    document = {
        "kind": "end to end",
        "backend": found.graphs.backend,
        "model": found.manifest.model.name,
        "precision": found.manifest.precision,
        "target": found.manifest.target,
        "onnxruntime": ort.__version__,
        "rows": rows,
    }
    Path(out).write_text(json.dumps(document, indent=2) + "\n")


if __name__ == "__main__":
    main()
