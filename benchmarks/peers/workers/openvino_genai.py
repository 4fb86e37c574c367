"""OpenVINO GenAI's pipeline for vision-language models, asked as a user asks it.

Its own clock tells the image's share, preprocessing and projector included; tokens come one by one to a streamer.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import openvino
import openvino_genai
from PIL import Image

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.shape import IMAGE_TOKEN
from benchmarks.peers.workers.common import CHECKED_TOKENS, Clock, checked, prompt_text, versions


class Streamer(openvino_genai.StreamerBase):  # type: ignore[misc]  # has no type information
    """Tokens as they come, without the detokeniser."""

    def __init__(self, clock: Clock) -> None:
        super().__init__()
        self.tokens: list[int] = []
        self._clock = clock

    def write(self, token: Any) -> Any:
        self._clock.token()
        self.tokens += token if isinstance(token, list) else [token]
        return openvino_genai.StreamingStatus.RUNNING

    def end(self) -> None:
        pass


class OpenVinoGenAI:
    def __init__(self, settings: Message) -> None:
        scheduler = openvino_genai.SchedulerConfig()
        scheduler.enable_prefix_caching = False  # or a prompt that was asked before would cost no prefill
        self._pipeline = openvino_genai.VLMPipeline(
            settings["folder"], "CPU", scheduler_config=scheduler, INFERENCE_NUM_THREADS=settings["threads"]
        )
        self._picture = Path(settings["picture"])

    def versions(self) -> Mapping[str, str]:
        return versions("openvino", "openvino-genai")

    def answer(self, kept: int, new_tokens: int) -> Message:
        """``kept`` is all there are; the pipeline cannot be given fewer."""
        config = openvino_genai.GenerationConfig()
        config.max_new_tokens = new_tokens
        config.ignore_eos = True
        config.do_sample = False
        config.apply_chat_template = False
        clock = Clock()
        streamer = Streamer(clock)
        with Image.open(self._picture) as image:
            tensor = openvino.Tensor(np.asarray(image.convert("RGB"))[None])
        found = self._pipeline.generate(_prompt(), images=[tensor], generation_config=config, streamer=streamer)
        metrics = found.perf_metrics
        vision_ms = metrics.get_prepare_embeddings_duration().mean
        return clock.answer(streamer.tokens, metrics.get_num_input_tokens(), vision_ms)

    def check(self, folder: Path) -> Message:
        return checked(folder, self.answer(0, CHECKED_TOKENS)["tokens"])


def _prompt() -> str:
    """The pipeline puts the line break behind an image itself."""
    return prompt_text().replace(f"{IMAGE_TOKEN}\n", IMAGE_TOKEN)


if __name__ == "__main__":
    serve(OpenVinoGenAI)
