"""For tests of an app: sign a test client in, without a tenant."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

from flask import Flask, Response, session
from flask.testing import FlaskClient

from .extension import installed
from .one_loop import STATE_IDENTIFIER

if TYPE_CHECKING:
    import httpx

    Client = FlaskClient | httpx.Client | httpx.AsyncClient

#: The claim that `roles` go into; Auth0 wants such names to be addresses.
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
    """Sign a test client in; what the app keeps in its session stays.

    Args:
        client: Flask's test client, or one of httpx over the app
            (``WSGITransport(app)``, ``ASGITransport(WsgiToAsgi(app))``).
        sub: Who signs in.
        email: Their verified e-mail address.
        roles: What the claim ``roles_claim`` holds.
        organization: The id (``org_...``) or the name of an organization.
        roles_claim: The claim that the app looks for roles in.
        claims: What else is claimed of them.

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
    for header in _cookies_for(app, user, _session_of(client, app)):
        name, _, value = header.partition(";")[0].partition("=")
        if isinstance(client, FlaskClient):
            client.set_cookie(name, value, domain=_domain(app))
        else:
            client.cookies.set(name, value)
    return user


def _session_of(client: Client, app: Flask) -> str:
    """Return the session that a client has, as it would send it: a cart is to stay."""
    name = app.session_interface.get_cookie_name(app)
    found = {n: _value(client, app, n) for n in (name, f"{name}.1", f"{name}.2")}
    return "; ".join(f"{n}={value}" for n, value in found.items() if value)


def _value(client: Client, app: Flask, name: str) -> str | None:
    if isinstance(client, FlaskClient):
        cookie = client.get_cookie(name, _domain(app))
        return cookie.value if cookie else None
    return client.cookies.get(name)


def _domain(app: Flask) -> str:
    return (app.config["SERVER_NAME"] or "localhost").partition(":")[0]


def _cookies_for(app: Flask, user: dict[str, Any], cookies: str) -> list[str]:
    """Let the app's own stores and session interface make the cookies."""
    with app.app_context():
        auth0 = installed().client
    response = Response()
    state = {
        "user": user,
        "token_sets": [],
        "domain": auth0.settings.domain,
        "internal": {"sid": "test-session", "created_at": user["iat"]},
    }
    auth0.sessions.lifetime.revocations.open()
    with app.test_request_context(headers={"Cookie": cookies}):
        auth0.sessions.keep(STATE_IDENTIFIER, state)
        kept = session._get_current_object()  # type: ignore[attr-defined]  # Flask documents it
        app.session_interface.save_session(app, kept, response)
    return response.headers.getlist("Set-Cookie")


def _app_of(client: Client) -> Flask:
    if isinstance(client, FlaskClient):
        return client.application
    # httpx has no public way from a client to its transport
    app = getattr(client._transport, "app", None)
    app = getattr(app, "wsgi_application", app)  # within asgiref's WsgiToAsgi
    if isinstance(app, Flask):
        return app
    raise TypeError(
        "login_as takes Flask's test client, or one of httpx whose transport is "
        "WSGITransport(app) or ASGITransport(WsgiToAsgi(app))."
    )
