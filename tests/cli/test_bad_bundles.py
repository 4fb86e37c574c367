"""Damaged, half-written, foreign and newer bundles: every command names the file and what to do."""

from __future__ import annotations

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from grip_edge.bundle import open_bundle
from grip_edge.cli.export import export
from grip_edge.errors import BundleError


@pytest.fixture
def bundle(workplace: Path, toy_bundle: Path) -> Path:
    """A copy that may be damaged, in the place where the commands look."""
    (workplace / "grip-bundle").unlink()
    return Path(shutil.copytree(toy_bundle, workplace / "grip-bundle"))


def edit_manifest(bundle: Path, **changes: object) -> None:
    path = bundle / "grip.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))


def cut_short(bundle: Path, name: str) -> None:
    path = bundle / name
    path.write_bytes(path.read_bytes()[:-10])


def flip_byte(bundle: Path, name: str) -> None:
    path = bundle / name
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0xFF
    path.write_bytes(data)


def escape(bundle: Path) -> None:
    files = json.loads((bundle / "grip.json").read_text())["files"]
    edit_manifest(bundle, files=[*files, {"path": "../picture.png", "bytes": 1, "sha256": ""}])


Damage = Callable[[Path], Any]

# what is wrong -> how it comes about, what the commands say, the file that verify names
NOTICED_ON_LOADING: dict[str, tuple[Damage, str, str]] = {
    "no manifest": (lambda b: (b / "grip.json").unlink(), "'grip-bundle' holds no grip.json", "grip.json"),
    "half a manifest": (lambda b: cut_short(b, "grip.json"), "grip.json is not valid JSON", "grip.json"),
    "foreign manifest": (lambda b: (b / "grip.json").write_text("[1]"), "this is no grip-edge bundle", "grip.json"),
    "newer schema": (
        lambda b: edit_manifest(b, schema_version=99),
        "schema_version is 99, this version reads 2; upgrade grip-edge",
        "grip.json",
    ),
    "unknown field": (lambda b: edit_manifest(b, flavour="mint"), "flavour", "grip.json"),
    "wrong type": (lambda b: edit_manifest(b, precision=32), "precision", "grip.json"),
    "no files": (lambda b: edit_manifest(b, files=[]), "files does not list vision.onnx", "grip.json"),
    "file outside": (escape, "'../picture.png' lies outside the bundle", "grip.json"),
    "missing graph": (lambda b: (b / "select.onnx").unlink(), "select.onnx: missing", "select.onnx"),
    "half a graph": (lambda b: cut_short(b, "decoder.onnx.data"), "decoder.onnx.data: has ", "decoder.onnx.data"),
    "half a tokenizer": (lambda b: cut_short(b, "tokenizer.json"), "tokenizer.json: has ", "tokenizer.json"),
}


@pytest.mark.parametrize("kind", NOTICED_ON_LOADING)
@pytest.mark.parametrize("command", ["infer", "bench", "inspect"])
def test_noticed_on_loading(refused: Callable[..., str], bundle: Path, kind: str, command: str) -> None:
    damage, message, _ = NOTICED_ON_LOADING[kind]
    damage(bundle)
    arguments = {"infer": ["picture.png", "what is it?"], "bench": [], "inspect": ["grip-bundle"]}[command]
    assert message in refused(command, *arguments)


@pytest.mark.parametrize("kind", NOTICED_ON_LOADING)
def test_verify_names_the_file(run: Callable[..., Any], bundle: Path, kind: str) -> None:
    damage, _, name = NOTICED_ON_LOADING[kind]
    damage(bundle)
    outcome = run("verify", "grip-bundle")
    damaged = [line for line in outcome.stdout.splitlines() if line.startswith("DAMAGED")]
    assert outcome.exit_code == 1
    assert [line.split()[1].rstrip(":") for line in damaged] == [name]


@pytest.mark.parametrize("name", ["vision.onnx", "select.onnx.data", "embed.onnx.data", "tokenizer.json"])
def test_verify_finds_a_single_flipped_byte(run: Callable[..., Any], bundle: Path, name: str) -> None:
    flip_byte(bundle, name)
    outcome = run("verify", "grip-bundle")
    assert outcome.exit_code == 1
    assert f"DAMAGED  {name}: sha256 is" in outcome.stdout
    assert outcome.stdout.count("DAMAGED") == 1
    assert outcome.stdout.count("\nok ") == 8


def test_verify_finds_a_graph_that_is_as_listed_but_does_not_load(run: Callable[..., Any], bundle: Path) -> None:
    from grip_edge.bundle import sha256_of

    (bundle / "vision.onnx").write_bytes(b"nonsense")
    files = json.loads((bundle / "grip.json").read_text())["files"]
    for record in files:
        path = bundle / record["path"]
        record.update(bytes=path.stat().st_size, sha256=sha256_of(path))
    edit_manifest(bundle, files=files)
    outcome = run("verify", "grip-bundle")
    assert outcome.exit_code == 1
    assert "vision.onnx cannot be loaded" in outcome.stdout


def test_a_graph_that_does_not_load_is_named(refused: Callable[..., str], bundle: Path) -> None:
    flip_all = bytes(255 - byte for byte in (bundle / "vision.onnx").read_bytes())
    (bundle / "vision.onnx").write_bytes(flip_all)
    assert "vision.onnx cannot be loaded" in refused("infer", "picture.png", "what is it?")


def test_verify_of_a_good_bundle(run: Callable[..., Any], bundle: Path) -> None:
    outcome = run("verify", "grip-bundle")
    assert outcome.exit_code == 0
    lines = outcome.stdout.splitlines()
    listed = [record["path"] for record in json.loads((bundle / "grip.json").read_text())["files"]]
    assert [line.split() for line in lines[:-1]] == [["ok", name] for name in ["grip.json", *listed]]
    assert lines[-1].startswith(f"All {len(listed)} files")


def test_verify_of_nothing_is_the_users_mistake(refused: Callable[..., str]) -> None:
    assert "There is no folder 'nowhere'" in refused("verify", "nowhere")
    assert "There is no folder 'picture.png'" in refused("verify", "picture.png")


def test_the_command_that_makes_a_bundle_gives_all_that_export_needs(tmp_path: Path) -> None:
    with pytest.raises(BundleError) as caught:
        open_bundle(tmp_path / "nowhere")
    for parameter in export.params:
        assert not parameter.required or parameter.opts[0] in str(caught.value)
