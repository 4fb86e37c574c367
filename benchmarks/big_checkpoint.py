"""Writes a random-weight LLaVA-1.5 checkpoint of the published shape, as sharded safetensors, within little memory.

    python benchmarks/big_checkpoint.py --size 7b --out /tmp/llava-1.5-7b-shape

The configurations are those of llava-hf/llava-1.5-7b-hf and -13b-hf. Only the shapes are theirs: weights are random
(normal, 0.02), tokenizer and chat template those of the embedded llava-tiny, and an untrained scorer lies beside them.
What such a checkpoint can show is memory, disk, speed and agreement with transformers; nothing about quality.
"""

from __future__ import annotations

import json
import math
import shutil
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any, BinaryIO

import click
import torch

from grip_edge.calibration.scorer import ScorerConfig
from grip_edge.calibration.scorer_files import save_random_scorer
from grip_edge.catalog import SCORER_FOLDER, WEIGHTS_INDEX_NAME, find_model
from grip_edge.export.quiet import quiet_libraries

TEXT = {
    "7b": {"hidden_size": 4096, "intermediate_size": 11008, "num_hidden_layers": 32, "num_attention_heads": 32},
    "13b": {"hidden_size": 5120, "intermediate_size": 13824, "num_hidden_layers": 40, "num_attention_heads": 40},
}
TEXT_COMMON = {"vocab_size": 32064, "max_position_embeddings": 4096, "rms_norm_eps": 1e-5}
VISION: dict[str, Any] = {
    "hidden_size": 1024, "intermediate_size": 4096, "num_hidden_layers": 24, "num_attention_heads": 16,
    "image_size": 336, "patch_size": 14, "projection_dim": 768, "vocab_size": 32000,
}  # fmt: skip
STANDARD_DEVIATION = 0.02

DTYPES = {"fp16": ("F16", torch.float16), "bf16": ("BF16", torch.bfloat16)}
SHARD_BYTES = 5_000_000_000
_CHUNK_ELEMENTS = 1 << 24

Shapes = list[tuple[str, tuple[int, ...]]]


@click.command()
@click.option("--size", type=click.Choice(list(TEXT)), default="7b", show_default=True)
@click.option("--layers", type=int, help="Decoder layers, for less disk; default: all.")
@click.option("--dtype", type=click.Choice(list(DTYPES)), default="fp16", show_default=True)
@click.option("--seed", type=int, default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), required=True)
def main(size: str, layers: int | None, dtype: str, seed: int, out: Path) -> None:
    started = time.perf_counter()
    text = TEXT[size] | TEXT_COMMON | ({"num_hidden_layers": layers} if layers else {})
    out.mkdir(parents=True)
    config, shapes = _config_and_shapes(text, out)
    total = _write_shards(shapes, dtype, seed, out)
    _write_processor(out)
    side = VISION["image_size"] // VISION["patch_size"]
    save_random_scorer(
        out / SCORER_FOLDER, ScorerConfig(VISION["hidden_size"], config.text_config.hidden_size, (side, side))
    )
    print(f"{out}: {len(shapes)} tensors, {total / 1e9:.2f} GB in {time.perf_counter() - started:.0f} s")


def _config_and_shapes(text: dict[str, Any], out: Path) -> tuple[Any, Shapes]:
    """transformers' own configuration and tensor names; the model exists on the meta device only."""
    from transformers import AutoTokenizer, CLIPVisionConfig, LlamaConfig, LlavaConfig, LlavaForConditionalGeneration

    with quiet_libraries():
        tokenizer = AutoTokenizer.from_pretrained(find_model("llava-tiny"))
        config = LlavaConfig(
            vision_config=CLIPVisionConfig(**VISION),
            text_config=LlamaConfig(**text, bos_token_id=tokenizer.bos_token_id, eos_token_id=tokenizer.eos_token_id),
            image_token_index=int(tokenizer.vocab["<image>"]),
            vision_feature_layer=-2,
            vision_feature_select_strategy="default",
            image_seq_length=(VISION["image_size"] // VISION["patch_size"]) ** 2,
        )
        config.architectures = ["LlavaForConditionalGeneration"]
        config.save_pretrained(out)
        with torch.device("meta"):
            model = LlavaForConditionalGeneration(config)
    return config, [(name, tuple(tensor.shape)) for name, tensor in model.state_dict().items()]


def _write_shards(shapes: Shapes, dtype: str, seed: int, out: Path) -> int:
    generator = torch.Generator().manual_seed(seed)
    shards = list(_shards(shapes))
    weight_map: dict[str, str] = {}
    total = 0
    for index, shard in enumerate(shards):
        name = f"model-{index + 1:05d}-of-{len(shards):05d}.safetensors"
        weight_map |= {tensor: name for tensor, _ in shard}
        with (out / name).open("wb") as file:
            total += _write_shard(file, shard, dtype, generator)
    index_file = {"metadata": {"total_size": total}, "weight_map": weight_map}
    (out / WEIGHTS_INDEX_NAME).write_text(json.dumps(index_file, indent=2), encoding="utf-8")
    return total


def _shards(shapes: Shapes) -> Iterator[Shapes]:
    shard: Shapes = []
    size = 0
    for name, shape in shapes:
        tensor_bytes = 2 * math.prod(shape)
        if shard and size + tensor_bytes > SHARD_BYTES:
            yield shard
            shard, size = [], 0
        shard.append((name, shape))
        size += tensor_bytes
    yield shard


def _write_shard(file: BinaryIO, shard: Shapes, dtype: str, generator: torch.Generator) -> int:
    stored_name, torch_dtype = DTYPES[dtype]
    header: dict[str, Any] = {"__metadata__": {"format": "pt"}}
    end = 0
    for name, shape in shard:
        start, end = end, end + 2 * math.prod(shape)
        header[name] = {"dtype": stored_name, "shape": list(shape), "data_offsets": [start, end]}
    text = json.dumps(header).encode()
    text += b" " * (-len(text) % 8)
    file.write(len(text).to_bytes(8, "little") + text)
    for name, shape in shard:
        centre = 1.0 if "norm" in name and name.endswith("weight") else 0.0
        left = math.prod(shape)
        while left:
            count = min(left, _CHUNK_ELEMENTS)
            values = torch.empty(count).normal_(centre, STANDARD_DEVIATION, generator=generator).to(torch_dtype)
            file.write(values.view(torch.uint8).numpy().data)
            left -= count
    return end


def _write_processor(out: Path) -> None:
    """llava-tiny's files, the image size changed."""
    tiny = find_model("llava-tiny")
    for name in ("chat_template.jinja", "generation_config.json", "tokenizer.json", "tokenizer_config.json"):
        shutil.copyfile(tiny / name, out / name)
    side = VISION["image_size"]
    processor = json.loads((tiny / "processor_config.json").read_text(encoding="utf-8"))
    processor["image_processor"] |= {"crop_size": {"height": side, "width": side}, "size": {"shortest_edge": side}}
    processor["patch_size"] = VISION["patch_size"]
    (out / "processor_config.json").write_text(json.dumps(processor, indent=2), encoding="utf-8")


if __name__ == "__main__":
    main()
