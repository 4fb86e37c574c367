"""What surrounds the question: prompt template and stop tokens, frozen at export.

The processor's chat template is rendered once by transformers with a stand-in for the question. The device needs
neither transformers nor a template engine.
"""

from __future__ import annotations

from typing import Any

from transformers import GenerationConfig

from grip_edge.errors import UserError
from grip_edge.export.checkpoint import Checkpoint
from grip_edge.manifest import PromptSpec

QUESTION_FIELD = "{question}"
_STAND_IN = "GRIPEDGEQUESTION"


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
        template=_without_bos(template, processor.tokenizer).replace(_STAND_IN, QUESTION_FIELD),
        image_token=image_token,
        image_token_id=image_token_id,
        stop_token_ids=_stop_token_ids(checkpoint),
    )


def _without_bos(template: str, tokenizer: Any) -> str:
    """A beginning-of-sequence token that template and tokenizer would both give stands there once."""
    bos: str | None = tokenizer.bos_token
    doubled = bos and template.startswith(bos) and tokenizer.encode(template)[:2] == [tokenizer.bos_token_id] * 2
    return template[len(bos) :] if bos and doubled else template


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
