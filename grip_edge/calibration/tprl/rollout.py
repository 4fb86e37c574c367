"""Episodes under the present policy: what PPO learns from."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from grip_edge.calibration.tprl.environment import PruningEnvironment, action_log_prob
from grip_edge.calibration.tprl.network import TprlScorer, ValueHead, Words
from grip_edge.calibration.tprl.ppo import Transitions, gae


@dataclass(frozen=True)
class Rollout:
    """Steps of R episodes, and the mean sum of rewards and mean number of tokens that they end with."""

    transitions: Transitions
    reward: float
    remaining: float


@torch.no_grad()
def roll_out(
    scorer: TprlScorer,
    value_head: ValueHead,
    codes: Tensor,
    words: Words,
    environment: PruningEnvironment,
    course: tuple[int, ...],
    discount: float,
    gamma: float,
    decay: float,
    generator: torch.Generator,
    episodes: int = 1,
) -> Rollout:
    """One episode for each of codes [R,N,C] and its words; at most ``course[t]`` tokens are left after step t.

    ``discount`` is that of the keep probability, ``gamma`` and ``decay`` those of the advantage estimation. Where the
    rows are ``episodes`` of each question in turn, advantages are also centred over those: questions differ more from
    each other than a young value head can tell.
    """
    device, allowed = codes.device, codes.shape[1]
    steps: list[tuple[Tensor, ...]] = []
    rewards, values = [], []
    for step, target in enumerate(course):
        remaining = environment.remaining.to(device)
        share = torch.tensor([target / allowed], device=device)
        factor = torch.tensor([discount**step], device=device)
        seen = scorer.read(codes, words, share, remaining)
        logits = scorer.keep_logits(seen, share)
        action = torch.rand(logits.shape, generator=generator).to(device) < factor * logits.sigmoid()
        rewards.append(environment.step(action.cpu(), target))
        values.append(value_head(seen, remaining).cpu())
        steps.append((remaining, action, action_log_prob(logits, action, factor), share, factor))
        allowed = target
    advantage = gae(torch.stack(rewards), torch.stack(values), gamma, decay)
    returns = advantage + torch.stack(values)
    if episodes > 1:
        advantage = advantage.unflatten(1, (-1, episodes))
        advantage = (advantage - advantage.mean(dim=2, keepdim=True)).flatten(1)
    return Rollout(
        _transitions(steps, advantage.flatten().to(device), returns.flatten().to(device)),
        float(torch.stack(rewards).sum(dim=0).mean()),
        float(environment.remaining.sum(dim=1).float().mean()),
    )


def _transitions(steps: list[tuple[Tensor, ...]], advantage: Tensor, returns: Tensor) -> Transitions:
    remaining, action, log_prob, share, factor = zip(*steps, strict=True)
    rows = len(remaining[0])
    return Transitions(
        row=torch.arange(rows, device=advantage.device).repeat(len(steps)),
        remaining=torch.cat(remaining),
        share=torch.cat([value.expand(rows) for value in share]),
        discount=torch.cat([value.expand(rows) for value in factor]),
        action=torch.cat(action),
        old_log_prob=torch.cat(log_prob),
        advantage=(advantage - advantage.mean()) / (advantage.std() + 1e-6),
        returns=returns,
    )
