"""Werkzeug's threaded server with connections that stay open."""

from __future__ import annotations

import io
import socket
import ssl
import threading
from http import HTTPStatus
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler, make_server

from auth0_flask.tenant.connections import Connections
from auth0_flask.tenant.front import CONNECTION

if TYPE_CHECKING:
    from _typeshed.wsgi import WSGIApplication, WSGIEnvironment

HOST = "127.0.0.1"

_BODY_LIMIT = 1 << 20


class Handler(WSGIRequestHandler):
    """Serves one connection, request after request, until its client leaves."""

    connections: Connections

    protocol_version = "HTTP/1.1"
    # A whole answer in one packet, sent at once. In two, the second would wait
    # for the client's delayed acknowledgement of the first: 40 ms.
    wbufsize = -1
    disable_nagle_algorithm = True

    def setup(self) -> None:
        """Register the connection."""
        super().setup()
        self.number = self.connections.add(self.connection)

    def finish(self) -> None:
        """Close the connection's files and forget it."""
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
            return
        # Werkzeug reads on after an answer, until the client has no more to
        # say. That would swallow the next request: give it only this one's.
        stream, self.rfile = self.rfile, io.BytesIO(body)
        try:
            super().run_wsgi()
        finally:
            self.rfile = stream

    def make_environ(self) -> WSGIEnvironment:
        """Tell the app which connection the request came on."""
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

    def handle_expect_100(self) -> bool:
        """Let a client that waits for leave send its body (RFC 9110, 10.1.1)."""
        goes_on = super().handle_expect_100()
        self.wfile.flush()
        del self.headers["Expect"]
        return goes_on

    def connection_dropped(
        self, error: BaseException, environ: WSGIEnvironment | None = None
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
            return self._read_exactly(int(length))
        return None

    def _read_exactly(self, length: int) -> bytes | None:
        body = self.rfile.read(length)
        if len(body) == length:
            return body
        self.close_connection = True
        return None


class Listener:
    """A server on a loopback port, in a thread of its own."""

    def __init__(
        self,
        port: int,
        app: WSGIApplication,
        connections: Connections,
        context: ssl.SSLContext | None = None,
    ) -> None:
        """Bind the port and serve.

        Args:
            port: The port, or 0 for any that is free.
            app: What answers.
            connections: Where its connections register.
            context: The server's side of TLS; None for plain http.

        Raises:
            OSError: If the port is taken.
        """
        bound = type("BoundHandler", (Handler,), {"connections": connections})
        self._server = serve_on(port, app, bound)
        if context is not None:
            _use_tls(self._server, context)
        self.port = self._server.port
        # Asked to stop, the server answers within one interval.
        self._thread = threading.Thread(
            target=self._server.serve_forever, args=(0.05,), daemon=True
        )
        self._thread.start()

    def close(self) -> None:
        """Take no more connections; those there are go on."""
        self._server.shutdown()
        self._thread.join()


def serve_on(
    port: int, app: WSGIApplication, handler: type[WSGIRequestHandler]
) -> BaseWSGIServer:
    """Return a threaded server bound to a loopback port; 0 for any that is free.

    Raises:
        OSError: If the port is taken. (Werkzeug itself would exit.)
    """
    with socket.create_server((HOST, port), backlog=128) as listening:
        return make_server(
            HOST,
            port,
            app,
            threaded=True,
            request_handler=handler,
            fd=listening.fileno(),
        )


def _use_tls(server: BaseWSGIServer, context: ssl.SSLContext) -> None:
    # Without a handshake on accepting: it happens at the first read, in the
    # connection's own thread, so that a silent client keeps nobody waiting.
    server.socket = context.wrap_socket(
        server.socket, server_side=True, do_handshake_on_connect=False
    )
    server.ssl_context = context
