"""What a report consists of, whatever it is written in."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field


@dataclass(frozen=True)
class Paragraph:
    """Running text."""

    text: str


@dataclass(frozen=True)
class Verdict:
    """A result that should be seen first.

    Attributes:
        text: The result.
        good: Whether it is as it should be.
    """

    text: str
    good: bool


@dataclass(frozen=True)
class Table:
    """Rows under the names of their columns.

    Attributes:
        columns: Their names.
        rows: Cells, as many a row as there are columns.
        labels: How many of the first columns are words; the others hold figures.
    """

    columns: Sequence[str]
    rows: Sequence[Sequence[str]]
    labels: int = 1


@dataclass(frozen=True)
class Figure:
    """A plot.

    Attributes:
        file: Name of its PNG in the report's folder.
        title: What it shows.
    """

    file: str
    title: str


@dataclass(frozen=True)
class Listing:
    """Text of a file as it stands there.

    Attributes:
        title: What it is.
        text: The text.
    """

    title: str
    text: str


Block = Paragraph | Verdict | Table | Figure | Listing


@dataclass
class Section:
    """A headline and what follows it."""

    title: str
    blocks: list[Block] = field(default_factory=list)


@dataclass(frozen=True)
class Document:
    """A whole report.

    Attributes:
        title: Its headline.
        subtitle: What it is about, and of when.
        sections: In order.
    """

    title: str
    subtitle: str
    sections: list[Section]
