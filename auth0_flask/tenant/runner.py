"""Running the app, or another program, against a tenant."""

from __future__ import annotations

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterable, Sequence
from types import FrameType
from typing import TYPE_CHECKING, Any

from werkzeug.serving import BaseWSGIServer, WSGIRequestHandler

from auth0_flask.tenant.server import serve_on
from auth0_flask.tenant.tenant import Tenant

if TYPE_CHECKING:
    from _typeshed.wsgi import StartResponse, WSGIApplication, WSGIEnvironment

_FIRST_PORT = 5000
_NOT_EXECUTABLE, _NOT_FOUND = 126, 127


class BrowserAddress:
    """Middleware that sends browsers to the tenant's plain http port.

    The SDK makes logout addresses from the domain, which is the TLS port's;
    there a browser would warn of a certificate it does not trust.
    """

    def __init__(self, app: WSGIApplication, tenant: Tenant) -> None:
        """Wrap an app that is set up for this tenant."""
        self._app = app
        self._secure = tenant.issuer.rstrip("/")
        self._plain = tenant.origin

    def __call__(
        self, environ: WSGIEnvironment, start_response: StartResponse
    ) -> Iterable[bytes]:
        """Answer a request (PEP 3333)."""

        def start(
            status: str, headers: list[tuple[str, str]], *rest: Any
        ) -> Callable[[bytes], object]:
            return start_response(status, self._redirected(headers), *rest)

        return self._app(environ, start)

    def _redirected(self, headers: list[tuple[str, str]]) -> list[tuple[str, str]]:
        concerned = {"location", "content-security-policy"}
        return [
            (n, v.replace(self._secure, self._plain) if n.lower() in concerned else v)
            for n, v in headers
        ]


class QuietHandler(WSGIRequestHandler):
    """Serves the app without a line on the terminal for each request."""

    def log_request(self, code: int | str = "-", size: int | str = "-") -> None:
        """Say nothing."""


def serve_app(announce: Callable[[Tenant, int], None]) -> None:
    """Serve the project's app with a tenant, until interrupted.

    Args:
        announce: Called with the tenant and the app's port once both answer.

    Raises:
        KeyboardInterrupt: If interrupted while starting.
        ModuleNotFoundError: If there is no ``app.py`` here.
    """
    _on_signals(signal.default_int_handler)
    with Tenant() as tenant:
        server = _bind_app(tenant)
        announce(tenant, server.port)
        server.serve_forever(poll_interval=0.1)
        # A second Ctrl+C, from somebody impatient, would leave a traceback.
        _on_signals(signal.SIG_IGN)


def run_command(command: Sequence[str]) -> int:
    """Run a program with a tenant and its variables in the environment.

    ``AUTH0_REDIRECT_URI`` stays what the environment has.

    Returns:
        The program's exit code; 128 and the signal's number if one ended it.
    """
    with Tenant() as tenant:
        given = os.environ.get("AUTH0_REDIRECT_URI")
        settings = tenant.environ(given) if given else tenant.environ()
        environment = {**os.environ, **settings}
        try:
            child = subprocess.Popen(command, env=environment)  # noqa: S603  # as asked
        except OSError as error:
            print(f"{command[0]}: {error.strerror}", file=sys.stderr)  # noqa: T201
            missing = isinstance(error, FileNotFoundError)
            return _NOT_FOUND if missing else _NOT_EXECUTABLE
        _pass_signals_on(child)
        code = child.wait()
    return code if code >= 0 else 128 - code


def _bind_app(tenant: Tenant) -> BaseWSGIServer:
    later: list[WSGIApplication] = []

    def app(environ: WSGIEnvironment, start: StartResponse) -> Iterable[bytes]:
        return later[0](environ, start)

    # The app reads its own address when it is imported, so the port comes first.
    server = _bind(app)
    try:
        later.append(BrowserAddress(_load_app(tenant, server.port), tenant))
    except BaseException:
        server.server_close()
        raise
    return server


def _load_app(tenant: Tenant, port: int) -> WSGIApplication:
    os.environ.update(tenant.environ(f"http://localhost:{port}/callback"))
    from app import create_app

    return create_app()


def _bind(app: WSGIApplication) -> BaseWSGIServer:
    for port in range(_FIRST_PORT, _FIRST_PORT + 100):
        if _answers_on_ipv6(port):
            continue
        try:
            return serve_on(port, app, QuietHandler)
        except OSError:
            continue
    return serve_on(0, app, QuietHandler)


def _answers_on_ipv6(port: int) -> bool:
    # "localhost" leads a browser there first: macOS has a service on [::1]:5000.
    try:
        with socket.create_connection(("::1", port), timeout=0.2):
            return True
    except OSError:
        return False


def _pass_signals_on(child: subprocess.Popen[bytes]) -> None:
    def pass_on(number: int, _: FrameType | None) -> None:
        # The terminal sends Ctrl+C to the child as well: once is enough.
        if not (number == signal.SIGINT and _in_foreground()):
            child.send_signal(number)

    _on_signals(pass_on)


def _on_signals(
    handler: Callable[[int, FrameType | None], Any] | signal.Handlers,
) -> None:
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handler)


def _in_foreground() -> bool:
    try:
        return os.tcgetpgrp(sys.stdin.fileno()) == os.getpgrp()
    except (AttributeError, OSError, ValueError):
        return False
