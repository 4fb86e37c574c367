"""From tokens to text while they arrive: pieces that join to the answer and never hold half a character.

A character of several bytes can be spread over several tokens; its text is held back until it is complete. Only a
short window of tokens is decoded anew at each step, so a long answer does not slow down.
"""

from __future__ import annotations

from tokenizers import Tokenizer

_INCOMPLETE = "\ufffd"  # what a decoder makes of a character whose bytes are not all there


class Detokenizer:
    """One answer: ``add`` every token as it comes, then ``flush`` once, with those that are left."""

    def __init__(self, tokenizer: Tokenizer) -> None:
        self._tokenizer = tokenizer
        self._window: list[int] = []  # the tokens of the last piece, then those not yet emitted
        self._emitted = 0  # how many of the window belong to the last piece

    def add(self, token_id: int) -> str:
        """The text that this token completes; empty while a character is incomplete."""
        self._window.append(token_id)
        piece = self._pending_text()
        if not piece or piece.endswith(_INCOMPLETE):
            return ""
        self._window = self._window[self._emitted :]
        self._emitted = len(self._window)
        return piece

    def flush(self, *token_ids: int) -> str:
        """What was held back, and these; an incomplete character shows as U+FFFD, as in the tokenizer's decoding."""
        self._window += token_ids
        piece = self._pending_text()
        self._window, self._emitted = [], 0
        return piece

    def _pending_text(self) -> str:
        known = self._decode(self._window[: self._emitted]) if self._emitted else ""
        return self._decode(self._window)[len(known) :]

    def _decode(self, ids: list[int]) -> str:
        return self._tokenizer.decode(ids, skip_special_tokens=True)
