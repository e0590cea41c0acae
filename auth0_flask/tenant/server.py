"""HTTP servers for the two ports, with keep-alive connections and TLS."""

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
        """Register the connection of this thread and return its number."""
        with self._lock:
            number = next(self._numbers)
            self._open[number] = (connection, threading.current_thread())
            closing = self._closing
        if closing:
            _end_input(connection)
        return number

    def remove(self, number: int) -> None:
        """Unregister a connection before it is closed."""
        with self._lock:
            del self._open[number]

    def close(self, timeout: float, *, final: bool = False) -> None:
        """Close all connections: idle ones now, others after their response.

        Waits until they are closed. With ``final``, new ones are closed as well.
        """
        with self._lock:
            self._closing = final
            closing = list(self._open.values())
        for connection, _ in closing:
            _end_input(connection)
        deadline = time.monotonic() + timeout
        for _, thread in closing:
            thread.join(max(0.0, deadline - time.monotonic()))


def _end_input(connection: socket.socket) -> None:
    # The handler reads the end of the stream, as if the client had disconnected.
    # SSLSocket.shutdown() is bypassed: it would end TLS, and a response that is still
    # being written would be sent unencrypted.
    with contextlib.suppress(OSError):
        socket.socket.shutdown(connection, socket.SHUT_RD)


@dataclass(frozen=True)
class Seen:
    """A request to the tenant."""

    method: str
    path: str  # without the query
    connection: int  # the number of its connection
    scheme: str = ""  # of its Authorization header, such as "basic"


class _Handler(WSGIRequestHandler):
    """Serves the requests of one connection until the client disconnects."""

    connections: Connections

    protocol_version = "HTTP/1.1"
    # Send each response in one packet. The second of two would wait 40 ms for the
    # client's delayed acknowledgement of the first.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        super().setup()
        self.number = self.connections.add(self.connection)

    def finish(self) -> None:
        try:
            super().finish()
        except OSError:
            # The client disconnected before the whole response was sent.
            self.rfile.close()
        finally:
            self.connections.remove(self.number)

    def run_wsgi(self) -> None:
        """Read the whole request body, then call the app."""
        body = self._read_body()
        if body is None:
            self.close_connection = True
            return
        # After a response, Werkzeug reads and drops all remaining input, which would
        # include the next request. So it gets only this request's body.
        stream, self.rfile = self.rfile, io.BytesIO(body)
        try:
            super().run_wsgi()
        finally:
            self.rfile = stream

    def make_environ(self) -> dict[str, Any]:
        return {**super().make_environ(), CONNECTION: self.number}

    def send_header(self, keyword: str, value: str) -> None:
        """Omit Werkzeug's "Connection: close" if the connection stays open."""
        if keyword != "Connection" or self.close_connection:
            super().send_header(keyword, value)

    def send_error(
        self, code: int, message: str | None = None, explain: str | None = None
    ) -> None:
        """Reject a malformed request and close the connection."""
        self.close_connection = True
        super().send_error(code, message, explain)

    def connection_dropped(
        self, error: BaseException, environ: dict[str, Any] | None = None
    ) -> None:
        """Read no more requests from a lost connection."""
        self.close_connection = True

    def log(self, type: str, message: str, *args: Any) -> None:  # noqa: A002
        """Do not log, since the terminal belongs to the program under test."""

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
    """Serve on a free loopback port, with TLS if there is a context; yield the port.

    On exit, new connections are refused. Open ones are not closed.
    """
    handler = type("BoundHandler", (_Handler,), {"connections": connections})
    server = serve_on(0, app, handler)
    if context is not None:
        # The handshake happens at the first read, in the connection's own thread. On
        # accept, a client that sends nothing would block all others.
        server.socket = context.wrap_socket(
            server.socket, server_side=True, do_handshake_on_connect=False
        )
        server.ssl_context = context
    # shutdown() takes up to one poll interval, here 0.05 s.
    thread = threading.Thread(target=server.serve_forever, args=(0.05,), daemon=True)
    thread.start()
    try:
        yield server.port
    finally:
        server.shutdown()
        thread.join()


def serve_on(port: int, app: App, handler: type[WSGIRequestHandler]) -> BaseWSGIServer:
    """Return a threaded server bound to a loopback port; 0 means any free port."""
    # If the port is in use, this raises an OSError; Werkzeug itself would exit.
    with socket.create_server((HOST, port), backlog=128) as listening:
        fd = listening.fileno()
        return make_server(HOST, port, app, True, request_handler=handler, fd=fd)


def server_context(ca_file: str) -> ssl.SSLContext:
    """Return a TLS context for loopback, and write its new CA to a file."""
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
