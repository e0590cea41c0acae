"""The time of /login, a whole login and a refresh, with the tenant in this process."""

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
from .rounds import Row, print_table, timer


def logins() -> None:
    """Print a table; eight users refresh their tokens in turn, then concurrently."""
    with Tenant() as tenant:
        os.environ |= settings(tenant)
        app, pushing = subjects.ours(), Flask("pushing")
        os.environ["AUTH0_PUSHED_AUTHORIZATION_REQUESTS"] = "true"
        second_auth = runpy.run_path("auth.py")
        second_auth["init_app"](pushing).register_blueprint(second_auth["routes"])
        app.async_to_sync = reuse_event_loops  # type: ignore  # as Flask documents
        app.before_request(_expire_token)
        users, pusher = [app.test_client() for _ in range(8)], pushing.test_client()
        for user in users:
            _log_in(user)
        login, refresh = partial(get, path="/login"), partial(get, path="/token")
        rows = [
            Row("`/login`", [timer(login, [app.test_client()], 50)]),
            Row("`/login` by a pushed request", [timer(login, [pusher], 20)]),
            Row("`/login` and `/callback`", [lambda: _log_in(app.test_client())]),
            Row("a refresh", [timer(refresh, users, 24)]),
            Row("its CPU time", [timer(refresh, users, 24, time.process_time)]),
            Row("a refresh, 8 threads at once", [partial(_parallel, refresh, users)]),
        ]
        print_table("Against the tenant in the same process", ["µs"], rows)


def settings(tenant: Tenant) -> dict[str, str]:
    """Return the environment variables of an app that can refresh its tokens."""
    scope = {"AUTH0_SCOPE": "openid profile email offline_access"}
    return {**tenant.environ(f"{subjects.ADDRESS}/callback"), **scope}


def get(client: FlaskClient, path: str) -> str:
    """Request a path and return the URL that it redirects to, or ""."""
    response = client.get(path, base_url=subjects.ADDRESS)
    assert response.status_code in {200, 302}, response.text  # noqa: S101
    return str(response.headers.get("Location", ""))


def sign_in(url: str) -> str:
    """Sign in at the tenant and return the callback URL."""
    with httpx.Client(trust_env=False) as http:
        page = http.get(url).headers["Location"]
        form = {"username": "alice", "action": "login"}
        return str(http.post(page, data=form).headers["Location"])


def _log_in(client: FlaskClient) -> float:
    """Log in; return the time of the app and its requests to the tenant, in µs."""
    login_start = time.perf_counter()
    authorize_url = get(client, "/login")
    login_end = time.perf_counter()
    callback_url = sign_in(authorize_url)
    callback_start = time.perf_counter()
    get(client, callback_url)
    return (login_end - login_start + time.perf_counter() - callback_start) * 1e6


def _expire_token() -> None:
    from auth import auth0

    for tokens in (auth0.sessions.load() or {"token_sets": []})["token_sets"]:
        tokens["expires_at"] = 0


def _parallel(refresh: partial[str], users: list[FlaskClient]) -> float:
    with ThreadPoolExecutor(len(users)) as pool:
        began = time.perf_counter()
        list(pool.map(lambda user: [refresh(user) for _ in range(25)], users))
        return (time.perf_counter() - began) / (25 * len(users)) * 1e6
