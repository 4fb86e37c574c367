"""Latency of several bundles at several budgets in one run, on questions of the evaluation's own data.

Every round asks one question of every bundle at every budget, in an order that is drawn anew (by a fixed seed): drift
hits all alike, and so does a processor cache that holds another bundle's weights. All answers have the same length, and
every image is encoded anew. Medians per stage.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from grip_edge.bundle import Bundle
from grip_edge.calibration.data import AskedData
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case
from grip_edge.calibration.evaluation.report import LatencyRow
from grip_edge.runtime import Pipeline, Timings

WARMUPS = 3
_STAGES = ("preprocess", "vision", "select", "prefill", "decode", "ttft", "total")


def measure_latency(
    bundles: dict[str, Bundle],
    cases: Sequence[Case],
    data: AskedData,
    requests: int,
    new_tokens: int,
    on_request: Callable[[int, int], None],
) -> tuple[LatencyRow, ...]:
    """``cases`` name bundles by their policy; the unpruned case runs through the first bundle.

    ``on_request`` gets the number of finished requests and of all.
    """
    pipelines = {name: Pipeline(bundle, cached_images=0) for name, bundle in bundles.items()}
    first = next(iter(pipelines))
    samples: dict[Case, list[Timings]] = {case: [] for case in cases}
    rounds = WARMUPS + requests
    for number in range(rounds):
        asked = data.take([number % len(data)])
        question = asked.questions[number % len(asked.questions)]
        for index in np.random.default_rng([number, 41]).permutation(len(cases)):
            case = cases[index]
            pipeline = pipelines[first if case.policy == UNPRUNED else case.policy]
            result = pipeline.generate(
                asked.images[0], question.text, case.kept_tokens, max_new_tokens=new_tokens, ignore_stop=True
            )
            samples[case].append(result.timings)
        on_request((number + 1) * len(cases), rounds * len(cases))
    return tuple(_row(case, timings[WARMUPS:], new_tokens) for case, timings in samples.items())


def _row(case: Case, timings: Sequence[Timings], new_tokens: int) -> LatencyRow:
    p50_ms = {stage: float(np.median([getattr(t, f"{stage}_ms") for t in timings])) for stage in _STAGES}
    return LatencyRow(case.policy, case.budget, case.kept_tokens, len(timings), new_tokens, p50_ms)
