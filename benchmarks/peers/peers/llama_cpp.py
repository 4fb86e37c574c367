"""llama.cpp through llama-cpp-python, which builds it for this machine: text in GGUF, images through its own encoder.

Its converter refuses CLIP inside LLaVA in Hugging Face's form, so the GGUF files are written by ``workers.gguf``.
"""

from __future__ import annotations

from benchmarks.peers.contestants import Contestant, Peer, Step, Work, file_bytes

PINS = (
    (
        "llama-cpp-python==0.3.36",
        "gguf==0.19.0",
        "numpy==2.4.6",
        "pillow==13.0.0",
        "safetensors==0.8.0",
    ),
)
_BITS = {"q8_0": 8, "q4_0": 4}
_BLOCK_BYTES = {"q8_0": 34, "q4_0": 18}  # per 32 weights
_NOTE = (
    "its image graph puts CLS last and then cuts off the first patch in its place, so one feature is not the image's; "
    "on processors with AMX, its layouts for AMX are switched off, which end with a segmentation fault"
)


def llama_cpp(work: Work) -> Peer:
    folder = work.converted("llama-cpp")
    steps = (
        _step("llama-cpp-f16", work, str(work.model), made="text-f16.gguf"),
        *(_step(f"llama-cpp-{name}", work, "--quantise", name, made=f"text-{name}.gguf") for name in _BITS),
    )
    contestants = tuple(
        Contestant(
            name=f"llama.cpp {name}",
            worker="llama_cpp",
            weights=name,
            bits=bits,
            folder=folder,
            decoder_bytes=file_bytes(folder / f"text-{name}.gguf", unread=_table_bytes(work, name)),
            settings={"precision": name},
            note=_NOTE,
        )
        for name, bits in _BITS.items()
    )
    return Peer("llama-cpp", "llama.cpp", PINS, steps, contestants)


def _step(name: str, work: Work, *arguments: str, made: str) -> Step:
    folder = work.converted("llama-cpp")
    return Step(name, ("-m", "benchmarks.peers.workers.gguf", str(folder), *arguments), folder / made)


def _table_bytes(work: Work, name: str) -> int:
    return work.shape.head_weights // 32 * _BLOCK_BYTES[name]
