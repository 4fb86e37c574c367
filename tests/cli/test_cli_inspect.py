"""``grip-edge inspect``. Reference: the manifest."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

from grip_edge.manifest import Manifest


def test_json_holds_the_manifest(run: Callable[..., Any], toy_bundle: Path) -> None:
    document = json.loads(run("inspect", "grip-bundle", "--json").stdout)
    manifest = json.loads((toy_bundle / "grip.json").read_text())
    total = sum(record["bytes"] for record in manifest["files"])
    assert document == {"bundle": "grip-bundle", "total_bytes": total, **manifest}


def test_for_people(run: Callable[..., Any], toy_bundle: Path) -> None:
    text = run("inspect", "grip-bundle").stdout
    manifest = Manifest.from_json((toy_bundle / "grip.json").read_text(), "grip.json")
    shown = (
        manifest.model.name,
        "16 visual",
        "2 to 8 tokens",
        "reindexed",
        manifest.scorer.name,
        "fp32",
        "keys and values  fp32",
        "select.onnx",
        "onnxruntime",
        "the same tokens and kept sets",
    )
    assert [text_part for text_part in shown if text_part not in text] == []
