"""The command line ``bc2-model``."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bc2_data.command import add_command, make_parser, run
from bc2_model import __version__
from bc2_model.errors import ModelError


def main(argv: Sequence[str] | None = None) -> int:
    """Runs ``bc2-model`` and returns its exit status."""
    parser = make_parser("bc2-model", "Run Baichuan2 models.", __version__)
    commands = parser.add_subparsers(title="commands", metavar="COMMAND")
    _add_generate(commands)
    return run(parser, argv)


def _add_generate(commands: Any) -> None:
    command = add_command(
        commands,
        "generate",
        _generate,
        "Continue a text and print the continuation while it is made.",
        "  bc2-model generate ./Baichuan2-7B-Base --prompt '登鹳雀楼->王之涣; 夜雨寄北->'",
    )
    _add_model(command)
    command.add_argument("--prompt", required=True, metavar="TEXT", help="the text to continue")
    _add_sampling(command)


def _add_model(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of every command that runs a model."""
    command.add_argument(
        "directory", type=Path, metavar="DIR", help="holds config.json, weights, tokenizer.model"
    )
    command.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "npu"), help="default: auto"
    )
    command.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", "float32", "bfloat16", "float16"),
        help="default: auto, the one that config.json names",
    )


def _add_sampling(command: argparse.ArgumentParser) -> None:
    """Adds how tokens are chosen."""
    group = command.add_argument_group(
        "choosing tokens", "What is left out, the checkpoint's generation_config.json decides."
    )
    count = _number(int, lambda value: value >= 1, "at least 1")
    positive = _number(float, lambda value: value > 0, "positive")
    temperature = _number(float, lambda value: value >= 0, "0 or positive")
    group.add_argument("--max-new-tokens", type=count, default=256, metavar="N", help="default 256")
    group.add_argument("--temperature", type=temperature, metavar="T", help="0 is greedy")
    group.add_argument("--top-k", type=count, metavar="K")
    group.add_argument("--top-p", type=positive, metavar="P")
    group.add_argument("--repetition-penalty", type=positive, metavar="R")
    group.add_argument("--seed", type=int, default=0, help="of the sampling; default 0")


def _number(
    kind: type[int] | type[float], allowed: Callable[[float], bool], rule: str
) -> Callable[[str], float]:
    """Returns an argparse type that takes the numbers that a rule allows."""

    def convert(text: str) -> float:
        value = kind(text)
        if not allowed(value):
            raise argparse.ArgumentTypeError(f"{text} is not {rule}")
        return value

    convert.__name__ = kind.__name__  # argparse names it when the text is no number
    return convert


def _generate(args: argparse.Namespace) -> None:
    _require("transformers", extra="hf")
    import torch
    from transformers.utils.logging import disable_progress_bar

    from bc2_model.hf.generation import Sampling, stream
    from bc2_model.hf.loading import load_model, load_tokenizer, pick_device

    disable_progress_bar()  # loading takes a moment, and stdout is for the text
    tokenizer = load_tokenizer(args.directory)
    prompt = tokenizer.encode(args.prompt)
    model = load_model(
        args.directory,
        device=pick_device(args.device),
        dtype="auto" if args.dtype == "auto" else getattr(torch, args.dtype),
    )
    sampling = Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
    )
    stream(model, tokenizer, prompt, sampling)


def _require(module: str, extra: str) -> None:
    """Raises where a library that only some commands need is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ModelError(f"{module} is not installed", f"pip install 'bc2-model[{extra}]'")
