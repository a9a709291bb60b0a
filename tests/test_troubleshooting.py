"""The messages of docs/troubleshooting.md are those of the code."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[1]
PAGE = (ROOT / "docs" / "troubleshooting.md").read_text()
MESSAGES = re.findall(r"^\| `([^`]+)`", PAGE, re.MULTILINE)
# Pieces of one message stand in several strings, one below the other.
SOURCES = [
    re.sub(r'"\s*\n\s*f?"', "", path.read_text())
    for path in ROOT.glob("packages/bc2-*/src/**/*.py")
]


def test_there_are_messages() -> None:
    assert len(MESSAGES) > 20


@pytest.mark.parametrize("message", MESSAGES)
def test_the_message_is_in_the_code(message: str) -> None:
    pieces = [piece.strip(" :") for piece in message.split("...")]
    assert any(all(piece in source for piece in pieces) for source in SOURCES)
