"""The lines between the measuring process and a worker, with a real process at the other end."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import pytest

from benchmarks.peers.contestants import Work
from benchmarks.peers.protocol import Worker, WorkerError, one_line
from benchmarks.peers.workers.common import Clock, decode, kept_rows, prompt_ids, prompt_text
from tests.benchmarks.conftest import STAND_IN


def start(tmp_path: Path, **settings: str) -> Worker:
    environment = Work(tmp_path).process_environment()
    return Worker([sys.executable, str(STAND_IN), json.dumps(settings)], environment, tmp_path / "log.txt")


def test_one_request_after_the_other(tmp_path: Path) -> None:
    with start(tmp_path) as worker:
        hello = worker.hello()
        assert hello["versions"] == {"stand-in": "1.0"}
        assert hello["load_s"] >= 0
        assert hello["loaded_rss_bytes"] > 1_000_000
        answer = worker.ask(do="answer", kept=288, new_tokens=4)
        assert answer["tokens"] == [0, 1, 2, 3]
        assert answer["ttft_ms"] == 5.0
        assert worker.started_at < answer["first_token_at"] <= time.monotonic()
        assert worker.ask(do="check", folder=str(tmp_path))["tokens"] == [1, 2, 3]
        assert worker.ask(do="stop")["peak_rss_bytes"] >= hello["loaded_rss_bytes"]
    assert (tmp_path / "log.txt").read_text().splitlines() == ["loading, from Python", "loading, past Python"]


def test_an_error_is_one_line(tmp_path: Path) -> None:
    with start(tmp_path, ends="raises while loading") as worker, pytest.raises(WorkerError) as error:
        worker.hello()
    assert str(error.value) == "ValueError: no such model"
    assert "Traceback" in (tmp_path / "log.txt").read_text()


def test_a_process_that_dies_is_told_with_its_exit_code(tmp_path: Path) -> None:
    with start(tmp_path, ends="dies") as worker:
        worker.hello()
        with pytest.raises(WorkerError, match=r"ended with exit code 3; see .*log\.txt"):
            worker.ask(do="answer", kept=1, new_tokens=1)
        with pytest.raises(WorkerError, match="exit code 3"):
            worker.ask(do="answer", kept=1, new_tokens=1)


def test_an_error_without_text_has_its_name() -> None:
    assert one_line(KeyboardInterrupt()) == "KeyboardInterrupt"


def test_workers_know_the_tokens_of_the_prompt(tmp_path: Path) -> None:
    """The reference is the yardstick's tokenizer, which workers need not have."""
    from tokenizers import Tokenizer

    from benchmarks.peers.shape import IMAGE_TOKEN_ID
    from benchmarks.peers.yardstick import _write_tokenizer

    _write_tokenizer(tmp_path, 32064)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    before, after = prompt_ids()
    assert tokenizer.encode(prompt_text()).ids == [*before, IMAGE_TOKEN_ID, *after]
    assert len(before) + len(after) == 32
    assert tokenizer.decode([IMAGE_TOKEN_ID, 32063], skip_special_tokens=False).startswith("<image>")


def test_kept_rows_are_spread_evenly() -> None:
    assert kept_rows(8, 8).tolist() == list(range(8))
    assert kept_rows(8, 2).tolist() == [0, 4]


def test_decoding_is_greedy_and_the_first_token_stops_the_clock() -> None:
    clock = Clock()
    clock.vision_done()
    vocabulary = [[0.0, 1.0, 0.0], [0.0, 0.0, 1.0]]
    fed: list[int] = []

    def step(token: int) -> list[float]:
        time.sleep(0.01)
        fed.append(token)
        return vocabulary[1]

    tokens = decode(clock, vocabulary[0], step, 3)  # type: ignore[arg-type]
    answer = clock.answer(tokens, 40)
    assert (tokens, fed) == ([1, 2, 2], [1, 2])
    assert answer["vision_ms"] <= answer["ttft_ms"] < 10 < 20 <= answer["decode_ms"]
