"""``grip-edge evaluate``. References: PyTorch for its bundle, a run that nobody killed, the same answers rescored."""

from __future__ import annotations

import json
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grip_edge.calibration.evaluation.report import EvaluationReport
from grip_edge.cli.evaluation import run as evaluation_run
from tests.calibration.evaluation_data import write_questions
from tests.cli.test_cli_main import run_program

SMALL = ("--data", "questions", "--max-new-tokens", "4", "--batch-images", "2", "--budgets", "0.25,0.5")
BOTH = ("evaluate", "--model", "model", "--policies", "random", "--policies", "grip=scorer")


@pytest.fixture
def place(workplace: Path, toy_checkpoint: Path, toy_scorer: Path) -> Path:
    """The workplace with a model, a scorer and questions."""
    (workplace / "model").symlink_to(toy_checkpoint)
    (workplace / "scorer").symlink_to(toy_scorer)
    write_questions(workplace / "questions")
    return workplace


def read(place: Path, out: str = "report") -> EvaluationReport:
    return EvaluationReport.from_json((place / out / "report.json").read_text(), out)


def test_model_and_bundle_answer_alike(place: Path, run: Callable[..., Any]) -> None:
    """The bundle holds the same weights and scorer in fp32: every answer is PyTorch's."""
    outcome = run(*BOTH, "--bundle", "grip:fp32=grip-bundle", *SMALL, "--out", "report")
    assert outcome.exit_code == 0, outcome
    report = read(place)
    assert [one.name for one in report.participants] == ["unpruned", "random", "grip", "grip:fp32 (bundle)"]
    assert {(row.policy, row.budget): row.agreement for row in report.agreement} == {
        ("unpruned", "1.0"): 1.0,
        ("grip", "0.25"): 1.0,
        ("grip", "0.5"): 1.0,
    }
    random = [row.agreement for row in report.accuracy if row.policy == "random" and row.group == "all"]
    assert max(random) < 1.0, "a policy that draws answers like the whole model: nothing is compared"
    assert {row.group for row in report.accuracy} == {"all", "what", "yes-no", "count"}
    assert (report.setting.against, report.setting.images, report.setting.questions) == ("grip", 7, 17)
    assert outcome.stdout == (place / "report" / "report.md").read_text()
    written = {path.name for path in (place / "report").iterdir()}
    assert written == {"answers.jsonl", "report.json", "report.csv", "report.md", "accuracy.png"}


def test_a_bundle_alone_needs_no_torch(place: Path) -> None:
    finished = run_program(place, "evaluate", "--bundle", "grip-bundle", *SMALL, "--out", "report", "--no-plots")
    assert finished.returncode == 0, finished.stderr
    assert finished.stderr.endswith("heavy modules: []\n")
    report = read(place)
    assert [one.name for one in report.participants] == ["grip-bundle (bundle)"]
    assert {row.budget for row in report.accuracy} == {"1.0", "0.25", "0.5"}
    assert report.setting.precision is None


def test_latency_and_flops_of_a_given_bundle(place: Path, run: Callable[..., Any]) -> None:
    measuring = ("--latency", "--requests", "2", "--flops")
    outcome = run(*BOTH, "--bundle", "grip=grip-bundle", *SMALL, *measuring, "--out", "report")
    assert outcome.exit_code == 0, outcome
    report = read(place)
    measured = [("unpruned", "1.0"), ("grip", "0.25"), ("grip", "0.5")]
    assert [(row.policy, row.budget) for row in report.latency] == measured
    assert [(row.policy, row.budget) for row in report.flops] == measured
    for row in report.latency:
        stages = sum(row.p50_ms[stage] for stage in ("preprocess", "vision", "select", "prefill", "decode"))
        assert row.p50_ms["total"] == pytest.approx(stages, rel=0.5)  # medians of parts and of their sum
        assert row.requests == 2
    unpruned, few, many = report.flops
    assert (unpruned.saved_share, unpruned.select_flops) == (0.0, 0)
    assert few.saved_share > many.saved_share > 0
    assert (place / "report" / "pareto.png").stat().st_size > 0


def test_a_policy_without_a_bundle_is_exported_once(place: Path, run: Callable[..., Any]) -> None:
    arguments = ("evaluate", "--model", "model", "--policies", "random,uniform", *SMALL, "--flops", "--out", "report")
    assert run(*arguments).exit_code == 0
    exported = place / "report" / "bundles" / "uniform" / "grip.json"
    stamp = exported.stat().st_mtime_ns
    assert [path.name for path in (place / "report" / "bundles").iterdir()] == ["uniform"], "random is not exportable"
    assert run(*arguments).exit_code == 0
    assert exported.stat().st_mtime_ns == stamp


def test_a_killed_run_ends_in_the_same_files(place: Path, run: Callable[..., Any]) -> None:
    write_questions(place / "questions", images=60)
    arguments = (*BOTH, *SMALL, "--no-plots")
    assert run(*arguments, "--out", "whole").exit_code == 0
    program = "from grip_edge.cli.main import main; main()"
    process = subprocess.Popen([sys.executable, "-c", program, *arguments, "--out", "killed"], cwd=place)
    answers = place / "killed" / "answers.jsonl"
    while not (answers.exists() and answers.read_bytes().count(b"\n") > 4):
        assert process.poll() is None, "ended before it could be killed"
        time.sleep(0.005)
    process.send_signal(signal.SIGKILL)
    process.wait()
    lines = answers.read_bytes().count(b"\n")
    assert lines < 61, "finished before it was killed"
    assert not (place / "killed" / "report.json").exists()
    assert run(*arguments, "--out", "killed").exit_code == 0
    for name in ("answers.jsonl", "report.json", "report.csv", "report.md"):
        assert (place / "killed" / name).read_bytes() == (place / "whole" / name).read_bytes(), name


def test_another_scoring_uses_the_answers_that_are_there(place: Path, run: Callable[..., Any]) -> None:
    write_questions(place / "questions", images=4)
    questions = place / "questions" / "test.jsonl"
    questions.write_text(questions.read_text().replace('"answer": "red"', '"answer": "yes"'))
    run("evaluate", "--model", "model", *SMALL, "--out", "report", "--no-plots")
    answers = place / "report" / "answers.jsonl"
    stamp, exact = answers.stat().st_mtime_ns, read(place)
    run("evaluate", "--model", "model", *SMALL, "--out", "report", "--no-plots", "--scoring", "pope")
    pope = read(place)
    assert answers.stat().st_mtime_ns == stamp
    assert exact.accuracy[0].accuracy == 0.0  # the toy says nothing sensible
    assert pope.accuracy[0].accuracy == 1.0  # which POPE reads as yes
    assert pope.accuracy[0].metrics["yes_rate"] == 1.0


def test_other_answers_are_not_overwritten_without_force(
    place: Path, run: Callable[..., Any], refused: Callable[..., str]
) -> None:
    arguments = ("evaluate", "--model", "model", *SMALL, "--no-plots", "--out", "report")
    assert run(*arguments).exit_code == 0
    assert "another evaluation (images differ)" in refused(*arguments, "--images", "3")
    assert run(*arguments, "--images", "3", "--force").exit_code == 0
    assert read(place).setting.images == 3


def test_an_interruption_says_how_to_go_on(
    place: Path, run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch
) -> None:
    def interrupt(*_: object) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(evaluation_run, "collect", interrupt)
    outcome = run("evaluate", "--model", "model", *SMALL, "--out", "report", "--no-plots")
    assert outcome.exit_code == 130
    assert outcome.stderr == "grip-edge: interrupted; the same command goes on where it was\n"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "nothing to evaluate; give --model, --bundle, or both"),
        (("--bundle", "grip-bundle", "--policies", "cls"), "give it with --model"),
        (("--model", "model", "--scoring", "bleu"), "--scoring bleu does not exist; choose from: exact, vqa"),
        (("--model", "model", "--split", "dev"), "--split dev does not exist; choose from: train"),
        (("--model", "model", "--precision", "fp4"), "--precision fp4 does not exist; choose from: fp32, bf16"),
        (("--model", "model", "--images", "0"), "--images is at least 1; got 0"),
        (("--model", "model", "--budgets", "0.1,2.0"), "2.0 is not in (0, 1]"),
        (("--model", "model", "--policies", "magic"), "no policy 'magic'"),
        (("--model", "model", "--policies", "cls", "--against", "grip"), "grip takes no part; expected one of cls"),
        (("--model", "model", "--data", "nowhere"), "no data 'nowhere'"),
        (("--model", "model", "--data", "scenes:odd"), "no scenes 'odd'"),
        (("--model", "model", "--out", "picture.png"), "exists and is no folder"),
        (("--bundle", "grip-bundle", "--budgets", "0.9"), "this bundle serves"),
        (("--bundle", "a=grip-bundle", "--bundle", "a=grip-bundle"), "a name that is not taken"),
        (("--bundle", "model"), "holds no grip.json"),
    ],
)
def test_mistakes_are_one_line(
    place: Path, refused: Callable[..., str], arguments: tuple[str, ...], message: str
) -> None:
    assert message in refused("evaluate", "--out", "report", *arguments)


def test_data_that_does_not_fit_the_scoring_is_refused(place: Path, run: Callable[..., Any]) -> None:
    outcome = run("evaluate", "--model", "model", *SMALL, "--out", "report", "--scoring", "scienceqa")
    assert outcome.exit_code == 2
    assert "letter of an option, A to E, as the answer; this data has 'red'" in outcome.stderr
    assert len((place / "report" / "answers.jsonl").read_text().splitlines()) == 1
    assert json.loads((place / "report" / "answers.jsonl").read_text())["kind"] == "grip-edge evaluation records"
