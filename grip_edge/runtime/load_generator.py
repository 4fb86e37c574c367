"""Requests in closed loop: each of ``concurrency`` clients asks, waits for the whole answer, and asks again.

All clients share one pipeline, as the threads of a server would; it must cache no images. TTFT is that of a request
once a client sends it. Every request makes the same number of tokens.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass

import numpy as np

from grip_edge.report import Sample
from grip_edge.runtime.bench_inputs import BenchInput
from grip_edge.runtime.pipeline import Pipeline
from grip_edge.runtime.result import Result


@dataclass(frozen=True)
class Order:
    """One request to be made: which budget, and the place of the input among all."""

    budget: str
    asked: int


@dataclass(frozen=True)
class Load:
    """``samples`` in the orders' order; ``seconds`` from the first request to the last token."""

    samples: tuple[Sample, ...]
    seconds: float


def run_orders(
    pipeline: Pipeline,
    inputs: Sequence[BenchInput],
    orders: Sequence[Order],
    new_tokens: int,
    concurrency: int = 1,
    on_request: Callable[[], None] = lambda: None,
) -> Load:
    def request(order: Order) -> Sample:
        asked = inputs[order.asked]
        result = pipeline.generate(
            asked.path, asked.question, order.budget, max_new_tokens=new_tokens, ignore_stop=True
        )
        on_request()
        return sample(result, order.asked)

    start = time.perf_counter()
    if concurrency == 1:
        samples = [request(order) for order in orders]
    else:
        with ThreadPoolExecutor(concurrency) as clients:
            waiting = [clients.submit(request, order) for order in orders]
            try:
                samples = [future.result() for future in waiting]
            except BaseException:
                clients.shutdown(wait=False, cancel_futures=True)
                raise
    return Load(tuple(samples), time.perf_counter() - start)


def interleaved(budgets: Sequence[str], inputs: int, rounds: int) -> list[Order]:
    """Every budget once per round, every other round backwards, so that none always follows the same one."""
    return [
        Order(budget, index % inputs)
        for index in range(rounds)
        for budget in (budgets if index % 2 == 0 else budgets[::-1])
    ]


def sample(result: Result, asked: int) -> Sample:
    times = result.timings
    return Sample(
        asked=asked,
        kept_tokens=result.budget.kept_tokens,
        visual_tokens=result.budget.visual_tokens,
        preprocess_ms=times.preprocess_ms,
        vision_ms=times.vision_ms,
        select_ms=times.select_ms,
        prefill_ms=times.prefill_ms,
        decode_ms=times.decode_ms,
        ttft_ms=times.ttft_ms,
        tpot_ms=times.decode_ms / (len(result.tokens) - 1),
        total_ms=times.total_ms,
        itl_ms=tuple(float(gap) for gap in np.diff(times.token_ms)),
    )
