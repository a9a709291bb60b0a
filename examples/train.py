"""Trains a small Baichuan2 on text, exports it and generates. Needs all four packages.

python examples/train.py FOLDER
"""

import json
import sys
from collections.abc import Callable
from pathlib import Path

from bc2_ckpt.cli import main as bc2_ckpt
from bc2_ckpt.config import ModelConfig
from bc2_data import train_tokenizer
from bc2_data.cli import main as bc2_data
from bc2_model.cli import main as bc2_model
from bc2_train.cli import main as bc2_train


def main(folder: Path) -> None:
    """Leaves data, a run and an exported model in a folder."""
    texts = [f"What is {a} plus {b}? It is {a + b}.\n" for a in range(30) for b in range(30)]
    model = folder / "model"
    train_tokenizer(texts, model, vocab_size=490)
    config = ModelConfig(
        vocab_size=490,
        hidden_size=80,
        intermediate_size=200,
        num_layers=2,
        num_heads=10,
        position_embedding="alibi",
        max_sequence_length=64,
        dtype="float32",
    )
    (model / "config.json").write_text(json.dumps(config.to_hf()))
    (folder / "texts.jsonl").write_text("".join(json.dumps({"text": t}) + "\n" for t in texts))

    settings = {
        "model.config": model,
        "data.prefix": folder / "sums_text_document",
        "data.seq_length": 64,
        "batch.micro": 4,
        "batch.global": 8,
        "train.iterations": 20,
        "device": "cpu",
        "run.dir": folder / "run",
    }
    run(
        bc2_data,
        *("tokenize", "--input", folder / "texts.jsonl", "--tokenizer", model, "--append-eos"),
        *("--output-prefix", folder / "sums"),
    )
    keys = (part for key, value in settings.items() for part in ("--set", f"{key}={value}"))
    run(bc2_train, "run", "tiny-13b", *keys)
    checkpoints, trained = folder / "run" / "checkpoints", folder / "trained"
    run(bc2_ckpt, "convert", "--input", checkpoints, "--output", trained, "--to", "hf")
    run(bc2_model, "generate", trained, "--prompt", "What is 1", "--max-new-tokens", 8)


def run(command: Callable[[list[str]], int], *words: object) -> None:
    """Runs a command of bc2 in this process."""
    status = command([str(word) for word in words])
    if status:
        sys.exit(status)


if __name__ == "__main__":
    main(Path(sys.argv[1]))
