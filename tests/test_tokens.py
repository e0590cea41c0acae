"""Access tokens: refreshed once, found again, refused and revoked."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import httpx
import pytest
from flask import Flask, Response, request, session, stream_with_context
from flask.sessions import SecureCookieSessionInterface
from flask_session import Session
from redis import Redis
from werkzeug.wrappers import Response as BaseResponse

import auth
from auth import auth0
from auth0_flask import refresh_lock
from auth0_flask.refresh_lock import (
    EXCHANGE_SECONDS,
    LOCK_SECONDS,
    newest_refresh_token,
    refresh_once,
)
from auth0_flask.stores import SharedStore, SqliteStore
from auth0_flask.stores import session as session_store
from auth0_flask.stores.encryption import DecryptionError
from auth0_flask.stores.redis import RedisStore, connect
from auth0_flask.stores.shared import digest
from auth0_flask.tenant import Tenant
from auth0_flask.tenant.faults import Fault
from auth0_flask.testing import ROLES
from conftest import Clock
from servers import GUNICORN, Server, free_port, serving
from test_revocations import FORK, in_children
from visitor import Shopper, Visitor

Visitors = Callable[..., Visitor]
WITH_TOKENS = [*GUNICORN[:-1], "--pythonpath", "tests", "with_tokens:create()"]
OFFLINE = {"AUTH0_SCOPE": "openid profile email offline_access"}
API = "https://api.tenant.example/"


@contextmanager
def two_workers(tenant: Tenant, **more: str) -> Iterator[Server]:
    port = free_port()
    callback = f"http://localhost:{port}/callback"
    environment = tenant.environ(redirect_uri=callback)
    with serving(WITH_TOKENS, {**environment, **OFFLINE, **more}, port) as server:
        yield server


async def tokens_at_once(
    visitor: Visitor, trust: Any, times: int, path: str = "/token"
) -> list[str]:
    """Ask in parallel, every request with the cookies there are now."""
    limits, url = httpx.Limits(max_connections=times), f"{visitor.site}{path}"
    async with httpx.AsyncClient(
        headers=_cookies(visitor), verify=trust, timeout=30, limits=limits
    ) as http:
        answers = await asyncio.gather(*(http.get(url) for _ in range(times)))
    assert Counter(answer.status_code for answer in answers) == {200: times}
    return [answer.text for answer in answers]


def _cookies(visitor: Visitor) -> dict[str, str]:
    return {"Cookie": "; ".join(f"{n}={v}" for n, v in visitor.cookies.items())}


def state_of(visitor: Visitor, app: Flask) -> dict[str, Any]:
    """Open a visitor's session, over or not."""
    with app.test_request_context(headers=_cookies(visitor)):
        return auth0.sessions.load_unchecked() or {}


def refresh_token_of(visitor: Visitor, app: Flask) -> str:
    return str(state_of(visitor, app)["refresh_token"])


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
    return {}


KINDS = [flasks_own, in_redis, of_flask_session, of_the_app]


class Customer(Shopper):
    """Somebody at an app with Flask's defaults, and its pages."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app)
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        slow = self.slow, self.slow_and_blind, self.slow_and_writing
        for view in (*slow, self.token, self.put, self.cart, self.raw, self.stream):
            app.add_url_rule(f"/{view.__name__}", view_func=view)
        for path, guard in {
            "/fresh": auth.login_required(max_age=300),
            "/api": auth.login_required(redirect=False),
        }.items():
            app.add_url_rule(path, path, guard(self.token))

    async def token(self) -> str:
        return await auth0.get_access_token(audience=request.args.get("audience"))

    def put(self) -> str:
        session.permanent = True
        session["cart"] = [*session.get("cart", []), request.args["goods"]]
        return "kept"

    def cart(self) -> str:
        return " ".join(session.get("cart", []))

    def slow(self) -> str:
        user = str(auth.auth_user.get("sub"))
        return f"{user} {self.slow_and_blind()}"

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

    @contextmanager
    def during(self, path: str) -> Iterator[None]:
        """Do something while a slow page is being answered."""
        slow = threading.Thread(target=self.client.get, args=[path])
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
        status = self.client.get(f"/token?audience={API}").status_code
        found = status, tenant.count("/oauth/token"), tenant.reuse_detected
        return found == (200, 3, 0)


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def customer(request: pytest.FixtureRequest, tenant: Tenant) -> Customer:
    """Somebody at an app, over each kind of session."""
    app = Flask("shop")
    auth.init_app(app, **request.param(app, request))
    app.register_blueprint(auth.routes)
    return Customer(app)


async def test_fifty_requests_at_once_refresh_once_and_tell_of_it_once(
    alice: Visitor, tenant: Tenant, trust: Any, app: Flask
) -> None:
    told: list[str] = []

    def receive(_: object, user: dict[str, str]) -> None:
        asyncio.get_running_loop()
        told.append(user["sub"])

    await sign_in_for_a_moment(alice, tenant)
    with auth.tokens_refreshed.connected_to(receive, app):
        found = await tokens_at_once(alice, trust, 50)
        found += await tokens_at_once(alice, trust, 1)  # the replaced one again

    assert len(set(found)) == 1
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (2, 0)
    assert told == ["auth0|alice"]


@pytest.mark.parametrize("sessions", ["cookies", "redis"])
async def test_two_workers_refresh_once_and_share_what_they_ask(
    tenant: Tenant,
    visitors: Visitors,
    trust: Any,
    sessions: str,
    request: pytest.FixtureRequest,
) -> None:
    more = {}
    if sessions == "redis":
        more["AUTH0_REDIS_URL"] = request.getfixturevalue("redis_server").url
    tenant.change_user("alice", roles=["admin"])
    with two_workers(tenant, **more) as server:
        alice = visitors("alice", at=server.site)
        await sign_in_for_a_moment(alice, tenant)

        found = await tokens_at_once(alice, trust, 50)

        assert (len(set(found)), tenant.count("/oauth/token")) == (1, 2)
        assert (await alice.get("/token")).text == found[0]
        assert tenant.count("/oauth/token") == 2

        tenant.access_token_lifetime = 2
        began = time.monotonic()

        async def ask(times: int) -> list[int]:
            path = f"/token?audience={API}"
            return [(await alice.get(path)).status_code for _ in range(times)]

        statuses = await asyncio.gather(*(ask(50) for _ in range(8)))

        assert statuses == [[200] * 50] * 8
        asked, elapsed = tenant.count("/oauth/token"), time.monotonic() - began
        assert asked <= elapsed / 0.8 + 4  # 1.8 seconds, in whole ones

        tenant.change_user("alice", roles=[])
        renewed = map(json.loads, await tokens_at_once(alice, trust, 30, "/renewed"))

        assert [u["sub"] for u in renewed if ROLES not in u] == ["auth0|alice"] * 30
        assert tenant.count("/oauth/token") - asked < 30  # they came in some rounds
        assert tenant.reuse_detected == 0
        await alice.get("/renewed")
        workers: dict[int, dict[str, Any]] = {}
        while len(workers) < 2:
            for said in await tokens_at_once(alice, trust, 8, "/worker"):
                workers |= {json.loads(said)["pid"]: json.loads(said)["user"]}
        assert [user.get(ROLES) for user in workers.values()] == [None, None]


async def test_several_audiences_at_once_show_no_refresh_token_twice(
    alice: Visitor, tenant: Tenant, trust: Any
) -> None:
    await alice.login()
    paths = ["/token?audience=https://a.example/", f"/token?audience={API}"]

    found = await asyncio.gather(
        *(tokens_at_once(alice, trust, 10, path) for path in paths * 2)
    )

    a, b, *again = map(set, found)
    assert (again, len(a), len(b), len(a | b)) == ([a, b], 1, 1, 2)
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (3, 0)
    bearer = {"Authorization": f"Bearer {b.pop()}"}
    used = await alice.http.get(f"https://{tenant.domain}/api/things", headers=bearer)
    assert used.json()["sub"] == "auth0|alice"


def slow_page_while_much_happens(
    customer: Customer, page: str, seconds: float = 0
) -> None:
    with customer.during(page):
        assert customer.client.get("/token").status_code == 200
        customer.client.get("/put?goods=pear")
        time.sleep(seconds)


@pytest.mark.parametrize("page", ["/slow", "/slow_and_blind"])
def test_a_slow_page_that_only_reads_brings_nothing_old_back(
    customer: Customer, tenant: Tenant, clock: Clock, page: str
) -> None:
    customer.sign_in_for_a_moment(tenant)
    customer.client.get("/put?goods=apple")

    slow_page_while_much_happens(customer, page)

    assert customer.client.get("/cart").text == "apple pear"
    clock.forward(10_000)  # what came of the replaced one is forgotten by now
    assert customer.goes_on(tenant)


def test_a_slow_page_loses_nothing_although_the_session_was_used_long_ago(
    customer: Customer, tenant: Tenant, clock: Clock, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(session_store, "_SLOW_SECONDS", 0.3)
    customer.sign_in_for_a_moment(tenant)
    customer.client.get("/put?goods=apple")
    clock.forward(10_000)

    slow_page_while_much_happens(customer, "/slow", seconds=0.4)

    assert customer.client.get("/cart").text == "apple pear"
    clock.forward(10_000)
    assert customer.goes_on(tenant)


@pytest.mark.parametrize("customer", [flasks_own], indirect=True)
def test_a_slow_page_that_writes_does_not_bring_a_replaced_refresh_token_back(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    customer.sign_in_for_a_moment(tenant)

    slow_page_while_much_happens(customer, "/slow_and_writing")

    clock.forward(10_000)
    assert customer.goes_on(tenant)


def test_the_sdks_own_refresh_leaves_no_replaced_token_behind(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    customer.sign_in_for_a_moment(tenant)

    assert customer.client.get("/raw").status_code == 200

    clock.forward(10_000)
    assert customer.goes_on(tenant)


def test_a_refresh_within_a_stream_is_logged_and_the_next_request_goes_on(
    customer: Customer, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    customer.sign_in_for_a_moment(tenant)

    assert len(customer.client.get("/stream").text) > len("token: ")

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
    newest = asyncio.to_thread(newest_refresh_token, store, auth0.sessions, "1")
    assert await asyncio.wait_for(newest, 5) == "1"

    clock.forward(10)
    assert await refresh(store, "1", exchange) == "a"


@pytest.mark.parametrize(("seconds", "kept"), [(1, 60), (86_400, 600)])
async def test_what_replaced_a_refresh_token_is_kept_a_minute_at_least_and_ten_at_most(
    clock: Clock, seconds: int, kept: int
) -> None:
    store = SharedStore()
    await refresh(store, "a", partial(rotated, seconds=seconds))

    for left, newest in ((1, "a'"), (-1, "a")):
        clock.offset = kept - left
        assert newest_refresh_token(store, auth0.sessions, "a") == newest


async def test_a_result_is_handed_out_while_its_token_is_good_and_no_longer(
    clock: Clock,
) -> None:
    store, exchange = SharedStore(), partial(rotated, seconds=5)
    for offset, token in ((0, "of a"), (4, "of a"), (6, "of a'")):
        clock.offset = offset
        assert await refresh(store, "a", exchange) == token


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

    def child() -> object:
        may_end.set()
        return asyncio.run(refresh(SharedStore(), "forked", exchange))

    with ThreadPoolExecutor(1) as pool:
        work = refresh(SharedStore(), "forked", exchange)
        parents = pool.submit(asyncio.run, work)
        assert has_begun.wait(5)
        found = in_children(child)
        may_end.set()
        assert found == [parents.result(5)] == ["of forked"]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_killed_process_blocks_nobody_for_longer_than_its_turn(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(refresh_lock, "LOCK_SECONDS", 0.5)
    store, (asked, asks) = SqliteStore(tmp_path / "shared.sqlite3"), FORK.Pipe()

    def exchange(token: str) -> dict[str, Any]:
        asks.send(token)
        time.sleep(60)
        return rotated(token)

    work = refresh(store, "token", exchange)
    doomed = FORK.Process(target=lambda: asyncio.run(work))
    doomed.start()
    assert asked.recv() == "token"
    doomed.kill()
    doomed.join()
    work.close()

    assert asyncio.run(refresh(store, "token")) == "of token"
    assert EXCHANGE_SECONDS < LOCK_SECONDS <= 10


@pytest.fixture(params=["process", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SharedStore:
    """What workers share of their refreshes."""
    if request.param == "process":
        return SharedStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "shared.sqlite3")
    return RedisStore(connect(request.getfixturevalue("redis_server").url))


def test_a_lock_is_for_one_and_expires_by_itself(store: SharedStore) -> None:
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
    assert store.lock("key", 5)


def test_a_result_is_there_for_its_seconds(store: SharedStore) -> None:
    release = store.lock("key", 5)
    assert release
    store.keep_result("key", "encrypted", 0.3)
    release()
    assert store.result("key") == "encrypted"
    assert store.lock("key", 5) is None
    time.sleep(0.31)
    assert store.result("key") is None
    assert store.lock("key", 5)


async def test_a_worker_that_is_quicker_refreshes_alone(
    store: SharedStore, monkeypatch: pytest.MonkeyPatch
) -> None:
    exchanged: list[str] = []

    def exchange(token: str) -> dict[str, Any]:
        exchanged.append(token)
        return rotated(token)

    lock = store.lock

    def lock_late(key: str, seconds: float) -> Any:
        monkeypatch.setattr(store, "lock", lock)
        other = SimpleNamespace(getpid=lambda: -1)  # another worker is quicker
        monkeypatch.setattr(refresh_lock, "os", other)
        asyncio.run(refresh(store, "token", exchange))
        monkeypatch.undo()
        return lock(key, seconds)

    monkeypatch.setattr(store, "lock", lock_late)

    assert await refresh(store, "token", exchange) == "of token"
    assert exchanged == ["token"]


async def test_without_rotation_one_refresh_serves_all(
    alice: Visitor, tenant: Tenant, trust: Any
) -> None:
    tenant.rotate_refresh_tokens = False
    await alice.login()

    path = f"/token?audience={API}&scope=read:things"  # which is not granted
    found = await tokens_at_once(alice, trust, 20, path)
    found += await tokens_at_once(alice, trust, 20, path)
    found += [(await alice.get(path)).text for _ in range(2)]

    assert len(set(found)) == 1
    assert tenant.count("/oauth/token") == 2


async def test_a_token_is_refreshed_before_it_ends(
    alice: Visitor, tenant: Tenant, clock: Clock
) -> None:
    tenant.access_token_lifetime = 600
    await alice.login()
    seen = []
    for seconds in (0, 565, 6, 565, 6):
        clock.forward(seconds)
        seen.append((await alice.get("/token")).text)

    assert (seen[0], seen[2]) == (seen[1], seen[3])
    assert len(set(seen)) == 3


# What Auth0 may answer


def overloaded(status: int) -> Fault:
    """Answer as Auth0 does then: in the form of a refusal."""
    refusal, headers = json.dumps({"error": "invalid_grant"}), {"Retry-After": "17"}
    kind = "application/json"
    return Fault(lambda *_: BaseResponse(refusal, status, headers, mimetype=kind))


@pytest.mark.parametrize("path", [f"/token?audience={API}", "/token-of/github"])
@pytest.mark.parametrize(
    ("fault", "retry_after"),
    [
        (Fault.reset(), "5"),
        (Fault.status(503), "5"),
        (Fault.broken_json(), "5"),
        (Fault.body({"error": "server_error"}, status=500), "5"),
        (Fault.body({"token_type": "Bearer"}), "5"),
        (Fault.body({}), "5"),
        *((overloaded(status), "17") for status in (429, 500, 503)),
    ],
    ids=[
        *("reset", "503", "broken", "server_error", "no token", "empty"),
        *("429 as a refusal", "500 as a refusal", "503 as a refusal"),
    ],
)
async def test_an_outage_is_a_502_and_the_next_try_works(
    alice: Visitor, tenant: Tenant, fault: Fault, retry_after: str, path: str
) -> None:
    await alice.login()
    before = alice.cookies
    tenant.fail("token", fault)

    failed = await alice.get(path)

    assert failed.status_code == 502
    assert failed.headers.get("Retry-After") == retry_after
    assert alice.cookies == before
    assert await alice.claims()
    assert (await alice.get(path)).status_code == 200
    assert tenant.reuse_detected == 0


ODD: dict[str, list[Any]] = {
    "expires_in": ["86400", "soon", None, -1, 1e300, float("inf"), float("nan"), []],
    "expires_at": ["soon", float("inf"), -1],
    "scope": [7, None, ["openid"]],
    "id_token": [7, "x.y.z", {}, ""],
    "token_type": [7, None],
}


@pytest.mark.parametrize(
    "odd", [{name: value} for name, values in ODD.items() for value in values], ids=str
)
async def test_an_odd_answer_with_a_usable_token_is_not_thrown_away(
    alice: Visitor, tenant: Tenant, odd: dict[str, Any]
) -> None:
    await sign_in_for_a_moment(alice, tenant)
    tenant.token_response_extra = odd

    assert (await alice.get("/token")).status_code == 200

    tenant.token_response_extra = {}
    assert (await alice.get(f"/token?audience={API}")).status_code == 200
    assert await alice.claims()
    assert tenant.reuse_detected == 0


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
async def test_a_revoked_refresh_token_ends_the_session(
    alice: Visitor, tenant: Tenant, accept: str
) -> None:
    await sign_in_for_a_moment(alice, tenant)
    copied = alice.cookies
    tenant.revoke_refresh_tokens("auth0|alice")

    refused = await alice.get("/token", Accept=accept)

    if accept == "text/html":
        assert refused.headers["Location"] == "/login?return_to=/token"
    else:
        assert refused.status_code == 401
        assert refused.headers["Content-Type"] == "application/problem+json"
        assert refused.json()["code"] == "signed_out"
    assert "session_auth0" not in alice.cookies
    alice.http.cookies.update(copied)
    assert await alice.claims() is None


@pytest.mark.parametrize("customer", [flasks_own], indirect=True)
def test_an_api_that_never_redirects_does_not_when_a_refresh_ends_the_session(
    customer: Customer, tenant: Tenant
) -> None:
    customer.sign_in_for_a_moment(tenant)
    tenant.revoke_refresh_tokens("auth0|alice")

    assert customer.client.get("/api").status_code == 401


async def test_a_second_factor_and_other_refusals_are_typed(
    alice: Visitor, tenant: Tenant
) -> None:
    await sign_in_for_a_moment(alice, tenant)
    tenant.require_mfa = True
    assert (await alice.get("/token-or-why")).json() == {"kind": "MfaRequiredError"}
    tenant.require_mfa = False
    tenant.fail("token", Fault.body({"error": "access_denied"}, status=403))
    assert (await alice.get("/token-or-why")).json() == {"kind": "AccessTokenError"}
    assert (await alice.get("/token-or-why")).status_code == 200


@pytest.mark.parametrize("auth_time", [1_000_000_000, None])
@pytest.mark.parametrize("customer", [flasks_own], indirect=True)
def test_what_is_said_of_the_login_outlives_a_refresh(
    customer: Customer, tenant: Tenant, auth_time: int | None
) -> None:
    tenant.forge(claims={"auth_time": auth_time, "amr": ["pwd"], "sid": "first"})
    customer.sign_in_for_a_moment(tenant)
    newer = {"auth_time": int(time.time()), "amr": ["mfa"], "acr": "2", "sid": "next"}
    tenant.forge(claims={**newer, "role": "admin"})

    assert customer.client.get("/token").status_code == 200

    with customer.client:
        customer.client.get("/cart")
        user = dict(auth.auth_user)
    assert user["role"] == "admin"
    assert [user.get(name) for name in newer] == [auth_time, ["pwd"], None, "first"]
    assert "max_age=300" in customer.client.get("/fresh").headers["Location"]


@pytest.mark.parametrize(
    ("at_login", "refreshes", "ends_after"),
    [
        (None, [3000], 3000),
        (None, [3000, 6000, None], 3000),
        (2000, [3000], 2000),
        (3000, [2000], 2000),
    ],
)
async def test_a_session_ends_where_a_refresh_says_and_never_later(
    alice: Visitor,
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
    await alice.login()
    for seconds in refreshes:
        tenant.forge(claims=ends(seconds))
        assert (await alice.get("/token")).status_code == 200
        clock.forward(1.1)  # the shortest that a token is good for

    clock.forward(ends_after - 120)
    assert await alice.claims()
    clock.forward(120)
    assert await alice.claims() is None


OTHERS = {"another user": "auth0|bob", "another case": "auth0|Alice"}


@pytest.mark.parametrize("kind", ["signature", "issuer", "absent", *OTHERS])
async def test_a_refreshed_id_token_that_does_not_hold_changes_nobody(
    alice: Visitor, tenant: Tenant, app: Flask, kind: str
) -> None:
    await sign_in_for_a_moment(alice, tenant)
    id_token = state_of(alice, app)["id_token"]
    if kind in OTHERS:
        tenant.forge(claims={"sub": OTHERS[kind]})
    else:
        tenant.forge(kind, claims={"role": "admin"})

    await alice.get("/token-or-why")

    claims = await alice.claims() or {}
    assert claims["sub"] == "auth0|alice"
    assert "role" not in claims
    assert state_of(alice, app)["id_token"] == id_token


async def test_a_token_of_a_connection_is_kept_until_it_expires(
    alice: Visitor, tenant: Tenant, clock: Clock, trust: Any
) -> None:
    await alice.login()

    found = await tokens_at_once(alice, trust, 10, "/token-of/github")
    for seconds in (0, 601):
        clock.forward(seconds)
        found.append((await alice.get("/token-of/github")).text)

    assert len(set(found)) == 1
    assert found[0].startswith("github-token-")
    assert await alice.claims()
    assert tenant.count("/oauth/token") == 2
    clock.forward(3000)
    assert (await alice.get("/token-of/github")).text != found[0]


async def test_a_token_of_a_connection_is_asked_for_with_the_newest_refresh_token(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login()
    held = dict(alice.cookies)
    await alice.get(f"/token?audience={API}")
    alice.http.cookies.clear()
    alice.http.cookies.update(held)  # a late answer brought the old cookie back

    assert (await alice.get("/token-of/github")).status_code == 200
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


async def test_logout_revokes_the_refresh_token(
    alice: Visitor, tenant: Tenant, app: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    await alice.login()
    token = refresh_token_of(alice, app)
    assert tenant.directory.refresh_tokens.grant(token)
    await alice.logout()
    assert tenant.count("/oauth/revoke") == 1
    assert tenant.directory.refresh_tokens.grant(token) is None

    await alice.login()
    token = refresh_token_of(alice, app)
    tenant.fail("revoke", Fault.slow(30))
    began = time.monotonic()
    with caplog.at_level(logging.ERROR):
        home = await alice.get("/logout")
    assert time.monotonic() - began < 15  # gives up, rather than waits
    assert home.status_code == 302
    assert await alice.claims() is None
    assert "not revoked" in caplog.text
    assert token not in caplog.text


async def test_a_caller_who_gives_up_does_not_lose_the_answer(
    alice: Visitor, tenant: Tenant, app: Flask
) -> None:
    await alice.login()
    tenant.fail("token", Fault.slow(0.5))
    with (
        app.test_request_context(headers=_cookies(alice)),
        pytest.raises(TimeoutError),
    ):
        await asyncio.wait_for(auth0.get_access_token(audience=API), 0.1)

    assert (await alice.get(f"/token?audience={API}")).status_code == 200
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (2, 0)
