"""What /login, a whole login and a refresh take, the tenant in the same process."""

from __future__ import annotations

import os
import runpy
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial

import httpx
from flask import Flask
from flask.testing import FlaskClient

from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.tenant import Tenant

from . import subjects
from .rounds import Row, each, show


def logins() -> None:
    """Print a table; eight users refresh their tokens in turn, and at once."""
    with Tenant() as tenant:
        os.environ |= settings(tenant)
        app, pushing = subjects.ours(), Flask("pushing")
        os.environ["AUTH0_PUSHED_AUTHORIZATION_REQUESTS"] = "true"
        another_auth = runpy.run_path("auth.py")
        another_auth["init_app"](pushing).register_blueprint(another_auth["routes"])
        app.async_to_sync = reuse_event_loops  # type: ignore  # Flask's documented seam
        app.before_request(_expire_token)
        users, others = [app.test_client() for _ in range(8)], [pushing.test_client()]
        for user in users:
            _log_in(user)
        login, refresh = partial(get, path="/login"), partial(get, path="/token")
        rows = [
            Row("`/login`", [each(login, [app.test_client()], 50)]),
            Row("`/login` by a pushed request", [each(login, others, 20)]),
            Row("`/login` and `/callback`", [lambda: _log_in(app.test_client())]),
            Row("a refresh", [each(refresh, users, 24)]),
            Row("its CPU time", [each(refresh, users, 24, time.process_time)]),
            Row("a refresh, 8 threads at once", [partial(_at_once, refresh, users)]),
        ]
        show("Against the tenant in the same process", ["µs"], rows)


def settings(tenant: Tenant) -> dict[str, str]:
    """Return the environment of an app that may refresh its tokens."""
    scope = {"AUTH0_SCOPE": "openid profile email offline_access"}
    return {**tenant.environ(f"{subjects.ADDRESS}/callback"), **scope}


def get(client: FlaskClient, path: str) -> str:
    """Ask for a path; return where that leads."""
    answer = client.get(path, base_url=subjects.ADDRESS)
    assert answer.status_code in {200, 302}, answer.text  # noqa: S101 - not worth timing
    return str(answer.headers.get("Location", ""))


def sign_in(address: str) -> str:
    """Do what a browser does at the tenant; return where it is sent back to."""
    with httpx.Client(trust_env=False) as http:
        page = http.get(address).headers["Location"]
        form = {"username": "alice", "action": "login"}
        return str(http.post(page, data=form).headers["Location"])


def _log_in(client: FlaskClient) -> float:
    """Log in; return the µs that the app took, Auth0's answers included."""
    began = time.perf_counter()
    away = get(client, "/login")
    left = time.perf_counter()
    back = sign_in(away)
    came_back = time.perf_counter()
    get(client, back)
    return (left - began + time.perf_counter() - came_back) * 1e6


def _expire_token() -> None:
    from auth import auth0

    for tokens in (auth0.sessions.load() or {"token_sets": []})["token_sets"]:
        tokens["expires_at"] = 0


def _at_once(refresh: partial[str], users: list[FlaskClient]) -> float:
    with ThreadPoolExecutor(len(users)) as pool:
        began = time.perf_counter()
        list(pool.map(lambda user: [refresh(user) for _ in range(25)], users))
        return (time.perf_counter() - began) / (25 * len(users)) * 1e6
