"""The error that every bc2 command turns into ``error:`` and ``hint:`` lines.

Each package derives its own base from `Bc2Error`, so that a caller can catch the errors of one
package or of all of them.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class Bc2Error(Exception):
    """Something that the user can mend, or a check that failed.

    Attributes:
        message: What is wrong and where, in one sentence.
        hint: What to do next, best as a command; empty where nothing useful can be said.
        exit_status: 2 for what the user can mend, 1 for a failed check.
    """

    exit_status = 2

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint


class DataError(Bc2Error):
    """Base of the errors that bc2-data raises."""


class TextError(DataError):
    """One of several texts cannot be encoded; who knows where it came from adds the place.

    Attributes:
        index: Which of the texts handed over.
    """

    def __init__(self, message: str, hint: str, index: int) -> None:
        super().__init__(message, hint)
        self.index = index


_MOST_NAMES = 24  # a longer list helps nobody


def nearest(name: str, known: Iterable[str]) -> str:
    """Returns a hint that names the known name closest to a mistyped one, or all of a few.

    Args:
        name: What the user wrote.
        known: The names that would have been right.
    """
    names = sorted(known)
    match = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    if match:
        return f"did you mean {match[0]!r}?"
    if len(names) > _MOST_NAMES:
        return ""
    return "known: " + ", ".join(names)
