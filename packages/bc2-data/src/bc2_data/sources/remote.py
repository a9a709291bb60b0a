"""What fsspec has to do with files behind URLs: systems, files, their errors and secrets."""

from __future__ import annotations

import errno
import io
import re
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from bc2_data.errors import DataError

_URL = re.compile(r"[A-Za-z][A-Za-z0-9+.-]*://")
_WEB = re.compile(r"https?://", re.IGNORECASE)
_USER = re.compile(r"(?<=://)[^/@]*@")
_QUERY = re.compile(r"(?<=\w)\?[^\s'\")]+")

# The extras of bc2-data that bring what fsspec needs for a scheme.
_EXTRAS = {
    "s3": "s3",
    "s3a": "s3",
    "gs": "gcs",
    "gcs": "gcs",
    "hdfs": "hdfs",
    "http": "http",
    "https": "http",
}


def is_url(address: str) -> bool:
    """Tells whether an address is a URL, and not a path of this machine."""
    return _URL.match(address) is not None


def is_web(address: str) -> bool:
    """Tells whether an address is one of the web, where ``?`` begins a query."""
    return _WEB.match(address) is not None


def without_secrets(text: str) -> str:
    """Returns a text without user, password and query of the URLs in it."""
    return _QUERY.sub("", _USER.sub("", text))


def shown(url: str) -> str:
    """Returns a URL as messages and manifests may show it."""
    public = _USER.sub("", url)
    return public.partition("?")[0] if is_web(url) else public


def file_system(url: str) -> tuple[Any, str]:
    """Returns fsspec's file system for a URL, and the path of the URL in it.

    Raises:
        DataError: fsspec, or what it needs for this scheme, is not installed, or there is no such
            scheme.
        OSError: The file system cannot be reached.
    """
    scheme = url.partition("://")[0].lower()
    install = f"pip install 'bc2-data[{_EXTRAS.get(scheme, 'remote')}]'"
    with client_errors():
        try:
            import fsspec

            system, path = fsspec.core.url_to_fs(url, **_options(url))
        except ImportError as error:
            raise DataError(f"{shown(url)}: {error}", install) from error
        except ValueError as error:
            raise DataError(f"{shown(url)}: {error}", "check the part before ://") from error
    return system, str(path)


def open_remote(url: str, *, sequential: bool) -> io.RawIOBase:
    """Opens a file; see `bc2_data.sources.location.Location.open`.

    Raises:
        DataError: As `file_system`.
        OSError: The file cannot be opened.
    """
    system, path = file_system(url)
    # A block of no bytes is what fsspec calls one request for the whole of a web page.
    options = {"block_size": 0} if sequential and is_web(url) else {}
    with client_errors():
        return _RemoteFile(system.open(path, "rb", **options))


@contextmanager
def client_errors() -> Iterator[None]:
    """Turns the errors of a client library, of which each has its own, into OSErrors."""
    try:
        yield
    except (OSError, DataError):
        raise
    except Exception as error:
        raise OSError(errno.EIO, f"{type(error).__name__}: {error}") from error


def _options(url: str) -> dict[str, Any]:
    if not is_web(url):
        return {}
    import aiohttp

    # By default, a request that lasts longer than five minutes is given up, even if data flow.
    patience = aiohttp.ClientTimeout(total=None, sock_connect=30, sock_read=60)
    return {"client_kwargs": {"timeout": patience}}


class _RemoteFile(io.RawIOBase):
    """A file of fsspec, which tells the truth about seeking and raises OSErrors alone."""

    def __init__(self, file: Any) -> None:
        self._file = file
        self._seekable: bool | None = None

    def readable(self) -> bool:
        return True

    def seekable(self) -> bool:
        """Tries it: a web server may not know about ranges, and fsspec does not ask."""
        if self._seekable is None:
            start = self.tell()
            try:
                self.seek(-1, io.SEEK_END)
                self._seekable = len(self.read(1)) == 1
                self.seek(start)
            except OSError:
                self._seekable = False
        return self._seekable

    def readinto(self, buffer: Any) -> int:
        with client_errors():
            data = self._file.read(len(buffer))
        buffer[: len(data)] = data
        return len(data)

    def seek(self, offset: int, whence: int = 0) -> int:
        with client_errors():
            return int(self._file.seek(offset, whence))

    def tell(self) -> int:
        return int(self._file.tell())

    def close(self) -> None:
        if not self.closed:
            self._file.close()
        super().close()
