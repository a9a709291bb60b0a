"""Arguments that several subcommands share, and what is made of them."""

from __future__ import annotations

import argparse
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

from bc2_data.command import positive
from bc2_model.errors import ModelError

if TYPE_CHECKING:
    from bc2_model.hf.generation import Sampling
    from bc2_model.hf.modeling import BaichuanForCausalLM

DTYPES = ("float32", "bfloat16", "float16")


def add_device(command: argparse.ArgumentParser) -> None:
    """Adds ``--device``."""
    command.add_argument(
        "--device", default="auto", choices=("auto", "cpu", "cuda", "npu"), help="default: auto"
    )


def add_shape(command: argparse.ArgumentParser) -> None:
    """Adds the shape of an attention call but for its lengths; by default that of the 13B."""
    command.add_argument("--batch", type=positive, default=1, metavar="N", help="default 1")
    command.add_argument("--heads", type=positive, default=40, metavar="N", help="default 40")
    command.add_argument("--head-dim", type=positive, default=128, metavar="N", help="default 128")


def add_model(command: argparse.ArgumentParser) -> None:
    """Adds the arguments of every command that runs a model."""
    command.add_argument(
        "directory", type=Path, metavar="DIR", help="holds config.json, weights, tokenizer.model"
    )
    add_device(command)
    command.add_argument(
        "--dtype",
        default="auto",
        choices=("auto", *DTYPES),
        help="default: auto, the one that config.json names",
    )


def add_sampling(command: argparse.ArgumentParser, max_new_tokens: int) -> None:
    """Adds how tokens are chosen, and how many at most."""
    group = command.add_argument_group(
        "choosing tokens", "What is left out, the checkpoint's generation_config.json decides."
    )
    count = _number(int, lambda value: value >= 1, "at least 1")
    positive = _number(float, lambda value: value > 0, "positive")
    temperature = _number(float, lambda value: value >= 0, "0 or positive")
    group.add_argument(
        "--max-new-tokens",
        type=count,
        default=max_new_tokens,
        metavar="N",
        help=f"default {max_new_tokens}",
    )
    group.add_argument("--temperature", type=temperature, metavar="T", help="0 is greedy")
    group.add_argument("--top-k", type=count, metavar="K")
    group.add_argument("--top-p", type=positive, metavar="P")
    group.add_argument("--repetition-penalty", type=positive, metavar="R")
    group.add_argument("--seed", type=int, default=0, help="of the sampling; default 0")


def sampling_of(args: argparse.Namespace) -> Sampling:
    """Returns what `add_sampling` asked for."""
    from bc2_model.hf.generation import Sampling

    return Sampling(
        max_new_tokens=args.max_new_tokens,
        temperature=args.temperature,
        top_k=args.top_k,
        top_p=args.top_p,
        repetition_penalty=args.repetition_penalty,
        seed=args.seed,
    )


def model_of(args: argparse.Namespace) -> BaichuanForCausalLM:
    """Loads what `add_model` asked for."""
    import torch
    from transformers.utils.logging import disable_progress_bar

    from bc2_model.device import pick_device
    from bc2_model.hf.loading import load_model

    disable_progress_bar()  # loading takes a moment, and stdout is for the text
    return load_model(
        args.directory,
        device=pick_device(args.device),
        dtype="auto" if args.dtype == "auto" else getattr(torch, args.dtype),
    )


def require(module: str, extra: str) -> None:
    """Raises where a library that only some commands need is not installed."""
    if importlib.util.find_spec(module) is None:
        raise ModelError(f"{module} is not installed", f"pip install 'bc2-model[{extra}]'")


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
