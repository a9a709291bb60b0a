"""Real training data from what every machine has: the documentation of Python itself.

The same entries are written twice, in the formats of the two data sets of AscendSpeed's README:
as Alpaca rows (Parquet, with the ``text`` column that pretraining reads) and as MOSS
conversations (JSON lines).
"""

from __future__ import annotations

import json
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from itertools import groupby
from pathlib import Path

from bc2_data.atomic import new_files
from bc2_train.demo.stdlib_docs import Entry, read_entries
from bc2_train.errors import TrainError

_FEWEST_ROWS = 1000
_TURNS = 3

# Source: the prompts of github.com/tatsu-lab/stanford_alpaca (train.py), which the `text` column
# of the data set tatsu-lab/alpaca is made with.
_PROMPT_WITH_INPUT = (
    "Below is an instruction that describes a task, paired with an input that provides further "
    "context. Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Input:\n{input}\n\n### Response:\n"
)
_PROMPT_WITHOUT_INPUT = (
    "Below is an instruction that describes a task. "
    "Write a response that appropriately completes the request.\n\n"
    "### Instruction:\n{instruction}\n\n### Response:\n"
)

_QUESTIONS = {
    "module": "What is Python's module {name} for?",
    "class": "What is Python's class {name}?",
    "function": "Explain what {name} does.",
    "method": "Explain what the method {name} does.",
    "topic": "What does Python's reference say about {name!r}?",
}


@dataclass(frozen=True)
class Source:
    """The two files that `build_source` writes.

    Attributes:
        alpaca: Parquet with the columns instruction, input, output and text.
        moss: JSON lines of MOSS conversations.
        rows: Rows of `alpaca`.
        conversations: Rows of `moss`.
    """

    alpaca: Path
    moss: Path
    rows: int
    conversations: int


def build_source(directory: Path) -> Source:
    """Writes the documentation of the running Python as ``alpaca.parquet`` and ``moss.jsonl``.

    Raises:
        TrainError: This Python comes without the source files of its standard library.
    """
    entries = unique(read_entries())
    if len(entries) < _FEWEST_ROWS:
        raise TrainError(
            f"this Python documents only {len(entries)} names: it comes without the source files "
            "of its standard library",
            "bc2-train demo --data FILE runs on a file of yours",
        )
    rows = [alpaca_row(entry) for entry in entries]
    conversations = list(moss_rows(entries))
    alpaca, moss = directory / "alpaca.parquet", directory / "moss.jsonl"
    with new_files(alpaca, moss) as (partial_alpaca, partial_moss):
        _write_parquet(rows, partial_alpaca)
        with open(partial_moss, "w", encoding="utf-8") as file:
            for conversation in conversations:
                file.write(json.dumps(conversation, ensure_ascii=False) + "\n")
    return Source(alpaca, moss, len(rows), len(conversations))


def unique(entries: Iterable[Entry]) -> list[Entry]:
    """Returns the first entry of each name: a platform's variants are defined one after another."""
    first: dict[str, Entry] = {}
    for entry in entries:
        first.setdefault(entry.name, entry)
    return list(first.values())


def alpaca_row(entry: Entry) -> dict[str, str]:
    """Returns one Alpaca row: question, signature, documentation, and all three as one text."""
    row = {"instruction": question(entry), "input": entry.signature, "output": entry.text}
    prompt = _PROMPT_WITH_INPUT if row["input"] else _PROMPT_WITHOUT_INPUT
    return {**row, "text": prompt.format(**row) + row["output"]}


def moss_rows(entries: Sequence[Entry]) -> Iterator[dict[str, object]]:
    """Yields conversations of one to three turns about things that belong together.

    A conversation keeps to one module or class; its turns follow the source file.
    """
    number = 0
    for _, group in groupby(entries, key=lambda entry: entry.subject):
        members = list(group)
        for start in range(0, len(members), _TURNS):
            turns = members[start : start + _TURNS]
            number += 1
            yield {
                "conversation_id": number,
                "meta_instruction": "",
                "num_turns": len(turns),
                "chat": {f"turn_{i}": _moss_turn(entry) for i, entry in enumerate(turns, 1)},
                "category": "Python documentation",
            }


def question(entry: Entry) -> str:
    """Returns what a user would ask to be told the entry's text."""
    return _QUESTIONS[entry.kind].format(name=entry.name)


def _moss_turn(entry: Entry) -> dict[str, str]:
    """Returns one turn in the markup of OpenLMLab's MOSS 003 data, no tool being used."""
    return {
        "Human": f"<|Human|>: {question(entry)}<eoh>\n",
        "Inner Thoughts": "<|Inner Thoughts|>: None<eot>\n",
        "Commands": "<|Commands|>: None<eoc>\n",
        "Tool Responses": "<|Results|>:\nNone\n<eor>\n",
        "MOSS": f"<|MOSS|>: {entry.text}<eom>\n",
    }


def _write_parquet(rows: Sequence[dict[str, str]], path: Path) -> None:
    import pyarrow
    from pyarrow import parquet

    parquet.write_table(pyarrow.Table.from_pylist(list(rows)), path, compression="zstd")
