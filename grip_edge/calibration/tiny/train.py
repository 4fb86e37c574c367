"""Train ``llava-tiny`` from nothing: the program behind the embedded model.

    python -m grip_edge.calibration.tiny.train --work /big/disk/llava-tiny --out grip_edge/embedded/llava-tiny

Stages: render scenes (5 GB under --work); tower on patch labels; projector on the words of patches; decoder on perfect
patches; decoder over the frozen tower. Each stage checkpoints and resumes; a finished stage is skipped. On glibc, huge
pages make it a fifth faster (docs/log.md):
GLIBC_TUNABLES=glibc.malloc.hugetlb=1:glibc.malloc.mmap_threshold=4294967296:glibc.malloc.trim_threshold=8589934592

Not here: measuring the result (``measure``), the scorer (``grip_edge.calibration.train_grip``).
"""

from __future__ import annotations

import os
from pathlib import Path

import click
import torch
from tokenizers import Tokenizer
from transformers import LlavaForConditionalGeneration

from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.tiny.align import align_projector
from grip_edge.calibration.tiny.blocks import open_bank
from grip_edge.calibration.tiny.corpus import open_corpus
from grip_edge.calibration.tiny.decoder import AnswerStage, new_llava, train_answers
from grip_edge.calibration.tiny.language import new_processor, train_tokenizer
from grip_edge.calibration.tiny.tower import to_pixels, train_tower

TRAIN_SCENES, VALIDATION_SCENES = 60_000, 2_000

TOWER = LoopSettings(steps=2000, learning_rate=2e-3, warmup_steps=150)
ALIGN = LoopSettings(steps=800, learning_rate=2e-3, weight_decay=0.0, checkpoint_every=800)
REASON = AnswerStage(
    "reason", LoopSettings(steps=2000, learning_rate=1e-3, final_rate=0.4), ideal=True, word_rate=0.0, most_tokens=64
)
READ = AnswerStage(
    "read",
    LoopSettings(steps=2500, learning_rate=1e-3, warmup_steps=50, final_rate=0.05),
    word_rate=0.3,
    most_tokens=72,
    focus=("relation",),
)


def train(work: Path, seed: int = 0) -> tuple[LlavaForConditionalGeneration, Tokenizer]:
    corpus = open_corpus(work, "train", TRAIN_SCENES)
    held_out = open_corpus(work, "validation", VALIDATION_SCENES)
    runs = work / "run"
    reader = train_tower(corpus, held_out, runs, TOWER, seed)
    tokenizer = train_tokenizer()
    data = (corpus, open_bank(work, "train", TRAIN_SCENES, tokenizer))
    validation = (held_out, open_bank(work, "validation", VALIDATION_SCENES, tokenizer))
    torch.manual_seed(seed)
    model = new_llava(tokenizer, reader, to_pixels(held_out.images[:256]))
    align_projector(model, reader, tokenizer, corpus, runs, ALIGN, seed)
    model = model.bfloat16()
    for stage in (REASON, READ):
        train_answers(stage, model, tokenizer, data, validation, runs, seed)
    return model, tokenizer


def save(model: LlavaForConditionalGeneration, tokenizer: Tokenizer, out: Path) -> None:
    """fp16 safetensors with processor, tokenizer and chat template; loadable with ``from_pretrained`` alone."""
    model = model.half()
    model.config.dtype = torch.float16
    model.generation_config.bos_token_id = tokenizer.token_to_id("<s>")
    model.generation_config.eos_token_id = tokenizer.token_to_id("</s>")
    model.generation_config.pad_token_id = tokenizer.token_to_id("<pad>")
    model.save_pretrained(out)
    new_processor(tokenizer).save_pretrained(out)


@click.command()
@click.option("--work", type=click.Path(path_type=Path), required=True, help="Scenes and checkpoints (6 GB).")
@click.option("--out", type=click.Path(path_type=Path), required=True, help="Where the checkpoint goes.")
@click.option("--seed", default=0, show_default=True)
def main(work: Path, out: Path, seed: int) -> None:
    """Train the embedded model."""
    torch.set_num_threads(os.cpu_count() or 1)
    save(*train(work, seed), out)


if __name__ == "__main__":
    main()
