"""What llama.cpp can run, as far as it can be known before a byte is written.

llama.cpp tells the two models apart by their number of layers alone (``src/models/baichuan.cpp``):
32 are the rotary one, 40 the ALiBi one, and any other number gets no positions at all.
"""

from __future__ import annotations

from importlib.util import find_spec
from pathlib import Path

import torch

from bc2_ckpt.config import ModelConfig, PositionEmbedding
from bc2_ckpt.errors import CkptError, MismatchError
from bc2_ckpt.formats.gguf.vocabulary import read_vocabulary
from bc2_ckpt.formats.protocol import CheckpointReader

LAYERS: dict[PositionEmbedding, int] = {"rotary": 32, "alibi": 40}
"""The one depth at which llama.cpp computes each kind of model."""


def check(reader: CheckpointReader) -> None:
    """Raises the first reason why llama.cpp could not run a model.

    Args:
        reader: The source as it is to be written.

    Raises:
        Bc2Error: The gguf package is missing, the model has another depth than llama.cpp expects or
            a NormHead, which it does not know, its weights are float64, or its tokenizer is missing
            or cannot be carried over.
    """
    if find_spec("gguf") is None:
        raise CkptError(
            "gguf files are written with the gguf package", "pip install 'bc2-ckpt[gguf]'"
        )
    _check_depth(reader.config)
    if reader.config.norm_head:
        raise MismatchError(
            f"{reader.source} has a NormHead, which llama.cpp does not compute",
            "convert bc2_ckpt.filters.norm_head.FoldedNormHead(reader) instead",
        )
    for name, info in reader.tensors().items():
        if info.dtype is torch.float64 and len(info.shape) > 1:  # the norms' become float32
            raise MismatchError(
                f"{name} is float64, which llama.cpp does not compute with",
                "add --dtype float32, bfloat16 or float16",
            )
    read_vocabulary(tokenizer(reader), reader.config.vocab_size)


def tokenizer(reader: CheckpointReader) -> Path:
    """Returns the tokenizer.model that belongs to a checkpoint.

    Raises:
        CkptError: There is none.
    """
    path = reader.beside("tokenizer.model")
    if path is None:
        raise CkptError(
            f"no tokenizer.model belongs to {reader.source}, and a gguf file holds one",
            "copy the tokenizer.model of the release beside the weights",
        )
    return path


def _check_depth(config: ModelConfig) -> None:
    layers = LAYERS[config.position_embedding]
    if config.num_layers != layers:
        raise MismatchError(
            f"the model has {config.num_layers} layers and {config.position_embedding} positions, "
            f"which llama.cpp could not run: it takes {LAYERS['rotary']} layers for the rotary 7B, "
            f"{LAYERS['alibi']} for the ALiBi 13B, and knows no other",
            "--to hf --fold-norm-head, and serve it with transformers",
        )
