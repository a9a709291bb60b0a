"""An error on its way from a worker to the process that started it."""

from __future__ import annotations

import traceback
from dataclasses import dataclass

from bc2_data.errors import Bc2Error, DataError


class WorkerTraceback(Exception):  # noqa: N818 - only ever the cause of another exception
    """Shows where in a worker an error was raised."""

    def __str__(self) -> str:
        return f"\n{self.args[0]}"


@dataclass(frozen=True)
class Failure:
    """What a worker raised.

    Attributes:
        error: It, or what says the same and can be pickled: not every exception can.
        traceback: Where it was raised.
    """

    error: Exception
    traceback: str

    @classmethod
    def of(cls, error: Exception) -> Failure:
        """Describes an error that was just caught."""
        return cls(_portable(error), traceback.format_exc())

    def to_raise(self) -> Exception:
        """Returns the error with the worker's traceback as its cause."""
        self.error.__cause__ = WorkerTraceback(self.traceback)
        return self.error


def _portable(error: Exception) -> Exception:
    if isinstance(error, Bc2Error):
        portable = DataError(error.message, error.hint)
        portable.exit_status = error.exit_status
        return portable
    if isinstance(error, OSError) and error.errno is not None:
        return OSError(error.errno, error.strerror, error.filename)
    return RuntimeError(f"{type(error).__name__}: {error}")
