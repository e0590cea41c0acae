"""What is measured without a server: 3,000 users in turn, or one again."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask

from . import subjects
from .processes import measure, redis_client
from .rounds import Row, each, show
from .subjects import CLAIMS, cookies, opaque, state

_COLUMNS = ("3,000 users in turn, µs", "one user again, µs")
#: Characters of an access token that make a session of about 7 KB of cookies.
_LONG = 6_450
_DEVICES = 1_000
_SDK = "from auth0_server_python.auth_server.server_client import ServerClient"
_CODE = {
    "Flask and the SDK imported": f"import flask; {_SDK}",
    "Flask imported": "import flask",
    "Python alone": "",
    "the demo made": "import app; app.create_app()",
}


def requests() -> None:
    """Print what /api/me costs, for each kind of view and of session."""
    with ExitStack() as stack:
        show("`/api/me` in process", _COLUMNS, list(_views(stack)))


def pages() -> None:
    """Print what the home page costs, beside its template from a bare view."""
    app, nobody, somebody = subjects.demo(), "its template, for nobody", "for a user"
    rows = [
        _row(nobody, subjects.bare_home(None), "/"),
        _row("home, signed out", app, "/", base=nobody),
        _row(somebody, subjects.bare_home(CLAIMS), "/"),
        _row("home, signed in", app, "/", cookies(app), base=somebody),
    ]
    show("The home page in process", _COLUMNS, rows)


def stores() -> None:
    """Print what is paid for revocations and for the list of devices."""
    from auth0_flask.stores import SqliteStore

    class WithoutDevices(SqliteStore):
        def register(self, *_: Any) -> None:
            """Keep no list."""

    def app_with(kind: type[SqliteStore], revoked: int = 10) -> Flask:
        file = Path(os.environ["AUTH0_REVOCATIONS_PATH"])
        app, now = subjects.ours(), time.time()
        store = kind(file.with_name(f"{kind.__name__}{revoked}.sqlite3"))
        keys = [f"id {number}" for number in range(revoked)]
        store.revoke(keys, at=now, until=now + 604_800)
        app.extensions["auth0"].shared_store = store
        return app

    few, many = app_with(SqliteStore), app_with(SqliteStore, 100_000)
    none = app_with(WithoutDevices)
    usual, later = cookies(few), cookies(few, unused=7_200)
    rows = [
        _row("10 revocations", few, cookies=usual),
        _row("100,000 revocations", many, cookies=usual),
        _row("without a list of devices", none, cookies=usual),
        _row("noted as used, once in 72 minutes", few, cookies=later),
        _row("likewise, without a list of devices", none, cookies=later),
    ]
    show("A signed-in request and the SQLite file", _COLUMNS, rows)


def devices() -> None:
    """Print how long it takes to list and to end 1,000 sessions of one user."""
    print("| 1,000 sessions of one user | listed, ms | ended, ms | by id, ms |")
    print("|---|--:|--:|--:|")
    with ExitStack() as stack:
        _list_and_end("SQLite", subjects.ours())
        if client := redis_client(stack):
            _list_and_end("Redis", subjects.ours(redis=client))
    print(flush=True)


def memory() -> None:
    """Print memory, threads and open files after so many different sessions."""
    print("| Sessions seen | MB | Threads | Open files |\n|--:|--:|--:|--:|")
    app, steps = subjects.demo(), (1, 1_000, 2_000, 10_000)
    cookies = subjects.each_cookie(subjects.ours(), steps[-1])
    for seen, cookie in enumerate(cookies, 1):
        subjects.ask(app, subjects.requests("/api/me", [cookie])[0])
        if seen in steps:
            rss, threads, _, files = measure(os.getpid())
            print(f"| {seen:,} | {rss:.1f} | {threads} | {files} |")
    print()


def starting() -> None:
    """Print how long whole processes take."""
    run = partial(subprocess.run, check=True, stderr=subprocess.DEVNULL)
    commands = {name: [sys.executable, "-c", code] for name, code in _CODE.items()}
    rows = [Row(n, [each(run, [c], 1, time.perf_counter)]) for n, c in commands.items()]
    show("A process until the app is made", ["µs"], rows)


def sizes() -> None:
    """Print what fits: claims and tokens in bytes against cookies."""
    from auth import auth0
    from auth0_flask.stores import SessionTooLarge

    app, usual = subjects.ours(), "the usual"
    rows = {
        f"{usual}: ID token, opaque access token, refresh token": state(CLAIMS),
        "the same, with a JWT access token of 1 KB": state(CLAIMS, 1_000),
        "the same, with a JWT access token of 2 KB": state(CLAIMS, 2_000),
    }
    for number in (25, 100, 200, 250, 300, 400, 450):
        groups = [f"team-{opaque(12)}" for _ in range(number)]
        user = {**CLAIMS, "https://example.com/groups": groups}
        rows[f"{usual}, and {number} groups of 17 characters"] = state(user)
    print("| A session with | ID token | Access token | Cookies | Bytes of them |")
    print("|---|---|---|---|---|")
    for words, kept in rows.items():
        access_token = len(kept["token_sets"][0]["access_token"])
        cells = [f"{len(kept['id_token']):,}", f"{access_token:,}", "too large", ""]
        with suppress(SessionTooLarge):
            pieces = subjects.cookie(app, partial(subjects.sign_in, kept)).split("; ")
            cells[2:] = str(len(pieces)), f"{sum(map(len, pieces)):,}"
            headers = {"Cookie": "; ".join(pieces)}
            with app.test_request_context(headers=headers):
                has_it = "id_token" in (auth0.sessions.load_unchecked() or {})
            cells[0] += "" if has_it else ", not kept"
        print(f"| {words} |", " | ".join(cells), "|")
    print()


def _views(stack: ExitStack) -> Iterator[Row]:
    bare, ours, demo = subjects.bare(), subjects.ours(), subjects.demo()
    usual, long = cookies(ours), cookies(ours, _LONG)
    yield _row("a bare sync view", bare)
    yield _row("a bare async view, Flask's own bridge", bare, "/async")
    signed = subjects.quickstart_cookies()
    yield _row("Authlib's quickstart", subjects.quickstart(), cookies=signed)
    yield _row("ours, sync view", ours, cookies=usual)
    yield _row("ours, sync view, 7 KB", ours, cookies=long)
    yield _row("ours, async view, Flask's own bridge", ours, "/async", usual)
    yield _row("the demo, async view, loops reused", demo, cookies=usual)
    yield _row("the demo, async view, 7 KB", demo, cookies=long)
    yield _row("the demo, `/healthz` with a cookie", demo, "/healthz", usual)
    if client := redis_client(stack):
        ours, demo = subjects.ours(redis=client), subjects.demo(redis=client)
        yield _row("ours, sync view, Redis", ours, cookies=cookies(ours))
        yield _row("the demo, async view, Redis", demo, cookies=cookies(demo))


def _row(
    name: str,
    app: Flask,
    path: str = "/api/me",
    cookies: Sequence[str] = (),
    base: str = "",
) -> Row:
    """Return a row of requests, once some were answered as expected."""
    asked = subjects.requests(path, cookies or [""])
    for number in range(0, len(cookies), 999):
        body = subjects.ask(app, asked[number])
        assert path != "/api/me" or f"{number:024}".encode() in body, name  # noqa: S101
    ask = partial(subjects.ask, app)
    measures = [each(ask, asked), each(ask, asked[:1])]
    return Row(name, measures[: 2 if cookies else 1], base)


def _list_and_end(name: str, app: Flask) -> None:
    from auth import auth0

    user, took = subjects.claims(0), list[float]()

    async def list_them() -> list[Any]:
        return list(await auth0.sessions_of(user["sub"]))

    async def end_each() -> None:
        await auth0.end_session(*[device.id for device in await list_them()])

    async def end_all() -> None:
        auth0.sessions.lifetime.end_all(sub=user["sub"])

    for do in (list_them, end_all, end_each):
        for _ in range(0 if do is end_all else _DEVICES):
            subjects.cookie(app, partial(subjects.sign_in, state(user)))
        with app.test_request_context():
            began = time.perf_counter()
            asyncio.run(do())
            took.append((time.perf_counter() - began) * 1e3)
            left = 0 if took[1:] else _DEVICES
            assert len(asyncio.run(list_them())) == left  # noqa: S101
    print(f"| {name} |", " | ".join(f"{ms:,.0f}" for ms in took), "|")
