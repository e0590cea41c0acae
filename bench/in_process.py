"""What a request costs without any server: 3,000 users in turn, or one again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask

from . import subjects
from .processes import redis_client
from .rounds import Row, each, show
from .subjects import CLAIMS, cookies

_COLUMNS = ("3,000 users in turn, µs", "one user again, µs")
#: Characters of an access token that make a session of about 7 KB of cookies.
_LONG = 6_450
_DEVICES = 1_000


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
    print("| 1,000 sessions of one user | listed, ms | ended, ms | one by one, ms |")
    print("|---|--:|--:|--:|")
    with ExitStack() as stack:
        _list_and_end("SQLite", subjects.ours())
        if client := redis_client(stack):
            _list_and_end("Redis", subjects.ours(redis=client))
    print(flush=True)


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
        for device in await list_them():
            await auth0.end_session(device.id)

    async def end_all() -> None:
        auth0.sessions.lifetime.end_all(sub=user["sub"])

    for do in (list_them, end_all, end_each):
        for _ in range(0 if do is end_all else _DEVICES):
            subjects.cookie(app, partial(subjects.sign_in, subjects.state(user)))
        with app.test_request_context():
            began = time.perf_counter()
            asyncio.run(do())
            took.append((time.perf_counter() - began) * 1e3)
            left = 0 if took[1:] else _DEVICES
            assert len(asyncio.run(list_them())) == left  # noqa: S101
    print(f"| {name} |", " | ".join(f"{ms:,.0f}" for ms in took), "|")
