"""Benchmarks without a server, for 3,000 users in turn or for one user."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Sequence
from contextlib import ExitStack, suppress
from functools import partial

from flask import Flask

from auth0_flask.stores import SessionTooLarge, SqliteStore

from . import subjects
from .processes import redis_client, resources
from .rounds import Row, print_table, timer
from .subjects import CLAIMS, cookies, opaque, state

_COLUMNS = ("3,000 users in turn, µs", "one user again, µs")
_DEVICES = 1_000


def requests() -> None:
    """Print the time of /api/me for each kind of view and session."""
    bare, ours, demo = subjects.bare(), subjects.ours(), subjects.demo()
    usual, long = list(cookies(ours)), list(cookies(ours, permissions=226))
    signed, bridge = subjects.quickstart_cookies(), "Flask's own bridge"
    with ExitStack() as stack:
        rows = [
            _row("a bare sync view", bare),
            _row(f"a bare async view, {bridge}", bare, "/async"),
            _row("Authlib's quickstart", subjects.quickstart(), cookies=signed),
            _row("ours, sync view", ours, cookies=usual),
            _row("ours, sync view, 7 KB", ours, cookies=long),
            _row(f"ours, async view, {bridge}", ours, "/async", usual),
            _row("the demo, async view, loops reused", demo, cookies=usual),
            _row("the demo, async view, 7 KB", demo, cookies=long),
            _row("the demo, `/healthz` with a cookie", demo, "/healthz", usual),
        ]
        if client := redis_client(stack):
            ours, demo = subjects.ours(redis=client), subjects.demo(redis=client)
            usual = list(cookies(ours))
            rows.append(_row("ours, sync view, Redis", ours, cookies=usual))
            rows.append(_row("the demo, async view, Redis", demo, cookies=usual))
        print_table("`/api/me` in process", _COLUMNS, rows)


def pages() -> None:
    """Print the time of the home page, and of its template without sessions."""
    app, nobody, somebody = subjects.demo(), "its template, for nobody", "for a user"
    rows = [
        _row(nobody, subjects.bare_home(None), "/"),
        _row("home, signed out", app, "/"),
        _row(somebody, subjects.bare_home(CLAIMS), "/"),
        _row("home, signed in", app, "/", list(cookies(app)))._replace(base=somebody),
    ]
    print_table("The home page in process", _COLUMNS, rows)


def stores() -> None:
    """Print how revocations and the list of devices slow a request."""

    def app_with(name: str, revoked: int = 10) -> Flask:
        app, now = subjects.ours(), time.time()
        store = SqliteStore(f"{os.environ['AUTH0_REVOCATIONS_PATH']}.{name}")
        store.revoke([f"id {n}" for n in range(revoked)], at=now, until=now + 604_800)
        app.extensions["auth0"].shared_store = store
        return app

    few, many, none = app_with("few"), app_with("many", 100_000), app_with("none")
    none.extensions["auth0"].shared_store.register = lambda *_: None
    usual, later = list(cookies(few)), list(cookies(few, unused=7_200))
    rows = [
        _row("10 revocations", few, cookies=usual),
        _row("100,000 revocations", many, cookies=usual),
        _row("without a list of devices", none, cookies=usual),
        _row("noted as used, once in 72 minutes", few, cookies=later),
        _row("likewise, without a list of devices", none, cookies=later),
    ]
    print_table("A signed-in request and the SQLite file", _COLUMNS, rows)


def devices() -> None:
    """Print the time to list and to end 1,000 sessions of one user."""
    print("| 1,000 sessions of one user | listed, ms | ended, ms | by id, ms |")
    print("|---|--:|--:|--:|")
    with ExitStack() as stack:
        _list_and_end("SQLite", subjects.ours())
        if client := redis_client(stack):
            _list_and_end("Redis", subjects.ours(redis=client))
    print(flush=True)


def memory() -> None:
    """Print memory, threads and open files after many different sessions."""
    print("| Sessions seen | MB | Threads | Open files |\n|--:|--:|--:|--:|")
    app, steps = subjects.demo(), (1, 1_000, 2_000, 10_000)
    for number, cookie in enumerate(cookies(subjects.ours(), steps[-1]), 1):
        subjects.run_request(app, subjects.environs("/api/me", [cookie])[0])
        if number in steps:
            rss, threads, _, files = resources(os.getpid())
            print(f"| {number:,} | {rss:.1f} | {threads} | {files} |")
    print()


def starting() -> None:
    """Print the time of a process that imports the SDK or creates the demo."""
    sdk = "auth0_server_python.auth_server.server_client"
    codes = {
        "Flask and the SDK imported": f"import flask, {sdk}",
        "Flask imported": "import flask",
        "Python alone": "",
        "the demo made": "import app; app.create_app()",
    }
    run = partial(subprocess.run, check=True, stderr=subprocess.DEVNULL)
    commands = [[sys.executable, "-c", code] for code in codes.values()]
    timers = [[timer(run, [command], 1, time.perf_counter)] for command in commands]
    rows = [*map(Row, codes, timers)]
    print_table("A process until the app is made", ["µs"], rows)


def sizes() -> None:
    """Print the cookies that sessions of different sizes need."""
    from auth import auth0

    app, usual = subjects.ours(), "the usual"
    rows = {
        f"{usual}: ID token, opaque access token, refresh token": state(CLAIMS),
        "the same, with a JWT access token of 1 KB": state(CLAIMS, 0),
        "the same, with a JWT access token of 2 KB": state(CLAIMS, 41),
    }
    for number in (25, 100, 200, 250, 300, 400, 450):
        groups = [f"team-{opaque(12)}" for _ in range(number)]
        user = {**CLAIMS, "https://example.com/groups": groups}
        rows[f"{usual}, and {number} groups of 17 characters"] = state(user)
    print("| A session with | ID token | Access token | Cookies | Bytes of them |")
    print("|---|---|---|---|---|")
    for name, saved in rows.items():
        access_token = len(saved["token_sets"][0]["access_token"])
        cells = [f"{len(saved['id_token']):,}", f"{access_token:,}", "too large", ""]
        with suppress(SessionTooLarge):
            pieces = subjects.cookie_header(app, subjects.sign_in, saved).split("; ")
            cells[2:] = str(len(pieces)), f"{sum(map(len, pieces)):,}"
            with app.test_request_context(headers={"Cookie": "; ".join(pieces)}):
                if "id_token" not in (auth0.sessions.load_unchecked() or {}):
                    cells[0] += ", not kept"
        print(f"| {name} |", " | ".join(cells), "|")
    print()


def _row(
    name: str, app: Flask, path: str = "/api/me", cookies: Sequence[str] = ()
) -> Row:
    """Return a row that times requests, after a check of some responses."""
    environs = subjects.environs(path, cookies or [""])
    for number in range(0, len(cookies), 999):
        body = subjects.run_request(app, environs[number])
        assert path != "/api/me" or f"{number:024}".encode() in body, name  # noqa: S101
    columns = [environs, environs[:1]] if cookies else [environs]
    run = partial(subjects.run_request, app)
    return Row(name, [timer(run, column) for column in columns])


def _list_and_end(name: str, app: Flask) -> None:
    from auth import auth0

    user, times = subjects.claims(0), list[float]()

    async def ids() -> list[str]:
        return [device.id for device in await auth0.sessions_of(user["sub"])]

    async def end_all() -> None:
        auth0.sessions.lifetime.end_all(sub=user["sub"])

    async def end_each() -> None:
        await auth0.end_session(*await ids())

    for step in (ids, end_all, end_each):
        if step is not end_all:  # which ends the sessions that were listed
            for _ in range(_DEVICES):
                subjects.cookie_header(app, subjects.sign_in, state(user))
        with app.test_request_context():
            began = time.perf_counter()
            asyncio.run(step())
            times.append((time.perf_counter() - began) * 1e3)
            left = asyncio.run(ids())
        assert len(left) == (_DEVICES if step is ids else 0)  # noqa: S101
    print(f"| {name} |", " | ".join(f"{ms:,.0f}" for ms in times), "|")
