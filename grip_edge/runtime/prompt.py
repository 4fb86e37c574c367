"""From a question to token ids: the bundle's template filled, tokenised as a whole, split where the image goes.

The tokens equal those of transformers' processor, whose N repeated image tokens are the one split point here.
Refused with a ``PromptError``: an empty question, and text that the tokenizer would read as a control token
(``<image>``, ``</s>``), which could otherwise end the prompt or claim a second image.

Not here: positions (``positions``), the way back from tokens to text (``detokenizer``).
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from tokenizers import Tokenizer

from grip_edge.errors import BundleError, PromptError
from grip_edge.manifest import PromptSpec

_QUESTION = "{question}"


@dataclass(frozen=True)
class Prompt:
    """Token ids before and after the image's place, and the ids of the question alone (what the scorer reads)."""

    before: tuple[int, ...]
    after: tuple[int, ...]
    question: tuple[int, ...]


def load_tokenizer(path: Path) -> Tokenizer:
    try:
        tokenizer = Tokenizer.from_file(str(path))
    except Exception as error:  # tokenizers raises bare Exception for every defect of the file
        raise BundleError(f"{path} is no tokenizer ({_one_line(error)}); export the bundle again.") from None
    tokenizer.no_padding()
    tokenizer.no_truncation()
    return tokenizer


class PromptEncoder:
    def __init__(self, tokenizer: Tokenizer, spec: PromptSpec) -> None:
        for part in (_QUESTION, spec.image_token):
            if spec.template.count(part) != 1:
                raise BundleError(f"grip.json: prompt.template must hold {part} once; got {spec.template!r}.")
        self.tokenizer = tokenizer
        self.spec = spec
        added = tokenizer.get_added_tokens_decoder().values()
        self._control_texts = sorted(token.content for token in added if token.special)

    def encode(self, question: str) -> Prompt:
        """The prompt for ``question``; it takes len(before) + K + len(after) positions with K visual tokens."""
        self._check(question)
        ids = self.tokenizer.encode(self.spec.template.replace(_QUESTION, question)).ids
        if ids.count(self.spec.image_token_id) != 1:
            raise BundleError(
                f"tokenizer.json does not give the image token's id {self.spec.image_token_id} for "
                f"'{self.spec.image_token}' as grip.json says; export the bundle again."
            )
        place = ids.index(self.spec.image_token_id)
        asked = self.tokenizer.encode(question, add_special_tokens=False).ids
        if not asked:
            raise PromptError("The question has no text that the model can read; ask something about the image.")
        return Prompt(tuple(ids[:place]), tuple(ids[place + 1 :]), tuple(asked))

    def _check(self, question: str) -> None:
        if not question.strip():
            raise PromptError("The question is empty; ask something about the image.")
        try:
            question.encode()
        except UnicodeEncodeError:
            raise PromptError("The question is not valid Unicode text; expected UTF-8.") from None
        for text in (self.spec.image_token, *self._control_texts):
            if text in question:
                raise PromptError(f"The question contains '{text}', a control token of this model; leave it out.")


def _one_line(error: Exception) -> str:
    return " ".join(str(error).split()) or type(error).__name__
