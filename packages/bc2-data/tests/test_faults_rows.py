"""Bad rows and large inputs: every row is accounted for, and memory stays flat."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bc2_data.config import TokenizeConfig
from bc2_data.encoding import LengthLimit
from bc2_data.pipeline import tokenize

COMMAND = [sys.executable, "-c", "import sys; from bc2_data.cli import main; sys.exit(main())"]

ROWS = {
    "good": {"text": "some text", "instruction": "say", "input": "a", "output": "text"},
    "long": {"text": "x1 " * 30, "instruction": "say", "output": "y2 " * 30},
    "large": {"text": "z" * 3000, "instruction": "z" * 3000, "output": "a"},
    "literal": {"text": "</s>", "instruction": "<reserved_106>", "output": "</s>"},
    "empty": {"text": "", "instruction": "say", "output": ""},
    "null": {"text": None, "instruction": None, "output": None},
    "missing": {"other": 1},
    "number": {"text": 5, "instruction": 5, "output": 5},
    "object": {"text": {"a": 1}, "instruction": {"a": 1}, "output": {}},
    "array": [1, 2],
    "scalar": "text",
}
LINES = {name: json.dumps(row).encode() for name, row in ROWS.items()} | {
    "surrogate": b'{"text": "\\ud800", "instruction": "\\udfff", "output": "\\ud800"}',
    "broken": b'{"text": "a',
    "not_utf8": b'{"text": "\xff", "instruction": "\xff", "output": "\xff"}',
    "nul": b"\0" * 20,
    "deep": b"[" * 1900,
    "digits": b"1" * 1500,
}


@given(
    files=st.lists(st.lists(st.sampled_from(sorted(LINES)), max_size=25), min_size=1, max_size=3),
    handler=st.sampled_from(["text", "alpaca"]),
    overlong=st.sampled_from(["drop", "truncate"]),
    blank=st.sampled_from([b"", b"\n", b" \r\n"]),
)
def test_every_row_is_a_document_or_counted(
    tokenizer_dir: Path,
    tmp_path_factory: pytest.TempPathFactory,
    files: list[list[str]],
    handler: str,
    overlong: Any,
    blank: bytes,
) -> None:
    folder = tmp_path_factory.mktemp("rows")
    for number, names in enumerate(files):
        names = ["good", *names]  # a file of which nothing is usable is refused
        content = b"".join(LINES[name] + b"\n" + blank for name in names)
        (folder / f"{number}.jsonl").write_bytes(content)
    manifest = tokenize(
        TokenizeConfig(
            inputs=[folder],
            tokenizer=tokenizer_dir,
            output_prefix=folder / "out",
            handler=handler,
            engine="sentencepiece",
            limit=LengthLimit(tokens=60, overlong=overlong),
            max_row_bytes=2000,
        )
    )
    rows = [len(names) + 1 for names in files]
    assert [file.rows for file in manifest.inputs] == rows
    dropped = {reason: tally.count for reason, tally in manifest.dropped.items()}
    assert manifest.documents + sum(dropped.values()) == sum(rows)
    large = sum(len(LINES[name]) > 2000 for names in files for name in names)
    assert dropped.get("too_large", 0) == large
    for tally in (*manifest.dropped.values(), *manifest.truncated.values()):
        assert len(tally.examples) == min(tally.count, 20)
        for example in tally.examples:
            place, _, _ = example.partition(": ")
            file, _, line = place.rpartition(":")
            assert 1 <= int(line) <= Path(file).read_bytes().count(b"\n")


MEASURED = """
import sys
from pathlib import Path
from bc2_data.cli import main
status = main()
sys.stderr.write(Path("/proc/self/status").read_text())
sys.exit(status)
"""


def peak_memory(arguments: list[str]) -> int:
    """Returns the most bytes that a command of one process had in memory.

    The process says so itself: what the kernel tells its parent counts the parent's memory too,
    which the process shared until it became another program.
    """
    command = [sys.executable, "-c", MEASURED, *arguments]
    done = subprocess.run(command, stdout=subprocess.DEVNULL, stderr=subprocess.PIPE, check=True)
    (line,) = (line for line in done.stderr.decode().splitlines() if line.startswith("VmHWM:"))
    return int(line.split()[1]) << 10


def test_memory_does_not_grow_with_the_input(
    tokenizer_dir: Path, corpus: tuple[str, ...], tmp_path: Path
) -> None:
    peaks = []
    for megabytes in (2, 24):
        path = tmp_path / f"{megabytes}.jsonl"
        with open(path, "w", encoding="utf-8") as file:
            row = 0
            while file.tell() < megabytes << 20:
                file.write(json.dumps({"text": f"{row} {corpus[row % len(corpus)] * 20}"}) + "\n")
                row += 1
        arguments = ["tokenize", "--input", str(path), "--tokenizer", str(tokenizer_dir)]
        arguments += ["--output-prefix", str(tmp_path / f"{megabytes}")]
        peaks.append(peak_memory(arguments))
    assert peaks[1] < peaks[0] + (12 << 20)
    assert peaks[1] < 600 << 20
