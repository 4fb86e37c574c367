"""``grip-edge doctor``. References: installations broken on purpose, and what is known to be here."""

from __future__ import annotations

import json
import sys
from collections.abc import Callable
from dataclasses import replace
from functools import partial
from typing import Any

import pytest

from grip_edge.cli.checks import groups
from grip_edge.cli.checks.attention import check_attention
from grip_edge.cli.checks.backends import check_openvino
from grip_edge.cli.checks.device import check_cpu, check_images, check_tokenizer
from grip_edge.cli.checks.finding import BROKEN, MISSING, OK, Finding, in_child


def test_the_device_side_works_here(run: Callable[..., Any]) -> None:
    outcome = run("doctor", "--only", "device", "--json")
    assert outcome.exit_code == 0
    found = {one["name"]: one for one in json.loads(outcome.stdout)}
    assert {one["state"] for one in found.values()} == {"ok"}
    assert "computed opset-24 Attention" in found["cpu"]["fact"]
    assert "llava-tiny" in found["grip-edge"]["fact"]


def test_attention_of_elementary_operators() -> None:
    """What Python 3.10's ONNX Runtime is asked, asked of this one."""
    check_attention("CPUExecutionProvider", elementary=True)


def test_openvino_multiplies() -> None:
    pytest.importorskip("openvino", reason="needs OpenVINO: pip install 'grip-edge[openvino]'")
    found = check_openvino()
    assert (found.name, found.state) == ("openvino", OK)
    assert "multiplied two matrices" in found.fact


def test_lines(run: Callable[..., Any]) -> None:
    outcome = run("doctor", "--only", "machine")
    assert outcome.exit_code == 0
    assert "cores; " in outcome.stdout
    assert "\x1b" not in outcome.stdout


def test_unknown_groups(refused: Callable[..., str]) -> None:
    assert "--only knows the groups device, backends, host, machine; got x" in refused("doctor", "--only", "device,x")


def test_a_missing_package(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "tokenizers", None)
    found = check_tokenizer()
    assert (found.state, found.needed) == (MISSING, True)
    assert found.remedy.startswith("pip install")


def test_packages_that_do_not_do_their_work(monkeypatch: pytest.MonkeyPatch) -> None:
    import numpy as np
    import onnxruntime as ort
    from PIL import Image

    class WrongSession(ort.InferenceSession):  # type: ignore[misc]
        def run(self, *arguments: Any) -> list[Any]:
            return [np.asarray(super().run(*arguments)[0]) + 1]

    monkeypatch.setattr(ort, "InferenceSession", WrongSession)
    found = check_cpu()
    assert (found.state, found.needed) == (BROKEN, True)
    assert "wrong numbers (largest difference 1, mean 1)" in found.fact

    def fail(*_: object, **__: object) -> None:
        raise OSError("encoder not available")

    monkeypatch.setattr(Image.Image, "save", fail)
    assert check_images().fact == "Pillow: encoder not available"


@pytest.mark.parametrize(
    ("program", "state", "fact"),
    [
        ("print('first'); print('the fact')", OK, "the fact"),
        ("import no_such_module_at_all", MISSING, "No module named 'no_such_module_at_all'"),
        ("raise ImportError('libcudart.so.13: cannot open')", BROKEN, "ImportError: libcudart.so.13: cannot open"),
        ("import os; os.kill(os.getpid(), 9)", BROKEN, "ended with -9"),
    ],
)
def test_what_is_tried_in_a_process_of_its_own(program: str, state: str, fact: str) -> None:
    found = in_child("x", program, "do this")
    assert (found.state, found.fact) == (state, fact)


def test_only_what_is_needed_makes_the_exit_code(run: Callable[..., Any], monkeypatch: pytest.MonkeyPatch) -> None:
    optional, needed = Finding("a", MISSING, "not here", "pip install a"), Finding("b", BROKEN, "bad", "", needed=True)
    for finding, exit_code in ((optional, 0), (needed, 1)):
        monkeypatch.setitem(groups.GROUPS, "device", (partial(replace, finding),))
        outcome = run("doctor", "--only", "device")
        assert outcome.exit_code == exit_code
        assert finding.fact in outcome.stdout
