"""Scenes with some of their questions, as the decoder learns from them."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

from grip_edge.calibration.tiny.blocks import QuestionBank
from grip_edge.calibration.tiny.corpus import Corpus


@dataclass(frozen=True)
class Batch:
    """``rows`` [B] are scenes of the corpus; ``labels`` int64 [B,kinds,N]; ``tokens`` [B,Q,L]; ``answers`` bool [B,Q,L]
    marks the answer's tokens; ``skill`` [B,Q].
    """

    rows: NDArray[np.int64]
    labels: Tensor
    tokens: Tensor
    answers: Tensor
    skill: Tensor


def gather_batch(corpus: Corpus, bank: QuestionBank, rows: NDArray[np.int64], columns: NDArray[np.int64]) -> Batch:
    """rows [B], columns [B,Q]. Blocks are cut to the longest of the batch."""
    pick = (rows[:, None], columns)
    length = bank.length[pick].astype(np.int64)
    tokens = bank.tokens[pick][:, :, : length.max()].astype(np.int64)
    places = np.arange(tokens.shape[2])
    answers = (places >= bank.answer_start[pick][..., None]) & (places < length[..., None])
    return Batch(
        rows,
        torch.from_numpy(corpus.labels[rows].astype(np.int64)).flatten(2),
        torch.from_numpy(tokens),
        torch.from_numpy(answers),
        torch.from_numpy(bank.skill[pick].astype(np.int64)),
    )
