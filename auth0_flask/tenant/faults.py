"""Trouble to order: the next answers of an endpoint go wrong."""

from __future__ import annotations

import json
import socket
import struct
import threading
from collections import deque
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any

from werkzeug.wrappers import Response

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIEnvironment

_PATHS = {
    "discovery": "/.well-known/openid-configuration",
    "jwks": "/.well-known/jwks.json",
    "token": "/oauth/token",
    "userinfo": "/userinfo",
    "par": "/oauth/par",
    "revoke": "/oauth/revoke",
    "api": "/api/things",
    "authorize": "/authorize",
}

# A fault answers a request, or returns None to have it answered as usual.
_Act = Callable[["WSGIEnvironment", threading.Event], Response | None]


class Fault:
    """One thing that goes wrong with one answer; made by the methods below."""

    def __init__(self, act: _Act) -> None:
        """Wrap what is done in place of the answer, or before it."""
        self.act = act

    @staticmethod
    def status(code: int) -> Fault:
        """Answer with a bare status and a plain text body."""
        return Fault(lambda *_: Response(f"Fault {code}\n", status=code))

    @staticmethod
    def body(document: Mapping[str, Any], *, status: int = 200) -> Fault:
        """Answer with a JSON document of one's own."""
        text = json.dumps(document)
        return Fault(lambda *_: _json(text, status))

    @staticmethod
    def broken_json() -> Fault:
        """Answer 200 with JSON that ends too early."""
        return Fault(lambda *_: _json('{"broken": ', 200))

    @staticmethod
    def slow(seconds: float) -> Fault:
        """Answer as usual, but only after some seconds (or at stop)."""

        def wait(_: WSGIEnvironment, stopping: threading.Event) -> None:
            stopping.wait(seconds)

        return Fault(wait)

    @staticmethod
    def reset() -> Fault:
        """Cut the connection with a TCP reset, without an answer."""
        return Fault(_reset)


class Faults:
    """Faults in waiting, in order, for each endpoint; thread-safe."""

    def __init__(self) -> None:
        """Start with none: all goes well."""
        self._waiting: dict[str, deque[Fault]] = {p: deque() for p in _PATHS.values()}
        self._lock = threading.Lock()

    def add(self, endpoint: str, fault: Fault, times: int) -> None:
        """Queue a fault for the next ``times`` requests of an endpoint.

        Raises:
            ValueError: If there is no such endpoint, or ``times`` is below 1.
        """
        if endpoint not in _PATHS:
            raise ValueError(
                f"No endpoint {endpoint!r}; there are {', '.join(_PATHS)}."
            )
        if times < 1:
            raise ValueError("A fault happens at least once.")
        with self._lock:
            self._waiting[_PATHS[endpoint]].extend([fault] * times)

    def take(self, path: str) -> Fault | None:
        """Return the fault for this request, which uses it up, or None."""
        with self._lock:
            waiting = self._waiting.get(path)
            return waiting.popleft() if waiting else None

    def clear(self) -> None:
        """Forget all faults still in waiting."""
        with self._lock:
            for waiting in self._waiting.values():
                waiting.clear()


def _json(text: str, status: int) -> Response:
    return Response(text, status=status, mimetype="application/json")


def _reset(environ: WSGIEnvironment, _: threading.Event) -> None:
    connection: socket.socket = environ["werkzeug.socket"]
    # Lingering for zero seconds turns the close into a reset. The descriptor
    # itself goes when the handler closes its files, right after the error.
    linger = struct.pack("ii", 1, 0)
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, linger)
    connection.close()
    raise ConnectionResetError("reset on purpose")
