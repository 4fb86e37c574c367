"""References: the commands themselves, the public names, the table of targets, the graphs of a bundle."""

from __future__ import annotations

import re
from pathlib import Path

import click
import onnx
import pytest

import grip_edge.runtime
from grip_edge import errors
from grip_edge.bundle import GRAPH_NAMES
from grip_edge.cli.main import COMMANDS, cli
from grip_edge.export.targets.table import ALIASES, BOARDS, TARGETS, Target, find_target
from grip_edge.policy_catalog import POLICY_SPECS
from tests.docs.pages import DOCS, read, run_python, table_rows


def test_the_page_of_commands_is_what_the_commands_say() -> None:
    done = run_python(DOCS / "cli_reference.py", "--check")
    assert done.returncode == 0, done.stderr


@pytest.mark.parametrize("name", COMMANDS)
def test_every_command_and_option_has_help_and_a_place_on_the_page(name: str) -> None:
    command = cli.get_command(click.Context(cli), name)
    assert command is not None
    assert command.help
    section = read("reference/cli.md").split(f"\n## grip-edge {name}\n")[1].split("\n## ")[0]
    for option in command.params:
        if isinstance(option, click.Option):
            assert option.help, f"{name} {option.opts[0]} has no help"
            assert option.opts[0] in section


def test_the_python_page_holds_all_public_names() -> None:
    page = read("reference/python.md")
    documented = set(re.findall(r"\.\. auto(?:class|exception|function):: (\w+)", page))
    raised = {name for name, value in vars(errors).items() if isinstance(value, type)}
    assert {*grip_edge.runtime.__all__, *raised, "Budget", "BudgetRange", "Bundle", "open_bundle"} <= documented


def precisions_of(target: Target) -> list[str]:
    """Those that need a calibration have a star."""
    return [*target.precisions, *(f"{name}\\*" for name in target.calibrated_precisions)]


def test_the_table_of_targets_is_that_of_the_code() -> None:
    rows = table_rows(read("concepts/targets.md"), "target")
    found = {cells[0].strip("`"): (int(cells[2]), tuple(cells[3].split(", "))) for cells in rows}
    assert found == {name: (target.opset, tuple(precisions_of(target))) for name, target in TARGETS.items()}


def test_the_table_of_jetpacks_is_that_of_the_code() -> None:
    named = set()
    for _, _, version, names, precisions in table_rows(read("journeys/jetson.md"), "JetPack"):
        for name in re.findall(r"`([^`]+)`", names):
            target = find_target(name)
            assert target.name == f"tensorrt-{version}"
            assert ", ".join(precisions_of(target)) == precisions
            named.add(name)
    assert named >= {*ALIASES, *BOARDS}


def test_the_table_of_policies_is_that_of_the_code() -> None:
    exportable: dict[str, bool] = {}
    for names, _, answer in table_rows(read("concepts/scorer.md"), "name"):
        exportable |= dict.fromkeys(re.findall(r"`([^`]+)`", names), answer == "yes")
    specs = {name: spec.exportable for name, spec in POLICY_SPECS.items()}
    assert exportable | {"grip": False, "tprl": False} == specs


def test_the_contract_of_the_graphs_is_that_of_a_bundle(toy_bundle: Path) -> None:
    found: dict[str, tuple[set[str], set[str]]] = {}
    graph = ""
    for name, *columns in table_rows(read("concepts/bundle.md"), "graph"):
        graph = name.strip("`") or graph
        for named, cell in zip(found.setdefault(graph, (set(), set())), columns, strict=True):
            named.update(re.findall(r"`([^`]+)`", cell))
    for graph in GRAPH_NAMES:
        model = onnx.load(str(toy_bundle / graph), load_external_data=False).graph
        expected = tuple(
            {re.sub(r"_\d+$", "_*", value.name) for value in values} for values in (model.input, model.output)
        )
        assert found[graph] == expected, graph
