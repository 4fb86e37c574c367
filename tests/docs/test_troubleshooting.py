"""Reference: the messages in the sources, as the parser reads them; ``…`` stands for what is filled in."""

from __future__ import annotations

import ast
import re

import pytest

from tests.docs.pages import CHECKOUT, read

_QUOTED = re.findall(r"^### `(.+)`$", read("troubleshooting.md"), flags=re.MULTILINE)


def template(node: ast.Constant | ast.JoinedStr) -> str:
    """The text as the command line prints it, on one line with single spaces."""
    parts = node.values if isinstance(node, ast.JoinedStr) else [node]
    text = "".join(str(part.value) if isinstance(part, ast.Constant) else "…" for part in parts)
    return " ".join(text.split())


@pytest.fixture(scope="module")
def messages() -> list[str]:
    found = []
    for path in sorted((CHECKOUT / "grip_edge").rglob("*.py")):
        for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
            if isinstance(node, ast.JoinedStr) or (isinstance(node, ast.Constant) and isinstance(node.value, str)):
                found.append(template(node))
    return found


def test_there_are_messages_and_none_twice() -> None:
    assert len(_QUOTED) >= 25
    assert len(set(_QUOTED)) == len(_QUOTED)


@pytest.mark.parametrize("quoted", _QUOTED)
def test_a_quoted_message_begins_one_in_the_sources(quoted: str, messages: list[str]) -> None:
    assert any(message.startswith(quoted) for message in messages), (
        f"no message begins with  {quoted}  ; mend docs/troubleshooting.md"
    )


def test_every_entry_has_a_cause_and_a_remedy() -> None:
    entries = re.split(r"^### .+$", read("troubleshooting.md"), flags=re.MULTILINE)[1:]
    for quoted, entry in zip(_QUOTED, entries, strict=True):
        assert entry.count("**Cause.**") == entry.count("**Do.**") == 1, quoted
