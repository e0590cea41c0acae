"""The tenant with its two ports, and the Flask app that both serve."""

from __future__ import annotations

import os
import tempfile
import time
from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path
from typing import Any, Self

from flask import Flask, render_template
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response

from . import backchannel, browser, logins, my_account
from .errors import TokenError, error_response
from .faults import Forgery
from .provider import Provider
from .server import CONNECTION, Connections, Seen, listening, server_context
from .tokens import logout_token

_CLOSE_TIMEOUT = 0.15
_LOGOUT_TIMEOUT = 10.0  # longer than the app's own timeout for a logout token
_HOSTS = ("localhost", "127.0.0.1")
_TITLES = {400: "That did not work", 403: "Not allowed", 404: "Not found"}


class Tenant(Provider):
    """A local stand-in for an Auth0 tenant.

    One port uses TLS, for apps. The other uses plain http, for browsers, which would
    not trust the certificate. Both serve the same endpoints.
    """

    def __init__(self) -> None:
        super().__init__()
        self._connections = Connections()
        self._running: ExitStack | None = None
        self._app = create_app(self)

    def __enter__(self) -> Self:
        self.start()
        return self

    def __exit__(self, *_: object) -> None:
        self.stop()

    def __call__(self, environ: dict[str, Any], start: Any) -> Iterable[bytes]:
        """Record a request, and respond with a fault or as usual (PEP 3333)."""
        method, path = environ["REQUEST_METHOD"], environ["PATH_INFO"]
        scheme = environ.get("HTTP_AUTHORIZATION", "").partition(" ")[0].lower()
        self.requests.append(Seen(method, path, environ.get(CONNECTION, 0), scheme))
        fault = self.pop_fault(path)
        answer = fault.act(environ, self.stopping) if fault else None
        return (answer or self._app.wsgi_app)(environ, start)

    def start(self) -> None:
        """Start to listen on two free ports."""
        if self._running is not None:
            raise RuntimeError("The tenant is running already.")
        self.stopping.clear()
        self._connections = Connections()
        with ExitStack() as stack:
            folder = stack.enter_context(tempfile.TemporaryDirectory(prefix="tenant-"))
            self.ca_file = str(Path(folder, "ca.pem"))
            context = server_context(self.ca_file)
            stack.callback(self.finish_backchannel, _LOGOUT_TIMEOUT)
            stack.callback(self._connections.close, _CLOSE_TIMEOUT, final=True)
            tls = stack.enter_context(listening(self, self._connections, context))
            http = stack.enter_context(listening(self, self._connections))
            self.domain = f"localhost:{tls}"
            self.issuer = f"https://{self.domain}/"
            self.my_account = f"{self.issuer}me/"
            self.origin = f"http://localhost:{http}"
            self._running = stack.pop_all()

    def stop(self) -> None:
        """Close all connections and ports, and delete the CA certificate."""
        if self._running is not None:
            self.stopping.set()
            self._running.close()
            self._running = None

    def close_connections(self) -> None:
        """Close connections: idle ones now, others after their response."""
        self._connections.close(_CLOSE_TIMEOUT)

    def logout_token(
        self,
        *,
        sub: str | None = None,
        sid: str | None = None,
        forge: str | None = None,
        claims: Mapping[str, Any] | None = None,
        header: Mapping[str, Any] | None = None,
    ) -> str:
        """Return a logout token (OpenID Connect Back-Channel Logout, section 2.4).

        ``sub`` or ``sid`` may be omitted. ``forge`` is a kind as in ``forge()``. None
        removes a claim or a header parameter.
        """
        forgery = Forgery(forge, dict(claims or {}))
        if forge == "absent":
            raise ValueError("A logout token cannot be absent.")
        return logout_token(self, sub, sid, forgery, header)

    def finish_backchannel(self, patience: float = 5.0) -> bool:
        """Wait for the app's responses to logout tokens; return whether all came."""
        deadline, threads = time.monotonic() + patience, list(self.logout_threads)
        for thread in threads:
            thread.join(max(0.0, deadline - time.monotonic()))
        return not any(thread.is_alive() for thread in threads)

    def environ(self, redirect_uri: str | None = None) -> dict[str, str]:
        """Return the environment variables that make an app use this tenant.

        ``SSL_CERT_FILE`` makes the app trust the tenant's certificate. Browsers do not
        trust it, so their URLs are plain http: those in the discovery document, and
        ``/v2/logout`` at the origin of ``authorization_endpoint``.

        These variables override the app's ``.env``. Settings that would break the login
        are empty: the signing key (the tenant expects the client secret), the
        organization (the tenant may not have it), and ``AUTH0_REDIS_URL`` unless the
        environment has it.
        """
        redirect_uri = redirect_uri or "http://localhost:5000/callback"
        self.callback = self.callback or redirect_uri
        return {
            "AUTH0_DOMAIN": self.domain,
            "AUTH0_CLIENT_ID": self.client_id,
            "AUTH0_CLIENT_SECRET": self.client_secret,
            "AUTH0_SECRET": self._app_secret,
            "AUTH0_REDIRECT_URI": redirect_uri,
            "AUTH0_CLIENT_ASSERTION_SIGNING_KEY": "",
            "AUTH0_ORGANIZATION": "",
            "AUTH0_REDIS_URL": os.environ.get("AUTH0_REDIS_URL", ""),
            "SSL_CERT_FILE": self.ca_file,
            "NO_PROXY": _without_proxy("NO_PROXY", "no_proxy"),
            "no_proxy": _without_proxy("no_proxy", "NO_PROXY"),
        }


def _without_proxy(name: str, other: str) -> str:
    """Return the NO_PROXY variable with the tenant's hosts added."""
    value = os.environ.get(name) or os.environ.get(other) or ""
    hosts = [host.strip() for host in value.split(",") if host.strip()]
    if hosts == ["*"]:  # urllib ignores "*" in a list of several hosts
        return "*"
    return ",".join([*hosts, *(host for host in _HOSTS if host not in hosts)])


def create_app(provider: Provider) -> Flask:
    """Build the app that both ports serve."""
    app = Flask(__name__)
    # Against DNS rebinding: with another name for 127.0.0.1, a website could send
    # same-origin requests to the tenant.
    app.config["TRUSTED_HOSTS"] = list(_HOSTS)
    app.extensions["tenant"] = provider
    for part in (backchannel, browser, logins, my_account):
        app.register_blueprint(part.routes)
    app.register_error_handler(TokenError, error_response)
    app.register_error_handler(HTTPException, _error_page)
    app.after_request(_add_headers)
    return app


def _error_page(error: HTTPException) -> tuple[str, int]:
    status = error.code or 500
    title, text = _TITLES.get(status, error.name), error.description
    return render_template("message.html", title=title, message=text), status


def _add_headers(response: Response) -> Response:
    headers = response.headers
    headers.setdefault("Cache-Control", "no-store")
    headers.setdefault("Content-Security-Policy", browser.POLICY)
    headers["X-Content-Type-Options"] = "nosniff"
    headers["Referrer-Policy"] = "same-origin"
    return response
