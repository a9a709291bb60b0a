"""A connection between two launchers, over which JSON objects go, one a line."""

from __future__ import annotations

import contextlib
import json
import select
import socket
import threading
import time
from typing import Any

_ALIVE_INTERVAL = 1.0  # seconds
_LONGEST = 1 << 16  # bytes of a message
_SEND_TIMEOUT = 5.0  # seconds


class Line:
    """One end of a connection, which tells the other every second that this process is there.

    Args:
        connection: Connected.
    """

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._connection.settimeout(_SEND_TIMEOUT)
        self._buffer = b""
        self._ended = False
        self._heard = time.monotonic()
        self._closed = threading.Event()
        self._sending = threading.Lock()
        threading.Thread(target=self._keep_alive, daemon=True).start()

    @classmethod
    def to(cls, host: str, port: int) -> Line:
        """Connects.

        Raises:
            OSError: That is impossible.
        """
        return cls(socket.create_connection((host, port), timeout=_SEND_TIMEOUT))

    @property
    def address(self) -> str:
        """Where the other end is."""
        return str(self._connection.getpeername()[0])

    def silent_for(self) -> float:
        """Returns the seconds since something came."""
        return time.monotonic() - self._heard

    def send(self, kind: str, values: dict[str, Any] | None = None) -> None:
        """Sends a message.

        Raises:
            OSError: The connection is broken.
        """
        with self._sending:
            self._connection.sendall(json.dumps([kind, values or {}]).encode() + b"\n")

    def receive(self) -> list[tuple[str, dict[str, Any]]]:
        """Returns the messages that have come.

        Raises:
            OSError: The connection is broken, or what came is no message.
        """
        while not self._ended and select.select([self._connection], [], [], 0)[0]:
            chunk = self._connection.recv(1 << 16)
            if chunk:
                self._heard = time.monotonic()
            self._ended = not chunk
            self._buffer += chunk
        *lines, self._buffer = self._buffer.split(b"\n")
        if self._ended and not lines:
            raise ConnectionError("it closed the connection")
        if len(self._buffer) > _LONGEST:
            raise ConnectionError("what it says is no message of a launcher")
        try:
            return [_message(line) for line in lines]
        except (TypeError, ValueError) as error:
            raise ConnectionError("what it says is no message of a launcher") from error

    def close(self) -> None:
        """Closes the connection."""
        self._closed.set()
        self._connection.close()

    def _keep_alive(self) -> None:
        with contextlib.suppress(OSError):
            while not self._closed.wait(_ALIVE_INTERVAL):
                self.send("alive")


def _message(line: bytes) -> tuple[str, dict[str, Any]]:
    kind, values = json.loads(line)
    if not isinstance(kind, str) or not isinstance(values, dict):
        raise TypeError
    return kind, values
