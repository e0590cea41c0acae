"""What is compared: apps that answer the user's claims at /api/me, and who asks."""

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
#: So many different users ask in turn.
USERS = 3_000
_random = random.Random(0)  # noqa: S311 - the same sizes at every run

CLAIMS: dict[str, Any] = json.loads("""{
  "sub": "auth0|65f0c0ffee65f0c0ffee65f0", "name": "Alice Archer", "nickname": "alice",
  "given_name": "Alice", "family_name": "Archer", "email": "alice@example.com",
  "picture": "https://s.gravatar.com/avatar/23463b99b62a72f26ed677cc556c44e8?s=480",
  "email_verified": true, "updated_at": "2026-11-21T06:53:00.000Z",
  "iss": "https://tenant.eu.auth0.com/", "aud": "kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA",
  "iat": 1795244000, "exp": 1795280000, "sid": "Qm7Yx2Lk9Vb4Nc8Zt1Rf6Hs3Wd5Jg0Pa"
}""")


def bare() -> Flask:
    """Return an app with a sync view and an async one, and nothing else."""

    async def answer() -> Response:
        return jsonify(CLAIMS)

    app = Flask(__name__)
    app.add_url_rule("/api/me", view_func=lambda: jsonify(CLAIMS))
    app.add_url_rule("/async", view_func=answer)
    return app


def quickstart() -> Flask:
    """Return the shape of Authlib's quickstart: claims in a session that is signed."""
    app = Flask(__name__)
    app.secret_key = "k" * 32
    app.add_url_rule("/api/me", view_func=lambda: jsonify(session.get("user")))
    return app


def ours(*, redis: Any = None) -> Flask:
    """Return an app as the README shows, with views of both kinds."""
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
    async def me_too() -> Response:
        return jsonify(await auth.auth0.get_user())

    app.add_url_rule("/token", view_func=token)
    return app


async def token() -> str:
    """Return an access token; a view."""
    from auth import auth0

    return str(await auth0.get_access_token())


def demo(*, redis: Any = None) -> Flask:
    """Return the app of this project, whose async views reuse event loops."""
    import app
    import auth

    with patch.object(auth, "init_app", partial(auth.init_app, redis=redis)):
        return app.create_app()


def bare_home(user: dict[str, Any] | None) -> Flask:
    """Return an app that draws our home page for this user, and does nothing else."""
    app = demo()
    app.before_request_funcs.clear()
    app.after_request_funcs.clear()
    app.session_interface, app.secret_key = Flask.session_interface, None
    app.context_processor(lambda: {"auth_user": user or {}})
    page: dict[str, Any] = {"user": user, "connections": [], "here_only": False}
    app.view_functions["home"] = lambda: render_template("home.html", **page)
    return app


def claims(number: int) -> dict[str, Any]:
    """Return the claims of one of many users; all are of the same length."""
    name = f"user{number:06}"
    own = {"nickname": name, "email": f"{name}@example.com", "sid": opaque(32)}
    return {**CLAIMS, **own, "sub": f"auth0|{number:024}"}


def opaque(length: int) -> str:
    """Return a random token of that many characters."""
    return base64_encode(_random.randbytes(length)).decode()[:length]


def jwt(payload: dict[str, Any]) -> str:
    """Return what a JWT signed by RS256 looks like."""
    head = {"alg": "RS256", "typ": "JWT", "kid": opaque(21)}
    parts = [json.dumps(part, separators=(",", ":")) for part in (head, payload)]
    return ".".join([*(base64_encode(part).decode() for part in parts), opaque(342)])


def state(user: dict[str, Any], permissions: int | None = None) -> dict[str, Any]:
    """Return what the SDK keeps after a login.

    With a number of permissions (18 bytes each), the access token is a JWT that lists
    them.
    """
    access_token = opaque(43)
    if permissions is not None:
        listed = [f"{opaque(6)}:{opaque(8)}" for _ in range(permissions)]
        api = {**CLAIMS, "aud": "https://api.example.com", "permissions": listed}
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


def cookie(app: Flask, begin: Callable[..., object], *given: Any) -> str:
    """Return the Cookie header of whoever signs in by calling ``begin(*given)``."""
    with app.test_request_context(base_url=ADDRESS):
        begin(*given)
        pairs = app.process_response(Response()).headers.getlist("Set-Cookie")
    return "; ".join(pair.partition(";")[0] for pair in pairs)


def sign_in(state: dict[str, Any], unused: float = 0) -> None:
    """Begin a session of ours, as if its user had been away for some seconds."""
    from auth import auth0

    kept = auth0.sessions.save(state)
    kept["session"]["used_at"] -= unused
    auth0.sessions.adopt(kept)


def cookies(
    app: Flask, users: int = USERS, permissions: int | None = None, unused: float = 0
) -> Iterator[str]:
    """Yield those of so many users of ours; they are on no list of devices."""
    extension = app.extensions["auth0"]
    store, extension.shared_store = extension.shared_store, SharedStore()
    store.check()  # what remembers logouts has to be older than a session
    for number in range(users):
        yield cookie(app, sign_in, state(claims(number), permissions), unused)
    extension.shared_store = store


def quickstart_cookies() -> list[str]:
    """Return those of all users of `quickstart`."""
    app, users = quickstart(), map(claims, range(USERS))
    return [cookie(app, lambda user: session.update(user=user), u) for u in users]


def requests(path: str, cookies: Iterable[str]) -> list[dict[str, Any]]:
    """Return the WSGI environments of requests with these Cookie headers."""
    headers = ([("Cookie", each)] if each else [] for each in cookies)
    return [EnvironBuilder(path, ADDRESS, headers=h).get_environ() for h in headers]


def ask(app: Flask, environ: Mapping[str, Any]) -> bytes:
    """Run a request through an app, which has to succeed; return the body."""
    statuses: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        statuses.append(status)

    answered = app.wsgi_app(dict(environ), start_response)
    body = b"".join(answered)
    if hasattr(answered, "close"):
        answered.close()
    assert statuses == ["200 OK"], statuses  # noqa: S101 - not worth timing
    return body
