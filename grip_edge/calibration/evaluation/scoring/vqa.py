"""VQA accuracy and TextVQA accuracy: agreement with ten humans, after the official normalisation.

    accuracy(answer) = mean over the humans h of  min(1, (how many of the others gave this answer) / 3)

Normalisation: punctuation dropped or turned into spaces, full stops dropped unless a digit follows, lower case,
number words to digits, articles dropped, missing apostrophes of contractions put back. The two benchmarks differ:

    vqa       GT-Vision-Lab/VQA, PythonEvaluationTools/vqaEvaluation/vqaEval.py: answers are compared as they are
              where all humans agree, and normalised only where they do not
    textvqa   facebookresearch/mmf, EvalAIAnswerProcessor, as in LLaVA's llava/eval/m4c_evaluator.py: always normalised,
              after commas and question marks are dropped and "'s" is set apart

Both keep the official code's oddities: an answer with a comma between digits loses all its punctuation without a space
in its place, and a full stop after a digit goes too, unless another digit follows.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

from grip_edge.calibration.evaluation.scoring.rule import ScoringRule
from grip_edge.errors import UserError

_MIN_REFERENCES = 4  # with fewer humans, leave-one-out cannot reach an accuracy of 1

_PUNCTUATION = ';/[]"{}()=+\\_-><@`,?!'
_FULL_STOP = re.compile(r"\.(?!\d)")
_DIGITS_WITH_COMMA = re.compile(r"\d,\d")
_ARTICLES = frozenset(("a", "an", "the"))
_NUMBERS = {
    word: str(number)
    for number, word in enumerate(
        ("zero", "one", "two", "three", "four", "five", "six", "seven", "eight", "nine", "ten")
    )
} | {"none": "0"}

# The official list. Each word stands for its spellings with one apostrophe left out, which it replaces.
_CONTRACTIONS = [
    "ain't",
    "aren't",
    "can't",
    "could've",
    "couldn't",
    "couldn't've",
    "didn't",
    "doesn't",
    "don't",
    "hadn't",
    "hadn't've",
    "hasn't",
    "haven't",
    "he'd",
    "he'd've",
    "he's",
    "how'd",
    "how'll",
    "how's",
    "isn't",
    "it'd",
    "it'd've",
    "it'll",
    "ma'am",
    "mightn't",
    "mightn't've",
    "might've",
    "mustn't",
    "must've",
    "needn't",
    "not've",
    "o'clock",
    "oughtn't",
    "'ow's'at",
    "shan't",
    "she'd've",
    "should've",
    "shouldn't",
    "shouldn't've",
    "somebody'd've",
    "somebody'll",
    "somebody's",
    "someone'd",
    "someone'd've",
    "someone'll",
    "someone's",
    "something'd",
    "something'd've",
    "something'll",
    "that's",
    "there'd",
    "there'd've",
    "there're",
    "there's",
    "they'd",
    "they'd've",
    "they'll",
    "they're",
    "they've",
    "'twas",
    "wasn't",
    "we'd've",
    "we've",
    "weren't",
    "what'll",
    "what're",
    "what's",
    "what've",
    "when's",
    "where'd",
    "where's",
    "where've",
    "who'd",
    "who'd've",
    "who'll",
    "who's",
    "who've",
    "why'll",
    "why're",
    "why's",
    "won't",
    "would've",
    "wouldn't",
    "wouldn't've",
    "y'all",
    "y'all'll",
    "y'all'd've",
    "you'd",
    "you'd've",
    "you'll",
    "you're",
    "you've",
]


def _spellings() -> dict[str, str]:
    spellings = {"somebody'd": "somebodyd"}  # the wrong way round in the official list, and so here
    for word in _CONTRACTIONS:
        for place in (i for i, letter in enumerate(word) if letter == "'"):
            spellings[word[:place] + word[place + 1 :]] = word
    return spellings


_SPELLINGS = _spellings()


class VqaAccuracy(ScoringRule):
    name = "vqa"

    def normalise(self, answer: str) -> str:
        return _without_articles(_without_punctuation(_one_line(answer)))

    def score(self, answer: str, references: Sequence[str]) -> float:
        _check(self.name, references)
        given = [_one_line(reference) for reference in references]
        if len(set(given)) == 1:
            return _leave_one_out(_one_line(answer), given)
        return _leave_one_out(self.normalise(answer), [self.normalise(reference) for reference in given])


class TextVqaAccuracy(ScoringRule):
    name = "textvqa"

    def normalise(self, answer: str) -> str:
        plain = answer.lower().replace(",", "").replace("?", "").replace("'s", " 's")
        return _without_articles(_without_punctuation(_one_line(plain)))

    def score(self, answer: str, references: Sequence[str]) -> float:
        _check(self.name, references)
        return _leave_one_out(self.normalise(answer), [self.normalise(reference) for reference in references])


def _check(rule: str, references: Sequence[str]) -> None:
    if len(references) < _MIN_REFERENCES:
        raise UserError(
            f"Scoring '{rule}' compares with ten humans' answers per question; a question of this data has "
            f'{len(references)}. Give "answer" as a list of them, or choose --scoring exact.'
        )


def _leave_one_out(answer: str, references: Sequence[str]) -> float:
    """An answer that m humans gave: the m who gave it see m - 1 others, the rest see m."""
    count, given = len(references), sum(reference == answer for reference in references)
    return (given * min(1.0, (given - 1) / 3) + (count - given) * min(1.0, given / 3)) / count


def _one_line(text: str) -> str:
    return text.replace("\n", " ").replace("\t", " ").strip()


def _without_punctuation(text: str) -> str:
    out = text
    for mark in _PUNCTUATION:
        beside_space = f"{mark} " in text or f" {mark}" in text
        out = out.replace(mark, "" if beside_space or _DIGITS_WITH_COMMA.search(text) else " ")
    return _FULL_STOP.sub("", out)


def _without_articles(text: str) -> str:
    words = (_NUMBERS.get(word, word) for word in text.lower().split())
    return " ".join(_SPELLINGS.get(word, word) for word in words if word not in _ARTICLES)
