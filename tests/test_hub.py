"""Names and ids of the hub, without a network. Reference: huggingface_hub's own exceptions."""

from __future__ import annotations

import sys
from pathlib import Path
from typing import Any

import huggingface_hub
import pytest
from huggingface_hub.errors import GatedRepoError, HfHubHTTPError, LocalEntryNotFoundError, RepositoryNotFoundError

from grip_edge.catalog import find_model
from grip_edge.errors import MissingExtraError, UserError
from grip_edge.hub import HUB_MODELS, is_hub_id


def failing(monkeypatch: pytest.MonkeyPatch, error: Exception) -> None:
    def snapshot_download(*_: Any, **__: Any) -> str:
        raise error

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)


def of_server(kind: type[HfHubHTTPError]) -> HfHubHTTPError:
    """As huggingface_hub raises it, but for the answer of a server that was not asked."""
    error = kind.__new__(kind)
    Exception.__init__(error, "the server said\nno")
    return error


@pytest.mark.parametrize("name", HUB_MODELS)
def test_short_names_and_ids_are_downloaded(name: str, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Only what an export reads; never pickled weights."""
    asked: list[tuple[str, list[str]]] = []

    def snapshot_download(repo_id: str, allow_patterns: list[str]) -> str:
        asked.append((repo_id, allow_patterns))
        return str(tmp_path)

    monkeypatch.setattr(huggingface_hub, "snapshot_download", snapshot_download)
    hub_id = HUB_MODELS[name].id
    assert find_model(name) == find_model(hub_id) == tmp_path
    assert [repo_id for repo_id, _ in asked] == [hub_id, hub_id]
    assert not any(pattern.endswith((".bin", "*")) for pattern in asked[0][1])


def test_a_folder_of_that_name_comes_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    failing(monkeypatch, AssertionError("the hub was asked"))
    monkeypatch.chdir(tmp_path)
    for name in ("llava-1.5-7b", "owner/name"):
        Path(name).mkdir(parents=True)
        assert find_model(name) == Path(name)


@pytest.mark.parametrize(
    ("error", "expected"),
    [
        (of_server(GatedRepoError), "is gated; accept its terms at https://huggingface.co/llava-hf/llava-1.5-7b-hf"),
        (of_server(RepositoryNotFoundError), "does not exist, or is private; check the id"),
        (LocalEntryNotFoundError("no"), "is not in the local cache, and the hub cannot be reached; check the network"),
        (of_server(HfHubHTTPError), "cannot be downloaded (the server said no); repeat the command, which goes on"),
        (OSError(28, "No space left on device"), "No space left on device"),
    ],
)
def test_what_goes_wrong_is_one_line(error: Exception, expected: str, monkeypatch: pytest.MonkeyPatch) -> None:
    failing(monkeypatch, error)
    with pytest.raises(UserError) as caught:
        find_model("llava-1.5-7b")
    assert expected in str(caught.value)
    assert str(caught.value).endswith("or give the folder of a copy with --model.")
    assert "\n" not in str(caught.value)


def test_offline_is_respected(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """huggingface_hub itself, with an empty cache."""
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_OFFLINE", True)
    monkeypatch.setattr(huggingface_hub.constants, "HF_HUB_CACHE", str(tmp_path))
    with pytest.raises(UserError, match="'nobody/nothing' on the Hugging Face hub is not in the local cache"):
        find_model("nobody/nothing")


def test_no_hub_library(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "huggingface_hub", None)
    with pytest.raises(MissingExtraError, match=r"pip install 'grip-edge\[export\]'"):
        find_model("llava-1.5-7b")


def test_what_is_an_id() -> None:
    assert is_hub_id("owner/name")
    for name in ("name", "./name", "/a/b", "a/b/c", "../a", "~/a", "a/"):
        assert not is_hub_id(name)
    with pytest.raises(UserError, match=r"There is no model 'a/b/c'. Known: llava-tiny, llava-1\.5-7b, "):
        find_model("a/b/c")
