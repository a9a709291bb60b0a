"""Where a file is: on this machine, or behind any URL that fsspec knows."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO, cast

from bc2_data.errors import DataError
from bc2_data.sources.remote import (
    client_errors,
    file_system,
    is_url,
    open_remote,
    shown,
    without_secrets,
)


@dataclass(frozen=True, slots=True)
class Location:
    """A file's path or URL, as the user gave it.

    Its text is what messages and manifests show: a URL without user, password and query, which may
    hold a secret.
    """

    address: str

    @property
    def is_local(self) -> bool:
        """Whether the file is on this machine, as far as its operating system says."""
        return not is_url(self.address)

    @property
    def local_path(self) -> Path:
        """The path of a local file."""
        return Path(self.address)

    @property
    def name(self) -> str:
        """The last part of the path."""
        return str(self).rstrip("/").rpartition("/")[2]

    def __str__(self) -> str:
        return self.address if self.is_local else shown(self.address)

    def is_seekable(self) -> bool:
        """Tells whether the file can be read from any position, as `open` gives it.

        Raises:
            DataError: There is no such file, or it may not be read.
        """
        if self.is_local:
            return True
        with self.open() as file:
            return file.seekable()

    def size(self) -> int | None:
        """Returns the file's bytes; None where the server does not tell.

        Raises:
            DataError: There is no such file, or it may not be read.
        """
        with readable(self):
            if self.is_local:
                return self.local_path.stat().st_size
            system, path = file_system(self.address)
            with client_errors():
                size = system.info(path)["size"]
            return None if size is None else int(size)

    def open(self, *, sequential: bool = False) -> BinaryIO:
        """Opens the file, without a buffer.

        Args:
            sequential: Whether it is only read from front to back, which every server can do.

        Raises:
            DataError: There is no such file, or it may not be read.
        """
        with readable(self):
            if self.is_local:
                return cast(BinaryIO, open(self.local_path, "rb", buffering=0))
            return cast(BinaryIO, open_remote(self.address, sequential=sequential))

    def sha256(self) -> str:
        """Returns the SHA-256 of the file's bytes as 64 hexadecimal digits.

        Raises:
            DataError: The file cannot be read.
        """
        digest = hashlib.sha256()
        with self.open(sequential=True) as file, readable(self):
            while block := file.read(1 << 20):
                digest.update(block)
        return digest.hexdigest()


@contextmanager
def readable(what: object) -> Iterator[None]:
    """Turns the errors of a file system into errors that name the file.

    Raises:
        DataError: An OSError was raised within.
    """
    try:
        yield
    except FileNotFoundError as error:
        if error.__cause__ is None:
            raise DataError(f"{what} does not exist", "check the path") from error
        # To fsspec, a web page that it may not have, or cannot reach, does not exist.
        cause = without_secrets(str(error.__cause__))
        raise DataError(f"{what} cannot be had: {cause}", "check the address") from error
    except PermissionError as error:
        raise DataError(
            f"{what} may not be read: {_reason(error)}", "ask for the permission"
        ) from error
    except OSError as error:
        raise DataError(
            f"{what} cannot be read: {_reason(error)}", "check the disk or the network"
        ) from error


def _reason(error: OSError) -> str:
    return without_secrets(error.strerror or str(error))
