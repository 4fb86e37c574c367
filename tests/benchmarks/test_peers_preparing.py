"""Steps are done once, again when they change, and told in one line when they fail."""

from __future__ import annotations

from pathlib import Path

import pytest

from benchmarks.peers.contestants import Peer, Step, Work
from benchmarks.peers.preparing import PeerError, check, prepare, slug
from tests.benchmarks.conftest import MakeContestant

_APPEND = "import sys; open(sys.argv[1], 'a').write(sys.argv[2])"


def peer(made: Path, *arguments: str) -> Peer:
    return Peer("toy", "Toy", (), (Step("toy-step", ("-c", *arguments), made),), ())


def test_a_step_is_done_once_and_again_with_other_arguments(work: Work, tmp_path: Path) -> None:
    made, said = tmp_path / "made.txt", list[str]()
    for text in ("a", "a", "b"):
        prepare(work, peer(made, _APPEND, str(made), text), said.append)
    assert made.read_text() == "ab"
    assert said == ["Toy: toy-step"] * 2


def test_a_step_whose_result_is_gone_is_done_again(work: Work, tmp_path: Path) -> None:
    made = tmp_path / "made.txt"
    prepare(work, peer(made, _APPEND, str(made), "a"), lambda text: None)
    made.unlink()
    prepare(work, peer(made, _APPEND, str(made), "a"), lambda text: None)
    assert made.read_text() == "a"


def test_a_failing_step_is_one_line_with_its_reason_and_is_tried_again(work: Work, tmp_path: Path) -> None:
    failing = peer(tmp_path / "made.txt", "print('much'); raise SystemExit('error: no wheel for this machine')")
    for _ in range(2):
        with pytest.raises(PeerError) as error:
            prepare(work, failing, lambda text: None)
        text = str(error.value)
        assert text.startswith("toy-step ended with exit code 1: error: no wheel for this machine (see ")
        assert "\n" not in text


def test_a_step_that_leaves_nothing_is_a_failure(work: Work, tmp_path: Path) -> None:
    with pytest.raises(PeerError, match=r"left no .*made\.txt"):
        prepare(work, peer(tmp_path / "made.txt", "pass"), lambda text: None)


def test_an_environment_that_cannot_be_made_is_a_failure(work: Work, monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever interpreter is asked for: here one that does not exist."""
    monkeypatch.setattr("benchmarks.peers.preparing.sys.executable", "/no/such/python")
    with pytest.raises(PeerError, match=r"environment-toy: .*No such file"):
        prepare(work, Peer("toy", "Toy", (("nothing",),), (), ()), lambda text: None)


def test_the_comparison_is_made_once_and_again_with_other_settings(work: Work, contestant: MakeContestant) -> None:
    toy = Peer("toy", "Toy", (), (), ())
    first = contestant("a")
    assert check(work, toy, first)["tokens"] == [1, 2, 3]
    answer = work.root / "checks" / "a" / "answer.json"
    answer.write_text('{"tokens": [9]}')
    assert check(work, toy, first)["tokens"] == [9]
    first.settings["precision"] = "int8"
    assert check(work, toy, first)["tokens"] == [1, 2, 3]


def test_a_comparison_that_fails_names_the_contestant(work: Work, contestant: MakeContestant) -> None:
    with pytest.raises(PeerError, match=r"^bad: ValueError: no such model$"):
        check(work, Peer("toy", "Toy", (), (), ()), contestant("bad", ends="raises while loading"))


def test_names_become_file_names() -> None:
    assert slug("OpenVINO GenAI int4 (g32)") == "openvino-genai-int4-g32"
