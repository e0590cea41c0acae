"""For tests of an app: sign a test client in, without a tenant."""

from __future__ import annotations

import time
from typing import Any

import httpx
from flask import Flask, Response, session
from flask.testing import FlaskClient

from .redirects import extension

Client = FlaskClient | httpx.Client | httpx.AsyncClient

#: The claim that `roles` go into; Auth0 requires such names to be addresses.
ROLES = "https://example.com/roles"


def login_as(
    client: Client,
    *,
    sub: str = "auth0|test",
    email: str | None = None,
    roles: list[str] | None = None,
    organization: str | None = None,
    roles_claim: str = ROLES,
    **claims: Any,
) -> dict[str, Any]:
    """Sign in a test client; the app's data in its session stays.

    Args:
        client: Flask's test client, or one of httpx over the app
            (``WSGITransport(app)``, ``ASGITransport(WsgiToAsgi(app))``).
        sub: The user who signs in.
        email: Their verified email address.
        roles: The value of the claim ``roles_claim``.
        organization: The id (``org_...``) or the name of an organization.
        roles_claim: The claim that the app looks for roles in.
        claims: Further claims.

    Returns:
        The claims.
    """
    now = int(time.time())
    user = {"sub": sub, "auth_time": now, "iat": now, **claims}
    if email:
        user |= {"email": email, "email_verified": True}
    if roles is not None:
        user[roles_claim] = roles
    if organization:
        kind = "org_id" if organization.startswith("org_") else "org_name"
        user[kind] = organization
    app = _app_of(client)
    with app.test_request_context(headers={"Cookie": _cookies_of(client)}):
        # the app's own stores and session interface make the cookies
        auth0, response = extension().client, Response()
        extension().shared_store.check()
        internal = {"sid": "test-session", "created_at": now}
        state = {"user": user, "token_sets": [], "internal": internal}
        auth0.sessions.save({**state, "domain": auth0.settings.domain})
        kept = session._get_current_object()  # type: ignore[attr-defined]  # Flask documents it
        app.session_interface.save_session(app, kept, response)
    for header in response.headers.getlist("Set-Cookie"):
        name, _, value = header.partition(";")[0].partition("=")
        if isinstance(client, FlaskClient):
            domain = (app.config["SERVER_NAME"] or "localhost").partition(":")[0]
            client.set_cookie(name, value, domain=domain)
        else:
            client.cookies.set(name, value)
    return user


def _app_of(client: Client) -> Flask:
    if isinstance(client, FlaskClient):
        return client.application
    # httpx has no public way from a client to its transport
    app = getattr(getattr(client, "_transport", None), "app", None)
    app = getattr(app, "wsgi_application", app)  # within asgiref's WsgiToAsgi
    if isinstance(app, Flask):
        return app
    raise TypeError(
        "login_as takes Flask's test client, or one of httpx whose transport is "
        "WSGITransport(app) or ASGITransport(WsgiToAsgi(app))."
    )


def _cookies_of(client: Client) -> str:
    """Return the cookies that a client would send: a cart is to stay."""
    if isinstance(client, FlaskClient):
        environ = client._request_from_builder_args((), {}).environ
        return str(environ.get("HTTP_COOKIE", ""))
    return "; ".join(f"{name}={value}" for name, value in client.cookies.items())
