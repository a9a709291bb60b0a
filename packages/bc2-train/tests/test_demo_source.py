"""Data made of documentation: of a library written here, and of the running Python's own."""

import json
import re
import textwrap
from pathlib import Path

import pytest

from bc2_train.demo import source as demo_source
from bc2_train.demo.source import alpaca_row, build_source, moss_rows, unique
from bc2_train.demo.stdlib_docs import Entry, read_entries
from bc2_train.errors import TrainError

LIBRARY = {
    "shapes/__init__.py": '''
        """Plane figures.

        Sizes are in metres.
        """

        def area(figure, *, unit="m2"):
            """Measure a figure."""
            def inner():
                """Not public."""

        def _helper():
            """Not public."""

        class Circle:
            """A round figure."""

            def __init__(self, radius, /, colour=None):
                """Not a method that anyone asks about."""

            def grow(self, factor):
                """Make it larger."""

            @classmethod
            def unit(cls):
                """Return the circle of radius one."""

            def undocumented(self): ...

        class Square:
            def turn(self, *angles): "Turn it."

        def cover(cls=None, /, *, colour): "Paint it."
    ''',
    "shapes/tests/test_area.py": '"""Not documentation."""',
    "shapes/_private.py": '"""Not public."""',
    "_pyio.py": '"""Streams."""',
    "broken.py": "print 'an old template'",
    "zoo.py": "x = 1",
    "site-packages/numpy.py": '"""Not of the library."""',
    "pydoc_data/topics.py": "topics = {'assert': 'The \"assert\" statement\\n', 'yield': 'Yield'}",
}


@pytest.fixture
def library(tmp_path):
    for name, text in LIBRARY.items():
        path = tmp_path / "library" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text).lstrip("\n"))
    return tmp_path / "library"


def test_entries_are_what_is_public_in_the_order_of_the_files(library):
    text = "Plane figures.\n\nSizes are in metres."
    circle = "shapes.Circle"
    assert list(read_entries(library)) == [
        Entry("io", "io", "module", "", "Streams."),
        Entry("shapes", "shapes", "module", "", text),
        Entry(
            "shapes.area",
            "shapes",
            "function",
            "shapes.area(figure, *, unit='m2')",
            "Measure a figure.",
        ),
        Entry(circle, circle, "class", f"{circle}(radius, /, colour=None)", "A round figure."),
        Entry(f"{circle}.grow", circle, "method", f"{circle}.grow(factor)", "Make it larger."),
        Entry(
            f"{circle}.unit",
            circle,
            "method",
            f"{circle}.unit()",
            "Return the circle of radius one.",
        ),
        Entry(
            "shapes.Square.turn",
            "shapes.Square",
            "method",
            "shapes.Square.turn(*angles)",
            "Turn it.",
        ),
        Entry(
            "shapes.cover",
            "shapes",
            "function",
            "shapes.cover(cls=None, /, *, colour)",
            "Paint it.",
        ),
        Entry("assert", "assert", "topic", "", 'The "assert" statement'),
        Entry("yield", "yield", "topic", "", "Yield"),
    ]


def test_the_order_is_not_that_of_the_file_system(library, monkeypatch):
    expected = list(read_entries(library))
    found = Path.rglob
    for order in (sorted, lambda paths: sorted(paths, reverse=True)):
        monkeypatch.setattr(Path, "rglob", lambda self, glob, order=order: order(found(self, glob)))
        assert list(read_entries(library)) == expected


def test_nothing_is_executed(library):
    (library / "dangerous.py").write_text('"""Dangerous."""\nraise SystemExit(3)\n')
    assert "dangerous" in [entry.name for entry in read_entries(library)]


def test_a_platforms_second_variant_is_left_out():
    variants = [Entry("os.fork", "os", "function", "", text) for text in ("POSIX", "Windows")]
    assert unique(variants) == variants[:1]


def test_alpaca_text_is_the_one_of_the_published_data_set():
    entry = Entry("json.dumps", "json", "function", "json.dumps(obj)", "Serialize obj.")
    assert alpaca_row(entry) == {
        "instruction": "Explain what json.dumps does.",
        "input": "json.dumps(obj)",
        "output": "Serialize obj.",
        "text": "Below is an instruction that describes a task, paired with an input that provides "
        "further context. Write a response that appropriately completes the request.\n\n"
        "### Instruction:\nExplain what json.dumps does.\n\n### Input:\njson.dumps(obj)\n\n"
        "### Response:\nSerialize obj.",
    }
    row = alpaca_row(Entry("yield", "yield", "topic", "", "Yield {braces}."))
    assert row["text"] == (
        "Below is an instruction that describes a task. Write a response that appropriately "
        "completes the request.\n\n### Instruction:\nWhat does Python's reference say about "
        "'yield'?\n\n### Response:\nYield {braces}."
    )


def test_conversations_keep_to_one_subject(library):
    rows = list(moss_rows(list(read_entries(library))))
    turns = [[turn["MOSS"] for turn in row["chat"].values()] for row in rows]
    assert turns[1:3] == [
        [
            "<|MOSS|>: Plane figures.\n\nSizes are in metres.<eom>\n",
            "<|MOSS|>: Measure a figure.<eom>\n",
        ],
        [
            "<|MOSS|>: A round figure.<eom>\n",
            "<|MOSS|>: Make it larger.<eom>\n",
            "<|MOSS|>: Return the circle of radius one.<eom>\n",
        ],
    ]
    assert [row["conversation_id"] for row in rows] == list(range(1, len(rows) + 1))


def test_a_long_subject_is_cut_into_conversations_of_three_turns():
    entries = [Entry(f"os.f{i}", "os", "function", "", "Text.") for i in range(7)]
    assert [row["num_turns"] for row in moss_rows(entries)] == [3, 3, 1]


def test_a_python_without_sources_is_an_error_that_leaves_nothing(tmp_path, library, monkeypatch):
    monkeypatch.setattr(demo_source, "read_entries", lambda: read_entries(library))
    with pytest.raises(TrainError, match="documents only 10 names") as caught:
        build_source(tmp_path / "out")
    assert "--data FILE" in caught.value.hint
    assert not (tmp_path / "out").exists()


@pytest.fixture(scope="module")
def built(tmp_path_factory):
    return build_source(tmp_path_factory.mktemp("source"))


def test_the_library_gives_several_thousand_alpaca_rows(built):
    from pyarrow import parquet

    rows = parquet.read_table(built.alpaca).to_pylist()
    assert len(rows) == built.rows > 3000
    assert all(row["instruction"] and row["output"] for row in rows)
    assert all(row["text"].endswith(f"### Response:\n{row['output']}") for row in rows)
    assert len({row["instruction"] for row in rows}) == len(rows)
    dumps = next(row for row in rows if row["instruction"] == "Explain what json.dumps does.")
    assert dumps["input"].startswith("json.dumps(obj, *, skipkeys=False")
    assert dumps["output"].startswith("Serialize ``obj`` to a JSON formatted")


def test_the_library_gives_more_than_a_thousand_moss_conversations(built):
    rows = [json.loads(line) for line in built.moss.read_text("utf-8").splitlines()]
    assert len(rows) == built.conversations > 1000
    turns = 0
    for row in rows:
        assert list(row["chat"]) == [f"turn_{i}" for i in range(1, row["num_turns"] + 1)]
        for turn in row["chat"].values():
            turns += 1
            assert re.fullmatch(
                r"<\|Human\|>: [^<]*\?<eoh>\n|<\|Human\|>: E.*\.<eoh>\n", turn["Human"]
            )
            assert re.fullmatch(r"<\|MOSS\|>: \S.*<eom>\n", turn["MOSS"], re.DOTALL)
            assert set(turn) == {"Human", "Inner Thoughts", "Commands", "Tool Responses", "MOSS"}
    assert turns == built.rows
    assert {row["num_turns"] for row in rows} == {1, 2, 3}


def test_a_second_time_gives_the_same_bytes(built, tmp_path):
    again = build_source(tmp_path)
    assert again.alpaca.read_bytes() == built.alpaca.read_bytes()
    assert again.moss.read_bytes() == built.moss.read_bytes()
