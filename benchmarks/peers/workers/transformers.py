"""transformers in PyTorch: the reference for what every other contestant computes.

With fewer than all visual tokens, evenly spaced rows of the projected features take the image's place.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import (
    CHECKED_TEXT,
    CHECKED_TOKENS,
    Clock,
    Floats,
    checked,
    decode,
    kept_rows,
    pixels,
    prompt_ids,
    text_ids,
    versions,
)


class Transformers:
    def __init__(self, settings: Message) -> None:
        from transformers import LlavaForConditionalGeneration

        torch.set_num_threads(settings["threads"])
        self._dtype = {"fp32": torch.float32, "bf16": torch.bfloat16}[settings["precision"]]
        self._model: Any = LlavaForConditionalGeneration.from_pretrained(settings["folder"], dtype=self._dtype).eval()
        self._picture = Path(settings["picture"])
        self._before, self._after = prompt_ids()

    def versions(self) -> Mapping[str, str]:
        return versions("torch", "transformers")

    @torch.inference_mode()
    def answer(self, kept: int, new_tokens: int) -> Message:
        clock = Clock()
        features = self._features()
        clock.vision_done()
        embeds = self._prompt(features, kept)
        logits, past = self._run(None, inputs_embeds=embeds)

        def step(token: int) -> Floats:
            nonlocal past
            found, past = self._run(past, input_ids=torch.tensor([[token]]))
            return found

        return clock.answer(decode(clock, logits, step, new_tokens), embeds.shape[1])

    @torch.inference_mode()
    def check(self, folder: Path) -> Message:
        features = self._features()
        logits, _ = self._run(None, inputs_embeds=self._prompt(features, len(features)))
        tokens = self.answer(len(features), CHECKED_TOKENS)["tokens"]
        return checked(folder, tokens, features.float().numpy(), logits) | {"text": self._check_text(folder / "text")}

    def _check_text(self, folder: Path) -> Message:
        """For comparison with peers that read no images."""
        folder.mkdir(exist_ok=True)
        logits, past = self._run(None, input_ids=torch.tensor([text_ids(CHECKED_TEXT)]))
        tokens = [int(logits.argmax())]
        while len(tokens) < CHECKED_TOKENS:
            found, past = self._run(past, input_ids=torch.tensor([[tokens[-1]]]))
            tokens.append(int(found.argmax()))
        return checked(folder, tokens, None, logits)

    def _features(self) -> Tensor:
        """[N,D]"""
        values = torch.from_numpy(pixels(self._picture)).to(self._dtype)
        found: Tensor = self._model.get_image_features(pixel_values=values).pooler_output[0]
        return found

    def _prompt(self, features: Tensor, kept: int) -> Tensor:
        table = self._model.get_input_embeddings()
        before, after = (table(torch.tensor(ids)) for ids in (self._before, self._after))
        return torch.cat([before, features[kept_rows(len(features), kept)], after])[None]

    def _run(self, past: Any, **inputs: Tensor) -> tuple[Floats, Any]:
        out = self._model(**inputs, past_key_values=past, use_cache=True, logits_to_keep=1)
        return np.asarray(out.logits[0, -1].float().numpy()), out.past_key_values


if __name__ == "__main__":
    serve(Transformers)
