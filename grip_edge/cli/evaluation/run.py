"""One evaluation from request to report: answers first, then what is made of them.

answers.jsonl   every answer; what a run that was interrupted goes on from
bundles/        with --latency or --flops: the bundle of each policy that was given none
report.json     versioned;  report.csv, report.md, accuracy.png, pareto.png
"""

from __future__ import annotations

import hashlib
import shutil
from collections.abc import Callable, Sequence
from dataclasses import replace
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

import numpy as np

from grip_edge import __version__
from grip_edge.bundle import TOKENIZER_NAME, Bundle
from grip_edge.calibration.data import AskedData, AskedQuestion, open_data
from grip_edge.calibration.evaluation.cases import UNPRUNED, Case
from grip_edge.calibration.evaluation.collecting import collect
from grip_edge.calibration.evaluation.intervals import DRAWS, Bootstrap
from grip_edge.calibration.evaluation.plots import check_matplotlib, draw_accuracy, draw_pareto
from grip_edge.calibration.evaluation.records import RecordFile
from grip_edge.calibration.evaluation.report import EvaluationReport, Setting
from grip_edge.calibration.evaluation.report_formats import to_csv, to_markdown
from grip_edge.calibration.evaluation.scoring import RULES
from grip_edge.calibration.evaluation.tables import ScoredAnswers, accuracy_rows, agreement_rows, difference_rows
from grip_edge.cli.evaluation.bundles import bundle_label, bundle_policy
from grip_edge.cli.evaluation.latency import measure_latency
from grip_edge.cli.evaluation.policy_bundles import policy_bundles
from grip_edge.cli.evaluation.request import EvaluationRequest
from grip_edge.cli.evaluation.sides import Sides, open_sides
from grip_edge.errors import UserError
from grip_edge.runtime.machine import machine
from grip_edge.runtime.output_file import replacing
from grip_edge.runtime.prompt import load_tokenizer

ANSWERS_NAME = "answers.jsonl"
BUNDLES_NAME = "bundles"

_SCENES = 1000
_SCENE_QUESTIONS = 5
_ALL_QUESTIONS = 10**9
_VERSIONED = ("numpy", "onnxruntime", "openvino", "torch", "transformers")
_LENGTHS = 500  # answers that the length of timed ones is taken from

OnProgress = Callable[[str, int, int], None]
"""What is being done, how much of it is done, and how much there is."""


def run_evaluation(request: EvaluationRequest, say: OnProgress) -> EvaluationReport:
    if not request.no_plots:
        check_matplotlib()
    say("Loading", 0, 1)
    sides = open_sides(request)
    against = _against(request, sides)
    data, images = _data(request, sides.side_px)
    file, rule = _answer_file(request, sides, data, images), RULES[request.scoring]
    collect(data, images, request.batch_images, sides.answerers, file, rule, lambda n: say("Answering", n, images))
    say("Scoring", 0, 1)
    scored = ScoredAnswers(sides.cases, file.records, rule)
    report = _accuracy_report(request, sides, data, images, against, scored)
    if request.latency or request.flops:
        report = _with_measurements(report, request, sides, data, scored.questions, say)
    _write(report, request)
    return report


def _against(request: EvaluationRequest, sides: Sides) -> str | None:
    """The policy that all others are compared with."""
    names = [one.name for one in sides.participants if one.name != UNPRUNED]
    if request.against is not None and request.against not in names:
        raise UserError(f"--against {request.against} takes no part; expected one of {', '.join(names) or 'none'}.")
    return request.against or next((one.name for one in sides.participants if one.runs), None)


def _data(request: EvaluationRequest, side_px: int) -> tuple[AskedData, int]:
    """The data, and how many of its images count."""
    per_image = request.questions_per_image or (_SCENE_QUESTIONS if request.is_scenes else _ALL_QUESTIONS)
    data = open_data(request.data, request.split, side_px, per_image)
    return data, min(len(data), request.images or (_SCENES if request.is_scenes else len(data)))


def _answer_file(request: EvaluationRequest, sides: Sides, data: AskedData, images: int) -> RecordFile:
    try:
        request.out.mkdir(parents=True, exist_ok=True)
        if request.force:
            (request.out / ANSWERS_NAME).unlink(missing_ok=True)
            shutil.rmtree(request.out / BUNDLES_NAME, ignore_errors=True)
        asked = {
            **sides.identity,
            "data": data.name,
            "data_digest": _data_digest(request.data),
            "questions_per_image": request.questions_per_image,
            "images": images,
            "batch_images": request.batch_images,
        }
        return RecordFile(request.out / ANSWERS_NAME, asked, images, request.batch_images)
    except OSError as error:
        raise UserError(f"Cannot write to '{request.out}' ({error.strerror}); choose another --out.") from None


def _data_digest(spec: str) -> str | None:
    """Of the question files that ``spec`` names; None for rendered scenes."""
    path = Path(spec)
    files = [path] if path.is_file() else sorted(path.glob("*.jsonl")) if path.is_dir() else []
    digest = hashlib.sha256(b"".join(file.read_bytes() for file in files))
    return digest.hexdigest() if files else None


def _accuracy_report(
    request: EvaluationRequest, sides: Sides, data: AskedData, images: int, against: str | None, scored: ScoredAnswers
) -> EvaluationReport:
    bootstrap = Bootstrap(scored.image, request.seed)
    setting = Setting(
        model=sides.model,
        data=data.name,
        images=images,
        questions=len(scored.questions),
        scoring=request.scoring,
        precision=None if request.model is None else request.precision,
        new_tokens=request.max_new_tokens,
        against=against,
        bootstrap_draws=DRAWS,
        versions=_versions(),
    )
    return EvaluationReport(
        visual_tokens=sides.visual_tokens,
        setting=setting,
        participants=sides.participants,
        accuracy=accuracy_rows(scored, bootstrap),
        differences=difference_rows(scored, bootstrap, against),
        agreement=agreement_rows(
            scored, bootstrap, {bundle_label(name): bundle_policy(name) for name in sides.bundles}
        ),
        machine=None,
        latency=(),
        flops=(),
    )


def _with_measurements(
    report: EvaluationReport,
    request: EvaluationRequest,
    sides: Sides,
    data: AskedData,
    questions: Sequence[AskedQuestion],
    say: OnProgress,
) -> EvaluationReport:
    bundles = policy_bundles(request, sides, request.out / BUNDLES_NAME, lambda name: say(f"Exporting {name}", 0, 1))
    if not bundles:
        raise UserError("--latency and --flops need a policy that can be exported, or a --bundle; there is none.")
    cases = _timed(sides.cases, bundles)
    if request.latency:
        new_tokens = _answer_tokens(next(iter(bundles.values())), questions)
        rows = measure_latency(bundles, cases, data, request.requests, new_tokens, lambda *n: say("Timing", *n))
        report = replace(report, machine=machine(None), latency=rows)
    if request.flops:
        from grip_edge.cli.evaluation.flops import count_flops

        report = replace(report, flops=count_flops(bundles, cases, questions))
    return report


def _timed(cases: Sequence[Case], bundles: dict[str, Bundle]) -> list[Case]:
    """One training run of each policy that has a bundle, and the unpruned model."""
    return [case for case in cases if case.run == 0 and (case.policy in bundles or case.policy == UNPRUNED)]


def _answer_tokens(bundle: Bundle, questions: Sequence[AskedQuestion]) -> int:
    """Mean length of a right answer with its stop token, in tokens; the length of a timed answer."""
    tokenizer = load_tokenizer(bundle.path(TOKENIZER_NAME))
    encoded = [tokenizer.encode(question.answer, add_special_tokens=False).ids for question in questions[:_LENGTHS]]
    return max(2, round(float(np.mean([len(ids) for ids in encoded]))) + 1)


def _write(report: EvaluationReport, request: EvaluationRequest) -> None:
    texts = {"report.json": report.to_json(), "report.csv": to_csv(report), "report.md": to_markdown(report)}
    for name, text in texts.items():
        with replacing(request.out / name) as partial:
            partial.write_text(text, encoding="utf-8")
    if request.no_plots:
        return
    with replacing(request.out / "accuracy.png") as partial:
        draw_accuracy(report, partial)
    if report.latency:
        with replacing(request.out / "pareto.png") as partial:
            draw_pareto(report, partial)


def _versions() -> dict[str, Any]:
    found = {"grip-edge": __version__}
    for package in _VERSIONED:
        try:
            found[package] = version(package)
        except PackageNotFoundError:  # bundles are evaluated without torch
            continue
    return found
