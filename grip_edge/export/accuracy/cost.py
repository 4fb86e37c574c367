"""A quantised model beside the float one, on the same tokens of the same answers."""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from grip_edge.calibration_record import PrecisionCost
from grip_edge.export.accuracy.questions import Positions, QuestionSet


def compare(found: Positions, reference: Positions, asked: QuestionSet) -> PrecisionCost:
    log_p, log_q = _log_softmax(reference.logits), _log_softmax(found.logits)
    kl = (np.exp(log_p) * (log_p - log_q)).sum(axis=-1)
    agreeing = found.logits.argmax(axis=-1) == reference.logits.argmax(axis=-1)
    return PrecisionCost(
        questions=len(asked.prompts),
        tokens=len(kl),
        mean_kl=float(kl.mean()),
        p99_kl=float(np.percentile(kl, 99)),
        agreement=float(agreeing.mean()),
        accuracy=_accuracy(found, asked),
        float_accuracy=_accuracy(reference, asked),
    )


def _accuracy(given: Positions, asked: QuestionSet) -> float | None:
    """Greedy decoding gives the right answer exactly if each of its tokens is the first choice after those before."""
    right = given.logits.argmax(axis=-1) == given.right
    wrong_tokens = np.bincount(given.question, weights=~right, minlength=len(asked.prompts))
    whole = np.array([len(prompt.compared) == len(prompt.answer) for prompt in asked.prompts])
    return float((wrong_tokens[whole] == 0).mean()) if whole.any() else None


def _log_softmax(logits: NDArray[np.float32]) -> NDArray[np.float64]:
    shifted = logits.astype(np.float64) - logits.max(axis=-1, keepdims=True)
    normalised: NDArray[np.float64] = shifted - np.log(np.exp(shifted).sum(axis=-1, keepdims=True))
    return normalised
