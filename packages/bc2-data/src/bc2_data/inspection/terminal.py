"""One document as lines for a terminal, with its loss mask in colour."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import numpy as np

from bc2_data.datasets import open_datasets
from bc2_data.inspection.document_view import Stretch, readable, view_document
from bc2_data.tokenizer import Tokenizer

_COLOURS = {"nothing": "\x1b[2m", "itself": "\x1b[32m", "other": "\x1b[33m"}  # dim, green, yellow
_PLAIN = "\x1b[0m"


def show_document(
    prefix: Path, number: int, tokenizer: Tokenizer | None, *, colour: bool = False
) -> Iterator[str]:
    """Yields lines that show one document, and of instruction data what is trained in it.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one dataset.
        number: The document, from 0.
        tokenizer: Turns ids into text; None shows ids.
        colour: Whether to colour what is trained, for a terminal.

    Raises:
        DataError: There is no such document, or the tokenizer is another one than the data's.
    """
    datasets = open_datasets(prefix)
    view = view_document(datasets, number)
    documents = next(iter(datasets.values())).num_documents
    yield f"document {number} of {documents:,}: {view.tokens:,} tokens"
    if not view.labelled:
        yield "".join(readable(stretch.ids, tokenizer) for stretch in view.stretches)
        return
    yield "what the text before it is trained to predict: - nothing, = the text itself, or a token"
    for heading, stretches in view.conversations():
        if heading:
            yield heading
        for stretch in stretches:
            text = readable(stretch.ids, tokenizer)
            if colour:
                text = f"{_COLOURS[stretch.target]}{text}{_PLAIN}"
            yield f"{_mark(stretch, tokenizer):>6} | {text}"


def _mark(stretch: Stretch, tokenizer: Tokenizer | None) -> str:
    if stretch.target == "other":
        return readable(np.array([stretch.label]), tokenizer)
    return "-" if stretch.target == "nothing" else "="
