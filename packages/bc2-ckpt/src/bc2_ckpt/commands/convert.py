"""``bc2-ckpt convert``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from bc2_ckpt.commands.source import add_config, open_source
from bc2_ckpt.formats import FORMATS, WRITTEN_ONLY
from bc2_ckpt.formats.megatron_legacy.options import NAMES, LegacyOptions
from bc2_data.command import add_command, one_of, positive, show

if TYPE_CHECKING:
    from bc2_ckpt.formats.protocol import CheckpointReader

_DTYPES = ("keep", "bfloat16", "float16", "float32")
_LEGACY, _GGUF = "megatron-legacy", "gguf"
_TARGETS = (*FORMATS, *WRITTEN_ONLY)

_EXAMPLE = """\
  bc2-ckpt convert --input Baichuan2-7B-Base --output ckpt --to torch-dist
  bc2-ckpt convert --input Baichuan2-7B-Base --output weight-tp8 --to megatron-legacy --tp 8
  bc2-ckpt convert --input run/checkpoints --output export --to hf
  bc2-ckpt convert --input run/checkpoints --output served --to hf --fold-norm-head
  bc2-ckpt convert --input Baichuan2-7B-Chat --output chat-gguf --to gguf --dtype float16"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands,
        "convert",
        _run,
        "Convert a checkpoint to another format; the source's format is detected.",
        _EXAMPLE,
    )
    parser.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="DIR",
        help="a checkpoint, or a run's checkpoints/ folder, of which the newest is taken",
    )
    parser.add_argument("--output", type=Path, required=True, metavar="DIR", help="made anew")
    parser.add_argument(
        "--to", type=one_of(_TARGETS), required=True, metavar="|".join(_TARGETS), help="its format"
    )
    parser.add_argument("--overwrite", action="store_true", help="replace an existing output")
    parser.add_argument(
        "--dry-run",
        action="store_true",
        help="check everything, and say what would be written, how large and how long it takes",
    )
    _add_values(parser)
    _add_layout(parser)
    add_config(parser)


def _add_values(parser: argparse.ArgumentParser) -> None:
    """Adds what changes the weights themselves."""
    parser.add_argument(
        "--dtype",
        type=one_of(_DTYPES),
        default="keep",
        metavar="|".join(_DTYPES),
        help="dtype of the output, rounded to nearest even; refused where a weight would overflow "
        "(default: keep)",
    )
    parser.add_argument(
        "--fold-norm-head",
        action="store_true",
        help="write the output weight with rows of length 1, for runtimes that have no NormHead; "
        f"always so with --to {_GGUF}",
    )


def _add_layout(parser: argparse.ArgumentParser) -> None:
    """Adds how megatron-legacy is cut and named."""
    group = parser.add_argument_group(
        _LEGACY, "The other formats hold one copy, of which the sizes are only checked."
    )
    group.add_argument(
        "--tp", type=positive, default=1, metavar="N", help="tensor-parallel size (default: 1)"
    )
    group.add_argument(
        "--pp", type=positive, default=1, metavar="N", help="pipeline-parallel size (default: 1)"
    )
    group.add_argument(
        "--vpp",
        type=positive,
        default=1,
        metavar="N",
        help="model chunks per pipeline rank (default: 1)",
    )
    group.add_argument(
        "--vocab-divisor",
        type=positive,
        default=128,
        metavar="N",
        help="pad each rank's rows of the vocabulary to a multiple of N, "
        "--make-vocab-size-divisible-by of the training (default: 128)",
    )
    group.add_argument(
        "--legacy-names",
        type=one_of(NAMES),
        default=NAMES[0],
        metavar="|".join(NAMES),
        help=f"what the parameters are called (default: {NAMES[0]}, with --mlp-layer-fusion)",
    )


def _run(args: argparse.Namespace) -> None:
    from bc2_ckpt.convert import convert
    from bc2_ckpt.plan import plan
    from bc2_ckpt.preflight import preflight
    from bc2_data.atomic import refuse_existing
    from bc2_data.progress import progress_bar

    # Also said before the source is opened, which takes a while for a large one.
    refuse_existing(args.output, overwrite=args.overwrite)
    opened = open_source(args.input, args)
    source = _filtered(opened, args)
    legacy = LegacyOptions(
        tp=args.tp,
        pp=args.pp,
        vpp=args.vpp,
        vocab_divisor=args.vocab_divisor,
        names=args.legacy_names,
    )
    needed = preflight(source, args.output, args.to, args.overwrite, legacy)
    sys.stderr.writelines(f"{remark}\n" for remark in _remarks(opened, source, args))
    if args.dry_run:
        show(plan(source, args.output, _target(args), needed))
        return
    size = sum(info.num_bytes for info in source.tensors().values())
    with progress_bar(size, "B", "convert") as bar:
        convert(source, args.output, args.to, args.overwrite, bar.update, legacy)
    show(
        [
            f"{source.source} ({source.format}) -> {args.output} ({args.to}): "
            f"{len(source.tensors())} tensors, {size:,} bytes"
        ]
    )


def _filtered(reader: CheckpointReader, args: argparse.Namespace) -> CheckpointReader:
    """Returns the source as it is to be written."""
    import torch

    from bc2_ckpt.filters.cast import Cast
    from bc2_ckpt.filters.norm_head import FoldedNormHead

    dtype = None if args.dtype == "keep" else getattr(torch, args.dtype)
    if args.fold_norm_head or (args.to == _GGUF and reader.config.norm_head):
        reader = FoldedNormHead(reader, dtype)
    return reader if dtype is None else Cast(reader, dtype, matrices_only=args.to == _GGUF)


def _remarks(
    opened: CheckpointReader, source: CheckpointReader, args: argparse.Namespace
) -> Iterator[str]:
    """Yields what the user should know of a source and of what is written of it."""
    from bc2_ckpt.preflight import tokenizer_warning

    if warning := tokenizer_warning(source):
        yield f"warning: {warning}"
    for note in source.notes():
        yield f"note: {note}"
    if opened.config.norm_head and not source.config.norm_head:
        told = "" if args.to == _GGUF else " and config.json says norm_head false"
        yield (
            f"note: the output weight is written with rows of length 1{told}: for inference, not "
            "to train on"
        )
    if args.to != _LEGACY and (args.tp, args.pp, args.vpp) != (1, 1, 1):
        yield f"note: {args.to} is one copy for every parallel layout; the sizes are only checked"


def _target(args: argparse.Namespace) -> str:
    """Returns the output's format and parallel layout in words."""
    if args.to != _LEGACY:
        return str(args.to)
    return f"{args.to}, TP {args.tp}, PP {args.pp}, VPP {args.vpp}, names of {args.legacy_names}"
