"""grip-edge's runtime on a bundle: the pipeline as it ships, asked through its public interface.

Beside the answers: how much of a request's time is spent outside of ONNX Runtime and of preparing the image.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import onnxruntime as ort
from PIL import Image

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.shape import QUESTION
from benchmarks.peers.workers.common import CHECKED_TOKENS, checked, versions
from grip_edge.runtime import Pipeline

_OVERHEAD_TRIES = 3


class GripEdge:
    def __init__(self, settings: Message) -> None:
        self._pipeline = Pipeline.load(settings["folder"], threads=settings["threads"], cached_images=0)
        self._picture = Path(settings["picture"])
        self._visual_tokens = self._pipeline.manifest.budget_range.visual_tokens

    def versions(self) -> Mapping[str, str]:
        return versions("grip-edge", "onnxruntime")

    def answer(self, kept: int, new_tokens: int) -> Message:
        start = time.monotonic()
        result = self._generate(kept, new_tokens)
        times = result.timings
        prompt = self._pipeline.prompt_encoder.encode(QUESTION)
        return {
            "vision_ms": times.vision_ms,
            "ttft_ms": times.ttft_ms,
            "decode_ms": times.decode_ms,
            "first_token_at": start + times.ttft_ms / 1000,
            "tokens": list(result.tokens),
            "prompt_tokens": len(prompt.before) + kept + len(prompt.after),
            "preprocess_ms": times.preprocess_ms,
            "select_ms": times.select_ms,
            "prefill_ms": times.prefill_ms,
        }

    def check(self, folder: Path) -> Message:
        """And the overhead: of a request, and of each further token, the least of a few tries."""
        tokens = list(self._generate(self._visual_tokens, CHECKED_TOKENS).tokens)
        with Image.open(self._picture) as image:
            pixels = self._pipeline.preprocess(image.convert("RGB"))
        features, _ = self._pipeline.encode_image(pixels)
        question = self._pipeline.graphs.embed(self._pipeline.prompt_encoder.encode(QUESTION).question)
        kept = self._pipeline.graphs.select(features, question, self._visual_tokens).kept_embeds[0]
        one, many = (min(self._overhead_ms(count) for _ in range(_OVERHEAD_TRIES)) for count in (1, 33))
        return checked(folder, tokens, kept) | {"overhead_request_ms": one, "overhead_token_ms": (many - one) / 32}

    def _generate(self, kept: int, new_tokens: int) -> Any:
        return self._pipeline.generate(self._picture, QUESTION, kept, new_tokens, ignore_stop=True)

    def _overhead_ms(self, new_tokens: int) -> float:
        """Wall time that is neither within a session's run nor preparing the image."""
        with _TimedSessions() as sessions:
            start = time.perf_counter()
            result = self._generate(self._visual_tokens, new_tokens)
            total_ms = 1000 * (time.perf_counter() - start)
        return float(total_ms - sessions.total_ms - result.timings.preprocess_ms)


class _TimedSessions:
    """Adds up the time within ONNX Runtime's ``run`` methods while it is open."""

    _METHODS = ("run", "run_with_iobinding")

    def __enter__(self) -> _TimedSessions:
        self.total_ms = 0.0
        self._before = {name: getattr(ort.InferenceSession, name) for name in self._METHODS}
        for name, method in self._before.items():
            setattr(ort.InferenceSession, name, self._timed(method))
        return self

    def __exit__(self, *_: object) -> None:
        for name, method in self._before.items():
            setattr(ort.InferenceSession, name, method)

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        def run(*arguments: Any, **options: Any) -> Any:
            start = time.perf_counter()
            try:
                return method(*arguments, **options)
            finally:
                self.total_ms += 1000 * (time.perf_counter() - start)

        return run


if __name__ == "__main__":
    serve(GripEdge)
