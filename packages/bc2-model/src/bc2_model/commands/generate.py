"""``bc2-model generate``."""

from __future__ import annotations

import argparse
from typing import Any

from bc2_data.command import add_command
from bc2_model.commands.arguments import add_model, add_sampling, model_of, require, sampling_of

_EXAMPLE = "  bc2-model generate ./Baichuan2-7B-Base --prompt '登鹳雀楼->王之涣; 夜雨寄北->'"


def add(commands: Any) -> None:
    """Adds the subcommand."""
    command = add_command(
        commands,
        "generate",
        _run,
        "Continue a text and print the continuation while it is made.",
        _EXAMPLE,
    )
    add_model(command)
    command.add_argument("--prompt", required=True, metavar="TEXT", help="the text to continue")
    add_sampling(command, max_new_tokens=256)


def _run(args: argparse.Namespace) -> None:
    require("transformers", extra="hf")
    from bc2_model.hf.generation import stream
    from bc2_model.hf.loading import load_tokenizer

    tokenizer = load_tokenizer(args.directory)
    prompt = tokenizer.encode(args.prompt)
    stream(model_of(args), tokenizer, prompt, sampling_of(args))
