"""Small things in the place of those that AscendSpeed's README downloads, and of the downloading.

`make_downloads` makes the files by the folder that the README puts them into; `make_commands` the
programs `git`, `wget` and `unzip` that fetch them from there.
"""

from __future__ import annotations

import json
import os
import random
import sys
import zipfile
from pathlib import Path

import pyarrow as pa
from pyarrow import parquet

from bc2_ckpt.config import PositionEmbedding
from bc2_data import train_tokenizer
from conftest import write_checkpoint

REPOSITORY = Path(__file__).resolve().parents[1]
VOCABULARY = 569  # a prime: every parallel layout pads it
SHAPES: dict[str, tuple[PositionEmbedding, int, dict[str, int]]] = {
    "baichuan2-7B-hf": ("rotary", 2, {"num_heads": 8, "hidden_size": 64}),
    # As in the 13B, eight ranks divide the heads, which are no power of two.
    "Baichuan2-13B-Base": ("alibi", 3, {"num_heads": 24, "hidden_size": 96}),
}
ROWS = 60

_WORDS = (
    *("the", "a", "model", "learns", "to", "read", "and", "write", "numbers", "words"),
    *("one", "two", "three", "北京", "天气", "很", "好"),
)
_UNUSED = (
    "configuration_baichuan.py",
    "generation_config.json",
    "generation_utils.py",
    "modeling_baichuan.py",
    "quantizer.py",
    "special_tokens_map.json",
    "tokenization_baichuan.py",
)

_GIT = 'mkdir AscendSpeed && ln -s "{repository}/tools" AscendSpeed/tools'
_WGET = 'cp "{downloads}/$(basename "$PWD")/$(basename "$1")" .'
_UNZIP = '"{python}" -m zipfile -e "$1" .'
_PYTHON = 'exec "{python}" "$@"'


def make_downloads(folder: Path) -> Path:
    """Fills a folder with the stand-ins and returns it."""
    draw = random.Random(8)
    texts = [" ".join(draw.choices(_WORDS, k=draw.randint(8, 60))) for _ in range(2 * ROWS)]
    tokenizer = folder / "tokenizer"
    train_tokenizer(texts, tokenizer, VOCABULARY)
    for name, (position, shards, shape) in SHAPES.items():
        model = write_checkpoint(
            folder / name,
            position,
            shards=shards,
            vocab_size=VOCABULARY,
            intermediate_size=160,
            **shape,
        )
        for file in tokenizer.iterdir():
            (model / file.name).write_bytes(file.read_bytes())
        for unused in _UNUSED:
            (model / unused).write_text("{}")

    data = folder / "dataset_baichuan2-7B"
    data.mkdir()
    table = pa.table({"instruction": texts[:ROWS], "text": texts[:ROWS]})
    parquet.write_table(table, data / "train-00000-of-00001-a09b74b3ef9c3b56.parquet")
    moss = folder / "processed_data_of_moss"
    moss.mkdir()
    lines = [
        json.dumps(
            {
                "chat": {
                    "turn_1": {
                        "Human": f"<|Human|>: {question}<eoh>\n",
                        "MOSS": f"<|MOSS|>: {answer}<eom>\n",
                    }
                }
            }
        )
        for question, answer in zip(texts[::2], texts[1::2], strict=True)
    ]
    with zipfile.ZipFile(moss / "moss-003-sft-no-tools.jsonl.zip", "w") as archive:
        archive.writestr("moss-003-sft-no-tools.jsonl", "\n".join(lines) + "\n")
    return folder


def make_commands(folder: Path, downloads: Path) -> dict[str, str]:
    """Writes the programs into a folder and returns the environment in which they are found."""
    folder.mkdir()
    places = {"repository": REPOSITORY, "downloads": downloads, "python": sys.executable}
    for name, line in (("git", _GIT), ("wget", _WGET), ("unzip", _UNZIP), ("python", _PYTHON)):
        program = folder / name
        program.write_text(f"#!/bin/sh\n{line.format(**places)}\n")
        program.chmod(0o755)
    scripts = Path(sys.executable).parent  # bc2's commands, for the native ones
    path = f"{folder}:{scripts}:{os.environ['PATH']}"
    return os.environ | {"PATH": path, "CUDA_VISIBLE_DEVICES": "", "OMP_NUM_THREADS": "1"}
