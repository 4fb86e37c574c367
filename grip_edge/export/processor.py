"""transformers' processor of a checkpoint: tokenizer, image preprocessing, chat template. Needed at export only."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import AutoProcessor, LlavaOnevisionProcessor

from grip_edge.bundle import TOKENIZER_NAME
from grip_edge.errors import UserError


class ImageOnlyOnevisionProcessor(LlavaOnevisionProcessor):
    """Without the video processor, which would need torchvision."""

    @classmethod
    def get_attributes(cls) -> list[str]:
        return ["image_processor", "tokenizer"]


_PROCESSORS = {"llava_onevision": ImageOnlyOnevisionProcessor}


def load_processor(folder: Path, model_type: str = "llava") -> Any:
    if not (folder / TOKENIZER_NAME).is_file():
        raise UserError(f"'{folder}' holds no {TOKENIZER_NAME}; copy the checkpoint's tokenizer files there.")
    try:
        return _PROCESSORS.get(model_type, AutoProcessor).from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for one cause: the folder's files
        reason = " ".join(str(error).split())
        raise UserError(f"The processor in '{folder}' cannot be loaded ({reason}); copy its files again.") from None
