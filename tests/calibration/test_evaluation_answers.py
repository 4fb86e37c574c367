"""References: the model's own ``answers`` asked one question at a time; an evaluation that nobody interrupted."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import torch

from grip_edge.calibration.data import AskedImages, JsonlData
from grip_edge.calibration.evaluation.answering import TorchAnswerer
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case, case_grid, pruning_budgets
from grip_edge.calibration.evaluation.collecting import collect
from grip_edge.calibration.evaluation.contestants import make_contestants, parse_policies
from grip_edge.calibration.evaluation.records import ImageRecord, RecordFile
from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.calibration.frozen_vlm import FrozenVlm
from grip_edge.calibration.policies import IN_DECODER_POLICIES, POLICIES, Evidence, FastV, Grip
from grip_edge.calibration.scorer_files import load_scorer, save_scorer
from grip_edge.calibration.selection import gather_tokens
from grip_edge.errors import UserError
from tests.calibration.evaluation_data import write_questions
from tests.toy_model import VISUAL_TOKENS, save_toy_scorer

NEW_TOKENS = 5
BUDGETS = ("0.25", "8", "1.0")


@pytest.fixture(scope="module")
def vlm(toy_checkpoint: Path) -> FrozenVlm:
    return FrozenVlm.load(toy_checkpoint, torch.float32)


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> JsonlData:
    return JsonlData.open(write_questions(tmp_path_factory.mktemp("questions")))


def answerer(vlm: FrozenVlm, values: tuple[str, ...], scorer: Path | None = None) -> TorchAnswerer:
    contestants = make_contestants(parse_policies(values, scorer), vlm)
    cases = case_grid({one.name: one.runs for one in contestants}, BUDGETS, vlm.visual_tokens)
    return TorchAnswerer(vlm, contestants, cases, NEW_TOKENS)


def one_at_a_time(vlm: FrozenVlm, asked: AskedImages, case: Case, scorer: Path) -> list[str]:
    """The plain way: one image, one question, one selection, one generation."""
    texts = []
    for question, owner in zip(asked.questions, asked.image_of, strict=True):
        features, attention = vlm.features_and_cls_attention(vlm.pixels([asked.images[owner]]))
        visual, prompts = vlm.visual_embeds(features), vlm.prompts([question.text])
        if case.policy == "fastv":
            texts += FastV(after_layers=1).answers(vlm, visual, prompts, case.kept_tokens, NEW_TOKENS)
            continue
        if case.policy != UNPRUNED:
            embeds = vlm.question_embeds(prompts)
            evidence = Evidence(features, visual, attention, embeds, prompts.question_mask, vlm.grid)
            policy = Grip(load_scorer(scorer)[0]) if case.policy == "grip" else POLICIES[case.policy]()
            visual = gather_tokens(visual, policy.select(evidence, case.kept_tokens))
        texts += vlm.answers(visual, prompts, NEW_TOKENS)
    return texts


def test_batched_answers_are_those_of_one_question_at_a_time(
    vlm: FrozenVlm, data: JsonlData, toy_scorer: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(IN_DECODER_POLICIES, "fastv", lambda: FastV(after_layers=1))  # the toy has two layers
    asked = data.take(range(3))
    found = answerer(vlm, ("uniform,cls,divprune,cdpruner,fastv", "grip"), toy_scorer)
    rows = found.answers(asked, 0)
    assert len(rows) == 1 + 2 * 6
    for case, row in zip(found.cases, rows, strict=True):
        assert list(row) == one_at_a_time(vlm, asked, case, toy_scorer), case
    assert len(set(rows)) > 3, "all policies answer alike: nothing is compared"


def test_every_training_run_of_a_scorer_answers_for_itself(
    vlm: FrozenVlm, data: JsonlData, toy_scorer: Path, tmp_path: Path
) -> None:
    other = save_toy_scorer(tmp_path / "other")
    scorer, card = load_scorer(other)
    with torch.no_grad():
        for parameter in scorer.parameters():
            parameter.add_(torch.randn(parameter.shape, generator=torch.Generator().manual_seed(0)))
    save_scorer(other, scorer, card)
    asked = data.take(range(4))
    both = answerer(vlm, (f"mine={toy_scorer},{other}",)).answers(asked, 0)
    first = answerer(vlm, (f"mine={toy_scorer}",)).answers(asked, 0)
    second = answerer(vlm, (f"mine={other}",)).answers(asked, 0)
    assert both == [first[0], first[1], second[1], first[2], second[2]]
    assert first[1] != second[1]


def collected(vlm: FrozenVlm, data: JsonlData, path: Path, stop_after: int | None = None) -> RecordFile:
    """Batches of two images; interrupted after ``stop_after`` images."""
    file = RecordFile(path, {"what": "a test"}, len(data), 2)

    def on_batch(done: int) -> None:
        if stop_after is not None and done >= stop_after:
            raise KeyboardInterrupt

    sides = [answerer(vlm, ("random", "uniform"))]
    collect(data, len(data), 2, sides, file, RULES["exact"], on_batch)
    return file


@pytest.mark.parametrize("lost_bytes", [0, 1, 40, 700])
def test_an_interrupted_evaluation_ends_in_the_same_bytes(
    vlm: FrozenVlm, data: JsonlData, tmp_path: Path, lost_bytes: int
) -> None:
    """Also where the last lines were cut off, wherever that was; random draws are repeated, too."""
    whole = collected(vlm, data, tmp_path / "whole.jsonl")
    part = tmp_path / "part.jsonl"
    with pytest.raises(KeyboardInterrupt):
        collected(vlm, data, part, stop_after=4)
    content = part.read_bytes()
    part.write_bytes(content[: len(content) - lost_bytes])
    resumed = collected(vlm, data, part)
    assert part.read_bytes() == (tmp_path / "whole.jsonl").read_bytes()
    assert resumed.records == whole.records
    assert [record.image for record in whole.records] == list(range(7))


def test_a_finished_evaluation_is_read_back_and_not_repeated(vlm: FrozenVlm, data: JsonlData, tmp_path: Path) -> None:
    whole = collected(vlm, data, tmp_path / "whole.jsonl")
    again = RecordFile(tmp_path / "whole.jsonl", {"what": "a test"}, len(data), 2)
    assert again.records == whole.records
    collect(data, len(data), 2, [], again, RULES["exact"], lambda done: pytest.fail("answered again"))


def test_records_of_something_else_are_refused(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    RecordFile(path, {"model": "a", "images": 3}, 3, 2)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"another evaluation \(model differ\).*--force"):
        RecordFile(path, {"model": "b", "images": 3}, 3, 2)
    assert path.read_bytes() == before
    path.write_text("something else\n")
    with pytest.raises(UserError, match="holds no records"):
        RecordFile(path, {"model": "a"}, 3, 2)


def test_a_file_killed_in_its_first_line_begins_anew(tmp_path: Path) -> None:
    path = tmp_path / "answers.jsonl"
    path.write_text('{"kind": "grip-edge eval')
    assert RecordFile(path, {"model": "a"}, 3, 2).records == []
    assert json.loads(path.read_text())["asked"] == {"model": "a"}


def test_records_survive_odd_characters() -> None:
    record = ImageRecord(3, (), (("a\u2028b\x85c\n", "\ud83d"),))
    line = record.to_line()
    assert line.count("\n") == 1
    assert len(line.splitlines()) == 1
    assert ImageRecord.from_line(line) == record


def test_equal_budgets_are_one_and_all_tokens_are_the_unpruned_model() -> None:
    assert pruning_budgets(("0.25", "4", "1.0", "0.5"), VISUAL_TOKENS) == {4: "0.25", 8: "0.5"}
    assert case_grid({"cls": 1, "grip": 2}, ("0.25", "16"), VISUAL_TOKENS) == (
        Case(UNPRUNED, "1.0", 16),
        Case("cls", "0.25", 4),
        Case("grip", "0.25", 4, 0),
        Case("grip", "0.25", 4, 1),
    )


@pytest.mark.parametrize(
    ("values", "message"),
    [
        (("nonsense",), r"no policy 'nonsense'\. Expected one of random, uniform"),
        (("grip",), "no policy 'grip'; no trained scorer comes with this model"),
        (("random,mine=a",), "a --policies of its own"),
        (("mine=",), "expected NAME=DIR"),
        (("random", "cls,random"), "names 'random' twice"),
        (("unpruned=a",), "the unpruned model always takes part"),
    ],
)
def test_wrong_policies_are_refused(values: tuple[str, ...], message: str) -> None:
    with pytest.raises(UserError, match=message):
        parse_policies(values, None)


def test_a_scorer_of_another_model_is_refused(vlm: FrozenVlm, tmp_path: Path) -> None:
    other = save_toy_scorer(tmp_path / "other", text_width=64)
    with pytest.raises(UserError, match=r"widths 32 and 64 .* this model has 32, 48"):
        make_contestants({"mine": (other,)}, vlm)
