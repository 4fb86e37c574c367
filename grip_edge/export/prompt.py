"""What surrounds the networks: prompt template, stop tokens, image preprocessing; frozen at export.

The processor's chat template is rendered once by transformers with a stand-in for the question. The device needs
neither transformers nor a template engine.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

from PIL import Image
from transformers import AutoProcessor, GenerationConfig

from grip_edge.bundle import TOKENIZER_NAME
from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.manifest import ImageSpec, PromptSpec

QUESTION_FIELD = "{question}"
_STAND_IN = "GRIPEDGEQUESTION"


def load_processor(folder: Path) -> Any:
    """transformers' processor of the checkpoint (tokenizer, image preprocessing, chat template)."""
    if not (folder / TOKENIZER_NAME).is_file():
        raise UserError(f"'{folder}' holds no {TOKENIZER_NAME}; copy the checkpoint's tokenizer files there.")
    try:
        return AutoProcessor.from_pretrained(folder, local_files_only=True)
    except Exception as error:  # transformers raises many kinds for one cause: the folder's files
        reason = " ".join(str(error).split())
        raise UserError(f"The processor in '{folder}' cannot be loaded ({reason}); copy its files again.") from None


def freeze_prompt(checkpoint: Checkpoint, processor: Any) -> PromptSpec:
    """The chat template of one question about one image, with ``{question}`` in the question's place."""
    if not processor.chat_template:
        raise UserError(f"'{checkpoint.folder}' has no chat template; add its chat_template.jinja.")
    content = [{"type": "image"}, {"type": "text", "text": _STAND_IN}]
    template: str = processor.apply_chat_template([{"role": "user", "content": content}], add_generation_prompt=True)
    image_token: str = processor.image_token
    for what, text in (("the question", _STAND_IN), (f"the image token {image_token}", image_token)):
        if template.count(text) != 1:
            found = template.count(text)
            raise UserError(f"The chat template of '{checkpoint.folder}' holds {what} {found} times; expected once.")
    image_token_id = int(checkpoint.config.image_token_id)
    if processor.image_token_id != image_token_id:
        raise UserError(
            f"{image_token} is token {processor.image_token_id} in the tokenizer but {image_token_id} in config.json; "
            "the files are of different models."
        )
    return PromptSpec(
        template=template.replace(_STAND_IN, QUESTION_FIELD),
        image_token=image_token,
        image_token_id=image_token_id,
        stop_token_ids=_stop_token_ids(checkpoint),
    )


def freeze_image(checkpoint: Checkpoint, processor: Any) -> ImageSpec:
    """The image processor's settings; an error where they are not CLIP's resize, centre crop and normalisation."""
    settings = processor.image_processor
    crop = settings.crop_size
    side_px = checkpoint.vision.image_side_px
    if not (settings.do_resize and settings.do_center_crop and settings.do_rescale and settings.do_normalize):
        raise UserError("The image processor skips a step; expected resize, centre crop, rescale and normalise.")
    if settings.size.get("shortest_edge") is None:
        raise UserError(f"The image processor resizes to {dict(settings.size)}; expected a shortest_edge.")
    if (crop["height"], crop["width"]) != (side_px, side_px):
        found = f"{crop['height']}x{crop['width']}"
        raise UserError(f"The image processor crops to {found} px; the vision tower reads {side_px}x{side_px} px.")
    if settings.size["shortest_edge"] < side_px:
        raise UserError(f"The image processor resizes to {settings.size['shortest_edge']} px, below its crop.")
    if abs(settings.rescale_factor * 255 - 1) > 1e-6:
        raise UserError(f"The image processor's rescale_factor is {settings.rescale_factor}; expected 1/255.")
    return ImageSpec(
        resize_px=int(settings.size["shortest_edge"]),
        crop_px=side_px,
        resample=Image.Resampling(settings.resample).name.lower(),
        mean=_three(settings.image_mean),
        std=_three(settings.image_std),
    )


def _three(values: Any) -> tuple[float, float, float]:
    red, green, blue = (float(value) for value in values)
    return red, green, blue


def _stop_token_ids(checkpoint: Checkpoint) -> tuple[int, ...]:
    """Generation's end-of-sequence tokens, else the decoder's."""
    stop = None
    if (checkpoint.folder / "generation_config.json").is_file():
        stop = GenerationConfig.from_pretrained(checkpoint.folder, local_files_only=True).eos_token_id
    if stop is None:
        text: Any = checkpoint.config.text_config
        stop = text.eos_token_id
    if stop is None:
        raise UserError(f"'{checkpoint.folder}' names no eos_token_id; add it to generation_config.json.")
    return tuple(stop) if isinstance(stop, list) else (int(stop),)
