"""The servers of the two ports: connections that stay open, and TLS."""

from __future__ import annotations

import contextlib
import io
import itertools
import socket
import ssl
import threading
import time
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

HOST = "127.0.0.1"
CONNECTION = "tenant.connection"
App = Callable[[dict[str, Any], Any], Iterable[bytes]]  # WSGI (PEP 3333)

_BODY_LIMIT = 1 << 20


class Connections:
    """Open connections and the threads that serve them; thread-safe."""

    def __init__(self) -> None:
        self._open: dict[int, tuple[socket.socket, threading.Thread]] = {}
        self._numbers = itertools.count(1)
        self._closing = False
        self._lock = threading.Lock()

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

    def close(self, patience: float, *, for_good: bool = False) -> None:
        """End all connections: idle ones now, others after their answer.

        Waits for them to be gone; ``for_good`` ends those on their way in as well.
        """
        with self._lock:
            self._closing = for_good
            leaving = list(self._open.values())
        for connection, _ in leaving:
            _end_input(connection)
        deadline = time.monotonic() + patience
        for _, thread in leaving:
            thread.join(max(0.0, deadline - time.monotonic()))


def _end_input(connection: socket.socket) -> None:
    # The handler reads the end of the stream, as if its client had left, and
    # closes in good order. Past ssl's own shutdown(), which would have an
    # answer under way go out in the clear.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RD)


@dataclass(frozen=True)
class Seen:
    """A request that came in."""

    method: str
    path: str  # without the query
    connection: int  # the number of the connection it came on
    scheme: str = ""  # of its Authorization header: "basic", say


class _Handler(WSGIRequestHandler):
    """Serves one connection, request after request, until its client leaves."""

    connections: Connections

    protocol_version = "HTTP/1.1"
    # A whole answer in one packet, sent at once. In two, the second would wait
    # for the client's delayed acknowledgement of the first: 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.number = self.connections.add(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            # The client left with a part of its answer still in the buffer.
            self.rfile.close()
        finally:
            self.connections.remove(self.number)

    def run_wsgi(self) -> None:
        """Read the request's body to its end, then have the app answer."""
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        # Werkzeug reads on after an answer, until the client has no more to
        # say. That would swallow the next request: give it only this one's.
        stream, self.rfile = self.rfile, io.BytesIO(body)
        try:
            super().run_wsgi()
        finally:
            self.rfile = stream

    def make_environ(self) -> dict[str, Any]:
        return {**super().make_environ(), CONNECTION: self.number}

    def send_header(self, keyword: str, value: str) -> None:
        """Leave out Werkzeug's "Connection: close" where it is not so."""
        if keyword != "Connection" or self.close_connection:
            super().send_header(keyword, value)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Refuse a malformed request, and with it the rest of the connection."""
        self.close_connection = True
        super().send_error(code, message, explain)

    def connection_dropped(
        self, error: BaseException, environ: dict[str, Any] | None = None
    ) -> None:
        """Read no more requests where the connection is gone."""
        self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Say nothing: the terminal belongs to whoever started the tenant."""

    def _read_body(self) -> bytes | None:
        length = self.headers.get("Content-Length", "0")
        if "Transfer-Encoding" in self.headers:
            self.send_error(HTTPStatus.LENGTH_REQUIRED)
        elif not (length.isascii() and length.isdecimal()):
            self.send_error(HTTPStatus.BAD_REQUEST)
        elif int(length) > _BODY_LIMIT:
            self.send_error(HTTPStatus.REQUEST_ENTITY_TOO_LARGE)
        else:
            body = self.rfile.read(int(length))
            return body if len(body) == int(length) else None
        return None


@contextlib.contextmanager
def listening(
    app: App, connections: Connections, context: ssl.SSLContext | None = None
) -> Iterator[int]:
    """Serve on a loopback port that is free, with TLS or plain; yields the port.

    At the end it takes no more connections; those there are go on.
    """
    bound = type("BoundHandler", (_Handler,), {"connections": connections})
    server = serve_on(0, app, bound)
    if context is not None:
        # Without a handshake on accepting: it happens at the first read, in the
        # connection's own thread, so that a silent client keeps nobody waiting.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.ssl_context = context
    # Asked to stop, the server answers within one interval.
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()


def serve_on(port: int, app: App, handler: type[WSGIRequestHandler]) -> BaseWSGIServer:
    """Return a threaded server bound to a loopback port; 0 for any that is free."""
    # Where the port is taken, this raises an OSError; Werkzeug itself would exit.
    with socket.create_server((HOST, port), backlog=128) as listening:
        fd = listening.fileno()
        return make_server(HOST, port, app, True, request_handler=handler, fd=fd)


def server_context(ca_file: str) -> ssl.SSLContext:
    """Make a CA and a server's side of TLS for loopback; its certificate is kept."""
    try:
        import trustme
    except ModuleNotFoundError as error:
        raise ModuleNotFoundError(
            "The tenant needs the package trustme: "
            "pip install 'auth0-flask-login[testing]'",
            name=error.name,
        ) from error
    ca = trustme.CA()
    ca.cert_pem.write_to_path(ca_file)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    ca.issue_cert("localhost", "127.0.0.1").configure_cert(context)
    return context
