"""Access tokens: refreshed once, found again, refused and revoked."""

from __future__ import annotations

import asyncio
import json
import socket
import ssl
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from socketserver import StreamRequestHandler, ThreadingTCPServer
from typing import Any, ClassVar

import httpx
import pytest
import redis
from flask import Flask, Response, request, session, stream_with_context
from flask.sessions import SecureCookieSessionInterface
from flask_session import Session
from redis import Redis
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response as BaseResponse

import auth
from auth import auth0
from auth0_flask.refresh_lock import (
    EXCHANGE_SECONDS,
    LOCK_SECONDS,
    newest_refresh,
    refresh_once,
)
from auth0_flask.stores import SharedStore, SqliteStore
from auth0_flask.stores import session as session_store
from auth0_flask.stores.encryption import DecryptionError
from auth0_flask.stores.redis import RedisStore, connect
from auth0_flask.stores.shared import digest
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.testing import ROLES
from conftest import Clock
from redis_server import RedisServer
from servers import GUNICORN, free_port, serving
from test_revocations import in_children
from visitor import Shopper, Visitor
from with_tokens import add_views

WITH_TOKENS = [*GUNICORN[:-1], "--pythonpath", "tests", "with_tokens:create()"]
API = "https://api.tenant.example/"


async def at_once(visitor: Visitor, times: int, path: str = "/token") -> list[str]:
    """Ask in parallel, every request with the cookies there are now."""
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    async with httpx.AsyncClient(
        headers={"Cookie": cookies},
        verify=ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT),
        timeout=30,
    ) as http:
        asked = (http.get(f"{visitor.site}{path}") for _ in range(times))
        answers = await asyncio.gather(*asked)
    assert Counter(answer.status_code for answer in answers) == {200: times}
    return [answer.text for answer in answers]


async def sign_in_for_a_moment(visitor: Visitor, tenant: Tenant) -> None:
    """Sign in with an access token that is good no more."""
    tenant.access_token_lifetime = 0
    await visitor.login()
    tenant.access_token_lifetime = 86_400


# How an app may keep its sessions: what `init_app` is given for it


def flasks_own(app: Flask, _: pytest.FixtureRequest) -> dict[str, Any]:
    return {}


def in_redis(app: Flask, request: pytest.FixtureRequest) -> dict[str, Any]:
    client = connect(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    return {"redis": client}


def of_flask_session(app: Flask, request: pytest.FixtureRequest) -> dict[str, Any]:
    """Keep Flask's session in Redis in the published way."""
    client = Redis.from_url(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
    Session(app)  # type: ignore[no-untyped-call]  # it has no types
    return {}


class OwnInterface(SecureCookieSessionInterface):
    """An interface of the app's own, which keeps all in one signed cookie."""


def of_the_app(app: Flask, _: pytest.FixtureRequest) -> dict[str, Any]:
    app.session_interface = OwnInterface()
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(days=5)
    return {}


KINDS = [flasks_own, in_redis, of_flask_session, of_the_app]


class Customer(Shopper):
    """Somebody at an app with Flask's defaults, and its pages."""

    def __init__(self, app: Flask) -> None:
        super().__init__(add_views(app))
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        slow = self.slow, self.slow_and_blind, self.slow_and_writing, self.clear
        for view in (*slow, self.put, self.cart, self.raw, self.stream, self.impatient):
            app.add_url_rule(f"/{view.__name__}", view_func=view)
        for path, function in {
            "/me": lambda: dict(auth.auth_user),
            "/session": lambda: auth0.read_session() or {},
            "/fresh": auth.login_required(max_age=300)(lambda: "fresh"),
            "/api": auth.login_required(redirect=False)(auth0.get_access_token),
        }.items():
            app.add_url_rule(path, path, function)

    def put(self) -> str:
        session.permanent = True
        session["cart"] = [*session.get("cart", []), request.args["goods"]]
        return "kept"

    def cart(self) -> str:
        return " ".join(session.get("cart", []))

    def slow(self) -> str:
        user = str(auth.auth_user.get("sub"))
        return f"{user} {self.slow_and_blind()}"

    def clear(self) -> str:
        user = str(auth.auth_user.get("sub"))
        session.clear()
        return user

    def slow_and_blind(self) -> str:
        self.has_begun.set()
        self.may_end.wait(10)
        return "seen"

    def slow_and_writing(self) -> str:
        session["was_here"] = True
        return self.slow()

    async def raw(self) -> str:
        state = await auth0.get_session() or {}
        options = {"refresh_token": state["refresh_token"]}
        return str((await auth0.get_token_by_refresh_token(options))["access_token"])

    def stream(self) -> Response:
        def parts() -> Iterator[str]:
            yield "token: "
            yield asyncio.run(auth0.get_access_token(audience="https://a.example/"))

        return Response(stream_with_context(parts()))

    async def impatient(self) -> str:
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(auth0.get_access_token(), 0.1)
        return "gave up"

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=headers)

    @contextmanager
    def during(self, path: str) -> Iterator[None]:
        """Do something while a slow page is being answered."""
        slow = threading.Thread(target=self.get, args=[path])
        slow.start()
        assert self.has_begun.wait(10)
        yield
        self.may_end.set()
        slow.join()

    def sign_in_for_a_moment(self, tenant: Tenant) -> None:
        """Sign in with an access token that is good no more."""
        tenant.access_token_lifetime = 0
        assert self.login().status_code == 302
        tenant.access_token_lifetime = 86_400

    def goes_on(self, tenant: Tenant) -> bool:
        """Tell whether the session has the newest refresh token."""
        status = self.get(f"/token?audience={API}").status_code
        found = status, tenant.count("/oauth/token"), tenant.reuse_detected
        return found == (200, 3, 0)


@pytest.fixture(params=[flasks_own])
def customer(request: pytest.FixtureRequest, tenant: Tenant) -> Customer:
    """Somebody who has signed in, with an access token that is good no more."""
    app = Flask("shop")
    auth.init_app(app, **request.param(app, request))
    app.register_blueprint(auth.routes)
    customer = Customer(app)
    customer.sign_in_for_a_moment(tenant)
    return customer


over_every_kind = pytest.mark.parametrize("customer", KINDS, indirect=True)


async def test_fifty_requests_at_once_refresh_once_and_tell_of_it_once(
    alice: Visitor, tenant: Tenant, app: Flask
) -> None:
    told: list[str] = []

    def receive(_: object, user: dict[str, str]) -> None:
        told.append(user["sub"])

    await sign_in_for_a_moment(alice, tenant)
    with auth.tokens_refreshed.connected_to(receive, app):
        found = await at_once(alice, 50)
        found += await at_once(alice, 1)  # the replaced one again

    assert len(set(found)) == 1
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (2, 0)
    assert told == ["auth0|alice"]


@pytest.mark.parametrize("sessions", ["cookies", "redis"])
async def test_two_workers_refresh_once_and_share_what_they_ask(
    tenant: Tenant,
    visitors: Callable[..., Visitor],
    sessions: str,
    request: pytest.FixtureRequest,
) -> None:
    port = free_port()
    given = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    given["AUTH0_SCOPE"] = "openid profile email offline_access"
    if sessions == "redis":
        given["AUTH0_REDIS_URL"] = request.getfixturevalue("redis_server").url
    tenant.change_user("alice", roles=["admin"])
    with serving(WITH_TOKENS, given, port) as server:
        alice = visitors("alice", at=server.site)
        await sign_in_for_a_moment(alice, tenant)

        found = await at_once(alice, 50)

        assert (len(set(found)), tenant.count("/oauth/token")) == (1, 2)
        assert (await alice.get("/token")).text == found[0]
        assert tenant.count("/oauth/token") == 2

        tenant.access_token_lifetime = 2
        began = time.monotonic()

        async def ask(times: int) -> list[int]:
            path = f"/token?audience={API}"
            return [(await alice.get(path)).status_code for _ in range(times)]

        assert await asyncio.gather(*(ask(50) for _ in range(8))) == [[200] * 50] * 8
        asked, elapsed = tenant.count("/oauth/token"), time.monotonic() - began
        assert asked <= elapsed / 0.8 + 4  # 1.8 seconds, in whole ones

        tenant.change_user("alice", roles=[])
        renewed = map(json.loads, await at_once(alice, 30, "/renewed"))

        assert [u["sub"] for u in renewed if ROLES not in u] == ["auth0|alice"] * 30
        assert tenant.count("/oauth/token") - asked < 30  # they came in some rounds
        assert tenant.reuse_detected == 0
        await alice.get("/renewed")
        workers: dict[int, dict[str, Any]] = {}
        while len(workers) < 2:
            for said in await at_once(alice, 8, "/worker"):
                workers |= {json.loads(said)["pid"]: json.loads(said)["user"]}
        assert [user.get(ROLES) for user in workers.values()] == [None, None]


async def test_several_audiences_at_once_show_no_refresh_token_twice(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login()
    paths = ["/token?audience=https://a.example/", f"/token?audience={API}"]

    found = await asyncio.gather(*(at_once(alice, 10, path) for path in paths * 2))

    a, b, *again = map(set, found)
    assert (again, len(a), len(b), len(a | b)) == ([a, b], 1, 1, 2)
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (3, 0)
    bearer = {"Authorization": f"Bearer {b.pop()}"}
    used = await alice.http.get(f"https://{tenant.domain}/api/things", headers=bearer)
    assert used.json()["sub"] == "auth0|alice"


@pytest.mark.parametrize(
    ("page", "slow_after"), [("/slow", 1), ("/slow_and_blind", 1), ("/slow", 0)]
)
@over_every_kind
def test_a_slow_page_that_only_reads_brings_nothing_old_back(
    customer: Customer,
    tenant: Tenant,
    clock: Clock,
    monkeypatch: pytest.MonkeyPatch,
    page: str,
    slow_after: float,
) -> None:
    customer.get("/put?goods=apple")
    if slow_after == 0:  # and the session was used long ago
        monkeypatch.setattr(session_store, "_SLOW_SECONDS", slow_after)
        clock.forward(10_000)

    with customer.during(page):
        assert customer.get("/token").status_code == 200
        customer.get("/put?goods=pear")

    assert customer.get("/cart").text == "apple pear"
    clock.forward(10_000)  # what came of the replaced one is forgotten by now
    assert customer.goes_on(tenant)


@over_every_kind
def test_a_session_that_the_app_clears_stays_cleared_however_long_it_was_unused(
    customer: Customer, clock: Clock
) -> None:
    clock.forward(10_000)

    assert customer.get("/clear").text == "auth0|alice"
    assert customer.get("/me").json == {}


def test_a_slow_page_that_writes_does_not_bring_a_replaced_refresh_token_back(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    with customer.during("/slow_and_writing"):
        assert customer.get("/token").status_code == 200

    clock.forward(10_000)
    assert customer.goes_on(tenant)


@over_every_kind
def test_the_sdks_own_refresh_leaves_no_replaced_token_behind(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    assert customer.get("/raw").status_code == 200

    clock.forward(10_000)
    assert customer.goes_on(tenant)


@over_every_kind
def test_a_refresh_within_a_stream_is_logged_and_the_next_request_goes_on(
    customer: Customer, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    assert len(customer.get("/stream").text) > len("token: ")

    assert "after the response had begun" in caplog.text
    assert customer.goes_on(tenant)


# What is kept of a refresh


def rotated(token: str, seconds: float = 60) -> dict[str, Any]:
    """Answer a refresh, with a token that is good for so long."""
    answer = {"access_token": f"of {token}", "refresh_token": f"{token}'"}
    return {"answer": answer, "fresh_until": time.time() + seconds}


async def refresh(
    store: SharedStore, token: str, exchange: Callable[[str], dict[str, Any]] = rotated
) -> str:
    """Refresh within reason; return the access token."""
    work = refresh_once(store, auth0.sessions, token, "any", exchange)
    return str((await asyncio.wait_for(work, 10))[0]["answer"]["access_token"])


async def test_a_provider_that_gives_an_old_refresh_token_out_again_holds_nobody_up(
    clock: Clock,
) -> None:
    store = SharedStore()

    def exchange(token: str) -> dict[str, Any]:
        answer = {"access_token": "a", "refresh_token": {"1": "2", "2": "1"}[token]}
        return {"answer": answer, "fresh_until": time.time() + 5}

    for token in ("1", "2"):
        await refresh(store, token, exchange)
    newest = asyncio.to_thread(newest_refresh, store, auth0.sessions, "1")
    assert (await asyncio.wait_for(newest, 5) or {})["answer"]["refresh_token"] == "1"

    clock.forward(10)
    assert await refresh(store, "1", exchange) == "a"


async def test_a_thread_that_cannot_start_fails_one_refresh_and_not_the_next(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def cannot(_: threading.Thread) -> None:
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    with pytest.raises(RuntimeError, match="can't start"):
        await refresh(SharedStore(), "threadless")

    assert await refresh(SharedStore(), "threadless") == "of threadless"


@pytest.mark.parametrize(("seconds", "kept"), [(1, 60), (86_400, 600)])
async def test_what_replaced_a_refresh_token_is_kept_a_minute_at_least_and_ten_at_most(
    clock: Clock, seconds: int, kept: int
) -> None:
    store = SharedStore()
    await refresh(store, "a", partial(rotated, seconds=seconds))

    for left in (1, -1):
        clock.offset = kept - left
        assert bool(newest_refresh(store, auth0.sessions, "a")) == (left > 0)


async def test_a_result_that_is_moved_in_the_store_is_nobody_elses() -> None:
    store = SharedStore()
    await refresh(store, "alice's")
    alices = store.result(digest("refresh\nalice's")) or ""
    store.keep_result(digest("refresh\nmallory's"), alices, 60)

    with pytest.raises(DecryptionError):
        await refresh(store, "mallory's")


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_waits_for_no_refresh_of_its_parent() -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def exchange(token: str) -> dict[str, Any]:
        has_begun.set()
        may_end.wait(10)
        return rotated(token)

    def work() -> str:
        return asyncio.run(refresh(SharedStore(), "forked", exchange))

    def child() -> str:
        may_end.set()
        return work()

    with ThreadPoolExecutor(1) as pool:
        parents = pool.submit(work)
        assert has_begun.wait(5)
        found = in_children(child)
        may_end.set()
        assert found == [parents.result(5)] == ["of forked"]


@pytest.fixture(params=["process", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SharedStore:
    """What workers share of their refreshes."""
    if request.param == "process":
        return SharedStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "shared.sqlite3")
    return RedisStore(connect(request.getfixturevalue("redis_server").url))


def test_a_lock_is_for_one_and_a_result_is_there_for_its_seconds(
    store: SharedStore,
) -> None:
    first = store.lock("key", 0.3)
    assert first
    assert store.lock("key", 0.3) is None
    assert store.result("key") is None
    time.sleep(0.31)
    second = store.lock("key", 5)
    assert second
    first()  # too late: it is somebody else's
    assert store.lock("key", 5) is None
    second()
    third = store.lock("key", 5)
    assert third

    store.keep_result("key", "encrypted", 0.3)
    third()
    assert store.result("key") == "encrypted"
    assert store.lock("key", 5) is None
    time.sleep(0.31)
    assert store.result("key") is None
    assert store.lock("key", 5)
    assert EXCHANGE_SECONDS < LOCK_SECONDS <= 10  # who holds it may be killed


class LosesAnAnswer(StreamRequestHandler):
    """Hands on what goes to Redis and comes from it, but the first answer to a lock."""

    redis: ClassVar[tuple[str, int]]
    to_lose: ClassVar[list[bytes]]

    def handle(self) -> None:
        with socket.create_connection(self.redis) as there:
            while asked := self.request.recv(65_536):
                there.sendall(asked)
                answer = there.recv(65_536)
                if any(each in asked for each in self.to_lose):
                    self.to_lose.clear()
                    return
                self.request.sendall(answer)


@pytest.mark.skipif(
    int(redis.__version__.partition(".")[0]) < 6, reason="it does not ask again"
)
def test_a_lock_whose_answer_was_lost_is_held_all_the_same(
    redis_server: RedisServer,
) -> None:
    LosesAnAnswer.redis = "127.0.0.1", redis_server.port
    LosesAnAnswer.to_lose = [b"NX"]
    with ThreadingTCPServer(("127.0.0.1", 0), LosesAnAnswer) as proxy:
        threading.Thread(target=proxy.serve_forever).start()
        client = connect(f"redis://127.0.0.1:{proxy.server_address[1]}/0")
        store = RedisStore(client)
        locks = [store.lock("key", 60) for _ in range(2)]
        if release := locks[0]:
            release()
        locks.append(store.lock("key", 60))
        client.close()
        proxy.shutdown()

    assert LosesAnAnswer.to_lose == []
    assert [bool(lock) for lock in locks] == [True, False, True]


async def test_a_result_is_handed_out_while_its_token_is_good_and_no_longer(
    store: SharedStore, clock: Clock
) -> None:
    exchanged: list[str] = []

    def exchange(token: str) -> dict[str, Any]:
        exchanged.append(token)
        return rotated(token, seconds=5)

    for offset, token in ((0, "of a"), (4, "of a"), (6, "of a'")):
        clock.offset = offset
        assert await refresh(store, "a", exchange) == token
    assert exchanged == ["a", "a'"]


async def test_without_rotation_one_refresh_serves_all(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.rotate_refresh_tokens = False
    await alice.login()

    path = f"/token?audience={API}&scope=read:things"  # which is not granted
    found = await at_once(alice, 20, path) + await at_once(alice, 20, path)
    found += [(await alice.get(path)).text for _ in range(2)]

    assert len(set(found)) == 1
    assert tenant.count("/oauth/token") == 2


def test_a_token_is_refreshed_before_it_ends(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    tenant.access_token_lifetime = 600
    seen = []
    for seconds in (0, 565, 6, 565, 6):
        clock.forward(seconds)
        seen.append(customer.get("/token").text)

    assert (seen[0], seen[2]) == (seen[1], seen[3])
    assert len(set(seen)) == 3


# What Auth0 may answer


def overloaded(status: int) -> Fault:
    """Answer as Auth0 does then: in the form of a refusal."""
    refusal, headers = json.dumps({"error": "invalid_grant"}), {"Retry-After": "17"}
    kind = "application/json"
    return Fault(lambda *_: BaseResponse(refusal, status, headers, mimetype=kind))


OUTAGES = {
    "reset": Fault.reset(),
    "503": Fault.status(503),
    "broken": Fault.broken_json(),
    "server_error": Fault.body({"error": "server_error"}, status=500),
    "no token": Fault.body({"token_type": "Bearer"}),
    "empty": Fault.body({}),
    **{f"{status} as a refusal": overloaded(status) for status in (429, 500, 503)},
}


@pytest.mark.parametrize("path", [f"/token?audience={API}", "/token-of/github"])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_a_502_and_the_next_try_works(
    customer: Customer, tenant: Tenant, outage: str, path: str
) -> None:
    before = customer.client.get_cookie("session_auth0")
    tenant.fail("token", OUTAGES[outage])

    failed = customer.get(path)

    assert failed.status_code == 502
    assert failed.headers["Retry-After"] == ("17" if "refusal" in outage else "5")
    assert customer.client.get_cookie("session_auth0") == before
    assert customer.get("/me").json
    assert customer.get(path).status_code == 200
    assert tenant.reuse_detected == 0


ODD: dict[str, list[Any]] = {
    "expires_in": ["86400", "soon", None, -1, 1e300, float("inf"), float("nan"), []],
    "expires_at": ["soon", float("inf"), -1],
    "scope": [7, None, ["openid"]],
    "id_token": [7, "x.y.z", {}, ""],
    "token_type": [7, None],
    "refresh_token": ["", None],
}


@pytest.mark.parametrize(
    "odd", [{name: value} for name, values in ODD.items() for value in values], ids=str
)
def test_an_odd_answer_with_a_usable_token_is_not_thrown_away(
    customer: Customer, tenant: Tenant, odd: dict[str, Any]
) -> None:
    tenant.token_response_extra = odd
    tenant.rotate_refresh_tokens = "refresh_token" not in odd

    assert customer.get("/token").status_code == 200

    tenant.token_response_extra = {}
    assert customer.goes_on(tenant)
    assert customer.get("/me").json


@pytest.mark.parametrize(
    ("path", "accept", "told"),
    [
        ("/token", "text/html", "/login?return_to=/token"),
        ("/token", "application/json", "application/problem+json"),
        ("/api", "text/html", "text/html; charset=utf-8"),  # which never redirects
    ],
)
def test_a_revoked_refresh_token_ends_the_session(
    customer: Customer, tenant: Tenant, path: str, accept: str, told: str
) -> None:
    copied = customer.twin()
    tenant.revoke_refresh_tokens("auth0|alice")

    refused = customer.get(path, Accept=accept)

    assert told in {refused.location, refused.content_type}
    assert refused.status_code == (302 if refused.location else 401)
    assert customer.client.get_cookie("session_auth0") is None
    assert copied.client.get("/me").json == {}


def test_a_second_factor_and_other_refusals_are_typed(
    customer: Customer, tenant: Tenant
) -> None:
    tenant.require_mfa = True
    assert customer.get("/token-or-why").json == {"kind": "MfaRequiredError"}
    tenant.require_mfa = False
    tenant.fail("token", Fault.body({"error": "access_denied"}, status=403))
    assert customer.get("/token-or-why").json == {"kind": "AccessTokenError"}
    assert customer.get("/token-or-why").status_code == 200


@pytest.mark.parametrize("auth_time", [1_000_000_000, None])
def test_what_is_said_of_the_login_outlives_a_refresh(
    customer: Customer, tenant: Tenant, auth_time: int | None
) -> None:
    tenant.forge(claims={"auth_time": auth_time, "amr": ["pwd"], "sid": "first"})
    customer.sign_in_for_a_moment(tenant)
    newer = {"auth_time": int(time.time()), "amr": ["mfa"], "acr": "2", "sid": "next"}
    tenant.forge(claims={**newer, "role": "admin"})

    assert customer.get("/token").status_code == 200

    user: Any = customer.get("/me").json
    assert user["role"] == "admin"
    assert [user.get(name) for name in newer] == [auth_time, ["pwd"], None, "first"]
    assert "max_age=300" in customer.get("/fresh").location


@pytest.mark.parametrize(
    ("at_login", "refreshes", "ends_after"),
    [
        (None, [3000], 3000),
        (None, [3000, 6000, None], 3000),
        (2000, [3000], 2000),
        (3000, [2000], 2000),
    ],
)
def test_a_session_ends_where_a_refresh_says_and_never_later(
    customer: Customer,
    tenant: Tenant,
    clock: Clock,
    at_login: int | None,
    refreshes: list[int | None],
    ends_after: int,
) -> None:
    now = int(time.time())

    def ends(seconds: int | None) -> dict[str, Any]:
        return {"session_expiry": now + seconds} if seconds else {"iat": now}

    tenant.access_token_lifetime = 0
    tenant.forge(claims=ends(at_login))
    customer.login()
    for seconds in refreshes:
        tenant.forge(claims=ends(seconds))
        assert customer.get("/token").status_code == 200
        clock.forward(1.1)  # the shortest that a token is good for

    clock.forward(ends_after - 120)
    assert customer.get("/me").json
    clock.forward(120)
    assert customer.get("/me").json == {}


OTHERS = {"another user": "auth0|bob", "another case": "auth0|Alice"}


@pytest.mark.parametrize("kind", ["signature", "issuer", "absent", *OTHERS])
def test_a_refreshed_id_token_that_does_not_hold_changes_nobody(
    customer: Customer, tenant: Tenant, kind: str
) -> None:
    before: Any = customer.get("/session").json
    if kind in OTHERS:
        tenant.forge(claims={"sub": OTHERS[kind]})
    else:
        tenant.forge(kind, claims={"role": "admin"})

    customer.get("/token-or-why")
    assert customer.get("/token-of/github").status_code == 200  # changes the session

    after: Any = customer.get("/session").json
    for name in ("user", "id_token"):
        assert after[name] == before[name]


async def test_a_token_of_a_connection_is_kept_until_it_expires(
    alice: Visitor, tenant: Tenant, clock: Clock
) -> None:
    await alice.login()

    found = await at_once(alice, 10, "/token-of/github")
    for seconds in (0, 601):
        clock.forward(seconds)
        found.append((await alice.get("/token-of/github")).text)

    assert len(set(found)) == 1
    assert found[0].startswith("github-token-")
    assert await alice.claims()
    assert tenant.count("/oauth/token") == 2
    clock.forward(3000)
    assert (await alice.get("/token-of/github")).text != found[0]


def test_a_token_of_a_connection_is_asked_for_with_the_newest_refresh_token(
    customer: Customer, tenant: Tenant
) -> None:
    late = customer.twin()  # an answer that came late brought the old cookie back
    customer.get("/token")

    assert late.client.get("/token-of/github").status_code == 200
    assert tenant.reuse_detected == 0


async def test_userinfo_is_what_auth0_says_with_a_token_refreshed_if_need_be(
    alice: Visitor, tenant: Tenant
) -> None:
    refused = await alice.get("/api/userinfo")
    assert refused.status_code == 401
    assert refused.headers["Content-Type"] == "application/problem+json"
    await sign_in_for_a_moment(alice, tenant)

    assert (await alice.get("/api/userinfo")).json()["email"] == "alice@example.com"
    for fault in (Fault.reset(), Fault.status(503), Fault.broken_json()):
        tenant.fail("userinfo", fault)
        assert (await alice.get("/api/userinfo")).status_code == 502
    assert (await alice.get("/api/userinfo")).status_code == 200


def test_logout_revokes_the_refresh_token(
    customer: Customer, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    for fault in (None, Fault.slow(30)):
        customer.login()
        token = (customer.get("/session").json or {})["refresh_token"]
        assert tenant.directory.refresh_tokens.grant(token)
        if fault:
            tenant.fail("revoke", fault)
        began = time.monotonic()
        assert customer.get("/logout").status_code == 302
        assert time.monotonic() - began < 15  # gives up, rather than waits
        assert customer.get("/me").json == {}
        assert (tenant.directory.refresh_tokens.grant(token) is None) == (not fault)
        assert ("not revoked" in caplog.text) == bool(fault)


def test_a_caller_who_gives_up_does_not_lose_the_answer(
    customer: Customer, tenant: Tenant
) -> None:
    tenant.fail("token", Fault.slow(0.5))
    assert customer.get("/impatient").text == "gave up"

    assert customer.get("/token").status_code == 200
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (2, 0)
