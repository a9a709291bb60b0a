"""A report as Markdown, beside its plots."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence

from bc2_train.report.document import Block, Document, Figure, Listing, Paragraph, Table, Verdict


def render(document: Document) -> str:
    """Returns the report as GitHub's Markdown; images are referred to by their file names."""
    lines = [f"# {_text(document.title)}", "", _text(document.subtitle)]
    for section in document.sections:
        lines += ["", f"## {_text(section.title)}"]
        for block in section.blocks:
            lines += ["", *_block(block)]
    return "\n".join(lines) + "\n"


def _block(block: Block) -> Iterator[str]:
    match block:
        case Paragraph():
            yield _text(block.text)
        case Verdict():
            yield f"**{_text(block.text)}**"
        case Table():
            yield _row(block.columns)
            rules = ["---" if i < block.labels else "---:" for i in range(len(block.columns))]
            yield "| " + " | ".join(rules) + " |"
            yield from map(_row, block.rows)
        case Figure():
            yield f"![{_text(block.title)}]({block.file})"
        case Listing():
            ticks = max([2, *map(len, re.findall("`+", block.text))]) + 1
            yield f"{_text(block.title)}:"
            yield ""
            yield "`" * ticks + "text"
            yield block.text.rstrip("\n")
            yield "`" * ticks


def _row(cells: Sequence[str]) -> str:
    return "| " + " | ".join(_text(cell).replace("|", "\\|") for cell in cells) + " |"


def _text(text: str) -> str:
    """Returns text of which nothing is taken for HTML, a link or another line."""
    text = re.sub(r"([\\`*_\[\]])", r"\\\1", " ".join(text.split()))
    return text.replace("&", "&amp;").replace("<", "&lt;")
