"""Small models as bc2 exports them, and a small run: what the clients are given."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import dataclass
from pathlib import Path

import pytest
import sentencepiece
import torch
from torch import Tensor

from bc2_ckpt.cli import main as bc2_ckpt
from bc2_data import train_tokenizer
from bc2_data.cli import main as bc2_data
from reference_model import ReferenceModel
from runs import make_inputs, run_command

TEXT = (
    "The quick brown fox jumps over the lazy dog, and the dog sleeps on. Berlin is in Germany.\n",
    "def add(a, b):\n\treturn a + b  # 3.14159\n",
    "北京是中国的首都。今天天气很好，我们去公园吧。\n",  # noqa: RUF001
)
PIECES, ROWS = 600, 613
# llama.cpp tells the two models apart by these depths, so the stand-ins are narrow, not shallow.
DIMENSIONS = {
    "rotary": {"num_layers": 32, "num_heads": 4, "hidden_size": 64, "intermediate_size": 96},
    "alibi": {"num_layers": 40, "num_heads": 5, "hidden_size": 80, "intermediate_size": 96},
}


@dataclass(frozen=True)
class Standin:
    """A model in the forms that clients load.

    Attributes:
        export: ``bc2-ckpt convert --to hf`` of a checkpoint as bc2-train writes it.
        gguf: ``bc2-ckpt convert --to gguf`` of the same.
        reference: The same model in plain PyTorch.
        prompts: (3, 24) ids.
    """

    export: Path
    gguf: Path
    reference: ReferenceModel
    prompts: Tensor


@pytest.fixture(scope="session", params=["rotary", "alibi"])
def standin(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Standin:
    from conftest import write_checkpoint

    folder = tmp_path_factory.mktemp(request.param)
    dimensions = {**DIMENSIONS[request.param], "vocab_size": ROWS, "seed": 3}
    write_checkpoint(folder / "published", request.param, **dimensions)
    train_tokenizer(TEXT, folder / "tokenizer", vocab_size=PIECES)
    for file in (folder / "tokenizer").iterdir():
        shutil.copy(file, folder / "published")
    convert(folder / "published", folder / "trained", "torch-dist")
    convert(folder / "trained", folder / "export", "hf")
    if has("gguf"):
        convert(folder / "trained", folder / "gguf", "gguf")
    draw = torch.Generator().manual_seed(5)
    return Standin(
        export=folder / "export",
        gguf=folder / "gguf/model.gguf",
        reference=ReferenceModel.load(folder / "published"),
        prompts=torch.randint(3, PIECES, (3, 24), generator=draw),
    )


def has(module: str) -> bool:
    from importlib.util import find_spec

    return find_spec(module) is not None


def convert(source: Path, output: Path, to: str) -> None:
    command = ["convert", "--input", str(source), "--output", str(output), "--to", to]
    assert bc2_ckpt(command) == 0


@pytest.fixture(scope="session")
def pretraining_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The prefix of what ``bc2-data tokenize`` makes of 40 rows of text, some of them empty."""
    folder = tmp_path_factory.mktemp("data")
    train_tokenizer(TEXT, folder / "tokenizer", vocab_size=PIECES)
    rows = [{"text": TEXT[i % 3] * (i % 7)} for i in range(40)]
    lines = [json.dumps(row, ensure_ascii=False) + "\n" for row in rows]
    (folder / "rows.jsonl").write_text("".join(lines), encoding="utf-8")
    command = ["tokenize", "--input", str(folder / "rows.jsonl"), "--append-eos"]
    command += ["--tokenizer", str(folder / "tokenizer"), "--output-prefix", str(folder / "text")]
    assert bc2_data(command) == 0
    return folder / "text_text_document"


@pytest.fixture(scope="session")
def documents(pretraining_data: Path) -> list[list[int]]:
    """The ids of every row of `pretraining_data`, encoded by the sentencepiece library alone."""
    folder = pretraining_data.parent
    library = sentencepiece.SentencePieceProcessor(
        model_file=str(folder / "tokenizer/tokenizer.model")
    )
    rows = [json.loads(line)["text"] for line in (folder / "rows.jsonl").read_text().splitlines()]
    return [[*library.encode(row), library.eos_id()] for row in rows if row]


@pytest.fixture(scope="session")
def finished_run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The directory of a run of eight steps on two processes, with tensor parallelism."""
    inputs = make_inputs(tmp_path_factory.mktemp("run"))
    command = run_command(inputs, inputs / "run")
    done = subprocess.run(command, capture_output=True, text=True, timeout=300, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    return inputs / "run"
