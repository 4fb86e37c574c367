"""Stage 2 of the embedded model: the projector speaks the decoder's words before the decoder learns to listen.

LLaVA aligns its projector on captions first. Here a patch's caption is known exactly: its visual token is trained to
be the sum of the embeddings of the words that describe it (colour, shape, size, character), of its place (mostly a
ramp downwards and one to the right, so that "left of" is a difference and "leftmost" an extreme), and of marks on
the object's centre and on its character. From there the decoder binds words to patches within a few hundred steps;
without it, it was still near chance on attributes after 400 (docs/log.md).
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from tokenizers import Tokenizer
from torch import Tensor
from transformers import LlavaForConditionalGeneration

from grip_edge.calibration.loop import LoopSettings, run_steps
from grip_edge.calibration.scenes.labels import LABEL_CLASSES
from grip_edge.calibration.scenes.scene import COLOURS, GLYPHS, SHAPES, SIZES
from grip_edge.calibration.tiny.architecture import GRID
from grip_edge.calibration.tiny.corpus import Corpus
from grip_edge.calibration.tiny.tower import PatchReader, to_pixels

_SCENES = 3000
_PATCHES_PER_STEP = 4096
_WORDS = {"colour": tuple(COLOURS), "shape": SHAPES, "size": SIZES, "glyph": GLYPHS}
_PLACE_DETAIL, _PLACE_RAMP = 0.35, 2.0
_SCALE = 0.5  # a patch has about four words; half their sum is as long as one text embedding


def align_projector(
    model: LlavaForConditionalGeneration,
    reader: PatchReader,
    tokenizer: Tokenizer,
    corpus: Corpus,
    folder: Path,
    settings: LoopSettings,
    seed: int,
) -> None:
    """Train the projector of ``model`` (fp32) in place; the tower and the embeddings stay."""
    features = _features(reader, corpus)
    labels = torch.from_numpy(corpus.labels[:_SCENES].astype(np.int64)).flatten(2)
    words: Any = model.get_input_embeddings().weight
    targets = patch_targets(words.detach(), tokenizer, labels, seed)
    shows = labels[:, 0].flatten() > 0
    rows = features.flatten(0, 1), targets.flatten(0, 1)
    objects, background = shows.nonzero()[:, 0], (~shows).nonzero()[:, 0]
    projector: Any = model.model.multi_modal_projector

    def step(number: int) -> tuple[Tensor, dict[str, float]]:
        generator = torch.Generator().manual_seed(seed * 1_000_003 + number)
        chosen = torch.cat(
            [
                pool[torch.randint(len(pool), (_PATCHES_PER_STEP // 2,), generator=generator)]
                for pool in (objects, background)
            ]
        )
        loss = F.mse_loss(projector(rows[0][chosen]), rows[1][chosen])
        return loss, {"explained": round(1 - float(loss.detach()) / float(rows[1][chosen].var()), 4)}

    run_steps("align", [{"params": list(projector.parameters()), "lr": settings.learning_rate}], step, settings, folder)


def patch_targets(embeddings: Tensor, tokenizer: Tokenizer, labels: Tensor, seed: int) -> Tensor:
    """embeddings [V,D], labels int64 [S,kinds,N] -> what each visual token should say, [S,N,D]."""
    kinds = {kind: labels[:, index] for index, kind in enumerate(LABEL_CLASSES)}
    total = torch.zeros(*kinds["colour"].shape, embeddings.shape[1])
    for kind, words in _WORDS.items():
        table = torch.zeros(LABEL_CLASSES[kind], embeddings.shape[1])
        for index, word in enumerate(words):
            table[index + 1] = embeddings[tokenizer.token_to_id(f"▁{word}")]
        total += table[kinds[kind]]
    generator = torch.Generator().manual_seed(seed)
    std = float(embeddings.std())
    down, right = torch.randn(2, 1, embeddings.shape[1], generator=generator) * std
    row, column = torch.randn(2, GRID, embeddings.shape[1], generator=generator) * std * _PLACE_DETAIL
    ramp = _PLACE_RAMP * torch.linspace(-1, 1, GRID)[:, None]
    row, column = row + ramp * down, column + ramp * right
    mark, carries = torch.randn(2, embeddings.shape[1], generator=generator) * std
    place = (row[:, None] + column[None]).flatten(0, 1)
    glyph = (kinds["glyph"] > 0) & (kinds["glyph"] <= len(GLYPHS))
    marks = kinds["centre"][..., None] * mark + glyph[..., None] * carries
    targets: Tensor = _SCALE * (total + place + marks)
    return targets


@torch.no_grad()
def _features(reader: PatchReader, corpus: Corpus) -> Tensor:
    """fp32 [S,N,Dv] of the first scenes."""
    starts = range(0, min(_SCENES, len(corpus)), 100)
    return torch.cat([reader.features(to_pixels(corpus.images[i : i + 100])).float() for i in starts])
