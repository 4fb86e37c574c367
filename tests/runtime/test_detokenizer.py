"""Streaming text. Reference: the tokenizer's own decoding of the whole answer."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from tokenizers import Tokenizer, decoders, models, normalizers, pre_tokenizers

from grip_edge.runtime.detokenizer import Detokenizer


def byte_fallback() -> Tokenizer:
    """In Llama's form: characters that are not in the vocabulary become one token per byte."""
    words = ["<unk>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abcde"]
    model = models.BPE({word: index for index, word in enumerate(words)}, [], unk_token="<unk>", byte_fallback=True)
    tokenizer = Tokenizer(model)
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    tokenizer.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    return tokenizer


def byte_level() -> Tokenizer:
    """In GPT-2's and Qwen's form: every token is a sequence of bytes."""
    alphabet = sorted(pre_tokenizers.ByteLevel.alphabet())
    tokenizer = Tokenizer(models.BPE({word: index for index, word in enumerate(alphabet)}, []))
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    return tokenizer


TEXTS = st.text(st.one_of(st.sampled_from("abc de"), st.characters(exclude_categories=["Cs"])), max_size=20)

TOKENIZERS = {"byte fallback": byte_fallback(), "byte level": byte_level()}


def pieces_of(tokenizer: Tokenizer, ids: list[int]) -> list[str]:
    detokenizer = Detokenizer(tokenizer)
    return [*(detokenizer.add(token) for token in ids), detokenizer.flush()]


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS)
def test_pieces_join_to_the_text_and_hold_whole_characters(name: str, text: str) -> None:
    text = text.replace("\ufffd", "").replace("▁", "")
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces) == tokenizer.decode(ids) == text
    assert not any("\ufffd" in piece for piece in pieces)
    assert pieces[-1] == ""


@pytest.mark.parametrize("name", TOKENIZERS)
@settings(deadline=None, max_examples=60)
@given(text=TEXTS, cut=st.integers(0, 40))
def test_tokens_may_come_together(name: str, text: str, cut: int) -> None:
    text = text.replace("\ufffd", "").replace("▁", "")
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode(text, add_special_tokens=False).ids
    detokenizer = Detokenizer(tokenizer)
    pieces = [*(detokenizer.add(token) for token in ids[:cut]), detokenizer.flush(*ids[cut:])]
    assert "".join(pieces) == text


@pytest.mark.parametrize("name", TOKENIZERS)
def test_text_comes_as_soon_as_it_is_whole(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode("a€b", add_special_tokens=False).ids
    assert pieces_of(tokenizer, ids)[-6:] == ["a", "", "", "€", "b", ""]


@pytest.mark.parametrize("name", TOKENIZERS)
def test_an_answer_that_ends_within_a_character(name: str) -> None:
    tokenizer = TOKENIZERS[name]
    ids = tokenizer.encode("a€", add_special_tokens=False).ids[:-1]
    pieces = pieces_of(tokenizer, ids)
    assert "".join(pieces[:-1]) == "a"
    assert pieces[-1]
    assert set(pieces[-1]) == {"\ufffd"}
