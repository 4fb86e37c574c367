"""The JSON schema. References: the records it is derived from, and jsonschema's own validator."""

from __future__ import annotations

import json
from typing import Any

import jsonschema
import pytest

from grip_edge.report import LatencyReport
from grip_edge.reporting.samples import to_jsonl
from grip_edge.reporting.schema import SCHEMA_PATH, schema_text
from tests.reporting.made_up import report


@pytest.fixture(scope="module")
def schema() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(SCHEMA_PATH.read_text(encoding="utf-8"))
    jsonschema.Draft202012Validator.check_schema(found)
    return found


def test_the_file_is_what_the_records_say() -> None:
    assert SCHEMA_PATH.read_text(encoding="utf-8") == schema_text(), "run  python -m grip_edge.reporting.schema"


def test_a_report_is_valid_and_comes_back(schema: dict[str, Any]) -> None:
    text = report().to_json()
    jsonschema.validate(json.loads(text), schema)
    assert LatencyReport.from_json(text, "x.json") == report()


@pytest.mark.parametrize(
    "path",
    [("load_ms",), ("rows", 0, "times_ms", "ttft", "p50"), ("rows", 0, "samples", 0, "asked"), ("machine", "versions")],
)
def test_a_wrong_type_is_found(schema: dict[str, Any], path: tuple[Any, ...]) -> None:
    document = json.loads(report().to_json())
    place = document
    for step in path[:-1]:
        place = place[step]
    place[path[-1]] = "soon"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(document, schema)


@pytest.mark.parametrize("change", [{"extra": 1}, {"schema_version": 1}, {"kind": "other"}])
def test_foreign_documents_are_invalid(schema: dict[str, Any], change: dict[str, object]) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({**json.loads(report().to_json()), **change}, schema)


def test_samples_as_lines() -> None:
    lines = [json.loads(line) for line in to_jsonl(report()).splitlines()]
    assert len(lines) == 60
    assert lines[1]["image"] == "b.png"
    assert {line["budget"] for line in lines} == {"0.25", "1.0"}
    first = report().rows[0].samples[0]
    assert (lines[0]["ttft_ms"], tuple(lines[0]["itl_ms"])) == (first.ttft_ms, first.itl_ms)
