"""Answers with OpenVINO on CPUs: it runs the vision tower and the decoder, ONNX Runtime embeds and selects in fp32.

A bundle in fp32 computes in fp32. Others compute, outside of int8 products, in what the processor is best at, bf16
where it has it, and keep the cache in 8 bits.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import cache, partial
from pathlib import Path
from typing import Any

import numpy as np
import openvino as ov
from numpy.typing import NDArray

from grip_edge.bundle import Bundle
from grip_edge.errors import BundleError, UserError
from grip_edge.mapped_files import loading, packing
from grip_edge.runtime.onnx_backend import ImageFeatures, Selection, SelectionGraphs, features_in_parts
from grip_edge.runtime.openvino.decoder import StatefulDecoder
from grip_edge.runtime.openvino.pool import Pool
from grip_edge.runtime.openvino.stateful_graph import with_own_cache
from grip_edge.runtime.positions import prompt_positions
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.token_loop import Decoding, answer_tokens, chosen, greedy_tokens

BACKEND = "openvino"

_VISION, _DECODER = "vision.onnx", "decoder.onnx"

_Settings = dict[str, Any]


class OpenVinoGraphs(SelectionGraphs):
    """``backend`` is the name in results. ``threads`` None leaves the number to OpenVINO."""

    backend = BACKEND

    def __init__(self, bundle: Bundle, threads: int | None = None) -> None:
        _require_fixed_scales(bundle)
        super().__init__(bundle, threads)
        settings = _settings(bundle, threads)
        self._visions = Pool(_compiled(bundle.path(_VISION), settings).create_infer_request)
        self._decoder = _compiled(bundle.path(_DECODER), settings, is_decoder=True)
        self._decoders = Pool(self.new_decoder)
        self._folder = bundle.folder
        self._unpacked = {_VISION, _DECODER}

    def new_decoder(self) -> StatefulDecoder:
        return StatefulDecoder(self._decoder, self._embed)

    def encode_image(self, pixels: NDArray[np.float32]) -> ImageFeatures:
        """pixels [A,3,H,W] -> features of all patches."""
        with self._visions.one() as vision, self._packing(_VISION):
            return features_in_parts(partial(self._encode, vision), pixels)

    def _encode(self, vision: ov.InferRequest, pixels: NDArray[np.float32]) -> list[NDArray[Any]]:
        found = vision.infer({"pixels": pixels})
        return [found[name] for name in self.vision_outputs]

    @contextmanager
    def next_tokens(
        self, prompt: Prompt, selection: Selection, visual_tokens: int, decoding: Decoding
    ) -> Iterator[Iterator[int]]:
        """An answer's token ids: to enter costs the prefill, each token but the first a decoder step."""
        rule = self.manifest.positions
        positions = prompt_positions(len(prompt.before), selection.kept_indices, len(prompt.after), visual_tokens, rule)
        with self._decoders.one() as decoder:
            decoder.restart()
            with self._packing(_DECODER):
                decoder.append(selection.prompt_embeds, positions)
            self._room.give_back(selection.prompt_embeds)
            last = int(positions[0, -1])
            if decoding.sampler.is_greedy and decoder.embeds_choice:
                yield greedy_tokens(decoder.likeliest_token, decoder.begin_steps, last, decoding)
            else:
                yield answer_tokens(partial(chosen, decoder, decoding.sampler), decoder.step, last, decoding)

    def _packing(self, graph: str) -> AbstractContextManager[None]:
        """Around a run: OpenVINO packs its copy of a graph's weights in the first one, not when it compiles it."""
        if graph not in self._unpacked:
            return nullcontext()
        self._unpacked.discard(graph)
        return packing(self._folder)


def _require_fixed_scales(bundle: Bundle) -> None:
    """Without them, int8 products run in floats here, several times slower than in ONNX Runtime."""
    formats, target = bundle.manifest.weight_formats, bundle.manifest.target
    if formats is not None and target != BACKEND and "int8" in (formats.vision, formats.decoder, formats.lm_head):
        raise UserError(
            f"--backend openvino wants int8 with fixed scales, this bundle is for {target}; run  "
            f"grip-edge calibrate FLOAT-BUNDLE --precision int8 --target {BACKEND} --out DIR ."
        )


def _settings(bundle: Bundle, threads: int | None) -> _Settings:
    settings: _Settings = {"PERFORMANCE_HINT": "LATENCY"}
    if threads is not None:
        settings["INFERENCE_NUM_THREADS"] = threads
    if bundle.manifest.precision == "fp32":
        settings |= {"INFERENCE_PRECISION_HINT": "f32", "KV_CACHE_PRECISION": "f32"}
    return settings


@cache
def _core() -> ov.Core:
    """One for the process, which stays: each gives the thread another stack for signals and takes it away at its end,
    and where they do not end in the reverse order, the next Ctrl-C finds a stack that is gone.
    """
    return ov.Core()


def _compiled(path: Path, settings: _Settings, is_decoder: bool = False) -> ov.CompiledModel:
    with loading(path.parent):
        return _core().compile_model(_read(path, is_decoder), "CPU", settings)


def _read(path: Path, is_decoder: bool) -> ov.Model:
    try:
        model = _core().read_model(path)
    except RuntimeError as error:
        # Its report ends with a summary.
        reason = " ".join(str(error).rpartition("Summary:")[2].split())[:200]
        raise BundleError(f"{path} cannot be read by OpenVINO ({reason}); choose another --backend.") from None
    if is_decoder:
        try:
            model = with_own_cache(model)
        except ValueError as error:
            raise UserError(
                f"--backend {BACKEND} needs a decoder for the target openvino or cpu; in {path} {error}."
            ) from None
    return model
