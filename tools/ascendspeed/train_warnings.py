"""Where training differs from AscendSpeed's because that was a defect: a line for each."""

from __future__ import annotations

import argparse
from collections.abc import Iterator
from pathlib import Path

from ascendspeed.family import dimensions, disagreement, family
from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import padded_vocab_size

_POSITIONS = {"rope": "rotary", "alibi": "alibi"}
_CONVERSATIONS = "_packed_input_ids_document"


def all_of(args: argparse.Namespace, config: ModelConfig, directory: Path | None) -> Iterator[str]:
    """Yields the warnings of a command line.

    Args:
        args: The command line.
        config: The dimensions that will be trained.
        directory: Where their config.json is; None where they are a preset.
    """
    yield from _about_the_model(args, config, directory)
    if args.is_instruction_dataset:
        yield from _about_conversations(args)
    else:
        yield from _about_documents(args)
    if args.auto_recompute_device_size is not None:
        yield (
            "AscendSpeed chose recomputed layers by memory: none is recomputed; add "
            "--recompute-granularity full where memory is short"
        )


def _about_the_model(
    args: argparse.Namespace, config: ModelConfig, directory: Path | None
) -> Iterator[str]:
    said = {
        "num_layers": args.num_layers,
        "hidden_size": args.hidden_size,
        "intermediate_size": args.ffn_hidden_size,
        "num_heads": args.num_attention_heads,
        "position_embedding": _POSITIONS.get(args.position_embedding_type),
    }
    given = {name: value for name, value in said.items() if value is not None}
    where = str(directory / "config.json") if directory else f"the preset of {args.size}"
    yield from disagreement(dimensions(family(args.size)) | given, config, where)
    if args.layernorm_epsilon != config.rms_norm_eps:
        yield (
            f"AscendSpeed's norms would add {args.layernorm_epsilon}: the model's own "
            f"{config.rms_norm_eps} is added"
        )
    if not args.lm_norm_weight and config.norm_head:
        yield "without --lm-norm-weight AscendSpeed left NormHead out: it is part of the model"
    if args.z_loss_weight != config.z_loss_weight:
        yield (
            f"--z-loss-weight is {args.z_loss_weight}: config.json's z_loss_weight "
            f"{config.z_loss_weight} is taken"
        )
    if args.load is None and args.init_method_std != config.initializer_range:
        yield (
            f"--init-method-std is {args.init_method_std}: config.json's initializer_range "
            f"{config.initializer_range} is taken"
        )
    if config.position_embedding == "alibi" and (args.bf16 or args.fp16):
        yield "AscendSpeed rounded ALiBi's biases to 16 bits: they are float32 here"
    padded = padded_vocab_size(
        config.vocab_size, args.make_vocab_size_divisible_by, args.tensor_model_parallel_size
    )
    if padded > config.vocab_size:
        yield (
            f"AscendSpeed's softmax counted {padded - config.vocab_size} padding rows as tokens: "
            "they have no part in it here"
        )


def _about_conversations(args: argparse.Namespace) -> Iterator[str]:
    if args.use_flash_attn:
        yield (
            "AscendSpeed could not fine-tune with --use-flash-attn: attention stays inside the "
            "kernel here, which knows padding and documents"
        )
    yield (
        "AscendSpeed averaged the loss over each micro batch: every trained token of the global "
        "batch weighs the same here"
    )
    yield "conversations are not split: --split is about documents, and nothing is evaluated"


def _about_documents(args: argparse.Namespace) -> Iterator[str]:
    if args.keep_last_token:
        yield (
            "with --keep-last-token AscendSpeed shifted labels twice and trained the token after "
            "the next: they are shifted once here"
        )
    if any(path.endswith(_CONVERSATIONS) for path in args.data_path):
        yield (
            "these are conversations, trained from end to end as in AscendSpeed: add "
            "--is-instruction-dataset, with the path up to '_packed', to train answers alone"
        )
    if args.reset_position_ids and not args.reset_attention_mask:
        yield "--reset-position-ids does nothing without --reset-attention-mask"
