"""What meets every request before the pages and endpoints do."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from auth0_flask.tenant.faults import Faults

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

CONNECTION = "tenant.connection"


@dataclass(frozen=True)
class Seen:
    """A request that came in.

    Attributes:
        method: "GET", "POST" and so on.
        path: The path without the query.
        connection: The number of the connection it came on.
        scheme: That of its Authorization header, "basic" say, or nothing.
    """

    method: str
    path: str
    connection: int
    scheme: str = ""


class Front:
    """Notes each request, then lets a waiting fault go first."""

    def __init__(
        self,
        app: WSGIApplication,
        note: Callable[[Seen], None],
        faults: Faults,
        stopping: threading.Event,
    ) -> None:
        """Stand in front of a WSGI app; ``stopping`` ends slow answers."""
        self._app = app
        self._note = note
        self._faults = faults
        self._stopping = stopping

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        scheme = environ.get("HTTP_AUTHORIZATION", "").partition(" ")[0].lower()
        self._note(Seen(method, path, environ.get(CONNECTION, 0), scheme))
        fault = self._faults.take(path)
        answer = fault.act(environ, self._stopping) if fault else None
        return (answer or self._app)(environ, start_response)
