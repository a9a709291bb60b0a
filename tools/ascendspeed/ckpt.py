"""AscendSpeed's convert_weights_from_huggingface.py as ``bc2-ckpt convert``."""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Sequence
from pathlib import Path

from ascendspeed.arguments import Argument, DropInError, flag, parse, refused, value
from ascendspeed.family import dimensions, disagreement, family
from ascendspeed.native import Native
from bc2_ckpt.config import ModelConfig
from bc2_data.vocab import padded_vocab_size

PROGRAM = "tools/ckpt_convert/llama/convert_weights_from_huggingface.py"

_FROM_CONFIG = "none: config.json says it"

ARGUMENTS: tuple[Argument, ...] = (
    value("--input-model-dir", "`--input`", default="./input_model_dir", metavar="DIR"),
    value("--output-model-dir", "`--output`", default="./output_model_dir", metavar="DIR"),
    value("--tensor-model-parallel-size", "`--tp`", type=int, default=1, metavar="N"),
    value("--pipeline-model-parallel-size", "`--pp`", type=int, default=1, metavar="N"),
    value(
        "--make-vocab-size-divisible-by", "`--vocab-divisor`", type=int, default=128, metavar="N"
    ),
    flag(
        "--merge-mlp",
        "none: `--legacy-names ascendspeed` is the default; without it `ascendspeed-unmerged`",
    ),
    value("--type", "none: config.json says the dimensions; a warning where they differ"),
    flag("--pse", "none: it says that attention is one W_pack, as in all Baichuan weights"),
    value("--num_layers", _FROM_CONFIG, type=int, metavar="N"),
    value("--hidden_size", _FROM_CONFIG, type=int, metavar="N"),
    value("--num_heads", _FROM_CONFIG, type=int, metavar="N"),
    flag("--use_wpack_rotray", "none: AscendSpeed did not use it"),
    flag("--load_weight_map", "none: weights without an index are read as well"),
    value("--added-token-num", "none: Baichuan2 adds no tokens; 0 is taken", type=int, default=0),
    flag("--overwrite", "`--overwrite`; bc2's own, to replace what AscendSpeed replaced unasked"),
    refused("--num_kv_heads", "Baichuan2's attention has as many keys and values as heads"),
    refused("--bias", "Baichuan2 has no biases"),
    refused("--deepspeed", "bc2-train's deepspeed engine starts from any checkpoint, unconverted"),
)


def translate(argv: Sequence[str] | None) -> Native:
    """Returns the command of bc2-ckpt.

    Raises:
        Bc2Error: The command line is wrong, bc2 has nothing for part of it, or there is no
            config.json.
    """
    summary = "Convert as AscendSpeed's convert_weights_from_huggingface.py does."
    args = parse(PROGRAM, summary, ARGUMENTS, argv)
    if args.added_token_num:
        raise DropInError(
            f"--added-token-num is {args.added_token_num}, but Baichuan2 adds no tokens",
            "leave it out",
        )
    config = ModelConfig.load(Path(args.input_model_dir) / "config.json")
    options: list[tuple[str, ...]] = [
        ("--input", args.input_model_dir),
        ("--output", args.output_model_dir),
        ("--to", "megatron-legacy"),
        ("--tp", str(args.tensor_model_parallel_size)),
        ("--pp", str(args.pipeline_model_parallel_size)),
        ("--vocab-divisor", str(args.make_vocab_size_divisible_by)),
    ]
    if not args.merge_mlp:
        options.append(("--legacy-names", "ascendspeed-unmerged"))
    if args.overwrite:
        options.append(("--overwrite",))
    return Native(("bc2-ckpt", "convert"), tuple(options), tuple(_warnings(args, config)))


def _warnings(args: argparse.Namespace, config: ModelConfig) -> Iterator[str]:
    named = {name: getattr(args, name) for name in ("num_layers", "hidden_size", "num_heads")}
    said = {name: number for name, number in named.items() if number is not None}
    if args.type is not None and not said:  # AscendSpeed takes any name beside dimensions
        said = dimensions(family(args.type))
    yield from disagreement(said, config, f"{Path(args.input_model_dir) / 'config.json'}")
    padded = padded_vocab_size(
        config.vocab_size, args.make_vocab_size_divisible_by, args.tensor_model_parallel_size
    )
    if padded > config.vocab_size:
        yield (
            f"{padded - config.vocab_size} rows pad the vocabulary; AscendSpeed's model counted "
            "them as tokens in its softmax, bc2's does not"
        )
