"""Reference: each policy's formula in plain Python, one question at a time, written apart from the package.

Evidence is float64, so that rounding does not decide who is kept.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import replace
from typing import Any, cast

import numpy as np
import pytest
import torch
from numpy.typing import NDArray

from grip_edge.calibration.policies import (
    POLICIES,
    CdPruner,
    ClsAttention,
    DivPrune,
    Eadp,
    Evidence,
    Grip,
    Policy,
    Random,
    UniformStride,
    VisionZip,
    interface,
)
from grip_edge.calibration.policies.eadp import smoothed
from grip_edge.calibration.policies.greedy import FarthestFirst, Gains, MostDiverse, WidestCover, grow
from grip_edge.calibration.policies.set_policy import SetPolicy
from grip_edge.calibration.scorer import GripScorer, ScorerConfig
from grip_edge.calibration.selection import keep_best, keep_best_numpy
from grip_edge.policy_catalog import CLS_ATTENTION, POLICY_SPECS, PROJECTED, QUESTION

Array = NDArray[np.float64]
Formula = Callable[[Array, Array, tuple[int, int], int], list[int]]
QUESTIONS, WIDTH, VISION_WIDTH = 3, 20, 8
GRIDS = ((2, 3), (3, 4), (4, 4))
SEEDS = range(4)
FIELDS = ("features", "visual", "cls_attention", "question_embeds", "question_mask")


def evidence(seed: int, grid: tuple[int, int]) -> Evidence:
    """Random tokens around a common mean, as real ones are; questions of 1 to 5 tokens, noise on the padding."""
    draw = torch.Generator().manual_seed(seed)
    count = grid[0] * grid[1]

    def normal(*shape: int) -> torch.Tensor:
        return torch.randn(*shape, generator=draw, dtype=torch.float64)

    return Evidence(
        features=normal(QUESTIONS, count, VISION_WIDTH),
        visual=normal(QUESTIONS, count, WIDTH) + 0.5 * normal(QUESTIONS, 1, WIDTH),
        cls_attention=normal(QUESTIONS, count).softmax(dim=-1),
        question_embeds=normal(QUESTIONS, 5, WIDTH),
        question_mask=torch.tensor([[1, 0, 0, 0, 0], [1, 1, 1, 0, 0], [1, 1, 1, 1, 1]]).bool(),
        grid=grid,
    )


def cos(a: Array, b: Array) -> float:
    dot = sum(float(x) * float(y) for x, y in zip(a, b, strict=True))
    return dot / math.sqrt(sum(float(x) ** 2 for x in a) * sum(float(y) ** 2 for y in b))


def to_unit(values: list[float]) -> list[float]:
    low, high = min(values), max(values)
    return [(v - low + 1e-6) / (high - low + 1e-6) for v in values]


def mean(values: list[float]) -> float:
    return sum(values) / len(values)


def greedy(count: int, kept: int, worth: Callable[[list[int], int], float]) -> list[int]:
    """Adds the token of greatest worth, the first of equals, and forgets the order."""
    chosen: list[int] = []
    for _ in range(kept):
        rest = [i for i in range(count) if i not in chosen]
        chosen.append(max(rest, key=lambda i: worth(chosen, i)))
    return sorted(chosen)


def divprune(visual: Array, question: Array, grid: tuple[int, int], kept: int) -> list[int]:
    def nearest(chosen: list[int], i: int) -> float:
        return min(1 - cos(visual[i], visual[j]) for j in chosen or range(len(visual)) if j != i)

    return greedy(len(visual), kept, nearest)


def cdpruner(centred: bool, sign: float) -> Formula:
    def choose(visual: Array, question: Array, grid: tuple[int, int], kept: int) -> list[int]:
        weight = to_unit([sign * mean([cos(v, t) for t in question]) for v in visual])
        if centred:
            distinct = to_unit([-mean([cos(v, u) for u in visual]) for v in visual])
            weight = [r * g for r, g in zip(weight, distinct, strict=True)]
            visual = visual - sum(visual) / len(visual)
        kernel = np.array(
            [[weight[i] * cos(a, b) * weight[j] for j, b in enumerate(visual)] for i, a in enumerate(visual)]
        )
        return greedy(
            len(visual), kept, lambda chosen, i: float(np.linalg.det(kernel[np.ix_([*chosen, i], [*chosen, i])]))
        )

    return choose


def gaussian(weights: list[float], grid: tuple[int, int]) -> list[float]:
    def mirrored(at: int, size: int) -> int:
        return -at if at < 0 else 2 * size - 2 - at if at >= size else at

    steps = [(dy, dx, math.exp(-(dy * dy + dx * dx) / 2)) for dy in (-1, 0, 1) for dx in (-1, 0, 1)]
    total = sum(share for _, _, share in steps)
    rows, columns = grid
    return [
        sum(s / total * weights[mirrored(y + dy, rows) * columns + mirrored(x + dx, columns)] for dy, dx, s in steps)
        for y in range(rows)
        for x in range(columns)
    ]


def entropy_of(scores: list[float]) -> float:
    top = max(scores)
    powers = [math.exp((s - top) / 0.01) for s in scores]
    return -sum(p / sum(powers) * math.log(p / sum(powers)) for p in powers if p > 0)


def eadp(share: float, power: float, sign: float) -> Formula:
    def choose(visual: Array, question: Array, grid: tuple[int, int], kept: int) -> list[int]:
        per_token = [[sign * cos(v, t) for v in visual] for t in question]
        entropies = [entropy_of(scores) for scores in per_token]
        voters = sorted(range(len(question)), key=lambda t: entropies[t])[: max(1, int(share * len(question)))]
        votes = [math.exp(-(entropies[t] - entropies[voters[0]]) / 0.01) for t in voters]
        whole = np.array([mean([float(x) for x in axis]) for axis in question.T])
        mixed = []
        for i, token in enumerate(visual):
            dense = sum(vote * per_token[t][i] for vote, t in zip(votes, voters, strict=True)) / sum(votes)
            mixed.append(0.5 * sign * cos(token, whole) + 0.5 * dense)
        weights = [math.pow(w, power) for w in gaussian(to_unit(mixed), grid)]
        alike = [[(1 + cos(a, b)) / 2 for b in visual] for a in visual]

        def cover(chosen: list[int], i: int) -> float:
            return sum(w * max(alike[u][j] for u in [*chosen, i]) for j, w in enumerate(weights))

        return greedy(len(visual), kept, cover)

    return choose


RIVALS: list[tuple[Policy, Formula]] = [
    (DivPrune(), divprune),
    (CdPruner(), cdpruner(centred=False, sign=1)),
    (CdPruner(negated=True), cdpruner(centred=False, sign=-1)),
    (CdPruner(centred=True), cdpruner(centred=True, sign=1)),
    (Eadp(), eadp(0.5, 1, -1)),
    (Eadp(token_share=0.8, power=3.0, negated=False), eadp(0.8, 3, 1)),
]
ALL: list[Policy] = [*(rival for rival, _ in RIVALS), Random(), UniformStride(), ClsAttention(), VisionZip()]


def budgets(count: int) -> list[int]:
    return [1, 2, count // 2, count - 1, count]


@pytest.mark.parametrize("grid", GRIDS)
@pytest.mark.parametrize("seed", SEEDS)
@pytest.mark.parametrize(("policy", "formula"), RIVALS, ids=[rival.name for rival, _ in RIVALS])
def test_keeps_what_the_formula_keeps(
    policy: Policy,
    formula: Formula,
    seed: int,
    grid: tuple[int, int],
) -> None:
    given = evidence(seed, grid)
    for kept in budgets(grid[0] * grid[1]):
        found = policy.select(given, kept).tolist()
        for row in range(QUESTIONS):
            question = given.question_embeds[row][given.question_mask[row]].numpy()
            assert found[row] == formula(given.visual[row].numpy(), question, grid, kept), (kept, row)


@pytest.mark.parametrize("policy", ALL, ids=[policy.name for policy in ALL])
def test_indices_are_ascending_unique_and_k_of_them(policy: Policy) -> None:
    given = evidence(7, (4, 4))
    single = replace(
        given, **{name: getattr(given, name).float() for name in ("features", "visual", "question_embeds")}
    )
    for kept in range(1, 17):
        found = policy.select(single, kept)
        assert found.dtype == torch.int64
        assert found.shape == (QUESTIONS, kept)
        assert (found.diff(dim=-1) > 0).all()
        assert found.min() >= 0
        assert found.max() < 16
    assert found.tolist() == [list(range(16))] * QUESTIONS


@pytest.mark.parametrize("policy", [DivPrune(), CdPruner(), CdPruner(centred=True), ClsAttention()])
def test_equal_tokens_are_kept_from_the_lowest_index(policy: Policy) -> None:
    given = evidence(0, (3, 4))
    first_axis = torch.eye(WIDTH, dtype=torch.float64)[:1].expand(QUESTIONS, 12, WIDTH)
    equal = replace(given, visual=first_axis, cls_attention=torch.full((QUESTIONS, 12), 1 / 12))
    assert policy.select(equal, 5).tolist() == [[0, 1, 2, 3, 4]] * QUESTIONS


def kept_by(rule: Gains, count: int, kept: int) -> list[int]:
    return keep_best(grow(rule, torch.ones(1, count).bool(), torch.tensor([kept])), kept)[0].tolist()


def test_facility_location_breaks_ties_to_the_lower_index() -> None:
    # Tokens 1 and 3 cover two tokens each, 0 and 2 one; all weights and sums are exact.
    alike = torch.tensor([[1.0, 0, 0, 0], [1, 1, 0, 0], [0, 0, 1, 0], [0, 0, 1, 1]])[None]
    picks = [kept_by(WidestCover(torch.ones(1, 4), alike), 4, kept) for kept in (1, 2, 3)]
    assert picks == [[1], [1, 3], [0, 1, 3]]


def test_determinants_of_a_kernel_without_full_rank_end_at_the_lowest_indices() -> None:
    # Tokens 5 and 2 are orthogonal and longest; the others lie in their plane and add no volume.
    tokens = torch.tensor([[1.0, 0], [0, 1], [0, 2], [1, 1], [0, 1], [3, 0]], dtype=torch.float64)
    turn = torch.tensor([[math.cos(1), math.sin(1)], [-math.sin(1), math.cos(1)]], dtype=torch.float64)
    kernel = (tokens @ turn @ turn.T @ tokens.T)[None]  # rounding now leaves residuals
    diagonal = kernel.diagonal(dim1=1, dim2=2)
    assert [kept_by(MostDiverse(kernel, diagonal), 6, kept) for kept in (1, 2, 4)] == [[5], [2, 5], [0, 1, 2, 5]]


def test_scores_of_a_set_tell_the_order_in_which_it_grew() -> None:
    # On a line: 3 first (told), then the farthest from it, 0, then the middle, 2.
    places = torch.tensor([0.0, 1, 4, 9])
    distance = (places[:, None] - places).abs()[None]
    scores = grow(FarthestFirst(distance, torch.tensor([[0.0, 0, 0, 1]])), torch.ones(1, 4).bool(), torch.tensor([3]))
    assert scores.tolist() == [[0.75, 0, 0.5, 1]]


@pytest.mark.parametrize("name", ["divprune", "cdpruner", "cen-cdpruner", "eadp"])
def test_shortfall_tells_a_greedy_order_from_any_other(name: str) -> None:
    policy = POLICIES[name]()
    assert isinstance(policy, SetPolicy)
    whole = evidence(5, (4, 4))
    given = next(whole.blocks(1))
    scores = policy.scores(given, torch.tensor([7]))
    assert policy.shortfall(given, 7, scores) == 0
    assert policy.shortfall(given, 8, scores) == math.inf
    order = scores.argsort(descending=True)[0, :7]
    swapped = scores.clone()
    swapped[0, order[2]], swapped[0, order[5]] = scores[0, order[5]], scores[0, order[2]]
    assert policy.shortfall(given, 7, swapped) > 1e-3


SEEING = [policy for policy in ALL if not isinstance(policy, (Random, UniformStride))]


@pytest.mark.parametrize("policy", SEEING, ids=[policy.name for policy in SEEING])
def test_a_broken_token_is_kept_last_and_changes_nothing_for_the_rest(policy: Policy) -> None:
    """NaN in token 5: kept at N only. The other questions choose as before."""
    given = evidence(11, (3, 4))
    visual, attention = given.visual.clone(), given.cls_attention.clone()
    visual[1, 5, 3] = attention[1, 5] = math.nan
    broken = replace(given, visual=visual, cls_attention=attention)
    contextual = isinstance(policy, VisionZip)  # which strides over what is left, whatever it is worth
    for kept in (1, 4, 11, 12):
        found, whole = policy.select(broken, kept), policy.select(given, kept)
        assert torch.equal(found[[0, 2]], whole[[0, 2]])
        assert found[1].unique().numel() == kept
        assert contextual or (5 in found[1].tolist()) == (kept == 12)


def test_many_questions_at_once_choose_as_one_by_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """The rows are scored in blocks, so that memory does not grow with the number of questions."""
    given = evidence(4, (4, 4))
    for policy in (DivPrune(), CdPruner(), Eadp(), VisionZip()):
        whole = policy.select(given, 6)
        with monkeypatch.context() as small:
            small.setattr(interface, "_PAIRS_AT_ONCE", 1)
            assert torch.equal(policy.select(given, 6), whole), policy.name


def test_the_catalog_names_every_policy_and_what_it_reads() -> None:
    """A policy reads nothing but what the catalog says: NaN in all the rest changes nothing."""
    untrained = {spec.name for spec in POLICY_SPECS.values() if spec.exportable} | {"random"}
    assert set(POLICIES) == untrained
    given = evidence(6, (4, 4))
    for name in untrained - {"random"}:
        reads = POLICY_SPECS[name].reads
        fields = {"visual": PROJECTED, "question_embeds": QUESTION, "cls_attention": CLS_ATTENTION}
        unread = {"features"} | {field for field, what in fields.items() if what not in reads}
        nothing: Any = {field: torch.full_like(getattr(given, field), math.nan) for field in unread}
        blind = replace(given, **nothing)
        assert torch.equal(POLICIES[name]().select(blind, 6), POLICIES[name]().select(given, 6)), name


def test_relevance_decides_between_equally_diverse_tokens() -> None:
    axes = torch.eye(6, dtype=torch.float64)
    given = replace(
        evidence(0, (2, 3)),
        visual=axes.expand(QUESTIONS, 6, 6),
        question_embeds=torch.tensor([0.1, 0.9, 0.3, 0.2, 0.8, 0.4]).double().expand(QUESTIONS, 5, 6),
    )
    assert CdPruner().select(given, 2).tolist() == [[1, 4]] * QUESTIONS
    assert CdPruner(negated=True).select(given, 2).tolist() == [[0, 3]] * QUESTIONS


def test_smoothing_spreads_one_token_by_the_gaussian() -> None:
    centre = torch.zeros(1, 9, dtype=torch.float64).index_fill(1, torch.tensor([4]), 1.0)
    edge, corner = math.exp(-0.5), math.exp(-1)
    total = 1 + 4 * edge + 4 * corner
    # Reflection shows the centre twice to an edge's neighbour row and four times to a corner.
    expected = [4 * corner, 2 * edge, 4 * corner, 2 * edge, 1, 2 * edge, 4 * corner, 2 * edge, 4 * corner]
    difference = (smoothed(centre, (3, 3))[0] - torch.tensor(expected, dtype=torch.float64) / total).abs()
    assert difference.max() < 1e-12, f"max {difference.max():.2e}, mean {difference.mean():.2e}"


def test_padding_of_the_question_has_no_say() -> None:
    given = evidence(3, (4, 4))
    noise = replace(given, question_embeds=given.question_embeds + 9 * ~given.question_mask[..., None])
    for policy in (CdPruner(), CdPruner(centred=True), Eadp()):
        assert torch.equal(policy.select(given, 5), policy.select(noise, 5)), policy.name


@pytest.mark.parametrize(
    ("kept", "expected"),
    [
        (1, [9]),
        (2, [8, 9]),  # ceil(27/32 of 2) = 2 dominant
        (7, [0, 4, 5, 6, 7, 8, 9]),  # 6 dominant; the first of the rest
        (9, [0, 2, 3, 4, 5, 6, 7, 8, 9]),  # 8 dominant: 2 to 9; rest 0, 1
        (10, [0, 1, 2, 3, 4, 5, 6, 7, 8, 9]),
    ],
)
def test_visionzip_places_by_hand(kept: int, expected: list[int]) -> None:
    rising = torch.arange(10.0).expand(QUESTIONS, -1)
    given = replace(evidence(0, (2, 3)), cls_attention=rising)
    assert VisionZip().select(given, kept).tolist() == [expected] * QUESTIONS


def test_visionzip_strides_over_what_attention_left() -> None:
    # 22 tokens, 13 kept: 11 dominant (the even ones); of the odd ones every fifth: 1 and 11.
    even = (torch.arange(22) % 2 == 0).double().expand(QUESTIONS, -1)
    found = VisionZip().select(replace(evidence(0, (2, 3)), cls_attention=even), 13)
    assert found.tolist() == [sorted([*range(0, 22, 2), 1, 11])] * QUESTIONS


@pytest.mark.parametrize(("kept", "dominant"), [(64, 54), (128, 108), (192, 162)])
def test_visionzip_shares_as_its_authors_do(kept: int, dominant: int) -> None:
    given = next(evidence(0, (2, 3)).blocks(1))
    scores = VisionZip().scores(replace(given, cls_attention=torch.rand(1, 576)), torch.tensor([kept]))
    assert [int((scores == value).sum()) for value in (2, 1)] == [dominant, kept - dominant]


@pytest.mark.parametrize(("kept", "expected"), [(1, [6]), (2, [3, 9]), (3, [2, 6, 10]), (5, [1, 3, 6, 8, 10])])
def test_uniform_stride_places_by_hand(kept: int, expected: list[int]) -> None:
    # The middles of K equal stretches of 12 tokens.
    assert UniformStride().select(evidence(0, (3, 4)), kept).tolist() == [expected] * QUESTIONS


def test_cls_attention_keeps_the_most_attended() -> None:
    given = evidence(2, (4, 4))
    for kept in budgets(16):
        expected = [keep_best_numpy(row, kept).tolist() for row in given.cls_attention.numpy()]
        assert ClsAttention().select(given, kept).tolist() == expected


def test_random_is_seeded_and_differs_between_questions_and_calls() -> None:
    given = evidence(0, (4, 4))
    first = Random(5)
    found, again = first.select(given, 8), first.select(given, 8)
    assert torch.equal(found, Random(5).select(given, 8))
    assert not torch.equal(found, Random(6).select(given, 8))
    assert not torch.equal(found, again)
    assert not torch.equal(found[0], found[1])


def test_random_keeps_every_token_equally_often() -> None:
    given = replace(evidence(0, (2, 3)), **cast("Any", dict.fromkeys(FIELDS, torch.zeros(6000, 6, 1))))
    share = Random().select(given, 2).flatten().bincount(minlength=6) / 6000
    # Each is kept with chance 1/3; five standard errors are 0.03.
    assert (share - 1 / 3).abs().max() < 0.03, share.tolist()


def test_grip_scores_each_question_as_alone_and_unpadded() -> None:
    torch.manual_seed(0)
    scorer = GripScorer(ScorerConfig(VISION_WIDTH, WIDTH, (3, 4), width=16, heads=2)).eval()
    given = evidence(1, (3, 4))
    for kept in (1, 6, 12):
        scores = Grip(scorer).scores(given, torch.tensor([kept]))
        for row in range(QUESTIONS):
            question = given.question_embeds[row][given.question_mask[row]].float()
            alone = scorer(given.features[row : row + 1].float(), question[None], torch.tensor([kept]))[0].detach()
            difference = (scores[row] - alone).abs()
            assert difference.max() < 1e-5, f"max {difference.max():.2e}, mean {difference.mean():.2e}"
            expected = keep_best_numpy(scores[row].numpy(), kept).tolist()
            assert Grip(scorer).select(given, kept)[row].tolist() == expected
