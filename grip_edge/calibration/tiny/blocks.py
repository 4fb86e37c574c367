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

from grip_edge.calibration.scenes import SKILLS, Scene, SceneObject, ask, draw_scene, scene_seed
from grip_edge.calibration.tiny.language import PROMPT_AFTER

BLOCK_LENGTH = 40
_PER_SCENE = 12
_DESCRIPTIONS, _LOCATIONS = 4, 3
DESCRIPTION = len(SKILLS)  # in ``QuestionBank.skill``: an exercise to learn from, not a skill that is measured
_CHUNK = 1000


@dataclass(frozen=True)
class QuestionBank:
    """Tokenised questions of n scenes, Q each (fewer where a scene yields fewer: ``length`` 0).

    ``tokens`` int16 [n,Q,L]; ``answer_start`` and ``length`` uint8 [n,Q] (answer tokens are [answer_start, length));
    ``skill`` uint8 [n,Q], an index into ``SKILLS`` or ``DESCRIPTION``.
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
    stop_token = known_id(tokenizer, "</s>")
    size = min(_CHUNK, count - start)
    columns = _PER_SCENE + _DESCRIPTIONS + _LOCATIONS
    tokens = np.zeros((size, columns, BLOCK_LENGTH), np.int16)
    answer_start, length, skill = (np.zeros((size, columns), np.uint8) for _ in range(3))
    for row in range(size):
        scene = draw_scene(scene_seed(split, start + row))
        pairs = [(q.text, q.answer, SKILLS.index(q.skill)) for q in ask(scene, _PER_SCENE)]
        exercises = [*descriptions(scene, _DESCRIPTIONS), *locations(scene, _LOCATIONS)]
        pairs += [(text, answer, DESCRIPTION) for text, answer in exercises]
        for column, (text, answer, kind) in enumerate(pairs):
            prompt, reply = encode_block(tokenizer, text, answer)
            block = [*prompt, *reply, stop_token]
            tokens[row, column, : len(block)] = block
            answer_start[row, column], length[row, column] = len(prompt), len(block)
            skill[row, column] = kind
    return tokens, answer_start, length, skill


def descriptions(scene: Scene, count: int) -> list[tuple[str, str]]:
    """Objects named by one attribute that is theirs alone, described by all: several bindings in one answer."""
    rng = np.random.default_rng([scene.seed, 4])
    found = []
    for index in rng.permutation(len(scene.objects)):
        thing = scene.objects[index]
        names = [name for name in (thing.colour, thing.shape) if _owners(scene, name) == 1]
        if thing.glyph is not None:
            names.append(thing.glyph)
        if names:
            answer = f"{thing.size} {thing.name}"
            if thing.glyph is not None:
                answer += f" with the {'digit' if thing.glyph.isdigit() else 'letter'} {thing.glyph}"
            answer += f", {_place(thing)}"
            found.append((f"Describe the {names[rng.integers(len(names))]} thing.", answer))
    return found[:count]


def locations(scene: Scene, count: int) -> list[tuple[str, str]]:
    """On which side of the picture's middle an object lies, both ways: the first step to relations."""
    rng = np.random.default_rng([scene.seed, 5])
    found = []
    for index in rng.permutation(len(scene.objects)):
        thing = scene.objects[index]
        names = [name for name in (thing.colour, thing.shape) if _owners(scene, name) == 1]
        if names:
            found.append((f"Where is the {names[rng.integers(len(names))]} thing?", _place(thing)))
    return found[:count]


def _place(thing: SceneObject) -> str:
    """The quarter of the picture that holds the object's centre."""
    return f"{'above' if thing.y < 0.5 else 'below'} {'left' if thing.x < 0.5 else 'right'}"


def _owners(scene: Scene, name: str) -> int:
    return sum(name in (thing.colour, thing.shape) for thing in scene.objects)


def encode_block(tokenizer: Tokenizer, question: str, answer: str) -> tuple[list[int], list[int]]:
    """Token ids behind the image, split where the answer begins."""
    prompt = PROMPT_AFTER.format(question=question)
    image = known_id(tokenizer, "<image>")
    whole = tokenizer.encode(f"<image>{prompt} {answer}", add_special_tokens=False).ids
    head = tokenizer.encode(f"<image>{prompt}", add_special_tokens=False).ids
    whole, head = whole[whole.index(image) + 1 :], head[head.index(image) + 1 :]
    if whole[: len(head)] != head:
        raise ValueError(f"The tokenizer merges across the answer's border in {prompt!r} {answer!r}.")
    return head, whole[len(head) :]


def known_id(tokenizer: Tokenizer, token: str) -> int:
    """The id of a token that this tokenizer was made with."""
    found = tokenizer.token_to_id(token)
    if found is None:
        raise ValueError(f"The tokenizer lacks {token!r}; train it with language.train_tokenizer.")
    return found


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
