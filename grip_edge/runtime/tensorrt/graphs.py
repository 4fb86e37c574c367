"""A bundle's engines on the device, with the interface of ``onnx_backend.Graphs``; all stages on one stream.

Features, kept embeddings and prompt stay on the device: scoring, selection and prefill follow one another without data
going to the host, since the number of kept tokens is known there. ``time_stages`` waits at the end of each stage, so
that the clock tells them apart; without it nothing waits before the first token.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from grip_edge.bundle import Bundle
from grip_edge.engines import Engines
from grip_edge.errors import UserError
from grip_edge.plugin.loading import load_plugin
from grip_edge.runtime.positions import prompt_positions
from grip_edge.runtime.prompt import Prompt
from grip_edge.runtime.sampling import Sampler
from grip_edge.runtime.tensorrt.decoder import DeviceDecoder
from grip_edge.runtime.tensorrt.device_array import DeviceArray
from grip_edge.runtime.tensorrt.driver import Driver
from grip_edge.runtime.tensorrt.engine import Context, Engine
from grip_edge.runtime.token_loop import Decoding, answer_tokens

_CLS_ATTENTION = "cls_attention"


class DeviceFeatures:
    """``tokens`` [1,N,Dv] and, if the bundle's policy reads it, ``cls_attention`` [1,N], on the device."""

    def __init__(self, tokens: DeviceArray, cls_attention: DeviceArray | None) -> None:
        self.tokens, self.cls_attention = tokens, cls_attention


class DeviceSelection:
    """As ``onnx_backend.Selection``; indices and scores come to the host when they are asked for."""

    def __init__(self, kept_embeds: DeviceArray, indices: DeviceArray, scores: DeviceArray) -> None:
        self.kept_embeds, self._indices, self._scores = kept_embeds, indices, scores

    @property
    def kept_tokens(self) -> int:
        return self._indices.shape[1]

    @property
    def kept_indices(self) -> NDArray[np.int64]:
        return np.asarray(self._indices.read()[0])

    @property
    def scores(self) -> NDArray[np.float32]:
        return np.asarray(self._scores.read()[0])


class TensorRTGraphs:
    backend = "tensorrt"

    def __init__(
        self,
        bundle: Bundle,
        engines: Engines,
        trt: Any,
        runtime: Any,
        driver: Driver,
        time_stages: bool = True,
        plugin: Any = None,
    ) -> None:
        if bundle.manifest.image.tiling is not None:
            raise UserError("Models that cut images into tiles run with --backend onnxruntime; engines take one view.")
        self._manifest, self._driver, self._time_stages = bundle.manifest, driver, time_stages
        self._plugin = plugin  # what a registration needs to stay
        capacity = engines.manifest.cache_capacity
        load = {name: Engine(trt, engines.path(f"{name}.onnx"), runtime) for name in ("vision", "embed", "select")}
        decoder = Engine(trt, engines.path("decoder.onnx"), runtime)
        self._vision, self._embed, self._select = (load[name].context(0, driver.stream) for name in load)
        self._engines = load
        text, vision = bundle.manifest.model.text, bundle.manifest.model.vision
        self._pixels = DeviceArray(driver, (1, 3, vision.image_side_px, vision.image_side_px), np.float32)
        self._ids = DeviceArray(driver, (1, capacity), np.int64)
        self._budget = np.ones(1, np.int64)
        float_type = load["embed"].dtype("embeds")
        self._text_embeds = DeviceArray(driver, (1, capacity, text.width), float_type)
        self._prompt = DeviceArray(driver, (1, capacity, text.width), float_type)
        self._decoder = DeviceDecoder(driver, decoder, load["embed"], text, capacity, engines.manifest.cache_in_place)

    def encode_image(self, pixels: NDArray[np.float32]) -> DeviceFeatures:
        """pixels [1,3,H,W] -> features of N tokens, in memory of their own."""
        vision, engine = self._manifest.model.vision, self._engines["vision"]
        tokens = DeviceArray(self._driver, (1, vision.visual_tokens, vision.width), engine.dtype("features"))
        outputs = {"features": tokens}
        if self._manifest.scorer.reads_cls_attention:
            shape = (1, vision.visual_tokens)
            outputs[_CLS_ATTENTION] = DeviceArray(self._driver, shape, engine.dtype(_CLS_ATTENTION))
        self._run(self._vision, {"pixels": self._pixels.fill(pixels)}, outputs)
        return DeviceFeatures(tokens, outputs.get(_CLS_ATTENTION))

    def embed(self, token_ids: tuple[int, ...]) -> DeviceArray:
        """T token ids -> embeds [1,T,D], valid until the next call."""
        embeds = self._text_embeds.resized((1, len(token_ids), self._manifest.model.text.width))
        ids = self._ids.fill(np.array([token_ids], np.int64))
        self._embed.bind({"token_ids": ids}, {"embeds": embeds})
        self._embed.launch()
        return embeds

    def select(self, image: DeviceFeatures, prompt: Prompt, budget_tokens: int, plan: None = None) -> DeviceSelection:
        width, tokens = self._manifest.model.text.width, self._manifest.model.vision.visual_tokens
        engine = self._engines["select"]
        # Memory for any budget, so that the next request finds what this one gives back.
        kept_embeds = DeviceArray(self._driver, (1, tokens, width), engine.dtype("kept_embeds"))
        kept_indices = DeviceArray(self._driver, (1, tokens), np.int64)
        outputs = {
            "kept_embeds": kept_embeds.resized((1, budget_tokens, width)),
            "kept_indices": kept_indices.resized((1, budget_tokens)),
            "scores": DeviceArray(self._driver, (1, tokens), engine.dtype("scores")),
        }
        inputs = {"features": image.tokens, "question_embeds": self.embed(prompt.question)}
        if image.cls_attention is not None:
            inputs[_CLS_ATTENTION] = image.cls_attention
        self._budget[0] = budget_tokens  # a shape input: read on the host when the engine is launched
        self._select.set_address("budget", self._budget.ctypes.data)
        self._run(self._select, inputs, outputs)
        return DeviceSelection(outputs["kept_embeds"], outputs["kept_indices"], outputs["scores"])

    @contextmanager
    def next_tokens(
        self, prompt: Prompt, selection: DeviceSelection, visual_tokens: int, decoding: Decoding
    ) -> Iterator[Iterator[int]]:
        """An answer's token ids: to enter costs the prefill, each token but the first a decoder step."""
        rule = self._manifest.positions
        # Re-indexed positions depend on the number of kept tokens only, and that is known here.
        kept = np.arange(selection.kept_tokens) if rule == "reindexed" else selection.kept_indices
        positions = prompt_positions(len(prompt.before), kept, len(prompt.after), visual_tokens, rule)
        self._decoder.reset()
        self._decoder.prompt(self._prompt_embeds(prompt, selection), positions)
        choose, step = partial(self._choose, decoding.sampler), partial(self._step, decoding.sampler)
        yield answer_tokens(choose, step, int(positions[0, -1]), decoding)

    def _choose(self, sampler: Sampler) -> int:
        return self._decoder.greedy_token() if sampler.is_greedy else sampler.choose(self._decoder.logits())

    def _step(self, sampler: Sampler, token: int, position: int) -> None:
        self._decoder.step(position, None if sampler.is_greedy else token)

    def _prompt_embeds(self, prompt: Prompt, selection: DeviceSelection) -> DeviceArray:
        """[1,S,D], put together on the device: the text's embeddings, the kept visual tokens in the image's place."""
        before, kept, after = len(prompt.before), selection.kept_tokens, len(prompt.after)
        width = self._manifest.model.text.width
        row_bytes = width * self._prompt.dtype.itemsize
        text = self.embed(prompt.before + prompt.after)
        whole = self._prompt.resized((1, before + kept + after, width))
        for to, source, rows in (
            (0, text.address, before),
            (before, selection.kept_embeds.address, kept),
            (before + kept, text.address + before * row_bytes, after),
        ):
            self._driver.copy(whole.address + to * row_bytes, source, rows * row_bytes)
        return whole

    def _run(self, context: Context, inputs: dict[str, DeviceArray], outputs: dict[str, DeviceArray]) -> None:
        context.bind(inputs, outputs)
        context.launch()
        if self._time_stages:
            self._driver.synchronise()


def open_engines(bundle: Bundle, engines: Engines, trt: Any, extra: str, plugin: Path | None = None) -> TensorRTGraphs:
    """On the GPU of this machine. ``plugin``: the library that selects tokens, where the engines do not hold it;
    ``extra``: of grip-edge, that brings what is needed beside ``trt``.
    """
    from grip_edge.runtime.tensorrt.driver import CudaDriver

    driver = CudaDriver(extra)
    runtime = trt.Runtime(trt.Logger(trt.Logger.ERROR))
    kept = None
    if engines.manifest.plugin_version is not None:
        if plugin is not None:
            kept = load_plugin(trt, runtime.get_plugin_registry(), plugin)
        elif engines.manifest.plugin_embedded:
            runtime.engine_host_code_allowed = True  # the engines were built by the one who runs them
        else:
            raise UserError("These engines select with the plugin: name its library with  GRIP_EDGE_PLUGIN=PATH .")
    return TensorRTGraphs(bundle, engines, trt, runtime, driver, plugin=kept)
