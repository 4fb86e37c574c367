"""Checkpoints on the Hugging Face hub: short names, and a local copy of what an export reads.

``HF_HUB_OFFLINE``, ``HF_HOME`` and ``HF_TOKEN`` mean what they mean to ``huggingface_hub``, which does the work and is
loaded only here. Whatever goes wrong is one line with what to do. Not here: what a folder holds (``catalog``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from grip_edge.errors import MissingExtraError, UserError


@dataclass(frozen=True)
class HubModel:
    """``family`` is the ``model_type`` of its config.json."""

    id: str
    family: str


HUB_MODELS = {
    "llava-1.5-7b": HubModel("llava-hf/llava-1.5-7b-hf", "llava"),
    "llava-1.5-13b": HubModel("llava-hf/llava-1.5-13b-hf", "llava"),
    "llava-1.6-vicuna-7b": HubModel("llava-hf/llava-v1.6-vicuna-7b-hf", "llava_next"),
    "llava-1.6-vicuna-13b": HubModel("llava-hf/llava-v1.6-vicuna-13b-hf", "llava_next"),
    "llava-1.6-mistral-7b": HubModel("llava-hf/llava-v1.6-mistral-7b-hf", "llava_next"),
    "llava-onevision-0.5b": HubModel("llava-hf/llava-onevision-qwen2-0.5b-ov-hf", "llava_onevision"),
    "llava-onevision-7b": HubModel("llava-hf/llava-onevision-qwen2-7b-ov-hf", "llava_onevision"),
}

# What an export reads; no pickled weights, which can run code when opened.
_PATTERNS = ["*.json", "*.jinja", "*.safetensors"]

_OR_FOLDER = "or give the folder of a copy with --model"


def is_hub_id(name: str) -> bool:
    """Does it look like owner/name, and like no path?"""
    return name.count("/") == 1 and not name.startswith((".", "/", "~")) and not name.endswith("/")


def download(hub_id: str) -> Path:
    """The folder with the checkpoint, from the local cache where it is there."""
    try:
        from huggingface_hub import snapshot_download
        from huggingface_hub.errors import (
            GatedRepoError,
            HfHubHTTPError,
            HFValidationError,
            LocalEntryNotFoundError,
            RepositoryNotFoundError,
        )
    except ModuleNotFoundError:
        raise MissingExtraError("huggingface_hub", "export") from None
    try:
        return Path(snapshot_download(hub_id, allow_patterns=_PATTERNS))
    except GatedRepoError:
        problem = f"is gated; accept its terms at https://huggingface.co/{hub_id}, log in with 'hf auth login'"
    except RepositoryNotFoundError:
        problem = "does not exist, or is private; check the id, log in with 'hf auth login'"
    except LocalEntryNotFoundError:
        problem = "is not in the local cache, and the hub cannot be reached; check the network and HF_HUB_OFFLINE"
    except HFValidationError:
        problem = "is no valid id; expected owner/name"
    except (HfHubHTTPError, OSError) as error:  # OSError: the disk, and connections that break off
        problem = f"cannot be downloaded ({' '.join(str(error).split())[:160]}); repeat the command, which goes on"
    raise UserError(f"'{hub_id}' on the Hugging Face hub {problem}, {_OR_FOLDER}.")
