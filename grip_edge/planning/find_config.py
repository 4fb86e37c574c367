"""The configuration of a model by name, folder or hub id. Weights are never touched, nor downloaded."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from grip_edge.catalog import CONFIG_NAME, EMBEDDED, read_json
from grip_edge.errors import MissingExtraError, UserError
from grip_edge.hub import HUB_MODELS, is_hub_id
from grip_edge.planning.published import PUBLISHED
from grip_edge.planning.shape import ModelShape, shape_of

_TOKENIZER = "tokenizer.json"


def find_shape(model: str) -> tuple[ModelShape, int | None]:
    """The model's sizes, and the bytes of its tokenizer where it lies on this machine."""
    folder = EMBEDDED.get(model, Path(model))
    if folder.is_dir():
        if not (folder / CONFIG_NAME).is_file():
            raise UserError(f"'{folder}' holds no {CONFIG_NAME}; expected a LLaVA checkpoint in Hugging Face format.")
        tokenizer = folder / _TOKENIZER
        tokenizer_bytes = tokenizer.stat().st_size if tokenizer.is_file() else None
        return shape_of(folder.resolve().name, read_json(folder / CONFIG_NAME)), tokenizer_bytes
    for short, config in PUBLISHED.items():
        if model in (short, HUB_MODELS[short].id):
            return shape_of(short, config), None
    if is_hub_id(model):
        return shape_of(model, _hub_config(model)), None
    known = ", ".join((*EMBEDDED, *PUBLISHED))
    raise UserError(f"There is no model '{model}'. Known: {known}; a local folder or a hub id works too.")


def _hub_config(hub_id: str) -> dict[str, Any]:
    """Only ``config.json`` is fetched, or taken from the cache."""
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
    except ModuleNotFoundError:
        raise MissingExtraError("huggingface_hub", "export") from None
    try:
        return read_json(Path(hf_hub_download(hub_id, CONFIG_NAME)))
    except (HfHubHTTPError, HFValidationError, LocalEntryNotFoundError, OSError) as error:
        reason = " ".join(str(error).split())[:120]
        raise UserError(
            f"The configuration of '{hub_id}' cannot be had from the hub ({reason}); check the id and the network, or "
            f"give a folder that holds its {CONFIG_NAME}."
        ) from None
