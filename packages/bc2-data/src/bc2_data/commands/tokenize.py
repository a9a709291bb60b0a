"""``bc2-data tokenize``."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, one_of, positive, show
from bc2_data.engines import ENGINES
from bc2_data.errors import DataError
from bc2_data.handlers import HANDLERS, TEMPLATES, HandlerOptions, handler_names
from bc2_data.launchers import LAUNCHERS
from bc2_data.sources import MAX_ROW_BYTES
from bc2_data.special_tokens import POLICIES

_EXAMPLE = """\
  # pretraining: writes out/alpaca_text_document.bin and .idx, out/alpaca.manifest.json
  bc2-data tokenize --input alpaca.parquet --tokenizer Baichuan2-7B-Base \\
      --output-prefix out/alpaca

  # instruction tuning: writes out/moss_packed_{input_ids,labels,attention_mask}_document
  bc2-data tokenize --input moss-003-sft-no-tools.jsonl --tokenizer Baichuan2-13B-Base \\
      --output-prefix out/moss --handler moss --max-length 4097"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    parser = add_command(
        commands, "tokenize", _run, "Tokenise files into Megatron datasets.", _EXAMPLE
    )
    files = parser.add_argument_group("files")
    files.add_argument(
        "--input",
        nargs="+",
        required=True,
        metavar="PATH",
        help="files, folders or patterns, by path or URL (s3://, gs://, hdfs://, https://): "
        ".parquet .arrow .feather .jsonl .json .csv .txt, each also with .gz or .zst, and .zip; "
        "of a .txt file each line is a row with the field text",
    )
    files.add_argument(
        "--tokenizer",
        type=Path,
        required=True,
        metavar="DIR",
        help="directory with Baichuan2's tokenizer.model or a tokenizer.json of Hugging Face, or "
        "that file",
    )
    files.add_argument(
        "--output-prefix",
        type=Path,
        required=True,
        metavar="PREFIX",
        help="path that the names of all outputs begin with",
    )
    files.add_argument("--overwrite", action="store_true", help="replace existing outputs")
    files.add_argument(
        "--resume",
        action="store_true",
        help="go on with what an interrupted run left; a finished job is left as it is",
    )
    rows = parser.add_argument_group("rows")
    rows.add_argument(
        "--handler",
        type=_handler,
        default="text",
        metavar="NAME",
        help=f"format of the rows: {', '.join(HANDLERS)}, or one that another package brings "
        "along (default: text)",
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
        default="drop",
        help="what happens to documents of more than --max-length tokens (default: drop)",
    )
    tokens.add_argument(
        "--max-row-bytes",
        type=positive,
        default=MAX_ROW_BYTES,
        metavar="N",
        help="larger rows are never held in memory: they are dropped, and with --overlong error "
        f"the run stops (default: {MAX_ROW_BYTES:,})",
    )
    tokens.add_argument(
        "--special-tokens",
        choices=POLICIES,
        default="escape",
        help="special tokens such as <reserved_106> written literally in a text: escape encodes "
        "them as plain characters (default), allow gives SentencePiece's ids, error stops",
    )
    tokens.add_argument(
        "--engine",
        choices=ENGINES,
        default="auto",
        help="what encodes; all give the same ids. auto takes fastokens where it is installed",
    )
    tokens.add_argument(
        "--pack",
        action="store_true",
        help="pack conversations into full training samples, as bc2-data pack does",
    )
    tokens.add_argument(
        "--seq-length",
        type=positive,
        metavar="N",
        help="data.seq_length of the training run, for --pack: a row holds N + 1 tokens",
    )
    work = parser.add_argument_group("work", "The outputs do not depend on who does the work.")
    work.add_argument(
        "--workers", type=positive, default=1, metavar="N", help="processes (default: 1)"
    )
    work.add_argument(
        "--launcher",
        choices=LAUNCHERS,
        default="local",
        help="local: processes of this machine (default); ray: a Ray cluster whose machines see "
        "inputs and outputs under the same paths, with --workers tasks at a time",
    )
    work.add_argument(
        "--rank",
        type=int,
        metavar="R",
        help="do part R, from 0, of a job that --world-size machines share; the outputs are named "
        "PREFIX.part-..., and bc2-data merge joins them",
    )
    work.add_argument("--world-size", type=positive, metavar="W", help="number of parts")
    work.add_argument(
        "--log-interval",
        type=positive,
        metavar="N",
        help="write a line on stderr about every N documents",
    )


def _handler(name: str) -> str:
    """An argparse type: the name of a handler, ours or another package's."""
    return name if name in HANDLERS else one_of(handler_names())(name)


def _run(args: argparse.Namespace) -> None:
    from bc2_data.config import TokenizeConfig
    from bc2_data.encoding import LengthLimit
    from bc2_data.inspection.summary import describe_manifest
    from bc2_data.pipeline import tokenize
    from bc2_data.shards.plan import Part

    if args.pack != (args.seq_length is not None):
        raise DataError(
            "--pack and --seq-length belong together",
            "give both, or use bc2-data pack on what this command writes",
        )
    if (args.rank is None) != (args.world_size is None):
        raise DataError("--rank and --world-size belong together", "give both, or neither")
    config = TokenizeConfig(
        inputs=args.input,
        tokenizer=args.tokenizer,
        output_prefix=args.output_prefix,
        handler=args.handler,
        handler_options=HandlerOptions(
            text_key=args.text_key, template=args.template, append_eos=args.append_eos
        ),
        limit=LengthLimit(tokens=args.max_length, overlong=args.overlong),
        max_row_bytes=args.max_row_bytes,
        special_tokens=args.special_tokens,
        engine=args.engine,
        pack=args.seq_length,
        part=None if args.rank is None else Part(args.rank, args.world_size),
        launcher=args.launcher,
        workers=args.workers,
        log_interval=args.log_interval,
        resume=args.resume,
        overwrite=args.overwrite,
    )
    manifest = tokenize(config)
    show([f"{manifest.documents:,} documents, {manifest.tokens:,} tokens"])
    show(describe_manifest(manifest))
    show(f"wrote {config.prefix.with_name(file.name)}" for file in manifest.outputs)
