"""``grip-edge calibrate``: what it writes, what it prints, what it refuses. Reference: the manifest and the runtime."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from grip_edge.bundle import TOKENIZER_NAME, open_bundle
from grip_edge.calibration.budget_choice import lower_bound
from grip_edge.runtime.prompt import load_tokenizer
from tests.cli.conftest import Run

FEW = ("--images", "2", "--questions-per-image", "2")


@pytest.fixture
def questions(workplace: Path) -> Path:
    """Six images with a question each."""
    lines = []
    for number in range(6):
        levels = np.random.default_rng(number).integers(0, 256, (60, 80, 3)).astype(np.uint8)
        Image.fromarray(levels).save(workplace / f"{number}.png")
        group = "even" if number % 2 == 0 else "odd"
        lines.append({"image": f"{number}.png", "question": "what is this?", "answer": "a tree", "group": group})
    path = Path("questions.jsonl")
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return path


def test_a_quantised_bundle_that_says_what_it_cost(run: Run, questions: Path, workplace: Path) -> None:
    outcome = run("calibrate", "grip-bundle", "--data", str(questions), *FEW, "--out", "int8-bundle")
    assert outcome.exit_code == 0, outcome.stderr
    manifest = open_bundle(workplace / "int8-bundle").manifest
    record = manifest.calibration
    assert record is not None
    assert manifest.precision == "int8"
    assert manifest.parity == ()
    assert (record.data, record.seen_questions, record.cost.questions) == (str(questions), 2, 2)
    assert record.kept == ()
    assert 0 < record.cost.mean_kl < 1
    assert record.limits == {}
    assert f"{record.cost.mean_kl:.5f} nats" in outcome.stdout
    assert run("infer", "picture.png", "what?", "--bundle", "int8-bundle", "--budget", "4").exit_code == 0
    assert run("verify", "int8-bundle").exit_code == 0
    shown = run("inspect", "int8-bundle").stdout
    assert "calibration" in shown
    assert str(questions) in shown


def test_limits_keep_layers_in_more_bits(run: Run, questions: Path, workplace: Path) -> None:
    """Less than int8 costs without limits, more than 8 bits in blocks do (two thirds of it, measured). The embeddings,
    which no search reaches, cost nothing here.
    """
    asked = (
        "calibrate",
        "grip-bundle",
        "--data",
        str(questions),
        *FEW,
        "--no-rescale",
        "--embedding-precision",
        "fp32",
    )
    assert run(*asked, "--out", "free").exit_code == 0
    free = open_bundle(workplace / "free").manifest.calibration
    assert free is not None
    limit = 0.8 * free.cost.mean_kl
    outcome = run(*asked, "--max-kl", repr(limit), "--out", "limited")
    assert outcome.exit_code == 0, outcome.stderr
    limited = open_bundle(workplace / "limited").manifest
    record = limited.calibration
    assert record is not None
    assert record.cost.mean_kl <= limit
    assert record.limits == {"max_kl": limit}
    assert record.kept
    assert limited.session_config == {"session.qdq_matmulnbits_accuracy_level": "4"}
    first = record.kept[0]
    assert first.error == max(one.error or 0 for one in record.kept)
    assert f"Kept in {first.format} (error, error {first.error:.2%})" in " ".join(outcome.stdout.split())


def test_scenes_are_the_default_data(run: Run, workplace: Path) -> None:
    outcome = run("calibrate", "grip-bundle", "--precision", "int4", "--images", "1", "--out", "int4-bundle")
    assert outcome.exit_code == 0, outcome.stderr
    record = open_bundle(workplace / "int4-bundle").manifest.calibration
    assert record is not None
    assert record.data == "rendered scenes, split train"


Refused = Callable[..., str]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (("--precision", "fp32"), "--precision fp32 leaves nothing to choose; expected one of: int4, int8"),
        (("--precision", "int3"), "--precision int3 does not exist"),
        (("--int4-block", "32"), "--int4-block has no effect with --precision int8"),
        (("--cache-precision", "bf16"), "--cache-precision bf16 does not exist; choose from: fp32, fp16"),
        (
            ("--cache-precision", "fp16", "--target", "openvino", "--precision", "int4"),
            "--cache-precision is a choice for --target cpu; openvino has its own; drop it.",
        ),
        (("--max-kl", "0"), "--max-kl is above 0; got 0.0"),
        (("--min-token-agreement", "1.5"), "--min-token-agreement is a share in (0, 1]; got 1.5"),
        (("--budgets", "4"), "--budgets is about budgets; add --min-agreement or --target-ttft-ms"),
        (("--min-agreement", "2"), "--min-agreement is a share in (0, 1]; got 2"),
        (("--images", "0"), "--images is at least 1; got 0"),
        (("--data", "nowhere"), "There is no data 'nowhere'"),
        (("--split", "none"), "Unknown split 'none'"),
        (("--out", "grip-bundle"), "--out 'grip-bundle' is the bundle that is read"),
        (("--out", "picture.png"), "'picture.png' exists already"),
    ],
)
def test_mistakes_are_refused_before_any_work(refused: Refused, arguments: tuple[str, ...], message: str) -> None:
    given: tuple[Any, ...] = arguments if "--out" in arguments else (*arguments, "--out", "new")
    assert message in refused("calibrate", "grip-bundle", *given)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ((), "calibrate needs a purpose"),
        (("--images", "4"), "calibrate needs a purpose"),
        (("--precision", "int8"), "--precision is about a quantised bundle; name it with --out"),
        (("--no-rescale", "--min-agreement", "0.9"), "--rescale is about a quantised bundle"),
        (("--min-agreement", "0"), "--min-agreement is a share in (0, 1]; got 0"),
        (("--target-ttft-ms", "-1"), "--target-ttft-ms is more than 0; got -1"),
        (("--min-agreement", "0.9", "--confidence", "1"), "--confidence is in [0.5, 1)"),
        (("--min-agreement", "0.9", "--budgets", "12"), "this bundle serves"),
        (("--min-agreement", "0.9", "--requests", "0"), "at least 1"),
        (("--target-ttft-ms", "0.001", "--images", "1", "--requests", "2"), "No budget answers within 0.001 ms"),
    ],
)
def test_a_budget_needs_a_promise_that_makes_sense(refused: Refused, arguments: tuple[str, ...], message: str) -> None:
    assert message in refused("calibrate", "grip-bundle", *arguments)


@pytest.fixture
def own_bundle(workplace: Path, toy_bundle: Path) -> Path:
    """A copy, because its manifest is going to be changed."""
    (workplace / "grip-bundle").unlink()
    return Path(shutil.copytree(toy_bundle, workplace / "grip-bundle"))


def test_the_recommended_budget_is_used(run: Run, refused: Refused, questions: Path, own_bundle: Path) -> None:
    """Reference: the evidence, recomputed from answers of the runtime."""
    infer = ("infer", "picture.png", "what?", "--bundle", "grip-bundle", "--json", "--budget")
    assert "calibrate BUNDLE" in refused(*infer, "auto")
    asked = ("calibrate", "grip-bundle", "--data", str(questions), "--requests", "3", "--budgets", "2,4,8")
    outcome = run(*asked, "--target-ttft-ms", "100000")
    assert outcome.exit_code == 0, outcome.stderr
    record = open_bundle(own_bundle).manifest.recommended_budget
    assert record is not None
    assert [one.kept_tokens for one in record.evidence] == [2, 4, 8, 16]
    assert record.kept_tokens == 16, "all are fast enough, so none need be dropped"
    assert (record.images, record.questions, record.promise) == (6, 6, {"target_ttft_ms": 100000})
    assert record.evidence[-1].agreement == record.evidence[-1].agreement_low == 1.0
    assert "keep 16 of 16 visual tokens" in " ".join(outcome.stdout.split())

    tokenizer = load_tokenizer(own_bundle / TOKENIZER_NAME)  # whole answers: streamed, bytes that are no UTF-8 differ
    answers = {
        budget: [
            tokenizer.decode(json.loads(run("infer", f"{number}.png", "what is this?", *asked_at).stdout)["tokens"])
            for number in range(6)
        ]
        for budget in ("4", "16")
        for asked_at in [("--budget", budget, "--max-new-tokens", "16", "--json")]
    }
    same = [own == other for own, other in zip(answers["4"], answers["16"], strict=True)]
    assert record.evidence[1].agreement == pytest.approx(sum(same) / 6)
    for group, own in (("even", same[::2]), ("odd", same[1::2])):
        found = record.evidence[1].slices[group]
        assert found.questions == 3
        assert found.agreement == pytest.approx(sum(own) / 3)
        assert found.agreement_low == lower_bound(np.array(own, np.float64), 0.95)
        assert found.agreement_low < record.evidence[1].agreement_low or not all(same), "three images prove less"
    assert "With 16 tokens, by group of questions" in outcome.stdout

    assert run(*asked, "--min-agreement", "0.01", "--confidence", "0.5").exit_code == 0
    chosen = open_bundle(own_bundle).manifest.recommended_budget
    assert chosen is not None
    used = run(*infer, "auto")
    assert used.exit_code == 0, used.stderr
    assert json.loads(used.stdout)["budget"]["kept_tokens"] == chosen.kept_tokens
    assert run("verify", "grip-bundle").exit_code == 0


def test_one_image_is_too_few(refused: Refused, questions: Path) -> None:
    one = questions.with_name("one.jsonl")
    one.write_text(questions.read_text().splitlines()[0] + "\n")
    assert "has 1 image; expected 2 or more" in refused("calibrate", "grip-bundle", "--data", str(one), "--out", "new")


def test_a_limit_that_cannot_be_met_leaves_nothing(run: Run, questions: Path, workplace: Path) -> None:
    outcome = run(
        "calibrate", "grip-bundle", "--data", str(questions), *FEW, "--max-kl", "1e-30", "--out", "impossible"
    )
    assert outcome.exit_code == 1
    assert "With all layers in more bits it is still at a KL of" in outcome.stderr
    assert not list(workplace.glob("*impossible*"))
    assert not list(workplace.glob(".impossible*"))


def test_a_quantised_bundle_is_no_source(run: Run, refused: Refused, questions: Path) -> None:
    assert run("calibrate", "grip-bundle", "--data", str(questions), *FEW, "--out", "int8-bundle").exit_code == 0
    assert "'int8-bundle' is quantised already" in refused("calibrate", "int8-bundle", "--out", "new")


def test_int8_for_engines_starts_from_a_bundle_for_the_cpu(run: Run, questions: Path, workplace: Path) -> None:
    asked = ("--data", str(questions), *FEW, "--target", "jetpack-6.2")
    outcome = run("calibrate", "grip-bundle", *asked, "--out", "engine-bundle")
    assert outcome.exit_code == 0, outcome.stderr
    assert "grip-edge build engine-bundle" in outcome.stdout
    manifest = open_bundle(workplace / "engine-bundle").manifest
    assert (manifest.target, manifest.precision) == ("tensorrt-10.3", "int8")
    assert manifest.session_config == {"session.disable_quant_qdq": "1"}
    assert manifest.calibration is not None
    assert 0 < manifest.calibration.cost.mean_kl < 1
    refused = run("calibrate", "grip-bundle", *asked, "--precision", "int4", "--out", "other")
    assert (refused.exit_code, refused.stdout) == (2, "")
    assert "--precision int4 does not exist for tensorrt-10.3; choose from: fp32, fp16, int8" in refused.stderr
