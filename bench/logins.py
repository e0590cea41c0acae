"""What /login, a whole login and a refresh take, the tenant in the same process."""

from __future__ import annotations

import os
import re
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from html import unescape
from urllib.parse import urlsplit

import httpx
from flask.testing import FlaskClient

from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.tenant import Tenant

from . import subjects
from .rounds import Row, each, show

_STATE = re.compile(r'name="state"[^>]*?value="([^"]*)"')
_THREADS, _REFRESHES = 8, 25


def main() -> None:
    """Print a table, and how many refreshes one process does in a second."""
    with Tenant() as tenant:
        os.environ.update(settings(tenant))
        app, pushing = subjects.ours(), subjects.ours(pushed=True)
        app.async_to_sync = reuse_event_loops  # type: ignore  # Flask's documented seam
        app.before_request(_expire_token)
        users = [app.test_client() for _ in range(_THREADS)]
        for user in users:
            log_in(user)
        login, refresh = partial(get, path="/login"), partial(get, path="/token")
        rows = [
            Row("`/login`", [each(login, [app.test_client()], 50)]),
            Row(
                "`/login` by a pushed request",
                [each(login, [pushing.test_client()], 20)],
            ),
            Row("`/login` and `/callback`", [lambda: log_in(app.test_client())]),
            Row("a refresh", [each(refresh, users, 24)]),
            Row("its CPU time", [each(refresh, users, 24, time.process_time)]),
            Row("a refresh, 8 threads at once", [lambda: _at_once(users)]),
        ]
        show("Against the tenant in the same process", ["µs"], rows)


def settings(tenant: Tenant) -> dict[str, str]:
    """Return the environment of an app that may refresh its tokens."""
    scope = {"AUTH0_SCOPE": "openid profile email offline_access"}
    return {**tenant.environ(f"{subjects.ADDRESS}/callback"), **scope}


def get(client: FlaskClient, path: str) -> str:
    """Ask for a path or an address; return where that leads."""
    answer = client.get(path, base_url=subjects.ADDRESS)
    assert answer.status_code in {200, 302}, answer.text  # noqa: S101 - not worth timing
    return str(answer.headers.get("Location", ""))


def log_in(client: FlaskClient) -> float:
    """Log in; return the µs that the app took, Auth0's answers included."""
    began = time.perf_counter()
    away = get(client, "/login")
    took = time.perf_counter() - began
    back = sign_in(away)
    began = time.perf_counter()
    get(client, back)
    return (took + time.perf_counter() - began) * 1e6


def sign_in(address: str) -> str:
    """Do what a browser does at the tenant; return where it is sent back to."""
    with httpx.Client(trust_env=False, follow_redirects=True) as http:
        page = http.get(address)
        found = _STATE.search(page.text)
        assert found, page.text  # noqa: S101 - it is a page to sign in on
        fields = {"state": unescape(found[1]), "username": "alice", "action": "login"}
        form = page.url.join("/u/login")
        back = urlsplit(
            http.post(form, data=fields, follow_redirects=False).headers["Location"]
        )
    return f"{back.path}?{back.query}"


def _expire_token() -> None:
    from auth import auth0

    for tokens in (auth0.sessions.load() or {"token_sets": []})["token_sets"]:
        tokens["expires_at"] = 0


def _at_once(users: list[FlaskClient]) -> float:
    def refresh_some(user: FlaskClient) -> None:
        for _ in range(_REFRESHES):
            get(user, "/token")

    with ThreadPoolExecutor(_THREADS) as pool:
        began = time.perf_counter()
        list(pool.map(refresh_some, users))
        return (time.perf_counter() - began) / (_THREADS * _REFRESHES) * 1e6
