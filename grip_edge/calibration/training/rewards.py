"""What a selection of tokens is worth: how the frozen model answers when it sees nothing else.

log_probability   mean log-probability per token of the reference answer (TwigVLM++): dense, one forward pass
probability       exp of the sum of those: the exact match to be expected if the answer were sampled, in [0, 1]
logit_margin      mean over the answer's tokens of the logit less the best other one: does not saturate near 0
exact_match       1 if the greedy answer equals a reference, else 0: what is measured in the end, but sparse
"""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.selection import gather_tokens
from grip_edge.calibration.training.batches import Batch
from grip_edge.calibration.training.validation import accepted
from grip_edge.errors import UserError

REWARDS = ("log_probability", "probability", "logit_margin", "exact_match")


def check_reward(name: str) -> None:
    if name not in REWARDS:
        raise UserError(f"There is no reward '{name}'; expected one of {', '.join(REWARDS)}.")


def group_rewards(vlm: FrozenVlm, batch: Batch, order: Tensor, reward: str) -> Tensor:
    """The worth of each draw; order [R,G,K] -> fp32 [R,G]."""
    questions, group, _ = order.shape
    indices = order.sort(dim=-1).values.flatten(0, 1)
    rows = [row for row in range(questions) for _ in range(group)]
    kept = gather_tokens(batch.visual[rows], indices)
    return worth(vlm, batch, rows, kept, reward).view(questions, group)


def worth(vlm: FrozenVlm, batch: Batch, rows: Sequence[int], kept: Tensor | Sequence[Tensor], reward: str) -> Tensor:
    """kept, [S,K,D] or S of [K,D], are the tokens that question ``rows[s]`` is answered from -> fp32 [S]."""
    prompts = batch.prompts.rows(rows)
    if reward == "log_probability":
        return vlm.answer_log_prob(kept, prompts)
    if reward == "probability":
        lengths = torch.tensor([len(answer) for answer in prompts.answers], device=vlm.device)
        return (vlm.answer_log_prob(kept, prompts) * lengths).exp()
    if reward == "logit_margin":
        return vlm.answer_margin(kept, prompts)
    longest = max(len(answer) for answer in prompts.answers)
    texts = vlm.answers(kept, prompts, max_new_tokens=longest + 1)
    verdicts = [float(accepted(text, batch.questions[row])) for text, row in zip(texts, rows, strict=True)]
    return torch.tensor(verdicts, device=vlm.device)
