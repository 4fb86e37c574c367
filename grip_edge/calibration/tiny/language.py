"""The words of ``llava-tiny``: tokenizer, processor and chat template in LLaVA-1.5's form.

A BPE with byte fallback, as Llama has: any text in any script can be asked, though only the words of the benchmark
were learnt. Merges are trained on the benchmark's own questions, so its words are single tokens.
"""

from __future__ import annotations

import json
from collections.abc import Iterator

from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, pre_tokenizers, processors, trainers
from transformers import PreTrainedTokenizerFast
from transformers.models.clip.image_processing_pil_clip import CLIPImageProcessorPil
from transformers.models.llava.processing_llava import LlavaProcessor

from grip_edge.calibration.scenes import ask, draw_scene, scene_seed
from grip_edge.calibration.scenes.questions import vocabulary
from grip_edge.calibration.tiny.architecture import IMAGE_SIDE_PX, PATCH_PX

IMAGE_TOKEN = "<image>"
VOCAB_SIZE = 768
_SPECIAL = ("<unk>", "<s>", "</s>", "<pad>")
_BYTES = [f"<0x{value:02X}>" for value in range(256)]

# One turn or many, rendered as LLaVA-1.5 does: the image first, then the words of the user.
CHAT_TEMPLATE = (
    "{% for message in messages %}"
    "{% if message['role'] == 'user' %}{{ 'USER: ' }}{% else %}{{ 'ASSISTANT: ' }}{% endif %}"
    "{% if message['content'] is string %}{{ message['content'] }}{% else %}"
    "{% for part in message['content'] if part['type'] == 'image' %}{{ '<image>\n' }}{% endfor %}"
    "{% for part in message['content'] if part['type'] == 'text' %}{{ part['text'] }}{% endfor %}"
    "{% endif %}"
    "{% if message['role'] == 'user' %}{{ ' ' }}{% else %}{{ '</s>' }}{% endif %}"
    "{% endfor %}"
    "{% if add_generation_prompt %}{{ 'ASSISTANT:' }}{% endif %}"
)
PROMPT_BEFORE = f"USER: {IMAGE_TOKEN}"
PROMPT_AFTER = "\n{question} ASSISTANT:"


def train_tokenizer(scenes: int = 4000) -> Tokenizer:
    """Deterministic: the same questions give the same merges."""
    tokenizer = Tokenizer(models.BPE(unk_token="<unk>", byte_fallback=True, fuse_unk=True))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Split(Regex("\n"), behavior="isolated"),
            pre_tokenizers.Metaspace(replacement="▁", prepend_scheme="first"),
            pre_tokenizers.Punctuation(behavior="isolated"),
        ]
    )
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    trainer = trainers.BpeTrainer(
        vocab_size=VOCAB_SIZE - 1,
        special_tokens=[*_SPECIAL, *_BYTES],
        initial_alphabet=[chr(code) for code in range(33, 127)],
        show_progress=False,
    )
    tokenizer.train_from_iterator(_sentences(scenes), trainer)
    tokenizer = _with_plain_bytes(tokenizer)
    tokenizer.add_special_tokens([AddedToken(IMAGE_TOKEN, special=True, normalized=False)])
    bos = tokenizer.token_to_id("<s>")
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", pair="<s> $A $B", special_tokens=[("<s>", bos)]
    )
    return tokenizer


def _sentences(scenes: int) -> Iterator[str]:
    for index in range(scenes):
        for question in ask(draw_scene(scene_seed("train", index)), 10):
            yield PROMPT_AFTER.format(question=question.text)
            yield f"USER: ASSISTANT: {question.answer}"
    for _ in range(500):  # the words of answers are single tokens, however rare
        yield from (f"ASSISTANT: {word}" for word in vocabulary())


def _with_plain_bytes(tokenizer: Tokenizer) -> Tokenizer:
    """The 256 byte tokens stay in the vocabulary but are not matched in text that happens to spell ``<0x41>``."""
    state = json.loads(tokenizer.to_str())
    state["added_tokens"] = [token for token in state["added_tokens"] if token["content"] not in _BYTES]
    return Tokenizer.from_str(json.dumps(state))


def new_processor(tokenizer: Tokenizer) -> LlavaProcessor:
    """Image processor, tokenizer and chat template, as a LLaVA-1.5 checkpoint has them."""
    return LlavaProcessor(
        image_processor=CLIPImageProcessorPil(
            size={"shortest_edge": IMAGE_SIDE_PX}, crop_size={"height": IMAGE_SIDE_PX, "width": IMAGE_SIDE_PX}
        ),
        tokenizer=PreTrainedTokenizerFast(
            tokenizer_object=tokenizer, unk_token="<unk>", bos_token="<s>", eos_token="</s>", pad_token="<pad>"
        ),
        patch_size=PATCH_PX,
        vision_feature_select_strategy="default",
        num_additional_image_tokens=1,
        chat_template=CHAT_TEMPLATE,
    )
