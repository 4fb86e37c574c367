"""Statistics against values computed by hand; the report of made-up turns, and of a whole run with stand-ins."""

from __future__ import annotations

import csv
import json
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from click.testing import CliRunner

from benchmarks.peers import __main__ as command
from benchmarks.peers.bars import HELD, MISSED, OURS, UNKNOWN, Bar, make_bars
from benchmarks.peers.contestants import Contestant, Peer, Step, Work
from benchmarks.peers.protocol import Message
from benchmarks.peers.report import Report, markdown
from benchmarks.peers.shape import YARDSTICK
from benchmarks.peers.summary import REFERENCE, Row, Summary, make_row
from tests.benchmarks.conftest import MakeContestant


def turn(name: str, scale: float = 1.0, read: float = 40e9) -> Message:
    """One request per budget: 1,000 and 300 ms with 100 ms of vision, 50 tokens a second."""
    answers = [
        {"kept": kept, "vision_ms": 100.0, "ttft_ms": scale * ms, "decode_tokens_per_sec": 50 / scale}
        | {"prompt_tokens": kept + 32}
        for kept, ms in ((576, 1000.0), (144, 300.0))
    ]
    probe = {"read_bytes_per_sec": read, "int8_operations_per_sec": 2e12}
    common = {"cold_start_ms": 2000.0, "load_s": 1.0, "versions": {"toy": "1"}}
    common |= {"loaded_rss_bytes": 500 * 2**20, "peak_rss_bytes": 600 * 2**20}
    return {"contestant": name, "round": 0, "answers": answers, "probe": probe} | common


def row(work: Work, one: Contestant, peer: str, turns: list[Message]) -> Row:
    return make_row(work, Peer(peer, peer, (), (), (one,)), one, turns, None, {})


def test_a_summary_is_median_range_and_count() -> None:
    found = Summary.of([3.0, None, 1.0, 8.0])
    assert found == Summary(3.0, 1.0, 8.0, 3)
    assert found.spread == pytest.approx(7 / 3)
    assert Summary.of([None]) is None


def test_operations_and_bytes_of_the_yardstick() -> None:
    """By hand: 24 layers of four 1024 x 1024 and three 1024 x 4096 matrices, a head of 32,064 rows."""
    assert YARDSTICK.visual_tokens == 576
    assert YARDSTICK.layer_weights == 24 * 16 * 2**20
    assert YARDSTICK.read_per_token == 24 * 16 * 2**20 + 32064 * 1024
    assert YARDSTICK.prefill_linear_operations(608) == 2 * 608 * 24 * 16 * 2**20 + 2 * 32064 * 1024
    assert YARDSTICK.prefill_operations(10) - YARDSTICK.prefill_linear_operations(10) == 2 * 24 * 100 * 1024


def test_shares_are_of_the_probe_of_the_same_turn(work: Work, contestant: MakeContestant) -> None:
    turns = [turn("a"), turn("a", scale=2.0, read=20e9)]
    found = row(work, contestant("a"), "other", turns)
    assert found.ttft_ms[576] == Summary(1500.0, 1000.0, 2000.0, 2)
    # 400 MB 50 times a second are 20 of 40 GB/s; half as fast with half the bandwidth is the same share.
    assert found.decode_share == Summary(0.5, 0.5, 0.5, 2)
    operations = YARDSTICK.prefill_linear_operations(608)
    assert found.prefill_share is not None
    assert found.prefill_share.high == pytest.approx(operations / 0.9 / 2e12)
    predicted = YARDSTICK.request_operations(144, 32) / YARDSTICK.request_operations(576, 32)
    assert found.flops_ratio is not None
    assert found.flops_ratio.median == pytest.approx(0.3 / predicted)


def test_agreement_is_cosine_about_the_mean_and_the_first_tokens(
    work: Work, contestant: MakeContestant, tmp_path: Path
) -> None:
    """Hand-made features, stretched and mirrored about the reference's mean; tokens that part at the third."""
    features = 7 + np.random.default_rng(0).standard_normal((6, 4))
    mean = features.mean(axis=0)
    arrays = {"reference": features, "stretched": mean + 2 * (features - mean), "mirrored": 2 * mean - features}
    checks: dict[str, Message] = {}
    for name, values in arrays.items():
        np.save(tmp_path / f"{name}.npy", values)
        tokens = [1, 2, 3, 4] if name == "reference" else [1, 2, 9, 4]
        checks[name] = {"features": str(tmp_path / f"{name}.npy"), "logits": None, "tokens": tokens}
    checks[REFERENCE] = checks["reference"]
    for name, expected in (("stretched", 1.0), ("mirrored", -1.0)):
        one = contestant(name)
        agreement = make_row(work, Peer("p", "p", (), (), (one,)), one, [turn(name)], None, checks).agreement
        assert agreement is not None
        assert agreement.features_cosine == pytest.approx(expected)
        assert agreement.logits_cosine is None
        assert (agreement.tokens_equal, agreement.tokens_compared) == (2, 4)


def bar(bars: list[Bar], title: str) -> Bar:
    return next(bar for bar in bars if bar.title.startswith(title))


def test_aims_compare_with_the_best_of_the_others(work: Work, contestant: MakeContestant) -> None:
    ours, slow, fast = contestant("ours"), contestant("slow"), contestant("fast")
    text_only = replace(contestant("text"), sees=False)
    rows = [
        row(work, ours, OURS, [turn("ours", 0.6)]),
        row(work, slow, "one", [turn("slow", 2.0)]),
        row(work, fast, "two", [turn("fast", 0.9)]),
        row(work, text_only, "three", [turn("text", 0.2)]),
    ]
    bars = make_bars(work, rows)
    found = bar(bars, "TTFT at 576 tokens, over")
    assert found.verdict == HELD
    assert found.measured == "0.67 (ours 600 ms, fast 900 ms)"
    assert bar(bars, "TTFT at 576 tokens, the goal").verdict == MISSED
    assert bar(bars, "TTFT at 144 tokens, over the best").measured.startswith("0.20 ")
    decode = bar(bars, "Decode at 8 bits")
    assert (decode.verdict, decode.measured.split(" (")[0]) == (MISSED, "0.33")  # text decodes 250 tokens a second
    assert bar(bars, "Decode at 4 bits").verdict == UNKNOWN
    assert bar(bars, "TTFT at 144 tokens, over OpenVINO").verdict == UNKNOWN


@pytest.mark.parametrize(
    ("bundle_bytes", "loaded", "peak"), [(480, HELD, HELD), (440, HELD, MISSED), (390, MISSED, MISSED)]
)
def test_memory_is_compared_with_the_bundle(
    work: Work, contestant: MakeContestant, bundle_bytes: int, loaded: str, peak: str
) -> None:
    """500 MiB once loaded, 600 at the peak."""
    ours = contestant("ours")
    for old in ours.folder.iterdir():
        old.unlink()
    with (ours.folder / "decoder.onnx.data").open("wb") as file:
        file.truncate(bundle_bytes * 2**20)
    bars = make_bars(work, [row(work, ours, OURS, [turn("ours")])])
    assert bar(bars, "ours: RSS once loaded").verdict == loaded
    assert bar(bars, "ours: peak RSS").verdict == peak


def test_a_failure_is_a_line_with_its_reason(work: Work, contestant: MakeContestant) -> None:
    one = contestant("broken")
    failed = make_row(work, Peer("p", "Broken", (), (), (one,)), one, [], "pip: no wheel | for this", {})
    text = markdown(Report(work, "A machine", [failed], make_bars(work, [failed]), {}, 0))
    assert "| broken | int8 | pip: no wheel / for this |" in text
    assert all(bar.verdict == UNKNOWN for bar in make_bars(work, [failed]))


@pytest.fixture
def peers(work: Work, contestant: MakeContestant, monkeypatch: pytest.MonkeyPatch) -> tuple[Peer, ...]:
    ours = contestant("grip-edge int8", ttft_ms="300")
    reference = contestant(REFERENCE, bits=32, ttft_ms="1000")
    lost = Step("lost-step", ("-c", "raise SystemExit('error: cannot convert')"), work.root / "nothing")
    found = (
        Peer("grip-edge", OURS, (), (), (ours,)),
        Peer("transformers", "transformers", (), (), (reference,)),
        Peer("lost", "Lost", (), (lost,), (contestant("lost int4", bits=4),)),
        Peer("dying", "Dying", (), (), (contestant("dying int8", ends="dies"),)),
    )
    monkeypatch.setattr(command, "all_peers", lambda work: found)
    monkeypatch.setattr(command, "prepare_yardstick", lambda work: None)
    return found


def run(work: Work, *options: str) -> Any:
    arguments = [str(work.root), "--rounds", "2", "--repeats", "1", "--new-tokens", "5", *options]
    return CliRunner().invoke(command.main, arguments, catch_exceptions=False)


@pytest.mark.usefixtures("peers")
def test_one_command_from_peers_to_report(work: Work) -> None:
    pytest.importorskip("matplotlib", reason="draws the picture")
    outcome = run(work)
    assert outcome.exit_code == 0, outcome.output
    folder = work.root / "report"
    text = (folder / "peers.md").read_text()
    assert "| lost int4 | int4 | lost-step ended with exit code 1: error: cannot convert" in text
    assert "| dying int8 | int8 | the process ended with exit code 3" in text
    assert "| TTFT at 576 tokens, over the best peer's | at most 0.7 | 0.30 (grip-edge int8 300 ms" in text
    assert "* grip-edge: stand-in 1.0" in text
    assert "grip-edge int8 10 tokens/s" in text  # 4 GB/s, 400 MB of weights
    document = json.loads((folder / "peers.json").read_text())
    assert [row["name"] for row in document["rows"]][:2] == ["grip-edge int8", REFERENCE]
    assert document["rows"][0]["ttft_ms"]["144"]["median"] == pytest.approx(75.0)
    assert document["probe"]["read_bytes_per_sec"]["count"] == 5  # a failed contestant has no second turn
    with (folder / "peers.csv").open(newline="") as file:
        cells = list(csv.DictReader(file))
    assert [float(row["ttft_576_ms_median"] or 0) for row in cells] == [300.0, 1000.0, 0.0, 0.0]
    assert (folder / "peers.png").stat().st_size > 5000


@pytest.mark.usefixtures("peers")
def test_a_second_run_measures_nothing_again_unless_told(work: Work) -> None:
    run(work, "--only", "transformers")
    assert "round" not in run(work, "--only", "transformers").stderr
    assert run(work, "--only", "transformers", "--fresh").stderr.count("round") == 2


@pytest.mark.usefixtures("peers")
def test_an_unknown_peer_is_named(work: Work) -> None:
    outcome = run(work, "--only", "nobody")
    assert outcome.exit_code == 2
    assert "there is no peer 'nobody'; known: grip-edge, transformers, lost, dying" in outcome.stderr


def test_real_peers_have_distinct_names_and_workers_that_exist(tmp_path: Path) -> None:
    from benchmarks.peers.peers import all_peers

    peers = all_peers(Work(tmp_path))
    contestants = [contestant for peer in peers for contestant in peer.contestants]
    steps = [step.name for peer in peers for step in peer.steps]
    for names in ([peer.name for peer in peers], [contestant.name for contestant in contestants], steps):
        assert len(set(names)) == len(names)
    workers = Path(command.__file__).parent / "workers"
    assert all((workers / f"{contestant.worker}.py").is_file() for contestant in contestants)
    assert all(pin.split("==")[-1] != pin for peer in peers for pins in peer.pins for pin in pins if pin[0] != "-")
    assert command._THIS_INTERPRETER.pins == ()  # the probe needs grip-edge, whichever peers take part
    assert sys.executable == str(Work(tmp_path).interpreter("grip-edge", ()))
