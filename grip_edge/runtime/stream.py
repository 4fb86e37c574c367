"""One request on its way through the stages: preprocess, vision, select, prefill, then decode token by token.

Time that the reader of the pieces takes between them is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grip_edge.errors import PromptError
from grip_edge.runtime.decoder import CachedDecoder
from grip_edge.runtime.detokenizer import Detokenizer
from grip_edge.runtime.image import open_image
from grip_edge.runtime.onnx_backend import BACKEND, Selection
from grip_edge.runtime.positions import prompt_positions
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.request import Request, budget_use
from grip_edge.runtime.result import BudgetUse, Result, Timings
from grip_edge.runtime.sampling import Sampler
from grip_edge.runtime.stage_clock import StageClock

if TYPE_CHECKING:
    from grip_edge.runtime.pipeline import Pipeline


class Stream:
    """Iterate for the pieces of the answer, computed as they are read; they join to ``result().answer``."""

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self._pipeline = pipeline
        self._request = request
        self._result: Result | None = None
        self._pieces = self._answer()

    def __iter__(self) -> Iterator[str]:
        return self._pieces

    def result(self) -> Result:
        """The whole answer with its timings; computes what has not been read yet."""
        for _ in self._pieces:
            pass
        if self._result is None:
            raise RuntimeError("This answer ended with an error, so it has no result.")
        return self._result

    def _answer(self) -> Iterator[str]:
        pipeline, request, clock = self._pipeline, self._request, StageClock()
        prompt = pipeline.prompt_encoder.encode(request.question)
        image = open_image(request.image)
        plan = pipeline.preprocess.plan(image)
        allowed = pipeline.manifest.budget_range
        budget = budget_use(request.budget, allowed if plan is None else allowed.for_image(plan.visual_tokens))
        self._check_length(prompt, budget)
        pixels = pipeline.preprocess(image)
        clock.lap("preprocess")
        features, vision_cached = pipeline.encode_image(pixels)
        clock.lap("vision")
        question_embeds = pipeline.graphs.embed(prompt.question)
        selection = pipeline.graphs.select(features, question_embeds, budget.kept_tokens, plan)
        clock.lap("select")

        tokens: list[int] = []
        pieces: list[str] = []
        detokenizer = Detokenizer(pipeline.tokenizer)
        decode_steps = -1
        stops = () if request.ignore_stop else pipeline.manifest.prompt.stop_token_ids
        for token in self._next_tokens(prompt, selection, budget.visual_tokens):
            clock.lap("prefill" if decode_steps < 0 else "decode")
            decode_steps += 1
            if token in stops:
                break
            tokens.append(token)
            pieces.append(detokenizer.add(token))
            if pieces[-1]:
                clock.lap("decode")
                yield pieces[-1]
                clock.resume()
        pieces.append(detokenizer.flush())
        clock.lap("decode")
        timings = Timings(**{f"{stage}_ms": ms for stage, ms in clock.laps_ms.items()}, vision_cached=vision_cached)
        self._result = Result(
            answer="".join(pieces),
            tokens=tuple(tokens),
            budget=budget,
            kept_indices=tuple(selection.kept_indices.tolist()),
            timings=timings,
            decode_tokens_per_sec=1000.0 * decode_steps / timings.decode_ms if decode_steps else None,
            backend=BACKEND,
            bundle=str(pipeline.bundle.folder),
        )
        if pieces[-1]:
            yield pieces[-1]

    def _next_tokens(self, prompt: Prompt, selection: Selection, visual_tokens: int) -> Iterator[int]:
        """Up to ``max_new_tokens`` token ids; the first one costs the prefill, each other one a decoder step."""
        pipeline, request = self._pipeline, self._request
        kept, rule = selection.kept_indices, pipeline.manifest.positions
        positions = prompt_positions(len(prompt.before), kept, len(prompt.after), visual_tokens, rule)
        capacity = positions.shape[1] + request.max_new_tokens
        decoder = CachedDecoder(pipeline.graphs.decoder, pipeline.manifest.model.text, capacity)
        sampler = Sampler(request.sampling)
        token = sampler.choose(decoder.append(self._prompt_embeds(prompt, selection), positions))
        yield token
        for position in range(positions[0, -1] + 1, positions[0, -1] + request.max_new_tokens):
            token = sampler.choose(decoder.append(pipeline.graphs.embed((token,)), np.array([[position]], np.int64)))
            yield token

    def _prompt_embeds(self, prompt: Prompt, selection: Selection) -> NDArray[Any]:
        """[1,S,D]: the text's embeddings with the kept visual tokens in the image's place."""
        text = self._pipeline.graphs.embed(prompt.before + prompt.after)
        split = len(prompt.before)
        return np.concatenate([text[:, :split], selection.kept_embeds, text[:, split:]], axis=1)

    def _check_length(self, prompt: Prompt, budget: BudgetUse) -> None:
        text_tokens = len(prompt.before) + len(prompt.after)
        visual = budget.kept_tokens if self._pipeline.manifest.positions == "reindexed" else budget.visual_tokens
        limit = self._pipeline.manifest.model.text.max_positions
        if text_tokens + visual + self._request.max_new_tokens > limit:
            raise PromptError(
                f"The prompt takes {text_tokens + visual} positions ({text_tokens} of text, {visual} of the image) and "
                f"{self._request.max_new_tokens} new tokens are asked for, but the model has {limit}; shorten the "
                "question or lower max-new-tokens."
            )
