"""The command line ``bc2-data``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

from bc2_data import __version__
from bc2_data.command import add_command, make_parser, one_of, run
from bc2_data.errors import DataError
from bc2_data.handlers import HANDLERS, TEMPLATES, HandlerOptions
from bc2_data.special_tokens import POLICIES

_TOKENIZE_EXAMPLE = """\
  # pretraining: writes out/alpaca_text_document.bin and .idx, out/alpaca.manifest.json
  bc2-data tokenize --input alpaca.parquet --tokenizer Baichuan2-7B-Base \\
      --output-prefix out/alpaca

  # instruction tuning: writes out/moss_packed_{input_ids,labels,attention_mask}_document
  bc2-data tokenize --input moss-003-sft-no-tools.jsonl --tokenizer Baichuan2-13B-Base \\
      --output-prefix out/moss --handler moss --max-length 4097"""

_INSPECT_EXAMPLE = """\
  bc2-data inspect out/moss
  bc2-data inspect out/moss --tokenizer Baichuan2-13B-Base --doc 0"""


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``bc2-data`` and returns its exit status."""
    parser = make_parser("bc2-data", "Tokenise text for Baichuan2 training.", __version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_tokenize(commands)
    _add_inspect(commands)
    return run(parser, argv)


def _add_tokenize(commands: Any) -> None:
    parser = add_command(
        commands,
        "tokenize",
        _tokenize,
        "Tokenise files into Megatron datasets.",
        _TOKENIZE_EXAMPLE,
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        type=Path,
        nargs="+",
        required=True,
        metavar="PATH",
        help=".parquet, .jsonl or .json files, or folders of one type of them",
    )
    files.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory with Baichuan2's tokenizer.model, or that file",
    )
    files.add_argument(
        "--output-prefix",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="path that the names of all outputs begin with",
    )
    files.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--handler",
        type=one_of(HANDLERS),
        default="text",
        metavar="NAME",
        help=f"format of the rows: {', '.join(HANDLERS)} (default: text)",
    )
    rows.add_argument(
        "--text-key", metavar="COLUMN", help="column of --handler text (default: text)"
    )
    rows.add_argument(
        "--template",
        type=one_of(TEMPLATES),
        metavar="NAME",
        help="layout of conversations: baichuan2 (default; 195 user 196 answer EOS) or "
        "ascendspeed (### Instruction: and ### Response:)",
    )
    rows.add_argument(
        "--append-eos",
        action="store_true",
        help="end every document with EOS; the baichuan2 layout always does",
    )
    tokens = parser.add_argument_group("tokens")
    tokens.add_argument(
        "--max-length",
        type=int,
        metavar="N",
        help="most tokens in a document; seq_length + 1 fits one training sample",
    )
    tokens.add_argument(
        "--overlong",
        choices=("drop", "truncate", "error"),
        help="what happens to documents of more than --max-length tokens (default: drop)",
    )
    tokens.add_argument(
        "--special-tokens",
        choices=POLICIES,
        default="escape",
        help="special tokens such as <reserved_106> written literally in a text: escape encodes "
        "them as plain characters (default), allow gives SentencePiece's ids, error stops",
    )
    parser.add_argument(
        "--log-interval",
        type=_positive,
        metavar="N",
        help="write a line on stderr about every N documents",
    )


def _add_inspect(commands: Any) -> None:
    parser = add_command(
        commands,
        "inspect",
        _inspect,
        "Show what a dataset holds and where it came from.",
        _INSPECT_EXAMPLE,
    )
    parser.add_argument(
        "prefix",
        type=Path,
        metavar="PREFIX",
        help="the --output-prefix of a run, or the path of one dataset without .bin and .idx",
    )
    parser.add_argument("--doc", type=int, metavar="I", help="show document I, counted from 0")
    parser.add_argument(
        "--tokenizer", type=Path, metavar="DIR", help="show the document's text, not its ids"
    )


def _tokenize(args: argparse.Namespace) -> None:
    from bc2_data.encoding import LengthLimit
    from bc2_data.inspection import describe_manifest
    from bc2_data.pipeline import TokenizeConfig, tokenize

    if args.overlong and args.max_length is None:
        raise DataError("--overlong says what --max-length does", "add --max-length N")
    limit = (
        None
        if args.max_length is None
        else LengthLimit(tokens=args.max_length, overlong=args.overlong or "drop")
    )
    manifest = tokenize(
        TokenizeConfig(
            inputs=args.input,
            tokenizer=args.tokenizer,
            output_prefix=args.output_prefix,
            handler=args.handler,
            handler_options=HandlerOptions(
                text_key=args.text_key, template=args.template, append_eos=args.append_eos
            ),
            limit=limit,
            special_tokens=args.special_tokens,
            log_interval=args.log_interval,
            overwrite=args.overwrite,
        )
    )
    _show([f"{manifest.documents:,} documents, {manifest.tokens:,} tokens"])
    _show(describe_manifest(manifest))
    _show(f"wrote {args.output_prefix.with_name(file.name)}" for file in manifest.outputs)


def _inspect(args: argparse.Namespace) -> None:
    from bc2_data.inspection import describe, show_document
    from bc2_data.tokenizer import load_tokenizer

    if args.tokenizer and args.doc is None:
        raise DataError("--tokenizer shows the text of a document", "add --doc I")
    if args.doc is None:
        _show(describe(args.prefix))
        return
    tokenizer = load_tokenizer(args.tokenizer) if args.tokenizer else None
    _show(show_document(args.prefix, args.doc, tokenizer))


def _show(lines: Iterable[str]) -> None:
    for line in lines:
        sys.stdout.write(f"{line}\n")


def _positive(text: str) -> int:
    number = int(text)
    if number < 1:
        raise argparse.ArgumentTypeError(f"{number} is not positive")
    return number
