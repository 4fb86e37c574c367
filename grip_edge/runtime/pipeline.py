"""From an image and a question to an answer, with the visual tokens pruned to a budget chosen per request.

    pipeline = Pipeline.load("grip-bundle")
    pipeline.generate("picture.png", "What colour is the circle?", budget=0.25).answer

Everything about the model comes from the bundle's ``grip.json``. A pipeline serves one request at a time.
"""

from __future__ import annotations

import dataclasses
import os
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray

from grip_edge.budget import Budget
from grip_edge.budget_record import AUTO_BUDGET
from grip_edge.bundle import TOKENIZER_NAME, Bundle, open_bundle
from grip_edge.errors import BundleError, UserError
from grip_edge.runtime.backend import open_backend
from grip_edge.runtime.feature_cache import FeatureCache
from grip_edge.runtime.image import ImageSource, open_image
from grip_edge.runtime.onnx_backend import ImageFeatures
from grip_edge.runtime.positions import RULES
from grip_edge.runtime.preprocess import Preprocessor
from grip_edge.runtime.prompt import PromptEncoder, load_tokenizer
from grip_edge.runtime.request import AnswerOptions, EncodedImage, Request
from grip_edge.runtime.result import Result
from grip_edge.runtime.sampling import Sampling
from grip_edge.runtime.stream import Stream, check_request

if TYPE_CHECKING:
    from typing_extensions import Unpack

_CACHED_IMAGES = 4


class Pipeline:
    """One bundle, loaded. ``cached_images`` is how many images' features are kept; 0 encodes every image anew."""

    def __init__(
        self,
        bundle: Bundle,
        threads: int | None = None,
        cached_images: int = _CACHED_IMAGES,
        backend: str | None = None,
    ) -> None:
        if threads is not None and threads < 1:
            raise UserError(f"The number of threads is at least 1; got {threads}.")
        manifest = bundle.manifest
        if manifest.positions not in RULES:
            raise BundleError(f"grip.json: positions is '{manifest.positions}', expected one of {', '.join(RULES)}.")
        self.bundle = bundle
        self.manifest = manifest
        self.tokenizer = load_tokenizer(bundle.path(TOKENIZER_NAME))
        self.prompt_encoder = PromptEncoder(self.tokenizer, manifest.prompt)
        self.preprocess = Preprocessor(manifest.image)
        opened = open_backend(bundle, backend, threads)
        self.graphs: Any = opened.graphs  # as onnx_backend.Graphs, with arrays of its own kind between the stages
        self.backend_reason = opened.reason
        self._features = FeatureCache(cached_images)

    @classmethod
    def load(
        cls,
        folder: str | os.PathLike[str],
        threads: int | None = None,
        cached_images: int = _CACHED_IMAGES,
        backend: str | None = None,
    ) -> Pipeline:
        """``threads`` None leaves their number to ONNX Runtime; ``backend`` None takes the best that runs here."""
        return cls(open_bundle(os.fspath(folder)), threads, cached_images, backend)

    def generate(
        self,
        image: ImageSource,
        question: str,
        budget: Budget | float | int | str = 0.25,
        max_new_tokens: int = 64,
        **options: Unpack[AnswerOptions],
    ) -> Result:
        """The whole answer; options as for ``stream``."""
        return self.stream(image, question, budget, max_new_tokens, **options).result()

    def generate_batch(
        self,
        image: ImageSource,
        questions: Sequence[str],
        budget: Budget | float | int | str = 0.25,
        max_new_tokens: int = 64,
        **options: Unpack[AnswerOptions],
    ) -> list[Result]:
        """One answer per question about one image; options as for ``stream``, the same for all.

        The image is opened and encoded once, and the encoding's time stands in the first result. All questions are
        checked before the first is answered; they are answered one after the other.
        """
        opened = open_image(image)
        requests = [self._request(opened, question, budget, max_new_tokens, **options) for question in questions]
        for request in requests:
            check_request(self, request, self.preprocess.plan(opened))
        results: list[Result] = []
        encoded: EncodedImage | None = None
        for request in requests:
            stream = Stream(self, request if encoded is None else dataclasses.replace(request, image=encoded))
            results.append(stream.result())
            encoded = stream.encoded
        return results

    def stream(
        self,
        image: ImageSource,
        question: str,
        budget: Budget | float | int | str = 0.25,
        max_new_tokens: int = 64,
        **options: Unpack[AnswerOptions],
    ) -> Stream:
        """The answer piece by piece. Options are checked at once; the work starts when the first piece is read.

        ``budget`` is a ratio (float), a token count (int), either as text, or "auto": what ``grip-edge calibrate``
        recommends. Where the number of visual tokens depends on the image, a token count is checked when the image is
        read. ``options`` are those of ``request.AnswerOptions``: temperature, top_p, seed, ignore_stop.
        """
        return Stream(self, self._request(image, question, budget, max_new_tokens, **options))

    def _request(
        self,
        image: ImageSource,
        question: str,
        budget: Budget | float | int | str,
        max_new_tokens: int,
        ignore_stop: bool = False,
        **sampling: Any,
    ) -> Request:
        wanted = self._recommended() if budget == AUTO_BUDGET else Budget.of(budget)
        if self.manifest.image.tiling is None or wanted.tokens is None:
            self.manifest.budget_range.resolve(wanted)
        return Request(image, question, wanted, max_new_tokens, Sampling(**sampling), ignore_stop)

    def _recommended(self) -> Budget:
        found = self.manifest.recommended_budget
        if found is None:
            raise UserError(
                "Budget auto needs a recommendation, and this bundle has none; run  grip-edge calibrate BUNDLE "
                "--min-agreement 0.95,  or give a ratio such as 0.25."
            )
        return Budget(tokens=found.kept_tokens)

    def encode_image(self, pixels: NDArray[np.float32]) -> tuple[ImageFeatures, bool]:
        """pixels [A,3,H,W] -> features of all patches, and whether they were known already."""
        key = self._features.key(pixels)
        known = self._features.get(key)
        if known is not None:
            return known, True
        features: ImageFeatures = self.graphs.encode_image(pixels)
        self._features.put(key, features)
        return features, False
