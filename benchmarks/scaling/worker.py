"""The process that measures one point: loads the bundle, answers once to warm up, then as often as asked.

    python -m benchmarks.scaling.worker '{"bundle": ..., "picture": ..., "point": {...}, "threads": 2, "repeats": 2}'

Prints one JSON document: per request the stages of the first answer, the median time of a decoding step, and the time
of the whole call; the process's peak memory; and how much of the machine other processes took meanwhile.
"""

from __future__ import annotations

import json
import sys
import time
from itertools import pairwise
from statistics import median
from typing import Any

from benchmarks.peers.protocol import memory_bytes
from benchmarks.scaling.axes import NEW_TOKENS, Point
from benchmarks.scaling.others import Watch
from grip_edge.runtime import Pipeline
from grip_edge.runtime.result import Result

_WORDS = "What is in the picture, and where? "


def questions_of(point: Point) -> list[str]:
    """Different ones, each of as many tokens as the point says: one for each letter."""
    text = _WORDS * (1 + point.question_tokens // len(_WORDS))
    return [(str(number) + text)[: point.question_tokens] for number in range(point.questions)]


def measure(settings: dict[str, Any]) -> dict[str, Any]:
    point = Point(**settings["point"])
    pipeline = Pipeline.load(settings["bundle"], threads=settings["threads"], cached_images=0)

    def ask() -> dict[str, float]:
        start = time.perf_counter()
        results = pipeline.generate_batch(
            settings["picture"], questions_of(point), point.kept_tokens, NEW_TOKENS, ignore_stop=True
        )
        return row(results, 1000 * (time.perf_counter() - start))

    ask()
    watch = Watch()
    requests = [ask() for _ in range(settings["repeats"])]
    share = watch.others_share()
    peak = memory_bytes("VmHWM") or 0
    return {"requests": requests, "peak_rss_mb": peak / 1e6, "others_share": share}


def row(results: list[Result], all_ms: float) -> dict[str, float]:
    """Stages of the first answer, which is the one that waits for the image."""
    first = results[0].timings
    steps_ms = [later - sooner for result in results for sooner, later in pairwise(result.timings.token_ms)]
    return {
        "preprocess_ms": first.preprocess_ms,
        "vision_ms": first.vision_ms,
        "select_ms": first.select_ms,
        "prefill_ms": first.prefill_ms,
        "ttft_ms": first.ttft_ms,
        "token_ms": median(steps_ms),
        "all_ms": all_ms,
        "each_ms": all_ms / len(results),
    }


if __name__ == "__main__":
    print(json.dumps(measure(json.loads(sys.argv[1]))))
