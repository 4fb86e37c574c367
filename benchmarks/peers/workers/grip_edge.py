"""grip-edge's runtime on a bundle: the pipeline as it ships, asked through its public interface.

Beside the answers: how much of a request's time is spent outside of ONNX Runtime and of preparing the image.
Not here: its OpenVINO backend (``grip_edge_openvino``).
"""

from __future__ import annotations

import json
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime as ort
from numpy.typing import NDArray
from PIL import Image

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.shape import QUESTION
from benchmarks.peers.workers.common import CHECKED_TOKENS, checked, versions
from grip_edge.runtime import Pipeline
from grip_edge.runtime.decoder import CachedDecoder

_PROFILED = 3  # prefills, of which the last one counts


class GripEdge:
    def __init__(self, settings: Message) -> None:
        self.runs = Runs()
        self.runs.watch(ort.InferenceSession, "run", "run_with_iobinding")
        self._threads: int = settings["threads"]
        self.pipeline = Pipeline.load(settings["folder"], self._threads, cached_images=0)
        self._picture = Path(settings["picture"])
        self._visual_tokens = self.pipeline.manifest.budget_range.visual_tokens
        self._prompt = self.pipeline.prompt_encoder.encode(QUESTION)

    def versions(self) -> Mapping[str, str]:
        return versions("grip-edge", "onnxruntime")

    def answer(self, kept: int, new_tokens: int) -> Message:
        self.runs.clear()
        start = time.monotonic()
        result = self._generate(kept, new_tokens)
        times = result.timings
        first_token_at = start + times.ttft_ms / 1000
        before_ms, after_ms = self.runs.around(first_token_at)
        return {
            "vision_ms": times.vision_ms,
            "ttft_ms": times.ttft_ms,
            "decode_ms": times.decode_ms,
            "first_token_at": first_token_at,
            "tokens": list(result.tokens),
            "prompt_tokens": len(self._prompt.before) + kept + len(self._prompt.after),
            "preprocess_ms": times.preprocess_ms,
            "select_ms": times.select_ms,
            "prefill_ms": times.prefill_ms,
            "overhead_request_ms": times.ttft_ms - times.preprocess_ms - before_ms,
            "overhead_token_ms": (times.decode_ms - after_ms) / max(1, new_tokens - 1),
        }

    def check(self, folder: Path) -> Message:
        tokens = list(self._generate(self._visual_tokens, CHECKED_TOKENS).tokens)
        with Image.open(self._picture) as image:
            pixels = self.pipeline.preprocess(image.convert("RGB"))
        features, _ = self.pipeline.encode_image(pixels)
        selection = self.pipeline.graphs.select(features, self._prompt, self._visual_tokens)
        logits = self.logits(selection.prompt_embeds)
        return checked(folder, tokens, selection.kept_embeds[0], logits) | self.linear_layers(folder)

    def logits(self, embeds: NDArray[Any]) -> NDArray[Any]:
        """[V] at the end of the prompt [1,S,D]."""
        count = embeds.shape[1]
        decoder = CachedDecoder(self.pipeline.graphs.decoder, self.pipeline.manifest.model.text, count)
        return decoder.append(embeds, np.arange(count)[None])

    def linear_layers(self, folder: Path) -> Message:
        """Time in matrix products of one prefill of all visual tokens, by ONNX Runtime's profile; and the peak then."""
        # Not above: what answers has to have a runtime's size.
        from unittest.mock import patch

        from grip_edge.export.precision import PrecisionOptions, session_config
        from grip_edge.planning.cpu_speed import product_rate

        def profiling(new: Callable[[], Any] = ort.SessionOptions) -> Any:
            options = new()
            options.enable_profiling, options.profile_file_prefix = True, str(folder / "profile")
            return options

        with patch.object(ort, "SessionOptions", profiling):
            profiled = Pipeline.load(self.pipeline.bundle.folder, self._threads, cached_images=0)
        for _ in range(_PROFILED):
            self._generate(self._visual_tokens, 1, profiled)
        events = json.loads(Path(profiled.graphs.decoder.end_profiling()).read_text())
        kernels = [event for event in events if event["name"].endswith("_kernel_time")]
        last = kernels[-(len(kernels) // _PROFILED) :]
        formats = PrecisionOptions("int8").formats
        return {
            "linear_ms": sum(event["dur"] for event in last if "MatMul" in event["args"]["op_name"]) / 1000,
            "int8_operations_per_sec": product_rate("int8", formats, session_config(formats), self._threads),
        }

    def _generate(self, kept: int, new_tokens: int, pipeline: Pipeline | None = None) -> Any:
        pipeline = pipeline or self.pipeline
        return pipeline.generate(self._picture, QUESTION, kept, new_tokens, ignore_stop=True)


class Runs:
    """When each run of every session of this process began and ended.

    To note it takes Python a few microseconds, which count as the runtime's: nothing of Python is in the processor's
    caches after a run. So as little as possible is done here.
    """

    def __init__(self) -> None:
        self._moments: list[float] = []  # beginning, end, beginning, ...

    def watch(self, of: type, *methods: str) -> None:
        for name in methods:
            setattr(of, name, self._timed(getattr(of, name)))

    def clear(self) -> None:
        self._moments.clear()

    def around(self, moment: float) -> tuple[float, float]:
        """Milliseconds within runs that began before ``moment``, and within those after it."""
        spans = [(start, 1000 * (end - start)) for start, end in zip(*[iter(self._moments)] * 2, strict=True)]
        before = sum(ms for start, ms in spans if start <= moment)
        return before, sum(ms for _, ms in spans) - before

    def _timed(self, method: Callable[..., Any]) -> Callable[..., Any]:
        clock, note = time.monotonic, self._moments.append

        def run(*arguments: Any, **options: Any) -> Any:
            start = clock()
            result = method(*arguments, **options)
            end = clock()
            note(start)
            note(end)
            return result

        return run


if __name__ == "__main__":
    serve(GripEdge)
