"""A small Baichuan2-13B with random weights, as a Hugging Face checkpoint."""

from __future__ import annotations

import json
import shutil
from pathlib import Path

from bc2_ckpt.config import ModelConfig
from bc2_data.atomic import new_directory

DEMO_CONFIG = ModelConfig(
    vocab_size=4000,
    hidden_size=320,
    intermediate_size=856,
    num_layers=4,
    num_heads=10,
    position_embedding="alibi",
    max_sequence_length=256,
    dtype="float32",
)
"""Baichuan2-13B with a sixteenth of its width and a tenth of its depth.

As in the original, the number of heads is no power of two, which decides the ALiBi slopes, and
the vocabulary needs padding rows under tensor parallelism.
"""


def make_checkpoint(
    directory: Path, config: ModelConfig, tokenizer_dir: Path, *, seed: int = 1234
) -> None:
    """Writes config.json, model.safetensors and the tokenizer's files.

    Matrices are drawn from a normal distribution of the config's `initializer_range`, norms are
    ones, as the official code initialises them.

    Args:
        directory: Appears whole, or not at all; must not exist.
        config: The dimensions; the weights are float32 whatever its `dtype`.
        tokenizer_dir: Every file in it is copied.
        seed: The same seed gives the same bytes.
    """
    import torch
    from safetensors.torch import save_file

    from bc2_ckpt.layout import ParameterLayout

    generator = torch.Generator().manual_seed(seed)
    tensors = {}
    for name, shape in ParameterLayout(config).hf_shapes().items():
        if len(shape) == 1:
            tensors[name] = torch.ones(shape)
        else:
            tensors[name] = torch.randn(shape, generator=generator) * config.initializer_range
    with new_directory(directory) as partial:
        for path in sorted(tokenizer_dir.iterdir()):
            shutil.copyfile(path, partial / path.name)
        text = json.dumps(config.to_hf(), indent=2) + "\n"
        (partial / "config.json").write_text(text, encoding="utf-8")
        # transformers refuses safetensors that do not name their framework.
        save_file(tensors, partial / "model.safetensors", metadata={"format": "pt"})
