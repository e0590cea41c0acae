"""What is compared: apps that answer the same claims at /api/me, and who asks."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import partial
from typing import Any

from flask import Flask, Response, jsonify, render_template, session
from werkzeug.test import EnvironBuilder

from .sessions import CLAIMS, api_token, opaque, state

ADDRESS = "http://localhost:5000"
#: Characters of an access token that make a session of about 7 KB of cookies.
LONG_TOKEN = 6_450


def bare() -> Flask:
    """Return an app with a sync view, and nothing else."""
    app = Flask(__name__)

    @app.get("/api/me")
    def me() -> Response:
        return jsonify(CLAIMS)

    return app


def bare_async() -> Flask:
    """Return the same with an async view, under the bridge that Flask comes with."""
    app = Flask(__name__)

    @app.get("/api/me")
    async def me() -> Response:
        return jsonify(CLAIMS)

    return app


def quickstart() -> Flask:
    """Return the shape of Authlib's quickstart: claims in a session that is signed."""
    app = Flask(__name__)
    app.secret_key = "k" * 32

    @app.get("/api/me")
    def me() -> Response:
        return jsonify(session.get("user"))

    return app


def ours() -> Flask:
    """Return the app of this project."""
    from app import create_app

    return create_app()


def ours_in_redis() -> Flask:
    """Return the app of this project with its sessions in ``BENCH_REDIS_URL``."""
    import auth
    from auth0_flask.stores.redis import connect

    client = connect(os.environ["BENCH_REDIS_URL"])
    usual, auth.init_app = auth.init_app, partial(auth.init_app, redis=client)
    try:
        return ours()
    finally:
        auth.init_app = usual


def bare_home(user: dict[str, Any] | None) -> Flask:
    """Return an app that draws our home page for this user, and does nothing else."""
    app = ours()
    app.before_request_funcs.clear()
    app.after_request_funcs.clear()
    app.session_interface = Flask.session_interface
    app.secret_key = None
    app.context_processor(lambda: {"auth_user": user or {}})

    def home() -> str:
        return render_template("home.html", user=user, connections=[], here_only=False)

    app.view_functions["home"] = home
    return app


def quickstart_cookie() -> str:
    """Return the Cookie header of somebody signed in to `quickstart`."""
    app = quickstart()
    with app.test_request_context():
        session["user"] = CLAIMS
        return _cookies_of(app.process_response(Response()))


def cookie(
    app: Flask,
    access_token: str | None = None,
    claims: dict[str, Any] | None = None,
) -> str:
    """Return the Cookie header of somebody signed in to `ours`, for a week.

    Args:
        app: What `ours` returned, in a process with the same settings.
        access_token: A longer one than the usual.
        claims: Of somebody else than usual.
    """
    from auth import auth0

    with app.test_request_context(base_url=ADDRESS):
        auth0.sessions.save(state(claims or CLAIMS, access_token or opaque(43)))
        return _cookies_of(app.process_response(Response()))


def long_cookie(app: Flask) -> str:
    """Return that of a session of 7 KB: a long access token, the same claims."""
    return cookie(app, api_token(LONG_TOKEN))


def request(path: str, cookie: str = "") -> dict[str, Any]:
    """Return the WSGI environment of a request."""
    headers = [("Cookie", cookie)] if cookie else []
    return EnvironBuilder(path, base_url=ADDRESS, headers=headers).get_environ()


def answer(app: Flask, environ: Mapping[str, Any]) -> tuple[str, bytes]:
    """Run a request through an app; return status and body."""
    statuses: list[str] = []

    def start_response(status: str, *_: Any) -> Any:
        statuses.append(status)

    answered = app.wsgi_app(dict(environ), start_response)
    body = b"".join(answered)
    if hasattr(answered, "close"):
        answered.close()
    return statuses[0], body


def _cookies_of(response: Response) -> str:
    pairs = response.headers.getlist("Set-Cookie")
    return "; ".join(pair.partition(";")[0] for pair in pairs)
