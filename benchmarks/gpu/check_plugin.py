"""The kernels of BudgetSelect on a GPU: equal to the numpy oracle on adversarial scores, and how long they take.

    python benchmarks/gpu/check_plugin.py libgrip_budget_select.so out.json [--quick]

Time is compared with torch.topk + sort + gather, by CUDA events, median of many. ``--quick`` only checks a few cases
(for compute-sanitizer). Ends with code 1 if any token differs.
"""

from __future__ import annotations

import json
import sys
from pathlib import Path
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray

from grip_edge.plugin.algorithm import budget_select
from grip_edge.plugin.twin import load_kernels

TYPES = {torch.float32: (0, 4), torch.float16: (1, 2), torch.bfloat16: (2, 2)}
WIDTH = 1024


class Kernels:
    def __init__(self, library: Path) -> None:
        self._launch = load_kernels(library)

    def __call__(self, scores: torch.Tensor, features: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
        batch, tokens, width = features.shape
        rows = torch.empty(batch, kept, width, dtype=features.dtype, device="cuda")
        indices = torch.empty(batch, kept, dtype=torch.int64, device="cuda")
        score_type, row_bytes = TYPES[scores.dtype][0], width * TYPES[features.dtype][1]
        status = self._launch(
            scores.data_ptr(), score_type, features.data_ptr(), row_bytes, batch, tokens, kept,
            rows.data_ptr(), indices.data_ptr(), torch.cuda.current_stream().cuda_stream,
        )  # fmt: skip
        if status != 0:
            raise RuntimeError(f"CUDA error {status}")
        return rows, indices


def by_torch(scores: torch.Tensor, features: torch.Tensor, kept: int) -> tuple[torch.Tensor, torch.Tensor]:
    indices = scores.topk(kept, dim=1).indices.sort(dim=1).values
    return features.gather(1, indices[..., None].expand(-1, -1, features.shape[-1])), indices


def adversaries(tokens: int) -> list[NDArray[np.float32]]:
    random = np.random.default_rng(tokens)
    scores = random.standard_normal(tokens)
    odd = random.choice([0.0, -0.0, 1.0, np.inf, -np.inf, np.nan], tokens)
    few = random.integers(0, 3, tokens)
    cases = (scores, np.sort(scores), np.sort(scores)[::-1], np.zeros(tokens), few, odd, np.full(tokens, np.nan))
    return [case.astype(np.float32) for case in cases]


def check(kernels: Kernels, quick: bool) -> int:
    """How many cases were compared; AssertionError at the first that differs."""
    cases = 0
    sizes = (1, 33, 577) if quick else (1, 2, 31, 32, 33, 144, 576, 1023, 1024, 1025, 2880, 7290, 16_384)
    for tokens in sizes:
        scores = torch.from_numpy(np.stack(adversaries(tokens)))
        for dtype in TYPES:
            for width in (8,) if quick else (1, 3, 8, 64):
                features = torch.randn(len(scores), tokens, width).to(dtype)
                for kept in sorted({1, max(1, tokens // 3), tokens}):
                    _compare(kernels, scores.to(dtype), features, kept)
                    cases += 1
    return cases


def _compare(kernels: Kernels, scores: torch.Tensor, features: torch.Tensor, kept: int) -> None:
    rows, indices = kernels(scores.cuda(), features.cuda(), kept)
    expected_rows, expected = budget_select(scores.float().numpy(), features.float().numpy(), kept)
    what = f"{scores.dtype}, {kept} of {scores.shape[1]}, width {features.shape[2]}"
    np.testing.assert_array_equal(indices.cpu().numpy(), expected, what)
    np.testing.assert_array_equal(rows.float().cpu().numpy(), expected_rows, what)


def median_us(function: Any, *arguments: Any, repeats: int = 200) -> float:
    for _ in range(20):
        function(*arguments)
    times = []
    for _ in range(repeats):
        start, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
        start.record()
        function(*arguments)
        end.record()
        end.synchronize()
        times.append(1000.0 * start.elapsed_time(end))
    return float(np.median(times))


def measure(kernels: Kernels) -> list[dict[str, Any]]:
    rows = []
    for tokens in (144, 576, 2880, 7290, 16_384):
        for share in (0.1, 0.25, 0.5):
            kept = max(1, int(tokens * share))
            scores = torch.randn(1, tokens, device="cuda")
            features = torch.randn(1, tokens, WIDTH, device="cuda", dtype=torch.float16)
            plugin_us = median_us(kernels, scores, features, kept)
            torch_us = median_us(by_torch, scores, features, kept)
            rows.append({"tokens": tokens, "kept": kept, "plugin_us": plugin_us, "torch_us": torch_us})
    return rows


def main() -> None:
    quick = "--quick" in sys.argv
    kernels = Kernels(Path(sys.argv[1]))
    cases = check(kernels, quick)
    found = {
        "kind": "plugin",
        "device": torch.cuda.get_device_name(),
        "torch": torch.__version__,
        "cases_equal": cases,
        "width": WIDTH,
        "rows": [] if quick else measure(kernels),
    }
    Path(sys.argv[2]).write_text(json.dumps(found, indent=2) + "\n")
    print(f"{cases} cases equal the oracle")


if __name__ == "__main__":
    main()
