"""Converts a checkpoint to Megatron and back, and compares. Needs bc2-ckpt and what it brings.

python examples/convert_checkpoint.py FOLDER
"""

import json
import sys
from pathlib import Path

import torch
from safetensors.torch import save_file

from bc2_ckpt.checkpoint import open_checkpoint
from bc2_ckpt.config import ModelConfig
from bc2_ckpt.convert import convert
from bc2_ckpt.layout import ParameterLayout


def make_checkpoint(folder: Path) -> None:
    """Fills a folder with a small random Baichuan2-13B, a stand-in for a download."""
    config = ModelConfig(
        vocab_size=400,
        hidden_size=80,
        intermediate_size=200,
        num_layers=2,
        num_heads=10,
        position_embedding="alibi",
        max_sequence_length=256,
        dtype="float32",
    )
    folder.mkdir(parents=True)
    (folder / "config.json").write_text(json.dumps(config.to_hf()))
    shapes = ParameterLayout(config).hf_shapes()
    tensors = {name: torch.randn(shape) * 0.02 for name, shape in shapes.items()}
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})


def main(folder: Path) -> None:
    """Leaves a checkpoint in two formats in a folder, and once more in the first."""
    make_checkpoint(folder / "hf")
    source = open_checkpoint(folder / "hf")
    convert(source, folder / "megatron", "torch-dist")
    convert(open_checkpoint(folder / "megatron"), folder / "back", "hf")
    back = open_checkpoint(folder / "back")
    for name, info in source.tensors().items():
        assert torch.equal(source.read(name), back.read(name)), name
        print(f"{name} {tuple(info.shape)}: the same")


if __name__ == "__main__":
    main(Path(sys.argv[1]))
