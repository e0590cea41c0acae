"""The apps to compare, which return the user's claims at /api/me, and their users."""

from __future__ import annotations

import json
import random
from collections.abc import Callable, Iterable, Iterator, Mapping
from functools import partial
from typing import Any
from unittest.mock import patch

from flask import Flask, Response, jsonify, render_template, session
from itsdangerous.encoding import base64_encode
from werkzeug.test import EnvironBuilder

from auth0_flask.stores import SharedStore

ADDRESS = "http://localhost:5000"
#: The number of different users that send requests in turn.
USERS = 3_000
_random = random.Random(0)  # noqa: S311 - repeatable

CLAIMS: dict[str, Any] = json.loads("""{
  "sub": "auth0|65f0c0ffee65f0c0ffee65f0", "name": "Alice Archer", "nickname": "alice",
  "given_name": "Alice", "family_name": "Archer", "email": "alice@example.com",
  "picture": "https://s.gravatar.com/avatar/23463b99b62a72f26ed677cc556c44e8?s=480",
  "email_verified": true, "updated_at": "2026-11-21T06:53:00.000Z",
  "iss": "https://tenant.eu.auth0.com/", "aud": "kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA",
  "iat": 1795244000, "exp": 1795280000, "sid": "Qm7Yx2Lk9Vb4Nc8Zt1Rf6Hs3Wd5Jg0Pa"
}""")


def bare() -> Flask:
    """Return a minimal app with a sync view and an async one."""

    async def async_me() -> Response:
        return jsonify(CLAIMS)

    app = Flask(__name__)
    app.add_url_rule("/api/me", view_func=lambda: jsonify(CLAIMS))
    app.add_url_rule("/async", view_func=async_me)
    return app


def quickstart() -> Flask:
    """Return an app like Authlib's quickstart, with claims in Flask's signed cookie."""
    app = Flask(__name__)
    app.secret_key = "k" * 32
    app.add_url_rule("/api/me", view_func=lambda: jsonify(session.get("user")))
    return app


def ours(*, redis: Any = None) -> Flask:
    """Return an app as in the README, with a sync view and an async one."""
    import auth

    app = Flask(__name__)
    auth.init_app(app, redis=redis)
    app.register_blueprint(auth.routes)

    @app.get("/api/me")
    @auth.login_required
    def me() -> Response:
        return jsonify(auth.auth_user)

    @app.get("/async")
    @auth.login_required
    async def async_me() -> Response:
        return jsonify(await auth.auth0.get_user())

    app.add_url_rule("/token", view_func=token)
    return app


async def token() -> str:
    """Return an access token, as a view."""
    from auth import auth0

    return str(await auth0.get_access_token())


def demo(*, redis: Any = None) -> Flask:
    """Return this project's demo, whose async views reuse event loops."""
    import app
    import auth

    with patch.object(auth, "init_app", partial(auth.init_app, redis=redis)):
        return app.create_app()


def bare_home(user: dict[str, Any] | None) -> Flask:
    """Return an app that only renders our home page for this user."""
    app = demo()
    app.before_request_funcs.clear()
    app.after_request_funcs.clear()
    app.session_interface, app.secret_key = Flask.session_interface, None
    app.context_processor(lambda: {"auth_user": user or {}})
    page: dict[str, Any] = {"user": user, "connections": [], "here_only": False}
    app.view_functions["home"] = lambda: render_template("home.html", **page)
    return app


def claims(number: int) -> dict[str, Any]:
    """Return the claims of one of many users; all have the same length."""
    name = f"user{number:06}"
    own = {"nickname": name, "email": f"{name}@example.com", "sid": opaque(32)}
    return {**CLAIMS, **own, "sub": f"auth0|{number:024}"}


def opaque(length: int) -> str:
    """Return an opaque token of this length."""
    return base64_encode(_random.randbytes(length)).decode()[:length]


def jwt(payload: dict[str, Any]) -> str:
    """Return a JWT with a random signature of the length of RS256."""
    head = {"alg": "RS256", "typ": "JWT", "kid": opaque(21)}
    parts = [json.dumps(part, separators=(",", ":")) for part in (head, payload)]
    return ".".join([*(base64_encode(part).decode() for part in parts), opaque(342)])


def state(user: dict[str, Any], permissions: int | None = None) -> dict[str, Any]:
    """Return the SDK's state after a login.

    The access token is opaque, or a JWT with so many permissions of 18 bytes each.
    """
    access_token = opaque(43)
    if permissions is not None:
        names = [f"{opaque(6)}:{opaque(8)}" for _ in range(permissions)]
        api = {**CLAIMS, "aud": "https://api.example.com", "permissions": names}
        access_token = jwt(api)
    tokens = {
        "audience": "default",
        "access_token": access_token,
        "scope": "openid profile email offline_access",
        "expires_at": 1795330400,
    }
    return {
        "user": user,
        "id_token": jwt(user),
        "refresh_token": opaque(43),
        "token_sets": [tokens],
        "domain": "tenant.eu.auth0.com",
        "internal": {"sid": user["sid"], "created_at": 1795244000},
    }


def cookie_header(app: Flask, begin: Callable[..., object], *args: Any) -> str:
    """Return the Cookie header of a user after the call ``begin(*args)``."""
    with app.test_request_context(base_url=ADDRESS):
        begin(*args)
        pairs = app.process_response(Response()).headers.getlist("Set-Cookie")
    return "; ".join(pair.partition(";")[0] for pair in pairs)


def sign_in(state: dict[str, Any], unused: float = 0) -> None:
    """Begin one of our sessions, last used so many seconds ago."""
    from auth import auth0

    saved = auth0.sessions.save(state)
    saved["session"]["used_at"] -= unused
    auth0.sessions.adopt(saved, {})


def cookies(
    app: Flask, users: int = USERS, permissions: int | None = None, unused: float = 0
) -> Iterator[str]:
    """Yield the Cookie headers of many users, without entries in lists of devices."""
    extension = app.extensions["auth0"]
    store, extension.shared_store = extension.shared_store, SharedStore()
    store.check()  # the store of revocations must be older than the sessions
    for number in range(users):
        yield cookie_header(app, sign_in, state(claims(number), permissions), unused)
    extension.shared_store = store


def quickstart_cookies() -> list[str]:
    """Return the Cookie headers of all users of ``quickstart``."""
    app, users = quickstart(), map(claims, range(USERS))
    return [cookie_header(app, lambda u: session.update(user=u), u) for u in users]


def environs(path: str, cookies: Iterable[str]) -> list[dict[str, Any]]:
    """Return the WSGI environments of requests with these Cookie headers."""
    headers = ([("Cookie", each)] if each else [] for each in cookies)
    return [EnvironBuilder(path, ADDRESS, headers=h).get_environ() for h in headers]


def run_request(app: Flask, environ: Mapping[str, Any]) -> bytes:
    """Run a request, which must succeed, and return the response body."""
    statuses: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        statuses.append(status)

    chunks = app.wsgi_app(dict(environ), start_response)
    body = b"".join(chunks)
    if hasattr(chunks, "close"):
        chunks.close()
    assert statuses == ["200 OK"], statuses  # noqa: S101
    return body
