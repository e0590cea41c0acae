"""The connections open at this moment, to count and to close them."""

from __future__ import annotations

import contextlib
import itertools
import socket
import threading
import time


class Connections:
    """Open connections and the threads that serve them; thread-safe."""

    def __init__(self) -> None:
        """Start without any, letting all come in."""
        self._open: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._numbers = itertools.count(1)
        self._closing = False
        self._lock = threading.Lock()

    def __len__(self) -> int:
        return len(self._open)

    def add(self, connection: socket.socket) -> int:
        """Register the calling thread's connection and return its number."""
        with self._lock:
            number = next(self._numbers)
            self._open[number] = (connection, threading.current_thread())
            closing = self._closing
        if closing:
            _end_input(connection)
        return number

    def remove(self, number: int) -> None:
        """Forget a connection that is about to end."""
        with self._lock:
            del self._open[number]

    def close(self, patience: float) -> None:
        """End all connections: idle ones now, others after their answer.

        Args:
            patience: Seconds to wait for them to be gone.
        """
        with self._lock:
            leaving = list(self._open.values())
        for connection, _ in leaving:
            _end_input(connection)
        deadline = time.monotonic() + patience
        for _, thread in leaving:
            thread.join(max(0.0, deadline - time.monotonic()))

    def close_for_good(self, patience: float) -> None:
        """End all connections, and those still on their way in."""
        with self._lock:
            self._closing = True
        self.close(patience)

    def reopen(self) -> None:
        """Let connections come in again."""
        with self._lock:
            self._closing = False


def _end_input(connection: socket.socket) -> None:
    # The handler reads the end of the stream, as if its client had left, and
    # closes in good order. Past ssl's own shutdown(), which would have an
    # answer under way go out in the clear.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RD)
