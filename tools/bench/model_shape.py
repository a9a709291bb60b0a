"""The model of the training benchmarks: by default 50 million parameters in Baichuan2's shape."""

from __future__ import annotations

import argparse

from bc2_ckpt.config import ModelConfig


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Adds what describes the model and the batch."""
    parser.add_argument("--hidden", type=int, default=640)
    parser.add_argument("--heads", type=int, default=10)
    parser.add_argument("--layers", type=int, default=8)
    parser.add_argument("--ffn", type=int, default=1728)
    parser.add_argument("--vocabulary", type=int, default=8192)
    parser.add_argument("--position-embedding", choices=["alibi", "rotary"], default="alibi")
    parser.add_argument("--seq-length", type=int, default=2048)
    parser.add_argument("--batch", type=int, default=1, help="samples of a step")
    parser.add_argument("--threads", type=int, default=1)


def dimensions(args: argparse.Namespace) -> ModelConfig:
    """Returns the model: in the shape of the 7B (rotary) or the 13B (ALiBi)."""
    return ModelConfig(
        hidden_size=args.hidden,
        intermediate_size=args.ffn,
        num_layers=args.layers,
        num_heads=args.heads,
        vocab_size=args.vocabulary,
        position_embedding=args.position_embedding,
        max_sequence_length=args.seq_length,
    )
