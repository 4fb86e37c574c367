"""llama.cpp: its image encoder (mtmd) and decoder, driven through the C interface as its own programs do.

The image's features are handed over as embeddings, so that they can be fewer. Their first row is not the first patch's:
see ``gguf``.
"""

from __future__ import annotations

import ctypes
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
from llama_cpp import mtmd_cpp
from PIL import Image

from benchmarks.peers.protocol import Message, serve
from benchmarks.peers.workers.common import (
    CHECKED_TOKENS,
    Clock,
    Floats,
    checked,
    decode,
    kept_rows,
    prompt_ids,
    versions,
)

_CONTEXT = 1024
_MARKER = b"<__media__>"


class LlamaCpp:
    def __init__(self, settings: Message) -> None:
        folder, threads = Path(settings["folder"]), settings["threads"]
        llama_cpp.llama_backend_init()
        text = str(folder / f"text-{settings['precision']}.gguf").encode()
        options = llama_cpp.llama_model_default_params()
        options.use_extra_bufts = not _has_amx()
        self._model = _made(llama_cpp.llama_model_load_from_file(text, options))
        params = llama_cpp.llama_context_default_params()
        params.n_ctx = params.n_batch = _CONTEXT
        params.n_threads = params.n_threads_batch = threads
        self._context = _made(llama_cpp.llama_init_from_model(self._model, params))
        vocabulary = llama_cpp.llama_model_get_vocab(self._model)
        self._vocabulary = llama_cpp.llama_vocab_n_tokens(vocabulary)
        self._width = llama_cpp.llama_model_n_embd(self._model)
        encoder = mtmd_cpp.mtmd_context_params_default()
        encoder.use_gpu = False
        encoder.n_threads = threads
        encoder.media_marker = _MARKER
        encoder.warmup = False
        image = str(folder / "image-f16.gguf").encode()
        self._encoder = _made(mtmd_cpp.mtmd_init_from_file(image, self._model, encoder))
        self._picture = Path(settings["picture"])
        self._before, self._after = prompt_ids()

    def versions(self) -> Mapping[str, str]:
        return versions("llama-cpp-python")

    def answer(self, kept: int, new_tokens: int) -> Message:
        clock = Clock()
        features = self._features()
        clock.vision_done()
        logits = self._prefill(features[kept_rows(len(features), kept)])
        tokens = decode(clock, logits, lambda token: self._decode_ids([token]), new_tokens)
        return clock.answer(tokens, len(self._before) + kept + len(self._after))

    def check(self, folder: Path) -> Message:
        features = self._features()
        logits = self._prefill(features).copy()
        return checked(folder, self.answer(len(features), CHECKED_TOKENS)["tokens"], features, logits)

    def _features(self) -> Floats:
        """[N,D], projected, each row at the place of its patch."""
        with Image.open(self._picture) as image:
            levels = np.ascontiguousarray(image.convert("RGB"))
        data = levels.ctypes.data_as(ctypes.POINTER(ctypes.c_uint8))
        bitmap = _made(mtmd_cpp.mtmd_bitmap_init(levels.shape[1], levels.shape[0], data))
        chunks = _made(mtmd_cpp.mtmd_input_chunks_init())
        try:
            return self._encoded(bitmap, chunks)
        finally:
            mtmd_cpp.mtmd_input_chunks_free(chunks)
            mtmd_cpp.mtmd_bitmap_free(bitmap)

    def _encoded(self, bitmap: Any, chunks: Any) -> Floats:
        text = mtmd_cpp.mtmd_input_text(_MARKER, len(_MARKER), False, True)
        bitmaps = (mtmd_cpp.mtmd_bitmap_p_ctypes * 1)(bitmap)
        _done(mtmd_cpp.mtmd_tokenize(self._encoder, chunks, ctypes.byref(text), bitmaps, 1))
        for index in range(mtmd_cpp.mtmd_input_chunks_size(chunks)):
            chunk = mtmd_cpp.mtmd_input_chunks_get(chunks, index)
            if mtmd_cpp.mtmd_input_chunk_get_type(chunk) == mtmd_cpp.MTMD_INPUT_CHUNK_TYPE_IMAGE:
                _done(mtmd_cpp.mtmd_encode_chunk(self._encoder, chunk))
                count = mtmd_cpp.mtmd_input_chunk_get_n_tokens(chunk)
                found = mtmd_cpp.mtmd_get_output_embd(self._encoder)
                return np.roll(np.ctypeslib.as_array(found, (count, self._width)), 1, axis=0)
        raise RuntimeError("mtmd found no image in its own marker")

    def _prefill(self, features: Floats) -> Floats:
        llama_cpp.llama_memory_clear(llama_cpp.llama_get_memory(self._context), True)
        self._decode_ids(self._before)
        self._decode_embeds(features, len(self._before))
        return self._decode_ids(self._after)

    def _decode_ids(self, ids: list[int]) -> Floats:
        """Behind what is there; logits [V] of the last, valid until the next call."""
        array = (llama_cpp.llama_token * len(ids))(*ids)
        _done(llama_cpp.llama_decode(self._context, llama_cpp.llama_batch_get_one(array, len(ids))))
        return np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(self._context, -1), (self._vocabulary,))

    def _decode_embeds(self, features: Floats, start: int) -> None:
        count = len(features)
        batch = llama_cpp.llama_batch_init(count, self._width, 1)
        ctypes.memmove(batch.embd, np.ascontiguousarray(features, np.float32).ctypes.data, 4 * count * self._width)
        batch.n_tokens = count
        for row in range(count):
            batch.pos[row] = start + row
            batch.n_seq_id[row] = 1
            batch.seq_id[row][0] = 0
            batch.logits[row] = 0
        _done(llama_cpp.llama_decode(self._context, batch))
        llama_cpp.llama_batch_free(batch)


def _has_amx() -> bool:
    """On processors with AMX, weights that this version lays out for it end the first product with a segmentation
    fault; so they stay as they are in the file there.
    """
    return "amx_int8" in Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")


def _made(pointer: Any) -> Any:
    if not pointer:
        raise RuntimeError("llama.cpp gave no pointer; its log has the reason")
    return pointer


def _done(code: int) -> None:
    if code:
        raise RuntimeError(f"llama.cpp answered with the code {code}; its log has the reason")


if __name__ == "__main__":
    serve(LlamaCpp)
