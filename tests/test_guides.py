"""Runs the commands and the Python of the guides as they stand, on stand-ins for what they need.

Whole training runs are among them. The guides: README.md, docs/fine-tuning.md, docs/kernels.md,
docs/operations.md, docs/training.md, and the README.md of bc2-ckpt and bc2-model.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pyarrow
import pytest
from pyarrow import parquet

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.convert import convert
from bc2_data import train_tokenizer
from bc2_data.cli import main as bc2_data
from conftest import write_checkpoint
from documentation.pages import ROOT, Page

GUIDES = [
    "README.md",
    "docs/fine-tuning.md",
    "docs/operations.md",
    "docs/training.md",
    "packages/bc2-model/README.md",
]
PRELUDES = {
    "docs/kernels.md": """
import torch
from transformers import BloomConfig, BloomForCausalLM
q, k, v = torch.randn(3, 1, 40, 16, 8).unbind()
keys, values, last = k, v, q[:, :, -1:]
ids, ends = torch.ones(1, 16).int(), torch.tensor([0, 6, 16], dtype=torch.int32)
hidden, weight, labels = torch.randn(1, 4, 8), torch.randn(11, 8), torch.ones(1, 4).long()
model = BloomForCausalLM(BloomConfig(vocab_size=32, hidden_size=8, n_layer=1, n_head=2))
""",
    "packages/bc2-ckpt/README.md": "",
    "packages/bc2-model/README.md": """
import torch
q, k, v = torch.randn(3, 1, 40, 16, 8).unbind()
segment_ids = torch.ones(1, 16).int()
""",
}
TEXTS = ["Below is an instruction: add 1 and 2. The answer is 3.", "The river runs to the sea."]
TURN = {"Human": "<|Human|>: How are you?<eoh>\n", "MOSS": "<|MOSS|>: Very well.<eom>\n"}


@pytest.fixture(scope="session")
def stand_ins(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """What the guides take for granted: releases, downloads, and what the demo left, all tiny."""
    folder = tmp_path_factory.mktemp("stand_ins")
    train_tokenizer(TEXTS * 50, folder / "tokenizer", vocab_size=490)
    sizes = {"vocab_size": 490, "num_heads": 8, "max_sequence_length": 4096}
    for name, position in (("Baichuan2-7B-Base", "rotary"), ("Baichuan2-13B-Base", "alibi")):
        write_checkpoint(folder / name, position, **sizes)
        shutil.copytree(folder / "tokenizer", folder / name, dirs_exist_ok=True)
    for name in ("Baichuan2-13B-Chat", "demo-run/hf", "demo-run/start-hf"):
        shutil.copytree(folder / "Baichuan2-13B-Base", folder / name)
    convert(
        open_checkpoint(folder / "Baichuan2-7B-Base"),
        folder / "run/checkpoints/iter_0000100",
        "torch-dist",
    )
    parquet.write_table(pyarrow.table({"text": TEXTS * 200}), folder / "alpaca.parquet")
    rows = [json.dumps({"chat": {"turn_1": TURN, "turn_2": TURN}})] * 64
    (folder / "moss-003-sft-no-tools.jsonl").write_text("\n".join(rows))
    for source, handler, output in (
        ("alpaca.parquet", "text", "demo-run/tokens/alpaca"),
        ("moss-003-sft-no-tools.jsonl", "moss", "demo-run/tokens/moss"),
    ):
        arguments = ["--input", str(folder / source), "--tokenizer", str(folder / "tokenizer")]
        options = ["--handler", handler, "--output-prefix", str(folder / output)]
        assert bc2_data(["tokenize", *arguments, *options]) == 0
    return folder


@pytest.fixture
def run(stand_ins: Path, tmp_path: Path) -> Callable[[list[str]], None]:
    """Returns a function that runs an interpreter in a folder of stand-ins of this test's own."""
    folder = tmp_path / "guide"
    shutil.copytree(stand_ins, folder)
    programs = Path(sys.executable).parent
    environment = {**os.environ, "PATH": f"{programs}:{os.environ['PATH']}", "OMP_NUM_THREADS": "1"}

    def carry_out(command: list[str]) -> None:
        done = subprocess.run(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=600,
        )
        end = (done.stdout + done.stderr)[-4000:]
        assert done.returncode == 0, f"{command[-1]}\n{end}"

    return carry_out


@pytest.mark.parametrize("name", GUIDES)
def test_the_commands_of_the_guide_run_in_order(name: str, run: Callable) -> None:
    blocks = [block for block in Page.read(ROOT / name).blocks if block.info == "sh"]
    assert blocks
    for block in blocks:
        run(["bash", "-euo", "pipefail", "-c", block.text])


@pytest.mark.parametrize("name", PRELUDES)
def test_the_python_of_the_guide_runs_in_order(name: str, run: Callable) -> None:
    blocks = [b.text for b in Page.read(ROOT / name).blocks if b.language == "python"]
    assert blocks
    run([sys.executable, "-c", "\n".join([PRELUDES[name], *blocks])])
