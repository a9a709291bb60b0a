"""A page about datasets that stands by itself: figures, histogram, documents with their loss mask.

Nothing is loaded from anywhere and nothing runs: the page may be opened from a mail or an archive.
All text from the data is escaped.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from html import escape
from pathlib import Path

import numpy as np

from bc2_data.datasets import open_datasets
from bc2_data.inspection.document_view import DocumentView, Stretch, readable, view_document
from bc2_data.inspection.lengths import LengthStatistics, length_statistics
from bc2_data.inspection.summary import describe_datasets, describe_source
from bc2_data.tokenizer import Tokenizer

_SAMPLES = 8
_MOST_TOKENS = 4_097  # of a document shown: a whole row of 4,096 predictions

_STYLE = """
body { font: 15px/1.5 system-ui, sans-serif; max-width: 60rem; margin: 2rem auto; padding: 0 1rem; }
h1 { font-size: 1.4rem; overflow-wrap: anywhere; }
h2 { font-size: 1.1rem; margin-top: 2rem; }
td { padding: 0 .6rem 0 0; white-space: nowrap; text-align: right; }
td.bar { width: 100%; }
td.bar div { background: #4a7ebb; height: .9rem; min-width: 1px; }
pre { white-space: pre-wrap; overflow-wrap: anywhere; background: #f6f6f6; padding: .6rem; }
summary { cursor: pointer; }
.nothing { color: #777; }
.itself { background: #cdebcd; }
.other { background: #ffe3a8; }
.label { font-size: .75em; vertical-align: super; color: #a05a00; }
.heading { color: #555; font-weight: bold; }
"""


def render_report(prefix: Path, tokenizer: Tokenizer | None, number: int | None = None) -> str:
    """Returns the page as HTML text.

    Args:
        prefix: ``PREFIX`` of a run, or the path of one dataset.
        tokenizer: Turns ids into text; None shows ids.
        number: The document to show, from 0; None for 8 that are spread evenly.

    Raises:
        DataError: Nothing stands there, it is damaged, there is no such document, or the tokenizer
            is another one than the data's.
    """
    datasets = open_datasets(prefix)
    dataset = next(iter(datasets.values()))
    if number is not None:
        numbers = [number]
    else:
        spread = np.linspace(0, dataset.num_documents - 1, min(_SAMPLES, dataset.num_documents))
        numbers = [int(place) for place in spread]
    views = [view_document(datasets, place) for place in numbers]
    body = [
        f"<h1>{escape(str(prefix))}</h1>",
        *_list(describe_datasets(datasets)),
        "<h2>Where it comes from</h2>",
        *_list(describe_source(prefix)),
    ]
    if len(dataset):
        body += ["<h2>Lengths</h2>", *_histogram(length_statistics(dataset.lengths))]
    body += ["<h2>Documents</h2>", *_legend(views)]
    for view in views:
        body += _document(view, tokenizer)
    return _page(f"{prefix.name} - bc2-data", body)


def _page(title: str, body: Iterable[str]) -> str:
    lines = "\n".join(body)
    return (
        '<!DOCTYPE html>\n<html lang="en">\n<head>\n<meta charset="utf-8">\n'
        '<meta name="viewport" content="width=device-width, initial-scale=1">\n'
        f"<title>{escape(title)}</title>\n<style>{_STYLE}</style>\n</head>\n"
        f"<body>\n{lines}\n</body>\n</html>\n"
    )


def _list(lines: Iterable[str]) -> Iterator[str]:
    yield "<ul>"
    yield from (f"<li>{escape(line)}</li>" for line in lines)
    yield "</ul>"


def _histogram(statistics: LengthStatistics) -> Iterator[str]:
    yield f"<p>{escape(statistics.summary)}</p>"
    yield "<table>"
    for bin_ in statistics.bins:
        yield (
            f"<tr><td>{bin_.low:,} to {bin_.high:,}</td><td>{bin_.count:,}</td>"
            f'<td class="bar"><div style="width:{bin_.share:.1%}"></div></td></tr>'
        )
    yield "</table>"


def _legend(views: Iterable[DocumentView]) -> Iterator[str]:
    if any(view.labelled for view in views):
        yield (
            '<p><span class="itself">trained</span> text is predicted from what stands before it; '
            '<span class="nothing">grey</span> text is not; before '
            '<span class="other">such</span> text, the small token is predicted in its place.</p>'
        )


def _document(view: DocumentView, tokenizer: Tokenizer | None) -> Iterator[str]:
    yield "<details open>"
    yield f"<summary>document {view.number:,}: {view.tokens:,} tokens</summary>"
    yield f"<pre>{''.join(_stretches(view, tokenizer))}</pre>"
    if view.tokens > _MOST_TOKENS:
        yield f"<p>The first {_MOST_TOKENS:,} tokens are shown.</p>"
    yield "</details>"


def _stretches(view: DocumentView, tokenizer: Tokenizer | None) -> Iterator[str]:
    left = _MOST_TOKENS
    for heading, stretches in view.conversations():
        if heading and left > 0:
            yield f'\n<span class="heading">{heading}</span>\n'
        for stretch in stretches:
            if left > 0:
                yield _stretch(stretch, left, tokenizer, view.labelled)
            left -= len(stretch.ids)


def _stretch(stretch: Stretch, most: int, tokenizer: Tokenizer | None, labelled: bool) -> str:
    text = escape(readable(stretch.ids[:most], tokenizer))
    if not labelled:
        return text
    label = ""
    if stretch.target == "other":
        label = escape(readable(np.array([stretch.label]), tokenizer))
        label = f'<span class="label">{label}</span>'
    return f'{label}<span class="{stretch.target}">{text}</span>'
