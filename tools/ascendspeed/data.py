"""AscendSpeed's tools/preprocess_data.py as ``bc2-data tokenize``."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from ascendspeed.arguments import Argument, DropInError, flag, parse, refused, value
from ascendspeed.native import Native
from bc2_data.errors import nearest

PROGRAM = "tools/preprocess_data.py"

_ONE_TOKENIZER = "PretrainedFromHF"
_ANOTHER_LAYOUT = "bring the rows into the form of `--handler messages` first, see docs/data.md"

ARGUMENTS: tuple[Argument, ...] = (
    value("--input", "`--input`", required=True, metavar="PATH"),
    value(
        "--handler-name",
        "`--handler`, and for GeneralInstructionHandler `--template ascendspeed`; names below",
        default="",
        metavar="NAME",
    ),
    value("--tokenizer-name-or-path", "`--tokenizer`", required=True, metavar="DIR"),
    value(
        "--tokenizer-type",
        "none: the tokenizer's own file says what it is; PretrainedFromHF is the one type",
        default=_ONE_TOKENIZER,
    ),
    flag("--tokenizer-not-use-fast", "none: every engine gives SentencePiece's ids"),
    value("--output-prefix", "`--output-prefix`", required=True, metavar="PREFIX"),
    value("--workers", "`--workers`", type=int, default=1, metavar="N"),
    value("--log-interval", "`--log-interval`", type=int, default=100, metavar="N"),
    value("--json-keys", "`--text-key`, which takes one", nargs="+", default=["text"]),
    flag("--append-eod", "`--append-eos`"),
    flag("--streaming", "none: every input is streamed"),
    value("--dataset-impl", "none: mmap, which training reads, is what is written", default="mmap"),
    value(
        "--seq-length",
        "none: AscendSpeed did not use it; `--max-length` and `--pack` are about lengths",
        type=int,
        metavar="N",
    ),
    value("--make-vocab-size-divisible-by", "none: ids need no padding", type=int, metavar="N"),
    value("--pad-vocab-size-to", "none: ids need no padding", type=int, metavar="N"),
    value("--datasets", "none: AscendSpeed did not use it", nargs="+"),
    flag("--overwrite", "`--overwrite`; bc2's own, to replace what AscendSpeed replaced unasked"),
    refused("--hf-datasets-params", "download the data set and give its files to `--input`"),
    refused("--split-sentences", "BERT's layout, which Baichuan2 is not trained on"),
    refused("--keep-newlines", "goes with `--split-sentences`; white space is always kept"),
    refused("--vocab-file", "of GPT-2's and BERT's tokenizers; give `--tokenizer-name-or-path`"),
    refused("--merge-file", "of GPT-2's tokenizer; give `--tokenizer-name-or-path`"),
)

HANDLERS: dict[str, tuple[str, ...]] = {
    "GeneralPretrainHandler": ("text",),
    "AlpacaPretrainHandler": ("alpaca-pretrain",),
    "GeneralInstructionHandler": ("alpaca", "--template", "ascendspeed"),
    "MOSSMultiTurnHandler": ("moss",),
}
"""AscendSpeed's handlers and the ``--handler`` that writes the same ids."""

REFUSED_HANDLERS: dict[str, str] = {
    "MOSSInstructionHandler": "it wrote a conversation once for every turn; take "
    "`MOSSMultiTurnHandler`, which trains every answer of a conversation at once",
    "BelleMultiTurnInstructionHandler": _ANOTHER_LAYOUT,
    "LeetcodePythonInstructionHandler": _ANOTHER_LAYOUT,
    "StackOverflowPythonPretrainHandler": "it returned no rows; write title, question and answer "
    "into a column `text`",
}
"""Those that bc2 has nothing for, and what to do."""


def translate(argv: Sequence[str] | None) -> Native:
    """Returns the command of bc2-data.

    Raises:
        DropInError: The command line is wrong, or bc2 has nothing for part of it.
    """
    args = parse(PROGRAM, "Tokenise as AscendSpeed's preprocess_data.py does.", ARGUMENTS, argv)
    if args.tokenizer_type != _ONE_TOKENIZER:
        raise DropInError(
            f"--tokenizer-type {args.tokenizer_type} is not Baichuan2's",
            f"--tokenizer-type {_ONE_TOKENIZER}",
        )
    handler, *layout = _handler(args.handler_name)
    options: list[tuple[str, ...]] = [
        ("--input", args.input),
        ("--tokenizer", args.tokenizer_name_or_path),
        ("--output-prefix", args.output_prefix),
        ("--handler", handler, *layout),
        ("--workers", str(args.workers)),
        ("--log-interval", str(args.log_interval)),
    ]
    if handler == "text" and args.json_keys != ["text"]:
        options.append(("--text-key", _one_key(args.json_keys)))
    if args.append_eod:
        options.append(("--append-eos",))
    if args.overwrite:
        options.append(("--overwrite",))
    warnings = tuple(_warnings(handler, args.dataset_impl, args.seq_length))
    return Native(("bc2-data", "tokenize"), tuple(options), warnings)


def _handler(name: str) -> tuple[str, ...]:
    if not name:
        return HANDLERS["GeneralPretrainHandler"]
    if name in REFUSED_HANDLERS:
        raise DropInError(f"bc2 has nothing in the place of {name}", REFUSED_HANDLERS[name])
    if name not in HANDLERS:
        raise DropInError(
            f"unknown handler {name!r}, for which AscendSpeed took GeneralPretrainHandler unasked",
            nearest(name, [*HANDLERS, *REFUSED_HANDLERS]),
        )
    return HANDLERS[name]


def _one_key(keys: Sequence[str]) -> str:
    if len(keys) > 1:
        raise DropInError(
            f"--json-keys names {len(keys)} columns", "run once for each, or join them in a column"
        )
    return keys[0]


def _warnings(handler: str, implementation: str, seq_length: int | None) -> Iterator[str]:
    if handler == "alpaca-pretrain":
        yield "AscendSpeed wrote '###None' into rows without input: nothing is written there"
    if handler == "alpaca":
        yield (
            "AscendSpeed found the answer by tokenising the prompt again, so that a token could "
            "straddle the border: prompt and answer are tokenised by themselves"
        )
    if implementation != "mmap":
        yield f"--dataset-impl {implementation} is not written: the files are mmap's"
    if seq_length is not None:
        yield "--seq-length had no effect in AscendSpeed and has none here: nothing is cut"
