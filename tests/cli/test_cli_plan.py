"""``grip-edge plan``: what it prints and refuses. Reference of the numbers: tests/planning."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

from grip_edge.export.targets.table import find_target
from grip_edge.planning import cpu_speed, probes
from grip_edge.planning.devices import DEVICES
from tests.cli.conftest import Run

ORIN = "jetson-agx-orin-64gb"


def test_tables_for_people(run: Run) -> None:
    outcome = run("plan", "--model", "llava-1.5-7b", "--precision", "int4", "--device", ORIN)
    assert outcome.exit_code == 0, outcome
    for told in ("576 visual tokens", "Bundle", "Export: about", "58/576", "288/576", "576/576", "Pruning can save"):
        assert told in outcome.stdout
    assert "0.45 of compute and 0.70 of bandwidth" in outcome.stdout
    assert "Technical Brief" in outcome.stdout


def test_json_for_machines(run: Run) -> None:
    arguments = ("--budgets", "0.25,100", "--device", ORIN, "--device", "rtx-4090", "--new-tokens", "10", "--json")
    outcome = run("plan", "--model", "llava-1.5-7b", *arguments)
    plan = json.loads(outcome.stdout)
    assert (plan["kind"], plan["schema_version"]) == ("grip-edge plan", 1)
    assert [device["device"] for device in plan["devices"]] == [ORIN, "rtx-4090"]
    assert [row["kept_tokens"] for row in plan["devices"][0]["rows"]] == [100, 144, 576]
    assert plan["bundle_total_bytes"] == sum(plan["bundle"].values())
    assert plan["costs"][0]["stages"]["decode"]["flops"] > 1e10
    assert plan["work"] == {"prompt_tokens": 45, "new_tokens": 10}


def test_this_machine_is_measured(run: Run, toy_checkpoint: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(probes, "WIDTH", 256)
    monkeypatch.setattr(cpu_speed, "_MOST_BYTES", 1_000_000)
    outcome = run("plan", "--model", str(toy_checkpoint), "--threads", "1", "--json")
    device = json.loads(outcome.stdout)["devices"][0]
    assert device["device"] == "cpu"
    assert device["basis"].startswith("measured here with ONNX Runtime")
    assert [row["kept_tokens"] for row in device["rows"]] == [2, 8, 16]


def test_what_does_not_fit_is_said(run: Run) -> None:
    outcome = run("plan", "--model", "llava-1.5-13b", "--precision", "fp16", "--device", "jetson-orin-nano-8gb")
    assert "NO" in outcome.stdout
    assert "these precisions do: none" in outcome.stdout


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (("--model", "no-such-model"), "There is no model 'no-such-model'"),
        (("--model", "llava-1.5-7b", "--device", "toaster"), "--device toaster does not exist"),
        (("--model", "llava-1.5-7b", "--precision", "int3"), "--precision int3 does not exist"),
        (("--model", "llava-1.5-7b", "--budget-range", "0.5,0.1"), "starts with the smaller"),
        (("--model", "llava-1.5-7b", "--budgets", "1.5"), "not in (0, 1]"),
        (("--model", "llava-1.5-7b", "--new-tokens", "0"), "--new-tokens is at least 1"),
        (("--model", "."), "config.json"),
        (("--model", "llava-1.5-7b", "--cache-precision", "int8"), "--cache-precision int8 does not exist; choose"),
        (
            ("--model", "llava-1.5-7b", "--device", ORIN, "--cache-precision", "fp16"),
            "--cache-precision is about the device 'cpu'",
        ),
    ],
)
def test_mistakes_are_told_in_one_line(refused: Callable[..., str], arguments: tuple[str, ...], told: str) -> None:
    assert told in refused("plan", *arguments)


def test_no_training_library_is_loaded() -> None:
    program = (
        "import sys; from click.testing import CliRunner; from grip_edge.cli.main import cli;"
        f"r = CliRunner().invoke(cli, ['plan', '--model', 'llava-1.5-7b', '--device', '{ORIN}']);"
        "print(r.exit_code, sorted({'torch', 'transformers', 'onnx'} & set(sys.modules)))"
    )
    done = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "0 []"


def test_what_the_boards_software_cannot_run_is_said(run: Run) -> None:
    """Reference: the export's own table of targets."""
    plan = ("plan", "--model", "llava-1.5-7b", "--device", ORIN, "--precision")
    assert "int4 is for jetpack-7.2; jetpack-6.2 cannot run it" in " ".join(run(*plan, "int4").stdout.split())
    assert "cannot run it" not in run(*plan, "fp16").stdout
    for precision in ("fp16", "int4", "bf16"):
        targets = json.loads(run(*plan, precision, "--json").stdout)["devices"][0]["targets"]
        assert targets == {name: precision in find_target(name).precisions for name in ("jetpack-6.2", "jetpack-7.2")}


def test_every_devices_targets_exist() -> None:
    for device in DEVICES.values():
        assert device.targets
        for name in device.targets:
            find_target(name)
