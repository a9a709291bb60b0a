"""``bc2-train demo``."""

from __future__ import annotations

from typing import Any

from bc2_data.command import add_command


def add(commands: Any) -> None:
    """Adds the subcommand."""
    from bc2_train import demo

    parser = add_command(
        commands,
        "demo",
        demo.main,
        "tokenise, convert, train, convert back and generate, from real text to a summary",
        "  bc2-train demo --out demo-run\n  bc2-train demo --model DIR --data FILE",
    )
    demo.add_arguments(parser)
