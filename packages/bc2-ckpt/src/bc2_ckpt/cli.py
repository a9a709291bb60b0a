"""The command line: ``bc2-ckpt convert`` and ``bc2-ckpt inspect``."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from bc2_ckpt import __version__
from bc2_ckpt.config import PRESETS, ModelConfig
from bc2_ckpt.formats import FORMATS
from bc2_data.command import add_command, make_parser, one_of, run

if TYPE_CHECKING:
    from bc2_ckpt.formats.protocol import CheckpointReader


def main(argv: Sequence[str] | None = None) -> int:
    """Runs the command line and returns its exit status."""
    parser = make_parser(
        "bc2-ckpt",
        "Convert Baichuan2 checkpoints between Hugging Face and Megatron.",
        __version__,
    )
    commands = parser.add_subparsers(metavar="COMMAND")

    convert = add_command(
        commands,
        "convert",
        _convert,
        "Convert a checkpoint to another format; the source's format is detected.",
        "  bc2-ckpt convert --input Baichuan2-7B-Base --output ckpt --to torch-dist\n"
        "  bc2-ckpt convert --input run/checkpoints --output export --to hf",
    )
    convert.add_argument(
        "--input",
        type=Path,
        required=True,
        metavar="DIR",
        help="a checkpoint, or a run's checkpoints/ folder, of which the newest is taken",
    )
    convert.add_argument("--output", type=Path, required=True, metavar="DIR", help="made anew")
    convert.add_argument(
        "--to", type=one_of(FORMATS), required=True, metavar="|".join(FORMATS), help="its format"
    )
    convert.add_argument("--overwrite", action="store_true", help="replace an existing output")
    _add_config(convert)

    inspect = add_command(
        commands,
        "inspect",
        _inspect,
        "Show format, dimensions, dtype and tensors of a checkpoint.",
        "  bc2-ckpt inspect ckpt\n  bc2-ckpt inspect ckpt --json",
    )
    inspect.add_argument("directory", type=Path, metavar="DIR", help="a checkpoint")
    inspect.add_argument("--json", action="store_true", help="one JSON object instead of text")
    _add_config(inspect)
    return run(parser, argv)


def _add_config(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--config",
        metavar="DIR|PRESET",
        help=f"the model, where no config.json is beside the weights: a directory that has one, "
        f"or {', '.join(PRESETS)}",
    )


def _open(path: Path, config: str | None) -> CheckpointReader:
    from bc2_ckpt.checkpoint import open_checkpoint

    return open_checkpoint(path, ModelConfig.load(config) if config else None)


def _convert(args: argparse.Namespace) -> None:
    from bc2_ckpt.convert import convert
    from bc2_data.atomic import refuse_existing

    # Also said before the source is opened, which takes a while for a large one.
    refuse_existing(args.output, overwrite=args.overwrite)
    reader = _open(args.input, args.config)
    convert(reader, args.output, args.to, args.overwrite)
    size = sum(info.num_bytes for info in reader.tensors().values())
    sys.stdout.write(
        f"{reader.source} ({reader.format}) -> {args.output} ({args.to}): "
        f"{len(reader.tensors())} tensors, {size:,} bytes\n"
    )


def _inspect(args: argparse.Namespace) -> None:
    from bc2_ckpt.summary import lines, summary

    reader = _open(args.directory, args.config)
    if args.json:
        sys.stdout.write(json.dumps(summary(reader), indent=2) + "\n")
    else:
        sys.stdout.writelines(f"{line}\n" for line in lines(reader))
