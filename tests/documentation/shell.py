"""Shell scripts as pages show them, cut into their simple commands without running anything."""

from __future__ import annotations

import re
import shlex
from collections.abc import Iterator
from dataclasses import dataclass

ELISION = "..."
"""Stands in a command for what the page leaves out."""

_OPERATORS = re.compile(r"^[();<>|&]+$")
_HEREDOC = re.compile(r"<<-?\s*['\"]?(\w+)['\"]?")
_ASSIGNMENT = re.compile(r"^\w+=")
_KEYWORDS = {"do", "then", "else", "!", "exec", "time", "if", "while"}


@dataclass(frozen=True)
class Command:
    """One simple command.

    Attributes:
        words: The program and its arguments, unquoted; variables and ``$(...)`` are 1.
        line: Where it begins.
    """

    words: tuple[str, ...]
    line: int


class ShellError(Exception):
    """A script that no shell would read."""

    def __init__(self, message: str, line: int) -> None:
        super().__init__(message)
        self.line = line


def simple_commands(script: str, first_line: int = 1) -> Iterator[Command]:
    """Yields the simple commands of a script, those of scripts within it included.

    A script within it is a here-document that begins with ``#!``, or an argument of several words
    that begins with a command of bc2, as ``bash -c`` takes it.
    """
    lines = script.split("\n")
    at = 0
    while at < len(lines):
        start, text = at, lines[at]
        at += 1
        words = _words(text)
        while (words is None or text.endswith("\\")) and at < len(lines):
            text = (text[:-1] if text.endswith("\\") else text + "\n") + lines[at]
            at += 1
            words = _words(text)
        if words is None:
            raise ShellError("a quotation that is never closed", first_line + start)
        for command in _split(words):
            yield Command(command, first_line + start)
            for word in command[1:]:
                if re.match(r"\s*bc2-\w+\s", word):
                    yield from simple_commands(word, first_line + start)
        if heredoc := _HEREDOC.search(text):
            try:
                end = lines.index(heredoc[1], at)
            except ValueError:
                raise ShellError(f"{heredoc[1]} is never found", first_line + start) from None
            if lines[at].startswith("#!"):
                yield from simple_commands("\n".join(lines[at:end]), first_line + at)
            at = end + 1


def _words(text: str) -> list[str] | None:
    """Returns words and operators; None where a quotation is open."""
    text = text.replace("$(which bc2-train)", "bc2-train")
    text = re.sub(r"\$\([^()]*\)|\$\{?\w+\}?", "1", text)
    lexer = shlex.shlex(text.removesuffix("\\"), posix=True, punctuation_chars="();<>|&")
    lexer.whitespace_split = True
    try:
        return [expanded for word in lexer for expanded in _expand(word)]
    except ValueError:
        return None


def _expand(word: str) -> Iterator[str]:
    """Expands ``{a,b}`` as bash does, one level deep; a space or = keeps it from being one."""
    braces = re.fullmatch(r"([^\s={}]*)\{([^\s{}]+,[^\s{}]*)\}([^\s{}]*)", word)
    if not braces:
        yield word
        return
    for part in braces[2].split(","):
        yield f"{braces[1]}{part}{braces[3]}"


def _split(words: list[str]) -> Iterator[tuple[str, ...]]:
    command: list[str] = []
    skip = False
    for word in [*words, ";"]:
        if _OPERATORS.match(word):
            skip = "<" in word or ">" in word  # the file of a redirection is no argument
            if not skip:
                yield from _cleaned(command)
                command = []
        elif skip:
            skip = False
        else:
            command.append(word)


def _cleaned(command: list[str]) -> Iterator[tuple[str, ...]]:
    while command and (_ASSIGNMENT.match(command[0]) or command[0] in _KEYWORDS):
        command = command[1:]
    if command:
        yield tuple(command)
