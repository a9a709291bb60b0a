"""``bc2-model chat``."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Iterator
from typing import Any

from bc2_data.command import add_command
from bc2_model.commands.arguments import add_model, add_sampling, model_of, require, sampling_of
from bc2_model.errors import ModelError

_EXAMPLE = """\
  bc2-model chat ./Baichuan2-13B-Chat
  echo '解释一下“温故而知新”' | bc2-model chat ./Baichuan2-7B-Chat --temperature 0"""


def add(commands: Any) -> None:
    """Adds the subcommand."""
    command = add_command(
        commands,
        "chat",
        _run,
        "Talk with a chat model: one line a turn; /clear forgets, an empty input (Ctrl-D) ends.",
        _EXAMPLE,
    )
    add_model(command)
    command.add_argument("--system", metavar="TEXT", help="what stands before the first turn")
    add_sampling(command, max_new_tokens=2048)


def _run(args: argparse.Namespace) -> None:
    require("transformers", extra="hf")
    from bc2_model.hf.chat import Conversation
    from bc2_model.hf.generation import stream
    from bc2_model.hf.loading import load_tokenizer

    tokenizer = load_tokenizer(args.directory)
    model = model_of(args)
    sampling = sampling_of(args)
    room = model.config.model.max_sequence_length - sampling.max_new_tokens
    conversation = Conversation(tokenizer, room, args.system)
    for line in _lines():
        if line == "/clear":
            conversation.clear()
            continue
        try:
            prompt = conversation.ask(line)
        except ModelError as error:
            sys.stderr.write(f"error: {error.message}\nhint: {error.hint}\n")
            continue
        conversation.answer(stream(model, tokenizer, prompt, sampling))


def _lines() -> Iterator[str]:
    """Yields what the user writes; asks for it where a person does."""
    while True:
        if sys.stdin.isatty():
            sys.stderr.write("> ")
            sys.stderr.flush()
        line = sys.stdin.readline()
        if not line:
            return
        if line.strip():
            yield line.rstrip("\n")
