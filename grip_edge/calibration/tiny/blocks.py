"""Questions as token blocks: several questions about one image share the image's tokens in one forward pass.

A sequence is   <s> USER: [visual tokens] | block | block | ...   where a block is  \\n question ASSISTANT: answer </s>.
Every block sees the prefix and itself, and starts at the position behind the prefix, so each question trains
exactly as if it had been asked alone.
"""

from __future__ import annotations

import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from rich.progress import track
from tokenizers import Tokenizer
from torch import Tensor

from grip_edge.calibration.scenes import SKILLS, ask, draw_scene, scene_seed
from grip_edge.calibration.tiny.language import PROMPT_AFTER

BLOCK_LENGTH = 40
_PER_SCENE = 12
_CHUNK = 1000


@dataclass(frozen=True)
class QuestionBank:
    """Tokenised questions of n scenes, Q each (fewer where a scene yields fewer: ``length`` 0).

    ``tokens`` int16 [n,Q,L]; ``answer_start`` and ``length`` uint8 [n,Q] (answer tokens are [answer_start, length));
    ``skill`` uint8 [n,Q], an index into ``SKILLS``.
    """

    tokens: NDArray[np.int16]
    answer_start: NDArray[np.uint8]
    length: NDArray[np.uint8]
    skill: NDArray[np.uint8]


def open_bank(folder: Path, split: str, count: int, tokenizer: Tokenizer) -> QuestionBank:
    """The bank of the first ``count`` scenes of ``split``, made once and kept in ``folder``."""
    path = folder / f"{split}-{count}-questions.npz"
    if not path.exists():
        starts = range(0, count, _CHUNK)
        with ProcessPoolExecutor(os.cpu_count()) as pool:
            jobs = pool.map(_chunk, repeat(split), starts, repeat(count), repeat(tokenizer.to_str()))
            parts = list(track(jobs, f"questions {split}", len(starts)))
        arrays = [np.concatenate(column) for column in zip(*parts, strict=True)]
        np.savez(path, tokens=arrays[0], answer_start=arrays[1], length=arrays[2], skill=arrays[3])
    with np.load(path) as saved:
        return QuestionBank(**{key: saved[key] for key in saved.files})


def _chunk(split: str, start: int, count: int, tokenizer_json: str) -> tuple[NDArray[np.generic], ...]:
    tokenizer = Tokenizer.from_str(tokenizer_json)
    stop_token = tokenizer.token_to_id("</s>")
    size = min(_CHUNK, count - start)
    tokens = np.zeros((size, _PER_SCENE, BLOCK_LENGTH), np.int16)
    answer_start, length, skill = (np.zeros((size, _PER_SCENE), np.uint8) for _ in range(3))
    for row in range(size):
        for column, question in enumerate(ask(draw_scene(scene_seed(split, start + row)), _PER_SCENE)):
            prompt, answer = encode_block(tokenizer, question.text, question.answer)
            block = [*prompt, *answer, stop_token]
            tokens[row, column, : len(block)] = block
            answer_start[row, column], length[row, column] = len(prompt), len(block)
            skill[row, column] = SKILLS.index(question.skill)
    return tokens, answer_start, length, skill


def encode_block(tokenizer: Tokenizer, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids behind the image, split where the answer begins."""
    prompt = PROMPT_AFTER.format(question=question)
    image = tokenizer.token_to_id("<image>")
    whole = tokenizer.encode(f"<image>{prompt} {answer}", add_special_tokens=False).ids
    head = tokenizer.encode(f"<image>{prompt}", add_special_tokens=False).ids
    whole, head = whole[whole.index(image) + 1 :], head[head.index(image) + 1 :]
    if whole[: len(head)] != head:
        raise ValueError(f"The tokenizer merges across the answer's border in {prompt!r} {answer!r}.")
    return head, whole[len(head) :]


def shared_prefix_mask(prefix: int, blocks: int, block_length: int, dtype: torch.dtype) -> Tensor:
    """Additive mask [1,1,L,L], L = prefix + blocks * block_length: causal, and blind between blocks."""
    total = prefix + blocks * block_length
    owner = torch.cat([torch.full((prefix,), -1), torch.arange(blocks).repeat_interleave(block_length)])
    causal = torch.ones(total, total, dtype=torch.bool).tril()
    visible = causal & ((owner[None, :] == -1) | (owner[None, :] == owner[:, None]))
    return torch.zeros(total, total, dtype=dtype).masked_fill(~visible, torch.finfo(dtype).min)[None, None]


def shared_prefix_positions(prefix: int, blocks: int, block_length: int) -> Tensor:
    """int64 [1,L]: every block starts behind the prefix."""
    inside = torch.arange(block_length).repeat(blocks) + prefix
    return torch.cat([torch.arange(prefix), inside])[None]
