from __future__ import annotations

import re
from html.parser import HTMLParser
from pathlib import Path
from typing import Any

from bc2_data.inspection.html_report import render_report
from bc2_data.packing import pack

HOSTILE = "</pre><script>alert(1)</script><img src=x onerror=alert(2)>"
VOID = {"meta"}


class Page(HTMLParser):
    """Reads a page, whose tags must close one another."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[str] = []
        self.attributes: list[tuple[str, str | None]] = []
        self.text: dict[str, str] = {}  # by the class of the innermost tag that has one
        self._open: list[tuple[str, str]] = []
        self.feed(text)
        self.close()
        assert self._open == []

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.attributes += attrs
        if tag not in VOID:
            outer = self._open[-1][1] if self._open else ""
            self._open.append((tag, dict(attrs).get("class") or outer))

    def handle_endtag(self, tag: str) -> None:
        assert self._open.pop()[0] == tag

    def handle_data(self, data: str) -> None:
        kind = self._open[-1][1] if self._open else ""
        self.text[kind] = self.text.get(kind, "") + data


def test_report_of_packed_conversations(
    cli: Any, made: Any, tokenizer_dir: Path, tmp_path: Path
) -> None:
    rows = [{"instruction": "the dog", "output": "sleeps"}, {"instruction": "why", "output": "x"}]
    prefix = made(rows, "--handler", "alpaca")
    packed = prefix.with_name("packed")
    pack(prefix, packed, seq_length=99)
    arguments = ("inspect", packed, "--tokenizer", tokenizer_dir, "--html", tmp_path / "r.html")
    outcome = cli(*arguments)
    assert (outcome.status, outcome.out) == (0, f"wrote {tmp_path / 'r.html'}\n")
    page = Page((tmp_path / "r.html").read_text(encoding="utf-8"))
    assert "the dog" in page.text["nothing"]
    assert "sleeps</s>" in page.text["itself"]
    assert "conversation 1: " in page.text["heading"]
    assert "conversation 2: " in page.text["heading"]
    assert "packed: 2 conversations in 1 rows" in page.text[""]
    assert "32 to 63" in page.text[""] or "16 to 31" in page.text[""]
    assert cli(*arguments).status == 2
    assert cli(*arguments, "--overwrite").status == 0


def test_text_of_the_data_is_only_text(made: Any, tokenizer: Any) -> None:
    for rows, arguments in (
        ([{"text": HOSTILE}], ()),
        ([{"instruction": HOSTILE, "output": HOSTILE}], ("--handler", "alpaca")),
    ):
        prefix = made(rows, *arguments, name=f"<b>&{len(arguments)}")
        page = Page(render_report(prefix, tokenizer))
        assert not {"script", "img", "b"} & set(page.tags)
        assert HOSTILE in "".join(page.text.values())


def test_the_page_stands_by_itself(made: Any, tokenizer: Any) -> None:
    text = render_report(made([{"text": "ab"}]), tokenizer)
    page = Page(text)
    assert not {"script", "link", "img", "iframe", "object", "a"} & set(page.tags)
    assert not {"src", "href"} & {name for name, _ in page.attributes}
    assert "url(" not in text
    assert "@import" not in text


def test_documents_are_spread_over_the_data(made: Any, tokenizer: Any) -> None:
    prefix = made([{"text": f"n{number}"} for number in range(100)])
    shown = [line for line in render_report(prefix, tokenizer).splitlines() if "<pre>" in line]
    assert shown[0] == "<pre>n0</pre>"
    assert shown[-1] == "<pre>n99</pre>"
    assert len(shown) == 8
    assert render_report(prefix, tokenizer, 42).count("<pre>n42</pre>") == 1


def test_a_long_document_is_cut(made: Any) -> None:
    page = render_report(made([{"text": "1" * 5000}]), None)
    (line,) = (line for line in page.splitlines() if "<pre>" in line)
    assert len(line.split()) == 4097
    assert "The first 4,097 tokens are shown." in page


def test_a_long_conversation_is_cut(made: Any) -> None:
    rows = [{"instruction": "1" * 3000, "output": "1" * 3000}]
    page = render_report(made(rows, "--handler", "alpaca"), None)
    (document,) = re.findall("<pre>(.*)</pre>", page)
    assert len(re.sub("<[^>]+>", " ", document).split()) == 4097
