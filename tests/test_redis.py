"""Sessions in Redis: through outages, without anybody being signed out."""

from __future__ import annotations

import asyncio
import gc
import os
import socket
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from functools import partial
from pathlib import Path
from typing import Any

import pytest
from auth0_server_python.error import ApiError
from flask import Flask, render_template_string, session
from werkzeug.exceptions import HTTPException

import auth
from auth0_flask import StoreUnavailable
from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Tenant
from conftest import _tenant
from redis_server import DURABLE, RedisServer
from servers import GUNICORN, free_port, serving
from shop import copy_of_auth, make_shop
from visitor import Shopper, Visitor


@pytest.fixture(scope="module")
def durable(tmp_path_factory: pytest.TempPathFactory) -> Iterator[RedisServer]:
    """A redis-server of these tests' own, that writes everything down at once."""
    server = RedisServer(tmp_path_factory.mktemp("durable"), *DURABLE).start()
    yield server
    server.thaw()
    server.kill()


@pytest.fixture(scope="module")
def site(durable: RedisServer) -> Iterator[str]:
    """The app on two workers, with its sessions in Redis."""
    port = free_port()
    environment = _tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    environment["AUTH0_REDIS_URL"] = durable.url
    with serving(GUNICORN, environment, port) as server:
        yield server.site


def test_an_app_that_is_gone_leaves_no_socket_open(redis_server: RedisServer) -> None:
    """Also where the garbage collector comes to the socket before the client."""
    gc.collect()
    client = connect(redis_server.url)
    client.ping()
    sockets = [each for each in gc.get_objects() if type(each) is socket.socket]
    app = Flask("shop")
    app.extensions |= {"app": app, "client": client}
    del client
    gc.collect(0)  # what is used comes before what only the app leads to

    raised: list[object] = []
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "unraisablehook", lambda e: raised.append(e.exc_value))
        del app, sockets
        gc.collect()
    assert raised == []


def test_a_request_asks_redis_once(tenant: Tenant, durable: RedisServer) -> None:
    redis = connect(durable.url)
    auth.login_as(client := make_shop(auth, redis=redis).test_client())

    before = redis.info("stats")["total_reads_processed"]
    for _ in range(10):
        assert (client.get("/me").json or {})["sub"]
    assert redis.info("stats")["total_reads_processed"] - before == 11


def after_a_look(then: Callable[[], str]) -> str:
    """Do something where the session was asked for, and nobody was told."""
    with suppress(StoreUnavailable):
        session["a"] = 1
    return then()


def keep() -> str:
    return str(session.setdefault("a", "kept"))


@pytest.mark.parametrize(
    ("store", "is_async"), [("redis", False), ("file", True), ("redis", True)]
)
def test_while_it_is_away_an_app_shows_its_own_error_pages(
    tenant: Tenant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    is_async: bool,
    store: str,
) -> None:
    """Which may look at the session, as a flash does, and hooks as Flask-Login's."""
    path, looks = tmp_path / "revocations", list[object]()
    own = copy_of_auth({"AUTH0_REVOCATIONS_PATH": str(path)})
    gone = connect(f"redis://127.0.0.1:{free_port()}/0") if store == "redis" else None
    shop = make_shop(own, redis=gone)

    def page(error: HTTPException) -> tuple[str, int]:
        token = "{{ session.update(csrf_token='') or get_flashed_messages() | join }}"
        text = "{% if auth_user %}{{ auth_user.name }}{% else %}Sorry{% endif %}"
        return render_template_string(token + text), error.code or 500

    async def page_async(error: HTTPException) -> tuple[str, int]:
        return page(error)

    shop.register_error_handler(HTTPException, page_async if is_async else page)
    me = partial(str, own.auth_user)
    shop.add_url_rule("/guarded", "guarded", own.login_required(me))
    shop.add_url_rule("/quiet", "quiet", lambda: "Sorry")
    shop.after_request(lambda response: (session.get("x"), response)[1])
    shop.before_request(own.login_silently)  # which an outage only keeps from trying

    @shop.get("/within-except")
    def within_except() -> str:
        try:
            return os.environ["NOT CACHED"]
        except KeyError:
            return me()

    @shop.get("/fail")
    def fail() -> str:
        raise ApiError("server_error", "down")  # as the SDK does

    client, paths = shop.test_client(), {"/guarded": 503, "/me": 503, "/quiet": 200}
    if gone:
        paths |= {"/unknown": 503, "/unkept": 503, "/cart": 503}
        shop.add_url_rule("/cart", "cart", lambda: str(session.get("cart")))
        shop.add_url_rule("/unknown", "unknown", partial(after_a_look, me))
        shop.add_url_rule("/unkept", "unkept", partial(after_a_look, keep))
        client.set_cookie("session", "x" * 43)
        ask = gone.eval

        def counted(*args: Any) -> Any:
            looks.append(args)
            return ask(*args)

        monkeypatch.setattr(gone, "eval", counted)
        monkeypatch.setattr(gone, "set", lambda *_, **__: True)  # it is back by then
    else:
        own.login_as(client)
        path.unlink()
        path.mkdir()

    paths |= {"/within-except": 503, "/fail": 502, "/nowhere": 404}
    for where, status in paths.items():
        answer = client.get(where, headers={"Sec-Fetch-Dest": "document"})
        assert (answer.status_code, answer.text) == (status, "Sorry"), where
        assert len(looks) == (gone is not None), where  # each would wait
        assert not (gone and "Set-Cookie" in answer.headers), where
        looks.clear()
    assert client.get("/logout").status_code == 302
    assert gone is None or client.get_cookie("session") is None


def test_what_redis_could_not_keep_leads_to_the_apps_own_page_and_nothing_else(
    tenant: Tenant, own_redis: RedisServer
) -> None:
    shop = make_shop(auth, redis=connect(own_redis.url))
    names = ("Cache-Control", "ETag", "Content-Encoding", "Content-Disposition")

    @shop.get("/page")
    def page() -> tuple[str, dict[str, str]]:
        session[1] = session.pop("1", 2)  # type: ignore[index]  # as Flask allows
        return "a page", dict.fromkeys(names, "of-the-page")

    @shop.errorhandler(503)
    def away(error: HTTPException) -> tuple[str, int]:
        return render_template_string("{{ 'in' if auth_user else 'out' }}"), 503

    guest, alice = shop.test_client(), Shopper(shop)
    alice.login()
    callback = alice.sign_in()
    assert guest.get("/page").headers["ETag"] == "of-the-page"
    own_redis.say("REPLICAOF 127.0.0.1 1")
    unkept = guest.get("/page")
    own_redis.say("REPLICAOF NO ONE")
    with auth.user_logged_in.connected_to(lambda *_, **__: own_redis.kill(), shop):
        login = alice.client.get(callback)

    assert unkept.status_code == 503
    assert not {*names} & {*unkept.headers.keys()}
    assert (login.status_code, login.text) == (503, "out")


@pytest.mark.parametrize("outage", ["kill", "freeze"])
async def test_an_outage_is_told_soon_and_signs_nobody_out(
    durable: RedisServer, visitors: Callable[..., Visitor], outage: str
) -> None:
    alice, elsewhere, bob = visitors("alice"), visitors("alice"), visitors("bob")
    await asyncio.gather(alice.login(), elsewhere.login())
    assert [(n, len(v)) for n, v in alice.cookies.items()] == [("session", 43)]
    page = await bob.start()
    asked = [asyncio.create_task(alice.get("/api/me")) for _ in range(20)]
    assert (await asked[0]).status_code == 200
    await asyncio.to_thread(getattr(durable, outage))

    # told that it is out of order, never "401"
    assert {(await answer).status_code for answer in asked} <= {200, 503}
    for path in ("/profile", "/api/me"):
        began = time.monotonic()
        answer = await alice.get(path)
        assert answer.status_code == 503, path
        assert answer.headers["Retry-After"]
        assert "sessions_unavailable" in answer.text
        assert time.monotonic() - began < 15  # gives up, rather than hangs
    assert (await alice.get("/healthz")).status_code == 200
    assert "/authorize?" in (await alice.get("/login")).headers["Location"]
    ended = await bob.follow(await bob.choose(page, username="bob"))
    assert ended.status_code == 503
    assert "_unavailable" in ended.text
    out = await elsewhere.get("/logout")
    assert "/v2/logout?" in out.headers["Location"]
    assert "session" not in elsewhere.cookies

    asked = [asyncio.create_task(alice.get("/api/me")) for _ in range(20)]
    await asyncio.to_thread(durable.thaw if outage == "freeze" else durable.start)
    assert {(await answer).status_code for answer in asked} <= {200, 503}
    await bob.login()
    assert ((await alice.claims()) or {})["sub"] == "auth0|alice"
    assert ((await bob.claims()) or {})["sub"] == "auth0|bob"
