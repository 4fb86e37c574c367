"""The JSON schema of the latency report, derived from its records, and kept as a file beside this one.

python -m grip_edge.reporting.schema     writes latency-report.schema.json; a test holds it to the records
"""

from __future__ import annotations

import dataclasses
import json
import types
import typing
from pathlib import Path
from typing import Any

from grip_edge.report import REPORT_KIND, REPORT_SCHEMA_VERSION, LatencyReport

SCHEMA_PATH = Path(__file__).with_name("latency-report.schema.json")

_DIALECT = "https://json-schema.org/draft/2020-12/schema"
_PRIMITIVES: dict[type, str] = {str: "string", int: "integer", float: "number", bool: "boolean"}


def report_schema() -> dict[str, Any]:
    definitions: dict[str, Any] = {}
    report = _record(LatencyReport, definitions)
    head = {"kind": {"const": REPORT_KIND}, "schema_version": {"const": REPORT_SCHEMA_VERSION}}
    return {
        "$schema": _DIALECT,
        "title": REPORT_KIND,
        **report,
        "properties": {**head, **report["properties"]},
        "required": [*head, *report["required"]],
        "$defs": dict(sorted(definitions.items())),
    }


def schema_text() -> str:
    return json.dumps(report_schema(), indent=2) + "\n"


def _record(record: type[Any], definitions: dict[str, Any]) -> dict[str, Any]:
    """Every field is written, also those that have a default."""
    hints = typing.get_type_hints(record)
    names = [field.name for field in dataclasses.fields(record)]
    return {
        "type": "object",
        "description": " ".join((record.__doc__ or "").split()),
        "properties": {name: _type(hints[name], definitions) for name in names},
        "required": names,
        "additionalProperties": False,
    }


def _type(hint: Any, definitions: dict[str, Any]) -> dict[str, Any]:
    if hint in _PRIMITIVES:
        return {"type": _PRIMITIVES[hint]}
    if dataclasses.is_dataclass(hint):
        name = hint.__name__  # type: ignore[union-attr]
        if name not in definitions:
            definitions[name] = {}
            definitions[name] = _record(typing.cast(type[Any], hint), definitions)
        return {"$ref": f"#/$defs/{name}"}
    origin, arguments = typing.get_origin(hint), typing.get_args(hint)
    if origin in (typing.Union, types.UnionType):
        return {"anyOf": [_type(one, definitions) for one in arguments if one is not type(None)] + [{"type": "null"}]}
    if origin is tuple:
        return {"type": "array", "items": _type(arguments[0], definitions)}
    if origin is dict:
        return {"type": "object", "additionalProperties": _type(arguments[1], definitions)}
    raise TypeError(f"no JSON schema for {hint}")


if __name__ == "__main__":
    SCHEMA_PATH.write_text(schema_text(), encoding="utf-8")
