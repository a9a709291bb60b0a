"""A report as one HTML page that stands by itself: no network, no script, images in the page.

All text is escaped, and a content security policy forbids whatever a mistake there might let in.
"""

from __future__ import annotations

import base64
from collections.abc import Iterator, Sequence
from html import escape
from importlib import resources
from pathlib import Path

from bc2_train.report.document import Block, Document, Figure, Listing, Paragraph, Table, Verdict

_POLICY = "default-src 'none'; img-src data:; style-src 'unsafe-inline'"


def render(document: Document, light: Path, dark: Path) -> str:
    """Returns the page.

    Args:
        document: The report.
        light: Folder of its plots.
        dark: Folder of the same plots for a dark page.
    """
    style = (resources.files("bc2_train.report") / "style.css").read_text("utf-8")
    body = "\n".join(_body(document, light, dark))
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        f'<meta http-equiv="Content-Security-Policy" content="{escape(_POLICY)}">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        '<meta name="color-scheme" content="light dark">\n'
        f"<title>{escape(document.title)}</title>\n<style>\n{style}</style>\n</head>\n"
        f"<body>\n<main>\n{body}\n</main>\n</body>\n</html>\n"
    )


def _body(document: Document, light: Path, dark: Path) -> Iterator[str]:
    yield f"<header><h1>{escape(document.title)}</h1><p>{escape(document.subtitle)}</p></header>"
    for section in document.sections:
        yield f"<section>\n<h2>{escape(section.title)}</h2>"
        for block in section.blocks:
            yield from _block(block, light, dark)
        yield "</section>"


def _block(block: Block, light: Path, dark: Path) -> Iterator[str]:
    match block:
        case Paragraph():
            yield f"<p>{escape(block.text)}</p>"
        case Verdict():
            kind = "good" if block.good else "bad"
            yield f'<p class="verdict {kind}">{escape(block.text)}</p>'
        case Table():
            yield from _table(block)
        case Figure():
            dark_image, light_image = (_image(folder / block.file) for folder in (dark, light))
            yield (
                "<figure><picture>"
                f'<source media="(prefers-color-scheme: dark)" srcset="{dark_image}">'
                f'<img alt="{escape(block.title)}" src="{light_image}">'
                "</picture></figure>"
            )
        case Listing():
            yield (
                f"<details><summary>{escape(block.title)}</summary>"
                f"<pre>{escape(block.text)}</pre></details>"
            )


def _table(table: Table) -> Iterator[str]:
    kinds = ["label" if i < table.labels else "figure" for i in range(len(table.columns))]
    # A wide table scrolls within its box, which can be reached with the keyboard.
    yield '<div class="table" tabindex="0"><table>\n<thead><tr>'
    yield from _cells("th", kinds, table.columns)
    yield "</tr></thead>\n<tbody>"
    for row in table.rows:
        yield "<tr>" + "".join(_cells("td", kinds, row)) + "</tr>"
    yield "</tbody></table></div>"


def _cells(tag: str, kinds: list[str], texts: Sequence[str]) -> Iterator[str]:
    for kind, text in zip(kinds, texts, strict=True):
        yield f'<{tag} class="{kind}">{escape(text)}</{tag}>'


def _image(path: Path) -> str:
    return "data:image/png;base64," + base64.b64encode(path.read_bytes()).decode("ascii")
