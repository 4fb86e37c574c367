"""One request on its way through the stages: preprocess, vision, select, prefill, then decode token by token.

Time that the reader of the pieces takes between them is not counted.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from grip_edge.errors import PromptError
from grip_edge.runtime.detokenizer import Detokenizer
from grip_edge.runtime.image import open_image
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.request import EncodedImage, Request, budget_use
from grip_edge.runtime.result import BudgetUse, Result, Timings
from grip_edge.runtime.sampling import Sampler
from grip_edge.runtime.stage_clock import StageClock
from grip_edge.runtime.token_loop import Decoding
from grip_edge.tiles import TilePlan

if TYPE_CHECKING:
    from grip_edge.runtime.pipeline import Pipeline


class Stream:
    """Iterate for the pieces of the answer, computed as they are read; they join to ``result().answer``.

    ``encoded`` is the image behind the vision tower, as soon as there is a piece.
    """

    def __init__(self, pipeline: Pipeline, request: Request) -> None:
        self._pipeline = pipeline
        self._request = request
        self._result: Result | None = None
        self.encoded: EncodedImage | None = None
        self._clock = StageClock()
        self._detokenizer = Detokenizer(pipeline.tokenizer)
        self._texts: list[str] = []  # one for each token that was read as text
        self._rest = ""  # of the text, where the last tokens were not read so
        self._tokens = self._answer()
        self._is_read = False  # token by token

    def __iter__(self) -> Iterator[str]:
        self._is_read = True
        for token in self._tokens:
            self._texts.append(self._detokenizer.add(token))
            if self._texts[-1]:
                self._clock.pause()
                yield self._texts[-1]
                self._clock.resume()
        rest, self._rest = self._rest, ""
        if rest:
            yield rest

    def result(self) -> Result:
        """The whole answer with its timings; computes what has not been read yet."""
        self._clock.resume()  # where only a part was read
        self._is_read = False
        for _ in self._tokens:  # no text of these is needed before the end
            pass
        if self._result is None:
            raise RuntimeError("This answer ended with an error, so it has no result.")
        return self._result

    def _answer(self) -> Iterator[int]:
        """The tokens of the answer, through all stages; then the result."""
        pipeline, request = self._pipeline, self._request
        clock = self._clock = StageClock()
        encoded, vision_cached, prompt, budget = self._encode()
        self.encoded = encoded
        clock.lap("vision")
        selection = pipeline.graphs.select(encoded.features, prompt, budget.kept_tokens, encoded.plan)
        clock.lap("select")

        tokens: list[int] = []
        moments_s: list[float] = []
        token_ms: list[float] = []
        stops = () if request.ignore_stop else pipeline.manifest.prompt.stop_token_ids
        decoding = Decoding(request.max_new_tokens, Sampler(request.sampling), stops, moments_s.append)
        with pipeline.graphs.next_tokens(prompt, selection, budget.visual_tokens, decoding) as new:
            while self._is_read and (token := next(new, None)) is not None:
                token_ms.append(clock.elapsed_ms(moments_s[-1]))
                tokens.append(token)
                yield token
            tokens.extend(new)  # without a line of Python between two of them (``token_loop``)
        token_ms += map(clock.elapsed_ms, moments_s[len(token_ms) :])
        self._rest = self._detokenizer.flush(*tokens[len(self._texts) :])
        clock.lap("prefill", token_ms[0])
        clock.lap("decode")
        stages_ms = {f"{stage}_ms": ms for stage, ms in clock.laps_ms.items()}
        timings = Timings(**stages_ms, vision_cached=vision_cached, token_ms=tuple(token_ms))
        decode_steps = len(token_ms) - 1
        self._result = Result(
            answer="".join((*self._texts, self._rest)),
            tokens=tuple(tokens),
            budget=budget,
            kept_indices=tuple(selection.kept_indices.tolist()),
            timings=timings,
            decode_tokens_per_sec=1000.0 * decode_steps / timings.decode_ms if decode_steps else None,
            backend=pipeline.graphs.backend,
            bundle=str(pipeline.bundle.folder),
            scores=tuple(selection.scores.tolist()),
        )

    def _encode(self) -> tuple[EncodedImage, bool, Prompt, BudgetUse]:
        """The image behind the tower, whether it was known already, and the request against its number of tokens."""
        pipeline, request = self._pipeline, self._request
        if isinstance(request.image, EncodedImage):
            prompt, budget = check_request(pipeline, request, request.image.plan)
            self._clock.lap("preprocess")
            return request.image, True, prompt, budget
        image = open_image(request.image)
        plan = pipeline.preprocess.plan(image)
        prompt, budget = check_request(pipeline, request, plan)
        pixels = pipeline.preprocess(image)
        self._clock.lap("preprocess")
        features, vision_cached = pipeline.encode_image(pixels)
        return EncodedImage(features, plan), vision_cached, prompt, budget


def check_request(pipeline: Pipeline, request: Request, plan: TilePlan | None) -> tuple[Prompt, BudgetUse]:
    """The prompt and the budget in tokens; an error of the user's if the model cannot take them. Computes nothing."""
    prompt = pipeline.prompt_encoder.encode(request.question)
    allowed = pipeline.manifest.budget_range
    budget = budget_use(request.budget, allowed if plan is None else allowed.for_image(plan.visual_tokens))
    text_tokens = len(prompt.before) + len(prompt.after)
    visual = budget.kept_tokens if pipeline.manifest.positions == "reindexed" else budget.visual_tokens
    limit = pipeline.manifest.model.text.max_positions
    if text_tokens + visual + request.max_new_tokens > limit:
        raise PromptError(
            f"The prompt takes {text_tokens + visual} positions ({text_tokens} of text, {visual} of the image) and "
            f"{request.max_new_tokens} new tokens are asked for, but the model has {limit}; shorten the "
            "question or lower max-new-tokens."
        )
    return prompt, budget
