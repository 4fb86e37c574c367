"""References: enumeration of all actions, finite differences, hand-computed traces, and the definition of masking."""

from __future__ import annotations

import itertools
import math
from pathlib import Path

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor

from grip_edge.calibration.loop import LoopSettings
from grip_edge.calibration.scorer_files import TPRL_METHOD, ScorerCard, load_scorer, save_scorer
from grip_edge.calibration.tprl.autoencoder import AutoencoderSettings, TokenDecoder, train_autoencoder
from grip_edge.calibration.tprl.demonstrations import best_of
from grip_edge.calibration.tprl.environment import (
    EnvironmentSettings,
    PruningEnvironment,
    action_log_prob,
    entropy,
    targets,
)
from grip_edge.calibration.tprl.network import TokenEncoder, TprlConfig, TprlScorer, ValueHead, Words
from grip_edge.calibration.tprl.ppo import Transitions, gae, ppo_loss
from grip_edge.calibration.tprl.rollout import Rollout, roll_out
from grip_edge.errors import UserError
from tests.calibration.planted import planted_setup

CONFIG = TprlConfig(vision_width=6, text_width=5, grid=(2, 3), code=4, encoder_hidden=8, width=16, heads=2)


def close(found: Tensor, expected: Tensor, tolerance: float = 1e-6) -> None:
    difference = (found - expected).abs()
    assert difference.max() <= tolerance, f"max {difference.max():.2e}, mean {difference.mean():.2e}"


@pytest.fixture
def scorer() -> TprlScorer:
    torch.manual_seed(0)
    scorer = TprlScorer(CONFIG)
    with torch.no_grad():
        scorer.to_keep.weight.mul_(5)
    return scorer


def test_targets_fall_geometrically_to_the_budget() -> None:
    assert targets(16, 4, 1) == (4,)
    assert targets(16, 4, 2) == (8, 4)
    assert targets(1000, 1, 3) == (100, 10, 1)
    assert targets(7, 7, 3) == (7, 7, 7)


@given(st.integers(1, 600), st.data(), st.integers(1, 3))
def test_targets_never_rise_and_end_with_the_budget(tokens: int, data: st.DataObject, steps: int) -> None:
    kept = data.draw(st.integers(1, tokens))
    course = (tokens, *targets(tokens, kept, steps))
    assert all(a >= b for a, b in itertools.pairwise(course))
    assert course[-1] == kept


@pytest.mark.parametrize("discount", [1.0, 0.9, 0.25])
def test_actions_are_a_distribution_with_the_discounted_keep_probability(discount: float) -> None:
    logits = torch.tensor([[0.4, -1.5, 3.0]], dtype=torch.float64)
    factor = torch.tensor([discount], dtype=torch.float64)
    total = 0.0
    for bits in itertools.product([False, True], repeat=3):
        found = float(action_log_prob(logits, torch.tensor([bits]), factor).sum())
        kept = [discount / (1 + math.exp(-x)) for x in logits[0].tolist()]
        expected = math.prod(p if bit else 1 - p for p, bit in zip(kept, bits, strict=True))
        assert math.exp(found) == pytest.approx(expected)
        total += math.exp(found)
    assert total == pytest.approx(1.0)
    spread = [-p * math.log(p) - (1 - p) * math.log(1 - p) for p in kept]
    close(entropy(logits, factor)[0], torch.tensor(spread, dtype=torch.float64), 1e-12)


@pytest.mark.parametrize("discount", [1.0, 0.5])
def test_gradients_equal_finite_differences(discount: float) -> None:
    logits = torch.randn(2, 4, dtype=torch.float64, generator=torch.Generator().manual_seed(0), requires_grad=True)
    action = torch.tensor([[True, False, True, False], [False, False, True, True]])
    factor = torch.tensor([discount], dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda x: action_log_prob(x, action, factor), (logits,))
    assert torch.autograd.gradcheck(lambda x: entropy(x, factor), (logits,))


@pytest.mark.parametrize("logit", [-200.0, 200.0])
def test_extreme_logits_stay_finite(logit: float) -> None:
    logits = torch.full((1, 2), logit, requires_grad=True)
    for discount in (1.0, 0.5):
        factor = torch.tensor([discount])
        value = (action_log_prob(logits, torch.tensor([[True, False]]), factor) + entropy(logits, factor)).sum()
        (gradient,) = torch.autograd.grad(value, logits)
        assert torch.isfinite(value)
        assert torch.isfinite(gradient).all()


def kept_weight(remaining: Tensor) -> Tensor:
    """A quality that rises with the numbers of the tokens kept."""
    return (remaining * torch.arange(remaining.shape[1])).sum(dim=1).float()


def test_the_environment_holds_the_budget_and_brings_no_token_back() -> None:
    everything = torch.ones(50, 6, dtype=torch.bool)
    world = PruningEnvironment(
        kept_weight, kept_weight(everything), 6, EnvironmentSettings(beta=0.0), torch.Generator().manual_seed(0)
    )
    first = world.step(everything, 4)
    before = world.remaining
    assert before.sum(dim=1).tolist() == [4] * 50
    assert len({tuple(row) for row in before.tolist()}) > 1, "the surplus is dropped at random"
    second = world.step(everything, 2)
    assert not (world.remaining & ~before).any()
    assert world.remaining.sum(dim=1).tolist() == [2] * 50
    close(first + second, kept_weight(world.remaining) - kept_weight(everything))


def test_the_reward_of_a_step_by_hand() -> None:
    settings = EnvironmentSettings(alpha=2.0, beta=0.5)
    world = PruningEnvironment(kept_weight, torch.tensor([6.0]), 4, settings, torch.Generator())
    reward = world.step(torch.tensor([[False, True, False, True]]), 3)
    assert reward.item() == pytest.approx(2.0 * (4.0 - 6.0) + 0.5 * (1 - 2 / 4))
    assert world.step(torch.zeros(1, 4, dtype=torch.bool), 2).item() == pytest.approx(2.0 * (0.0 - 4.0) + 0.5)
    assert world.step(torch.ones(1, 4, dtype=torch.bool), 1).item() == 0.0, "nothing is left to prune"


def test_settings_outside_their_range_are_refused() -> None:
    with pytest.raises(UserError, match="discount"):
        EnvironmentSettings(discount=0.0)
    with pytest.raises(UserError, match="max_steps"):
        EnvironmentSettings(max_steps=4)


def some_rollout(scorer: TprlScorer, discount: float) -> tuple[Rollout, Tensor, Words]:
    generator = torch.Generator().manual_seed(1)
    codes = scorer.codes(torch.randn(5, 6, 6, generator=generator)).detach()
    words = Words(torch.randn(5, 3, 5, generator=generator), torch.tensor([[True, True, False]] * 5))
    everything = torch.ones(5, 6, dtype=torch.bool)
    world = PruningEnvironment(
        kept_weight, kept_weight(everything), 6, EnvironmentSettings(discount=discount), generator
    )
    head = ValueHead(CONFIG.width)
    return roll_out(scorer, head, codes, words, world, (4, 3, 2), discount, 0.9, 0.8, generator), codes, words


def test_on_policy_every_ratio_is_one_at_every_step(scorer: TprlScorer) -> None:
    rollout, codes, words = some_rollout(scorer, discount=0.7)
    old = rollout.transitions
    assert old.discount.tolist() == pytest.approx([1.0] * 5 + [0.7] * 5 + [0.49] * 5)
    logits = scorer.keep_logits(scorer.read(codes[old.row], words.rows(old.row), old.share, old.remaining), old.share)
    ratio = (action_log_prob(logits, old.action, old.discount[:, None]) - old.old_log_prob).exp()[old.remaining]
    close(ratio, torch.ones_like(ratio), 1e-5)
    undiscounted = action_log_prob(logits, old.action, torch.ones(1)) - old.old_log_prob
    assert undiscounted[old.remaining].abs().max() > 0.1, "leaving the discount out would show"
    _, metrics = ppo_loss(logits, torch.zeros(15), old, 0.2, 0.5, 0.0)
    assert metrics["clipped"] == 0.0


def test_advantages_against_a_hand_computed_trace() -> None:
    rewards = torch.tensor([[1.0], [2.0]])
    values = torch.tensor([[0.5], [0.25]])
    last = 2.0 - 0.25
    first = 1.0 + 0.9 * 0.25 - 0.5
    found = gae(rewards, values, gamma=0.9, decay=0.8)
    assert found[:, 0].tolist() == pytest.approx([first + 0.9 * 0.8 * last, last])
    monte_carlo = gae(rewards, values, gamma=0.9, decay=1.0)
    assert monte_carlo[0].item() == pytest.approx(1.0 + 0.9 * 2.0 - 0.5)
    one_step = gae(rewards, values, gamma=0.9, decay=0.0)
    assert one_step[:, 0].tolist() == pytest.approx([first, last])


def one_transition(advantage: float, old_log_prob: float, remaining: tuple[bool, bool] = (True, False)) -> Transitions:
    return Transitions(
        row=torch.tensor([0]),
        remaining=torch.tensor([remaining]),
        share=torch.tensor([0.5]),
        discount=torch.tensor([1.0]),
        action=torch.tensor([[True, True]]),
        old_log_prob=torch.full((1, 2), old_log_prob),
        advantage=torch.tensor([advantage]),
        returns=torch.tensor([3.0]),
    )


@pytest.mark.parametrize(
    ("ratio", "advantage", "objective"), [(1.5, 1.0, 1.2), (1.5, -1.0, -1.5), (0.5, 1.0, 0.5), (0.5, -1.0, -0.8)]
)
def test_the_clipped_surrogate_by_hand(ratio: float, advantage: float, objective: float) -> None:
    logits = torch.tensor([[0.3, 9.0]])
    old = one_transition(advantage, float(torch.nn.functional.logsigmoid(logits[0, 0])) - math.log(ratio))
    loss, metrics = ppo_loss(logits, torch.tensor([3.0]), old, clip=0.2, value_weight=0.5, entropy_weight=0.0)
    assert float(loss) == pytest.approx(-objective, abs=1e-5)
    assert metrics["clipped"] == 1.0


def test_value_and_entropy_count_in_the_one_loss_and_gone_tokens_do_not() -> None:
    logits = torch.tensor([[2.0, -3.0]], requires_grad=True)
    values = torch.tensor([1.0], requires_grad=True)
    loss, _ = ppo_loss(logits, values, one_transition(0.0, -0.1), 0.2, value_weight=0.5, entropy_weight=0.1)
    loss.backward()
    assert values.grad is not None
    assert logits.grad is not None
    assert values.grad.item() == pytest.approx(0.5 * 2 * (1.0 - 3.0))
    assert logits.grad[0, 0] > 0, "entropy alone pulls a sure decision back"
    assert logits.grad[0, 1] == 0, "a dropped token has no decision"


def test_dropped_tokens_and_padding_are_not_read(scorer: TprlScorer) -> None:
    generator = torch.Generator().manual_seed(2)
    codes, question = torch.randn(1, 6, 4, generator=generator), Words(torch.randn(1, 3, 5, generator=generator))
    remaining = torch.tensor([[True, True, False, True, False, True]])
    other = torch.where(remaining[..., None], codes, 100.0)
    share = torch.tensor([0.5])
    head = ValueHead(CONFIG.width)
    seen, same = scorer.read(codes, question, share, remaining), scorer.read(other, question, share, remaining)
    close(scorer.logits(seen)[remaining], scorer.logits(same)[remaining], 1e-5)
    close(head(seen, remaining), head(same, remaining), 1e-5)

    features, words = torch.randn(1, 6, 6, generator=generator), torch.randn(1, 3, 5, generator=generator)
    padded = torch.cat([words, torch.full((1, 2, 5), 7.0)], dim=1)
    mask = torch.tensor([[True, True, True, False, False]])
    budget = torch.tensor([2])
    close(scorer(features, padded, budget, mask), scorer(features, words, budget), 1e-5)


def test_scores_are_the_policy_in_the_first_state_and_depend_on_the_budget(scorer: TprlScorer) -> None:
    generator = torch.Generator().manual_seed(3)
    features, words = torch.randn(2, 6, 6, generator=generator), torch.randn(2, 3, 5, generator=generator)
    scores = scorer(features, words, torch.tensor([3]))
    everything = torch.ones(2, 6, dtype=torch.bool)
    state = scorer.read(scorer.codes(features), Words(words), torch.tensor([0.5]), everything)
    close(scores, scorer.logits(state), 1e-5)
    close(scores, scorer.keep_logits(state, torch.tensor([0.5])), 1e-5)
    assert not torch.allclose(scores, scorer(features, words, torch.tensor([1])))
    both = scorer(features, words, torch.tensor([3, 1]))
    close(both[0], scores[0], 1e-5)


def test_the_share_decides_how_many_an_ignorant_policy_keeps(scorer: TprlScorer) -> None:
    alike = torch.zeros(2, 6, CONFIG.width)
    with torch.no_grad():
        scorer.to_keep.bias.zero_()
    keep = scorer.keep_logits(alike, torch.tensor([0.25, 0.9])).sigmoid()
    close(keep, torch.tensor([[0.25], [0.9]]).expand(2, 6), 1e-5)
    assert torch.isfinite(scorer.keep_logits(alike, torch.ones(1))).all()


def test_the_autoencoder_learns_to_reconstruct(tmp_path: Path) -> None:
    setup = planted_setup(tmp_path, informed=0.0)
    torch.manual_seed(0)
    encoder, decoder = TokenEncoder(8, 32, 8), TokenDecoder(8, 32, 8)
    loop = LoopSettings(steps=40, learning_rate=5e-3, warmup_steps=5, log_every=39)
    train_autoencoder(setup, encoder, decoder, AutoencoderSettings(loop, images=8))
    first, *_, last = (tmp_path / "autoencoder.jsonl").read_text().splitlines()
    losses = [float(line.split('"loss": ')[1].split(",")[0]) for line in (first, last)]
    assert losses[0] > 0.9, "an untrained decoder explains nothing of unit variance"
    assert losses[1] < 0.2


def test_best_of_marks_the_best() -> None:
    ranking = torch.tensor([[0.1, 0.9, 0.5], [3.0, 2.0, 1.0]])
    assert best_of(ranking, torch.tensor([2, 1])).tolist() == [[False, True, True], [True, False, False]]
    ties = torch.zeros(1, 3)
    assert best_of(ties, torch.tensor([2])).tolist() == [[True, True, False]], "ties go to the lower index"


def test_a_saved_scorer_is_the_same_scorer(tmp_path: Path, scorer: TprlScorer) -> None:
    save_scorer(tmp_path / "scorer", scorer, ScorerCard(TPRL_METHOD, CONFIG, {"seed": 3}))
    loaded, card = load_scorer(tmp_path / "scorer")
    assert isinstance(loaded, TprlScorer)
    assert card == ScorerCard(TPRL_METHOD, CONFIG, {"seed": 3})
    assert all(torch.equal(a, b) for a, b in zip(loaded.parameters(), scorer.parameters(), strict=True))
