"""What a request costs without any server: 3,000 users in turn, or one again."""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Sequence
from contextlib import ExitStack
from functools import partial
from pathlib import Path
from typing import Any

from flask import Flask

from . import subjects
from .processes import redis
from .rounds import Row, each, show
from .subjects import CLAIMS, LONG_TOKEN, cookies

_COLUMNS = ("3,000 users in turn, µs", "one user again, µs")
_BARE = "a bare sync view"
_DEVICES = 1_000


def requests() -> None:
    """Print what /api/me costs, for each kind of view and of session."""
    with ExitStack() as stack:
        show("`/api/me` in process", _COLUMNS, list(_views(stack)))


def pages() -> None:
    """Print what the home page costs, beside its template from a bare view."""
    app, nobody, somebody = subjects.demo(), "its template, for nobody", "for a user"
    ask_us = partial(_row, app=app, path="/")
    rows = [
        _row(nobody, subjects.bare_home(None), path="/"),
        ask_us("home, signed out", base=nobody),
        _row(somebody, subjects.bare_home(CLAIMS), path="/"),
        ask_us("home, signed in", cookies=cookies(app), base=somebody),
    ]
    show("The home page in process", _COLUMNS, rows)


def stores() -> None:
    """Print what is paid for revocations and for the list of devices."""
    from auth0_flask.stores import SqliteStore

    class WithoutDevices(SqliteStore):
        def register(self, *_: Any) -> None:
            """Keep no list."""

    def app_with(kind: type[SqliteStore], revoked: int = 10) -> Flask:
        usual = Path(os.environ["AUTH0_REVOCATIONS_PATH"])
        app, now = subjects.ours(), time.time()
        store = kind(usual.with_name(f"{kind.__name__}{revoked}.sqlite3"))
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
    print(
        f"| {_DEVICES:,} sessions of one user | listed, ms | ended, ms | one by one |"
    )
    print("|---|--:|--:|--:|")
    with ExitStack() as stack:
        _list_and_end("SQLite", subjects.ours())
        if client := _redis(stack):
            _list_and_end("Redis", subjects.ours(redis=client))
    print(flush=True)


def _views(stack: ExitStack) -> Any:
    ours, demo, client = subjects.ours(), subjects.demo(), _redis(stack)
    usual, long = cookies(ours), cookies(ours, subjects.api_token(LONG_TOKEN))
    yield _row(_BARE, subjects.bare())
    yield _row("a bare async view, Flask's own bridge", subjects.bare_async())
    quickstart = subjects.quickstart_cookies()
    yield _row("Authlib's quickstart", subjects.quickstart(), cookies=quickstart)
    yield _row("ours, sync view", ours, cookies=usual)
    yield _row("ours, sync view, 7 KB", ours, cookies=long)
    if client:
        in_redis = subjects.ours(redis=client)
        yield _row("ours, sync view, Redis", in_redis, cookies=cookies(in_redis))
    yield _row("ours, async view, Flask's own bridge", ours, "/async", usual)
    yield _row("the demo, async view, loops reused", demo, cookies=usual)
    yield _row("the demo, async view, 7 KB", demo, cookies=long)
    if client:
        in_redis = subjects.demo(redis=client)
        yield _row("the demo, async view, Redis", in_redis, cookies=cookies(in_redis))
    yield _row("the demo, `/healthz` with a cookie", demo, "/healthz", usual)


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
        status, body = subjects.answer(app, asked[number])
        assert status == "200 OK", f"{name}: {status}"  # noqa: S101 - not worth timing
        assert path != "/api/me" or f"{number:024}".encode() in body, name  # noqa: S101
    ask = partial(subjects.answer, app)
    return Row(
        name, [each(ask, asked), *([each(ask, asked[:1])] if cookies else [])], base
    )


def _redis(stack: ExitStack) -> Any:
    """Return a client of a server of this run, or None where there is no program."""
    if (url := stack.enter_context(redis())) is None:
        print("Redis is left out: there is no redis-server.\n")
        return None
    from auth0_flask.stores.redis import connect

    return connect(url)


def _list_and_end(name: str, app: Flask) -> None:
    from auth import auth0

    user = subjects.claims(0)

    async def list_them() -> list[Any]:
        return list(await auth0.sessions_of(user["sub"]))

    async def end_each() -> None:
        for device in await auth0.sessions_of(user["sub"]):
            await auth0.end_session(device.id)

    def end_all() -> None:
        auth0.sessions.lifetime.end_all(sub=user["sub"])

    took: list[float] = []
    for do in (
        lambda: asyncio.run(list_them()),
        end_all,
        lambda: asyncio.run(end_each()),
    ):
        if len(took) != 1:
            for _ in range(_DEVICES):
                subjects.cookie(app, user)
        with app.test_request_context():
            began = time.perf_counter()
            do()
            took.append((time.perf_counter() - began) * 1e3)
            assert len(took) == 1 or not asyncio.run(list_them())  # noqa: S101
    print(f"| {name} |", " | ".join(f"{ms:,.0f}" for ms in took), "|")
