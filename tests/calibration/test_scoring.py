"""References: hand-made cases that follow the benchmarks' official code; expected values computed by hand."""

from __future__ import annotations

import pytest

from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.errors import UserError

TEN_RED = ("red",) * 10


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("Two dogs.", "2 dogs"),
        ("The red car", "red car"),
        ("a", ""),
        ("none", "0"),
        ("dont know", "don't know"),
        ("couldnt've", "couldn't've"),
        ("couldntve", "couldntve"),  # not in the official list
        ("somebody'd", "somebodyd"),  # the wrong way round there
        ("black/white", "black white"),
        ("black / white", "black white"),
        ("t-shirt", "t shirt"),
        ("1,000", "1000"),
        ("1,000-2", "10002"),  # a comma between digits: all punctuation goes without a space
        ("3.5", "3.5"),
        ("at 3.", "at 3"),
        ("Mr. Smith", "mr smith"),
        ("dog's", "dog's"),
        ("yes\nit is", "yes it is"),
        ("An  apple", "apple"),
    ],
)
def test_vqa_normalisation(answer: str, normalised: str) -> None:
    assert RULES["vqa"].normalise(answer) == normalised


@pytest.mark.parametrize(
    ("given", "accuracy"),
    # given of ten humans said "red": those see one fewer among the others
    [(0, 0.0), (1, 0.3), (2, 0.6), (3, 0.9), (4, 1.0), (9, 1.0)],
)
def test_vqa_accuracy_leaves_one_human_out(given: int, accuracy: float) -> None:
    references = ("red",) * given + tuple(f"other {i}" for i in range(10 - given))
    for rule in ("vqa", "textvqa"):
        assert RULES[rule].score("red", references) == pytest.approx(accuracy)


def test_vqa_normalises_both_sides_but_only_where_humans_differ() -> None:
    vqa, text = RULES["vqa"], RULES["textvqa"]
    assert vqa.score("The Red.", ("red",) * 9 + ("dark red",)) == 1.0
    assert vqa.score("red", ("Red!",) * 9 + ("dark red",)) == 1.0
    # all humans agree: compared as they are, but for surrounding space
    assert vqa.score("Red", TEN_RED) == 0.0
    assert vqa.score(" red\n", TEN_RED) == 1.0
    assert text.score("Red", TEN_RED) == 1.0


@pytest.mark.parametrize(
    ("answer", "normalised"),
    [
        ("Dog's", "dog 's"),
        ("1,000", "1000"),
        ("what?", "what"),
        ("The Coca-Cola", "coca cola"),
        ("NO. 5", "no 5"),
    ],
)
def test_textvqa_normalisation(answer: str, normalised: str) -> None:
    assert RULES["textvqa"].normalise(answer) == normalised


@pytest.mark.parametrize(
    ("answer", "read"),
    [
        ("Yes", "yes"),
        ("No", "no"),
        ("no, there is none", "no"),
        ("There is not a dog", "no"),
        ("NO", "yes"),  # as the official code reads it
        ("nothing", "yes"),
        ("Yes. But no dog.", "yes"),  # the first sentence only
        ("", "yes"),
    ],
)
def test_pope_reads_the_first_sentence(answer: str, read: str) -> None:
    assert RULES["pope"].normalise(answer) == read


def test_pope_metrics_by_hand() -> None:
    """Three hits, one miss, two false alarms, four correct rejections."""
    said = ["Yes"] * 3 + ["No"] + ["Yes"] * 2 + ["No"] * 4
    true = [("yes",)] * 4 + [("no",)] * 6
    rule = RULES["pope"]
    assert sum(rule.score(a, t) for a, t in zip(said, true, strict=True)) == 7
    assert rule.summary(said, true) == pytest.approx(
        {"precision": 3 / 5, "recall": 3 / 4, "f1": 2 * 0.6 * 0.75 / (0.6 + 0.75), "yes_rate": 0.5}
    )
    assert rule.summary(["No"], [("no",)]) == {"precision": None, "recall": None, "f1": None, "yes_rate": 0.0}


@pytest.mark.parametrize(
    ("answer", "letter"),
    [
        ("B", "B"),
        (" B\t", "B"),
        ("B. the moon", "B"),
        ("B.", ""),  # no space after it
        ("B\nbecause", "B"),
        ("b", ""),
        ("The answer is C.", "C"),
        ("I think. The answer is D", "D"),
        ("The answer is A or The answer is B.", "B"),
        ("the answer is C.", ""),
        ("F", ""),
        ("", ""),
    ],
)
def test_scienceqa_letters(answer: str, letter: str) -> None:
    rule = RULES["scienceqa"]
    assert rule.normalise(answer) == letter
    assert rule.score(answer, (letter or "A",)) == float(bool(letter))


@pytest.mark.parametrize(
    ("answer", "reference", "score"), [("Yes.", "yes", 1.0), ("yes", "no", 0.0), ("red car..", "red car", 1.0)]
)
def test_gqa_is_lower_case_without_final_stops(answer: str, reference: str, score: float) -> None:
    assert RULES["gqa"].score(answer, (reference,)) == score


def test_exact_match_accepts_any_reference() -> None:
    rule = RULES["exact"]
    assert rule.score(" Red. ", ("blue", "red")) == 1.0
    assert rule.score("reds", ("blue", "red")) == 0.0
    assert rule.normalise(" Red. ") == rule.normalise("red")


@pytest.mark.parametrize(
    ("rule", "references", "message"),
    [
        ("vqa", ("red",), "ten humans' answers per question; a question of this data has 1"),
        ("textvqa", ("red", "red"), "has 2"),
        ("pope", ("maybe",), "'yes' and 'no'; this data has 'maybe'"),
        ("scienceqa", ("photosynthesis",), "letter of an option, A to E"),
    ],
)
def test_references_that_a_rule_cannot_use_are_refused(rule: str, references: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        RULES[rule].score("red", references)
