"""The Markdown pages of the repository, taken apart: each part with the line it stands in."""

from __future__ import annotations

import itertools
import re
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]

_FENCE = re.compile(r"^ *(`{3,})(.*)$")
_HEADING = re.compile(r"^(#{1,6}) +(.+?) *$", re.MULTILINE)
_CODE = re.compile(r"(?<!`)(`+)(?!`)((?:(?!\n\n).)+?)(?<!`)\1(?!`)", re.DOTALL)
_LINK = re.compile(r"\[[^\]]*\]\(([^)\s]+)\)")


@dataclass(frozen=True)
class Span:
    """A piece of a page.

    Attributes:
        text: What it says.
        line: Number of its first line; pages begin with 1.
    """

    text: str
    line: int


@dataclass(frozen=True)
class Block(Span):
    """What stands between two fences.

    Attributes:
        info: What stands behind the opening fence; readers see the effect of its first word only.
    """

    info: str

    @property
    def language(self) -> str:
        return self.info.partition(" ")[0]


@dataclass(frozen=True)
class Section:
    """A heading of the second level with all that follows it; the part before the first has none.

    Attributes:
        title: The heading.
        line: Where it is.
        end: The last line that belongs to it.
    """

    title: str
    line: int
    end: int

    def holds(self, span: Span) -> bool:
        return self.line <= span.line <= self.end


@dataclass(frozen=True)
class Page:
    """One page.

    Attributes:
        path: Where it is.
        text: All of it.
    """

    path: Path
    text: str

    @classmethod
    def read(cls, path: Path) -> Page:
        return cls(path, path.read_text(encoding="utf-8"))

    def __str__(self) -> str:
        return str(self.path.relative_to(ROOT)) if self.path.is_relative_to(ROOT) else "page.md"

    def at(self, line: int) -> str:
        """Returns the place as editors and terminals understand it."""
        return f"{self}:{line}"

    @cached_property
    def blocks(self) -> list[Block]:
        return list(self._fenced()[0])

    @cached_property
    def prose(self) -> str:
        """The page with empty lines in place of fenced blocks."""
        return self._fenced()[1]

    @cached_property
    def codes(self) -> list[Span]:
        """Inline code."""
        return [self._span(match, 2) for match in _CODE.finditer(self.prose)]

    @cached_property
    def links(self) -> list[Span]:
        """Targets of links and images."""
        text = _CODE.sub(lambda code: re.sub(r"[^\n]", " ", code[0]), self.prose)
        return [self._span(match, 1) for match in _LINK.finditer(text)]

    @cached_property
    def anchors(self) -> set[str]:
        """What may stand behind # in a link: headings as GitHub writes them."""
        seen: Counter[str] = Counter()
        anchors = set()
        for match in _HEADING.finditer(self.prose):
            name = _slug(match[2])
            anchors.add(f"{name}-{seen[name]}" if seen[name] else name)
            seen[name] += 1
        return anchors

    @cached_property
    def sections(self) -> list[Section]:
        found = [self._span(m, 2) for m in _HEADING.finditer(self.prose) if len(m[1]) == 2]
        starts = [Span("", 1), *found, Span("", self.text.count("\n") + 2)]
        return [
            Section(this.text, this.line, following.line - 1)
            for this, following in itertools.pairwise(starts)
        ]

    def _span(self, match: re.Match[str], group: int) -> Span:
        return Span(match[group], self.prose.count("\n", 0, match.start(group)) + 1)

    def _fenced(self) -> tuple[list[Block], str]:
        blocks: list[Block] = []
        prose: list[str] = []
        opened: tuple[str, str, int] | None = None
        inside: list[str] = []
        for number, line in enumerate(self.text.split("\n"), start=1):
            fence = _FENCE.match(line)
            if opened is None and fence:
                opened = (fence[1], fence[2].strip(), number + 1)
            elif opened and fence and fence[1] == opened[0] and not fence[2].strip():
                blocks.append(Block("\n".join(inside), opened[2], opened[1]))
                opened, inside = None, []
            elif opened:
                inside.append(line)
            prose.append("" if opened or fence else line)
        assert opened is None, f"{self.at(opened[2] - 1)}: a fence that is never closed"
        return blocks, "\n".join(prose)


def all_pages() -> Iterator[Page]:
    """Returns every page of the repository."""
    patterns = ("*.md", "docs/**/*.md", "examples/**/*.md", "packages/*/*.md", "tools/**/*.md")
    for pattern in patterns:
        yield from map(Page.read, sorted(ROOT.glob(pattern)))


def _slug(heading: str) -> str:
    text = re.sub(r"\[([^\]]*)\]\([^)]*\)", r"\1", heading)
    return re.sub(r"[^\w\- ]", "", text.lower()).replace(" ", "-")
