"""Tokens and claims: refreshed once, found again, refused; and second factors."""

from __future__ import annotations

import asyncio
import json
import ssl
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from datetime import timedelta
from functools import partial
from pathlib import Path
from secrets import token_hex, token_urlsafe
from typing import Any
from urllib.parse import parse_qs, unquote, urlsplit

import httpx
import pytest
import redis
from auth0_server_python.error import AccessTokenError, Auth0Error, MfaRequiredError
from flask import Flask, Response, request, session, stream_with_context
from flask.sessions import SecureCookieSessionInterface
from flask_session import Session
from werkzeug.test import TestResponse

import auth
from auth import auth0
from auth0_flask.errors import ProviderDown
from auth0_flask.refresh_lock import newest_refresh, refresh_once
from auth0_flask.stores import SharedStore, SqliteStore, base, shared
from auth0_flask.stores.encryption import DecryptionError
from auth0_flask.stores.redis import RedisStore, connect
from auth0_flask.stores.shared import digest
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.testing import ROLES
from conftest import Clock
from redis_server import RedisServer
from sdk_calls import Caller, Work
from servers import GUNICORN, free_port, serving, until
from shop import copy_of_auth, make_shop
from test_revocations import in_children
from visitor import Shopper, Visitor
from with_tokens import add_views

WITH_TOKENS = [*GUNICORN[:-1], "--pythonpath", "tests", "with_tokens:create()"]
API = "https://api.tenant.example/"
MFA = "http://schemas.openid.net/pape/policies/2007/06/multi-factor"
HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}
VAULTS: dict[str, dict[str, Any]] = {
    "/vault": {"mfa": True},
    "/vault/now": {"mfa": True, "max_age": 300},
    "/vault/gold": {"acr": "gold"},
    "/vault/metal": {"acr": "gold silver"},
    "/vault/api": {"mfa": True, "redirect": False},
    "/fresh": {"max_age": 300},
}


async def at_once(visitor: Visitor, times: int, path: str = "/token") -> list[str]:
    """Ask in parallel, every request with the cookies there are now."""
    cookies = "; ".join(f"{name}={value}" for name, value in visitor.cookies.items())
    trust = ssl.SSLContext(ssl.PROTOCOL_TLS_CLIENT)
    async with httpx.AsyncClient(verify=trust, timeout=30) as http:
        url, headers = f"{visitor.site}{path}", {"Cookie": cookies}
        asked = (http.get(url, headers=headers) for _ in range(times))
        answers = await asyncio.gather(*asked)
    assert {answer.status_code for answer in answers} == {200}
    return [answer.text for answer in answers]


# How an app may keep its sessions: what `init_app` is given for it


def flasks_own(app: Flask, _: pytest.FixtureRequest) -> dict[str, Any]:
    return {}


def in_redis(app: Flask, request: pytest.FixtureRequest) -> dict[str, Any]:
    client = connect(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    return {"redis": client}


def of_flask_session(app: Flask, request: pytest.FixtureRequest) -> dict[str, Any]:
    client = redis.Redis.from_url(request.getfixturevalue("redis_server").url)
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


class Customer(Caller):
    """An admin who has signed in, with an access token that is good no more."""

    def __init__(self, app: Flask, tenant: Tenant, clock: Clock) -> None:
        super().__init__(add_views(app), tenant)
        self.clock, self.code = clock, lambda: tenant.otp_for("alice")
        api = auth.login_required(redirect=False)(auth0.get_access_token)
        for path, function in {
            "/admin": auth.requires_claim(ROLES, "admin")(lambda: "open"),
            "/github": ask_github,
            "/api": api,
            "/poll": auth.passive(api),
            **{p: auth.login_required(**w)(lambda: "open") for p, w in VAULTS.items()},
        }.items():
            app.add_url_rule(path, path, function)
        tenant.change_user("alice", roles=["admin"])
        self.sign_in_for_a_moment()

    def sign_in_for_a_moment(self, path: str = "/login") -> None:
        self.tenant.access_token_lifetime = 0
        assert self.login(path).status_code == 302
        self.tenant.access_token_lifetime = 86_400

    def get(self, path: str, **headers: str) -> TestResponse:
        return self.client.get(path, headers=headers)

    def token(self, audience: str = "") -> str:
        return self.get(f"/token?audience={audience}").text

    @contextmanager
    def during(self, work: Work) -> Iterator[None]:
        """Do something while the answer of a view that has done this work is late."""
        has_begun, may_end = threading.Event(), threading.Event()

        async def slow() -> None:
            await work()
            has_begun.set()
            may_end.wait(10)

        with ThreadPoolExecutor(1) as pool:
            answer = pool.submit(self.call, slow)
            assert has_begun.wait(10)
            yield
            may_end.set()
            assert answer.result().text == "done"

    def refresh(self, asked: int) -> int:
        """Refresh once more, so that Auth0 was asked this often; return the status.

        Auth0 would notice, were it shown a refresh token that was replaced.
        """
        status = self.get(f"/token?audience=https://{asked}.example/").status_code
        assert self.tenant.reuse_detected == 0
        assert status == 302 or self.tenant.count("/oauth/token") == asked
        return status


@pytest.fixture(params=[flasks_own])
def customer(request: pytest.FixtureRequest, tenant: Tenant, clock: Clock) -> Customer:
    """Somebody at an app with this kind of session."""
    shop = make_shop(auth, lambda app: request.param(app, request))
    return Customer(shop, tenant, clock)


over_every_kind = pytest.mark.parametrize("customer", KINDS, indirect=True)


@pytest.mark.parametrize("rotates", [True, False])
async def test_of_many_requests_at_once_one_refreshes_and_tells_of_it(
    alice: Visitor, tenant: Tenant, app: Flask, rotates: bool
) -> None:
    told: list[Any] = []
    tenant.rotate_refresh_tokens = rotates
    await alice.login()
    scope = "&scope=read:things"  # which is not granted
    paths = ["/token?audience=https://a.example/", f"/token?audience={API}{scope}"]
    with auth.tokens_refreshed.connected_to(lambda *_, user: told.append(user), app):
        found = await asyncio.gather(*(at_once(alice, 20, path) for path in paths * 2))
        found += [await at_once(alice, 1, path) for path in paths]  # a replaced one

    a, b, *again = map(set, found)
    assert (again, len(a), len(b), len(a | b)) == ([a, b] * 2, 1, 1, 2)
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (3, 0)
    assert [user["sub"] for user in told] == ["auth0|alice"] * 2


@pytest.mark.parametrize("sessions", ["cookies", "redis"])
async def test_two_workers_refresh_once(
    tenant: Tenant, visitors: Any, sessions: str, request: pytest.FixtureRequest
) -> None:
    port = free_port()
    given = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    given["AUTH0_SCOPE"] = "openid profile email offline_access"
    if sessions == "redis":
        given["AUTH0_REDIS_URL"] = request.getfixturevalue("redis_server").url
    tenant.change_user("alice", roles=["admin"])
    tenant.access_token_lifetime = 0
    with serving(WITH_TOKENS, given, port) as server:
        alice = visitors("alice", at=server.site)
        await alice.login()
        tenant.access_token_lifetime = 86_400

        found = [*await at_once(alice, 50), (await alice.get("/token")).text]

        assert (len(set(found)), tenant.count("/oauth/token")) == (1, 2)

        tenant.change_user("alice", roles=[])
        renewed = map(json.loads, await at_once(alice, 30, "/renewed"))

        assert [u["sub"] for u in renewed if ROLES not in u] == ["auth0|alice"] * 30
        assert tenant.count("/oauth/token") < 32  # they came in some rounds
        assert tenant.reuse_detected == 0


async def look() -> None:
    assert auth.auth_user["sub"] == "auth0|alice"


async def write() -> None:
    await look()
    session.permanent = True
    session["looked"] = session.get("looked", 0) + 1


async def only_write() -> None:
    session["looked"] = True


async def clear() -> None:
    await look()
    session.clear()


async def ask_github(name: str = "github") -> str:
    return await auth0.get_access_token_for_connection({"connection": name})


@pytest.mark.parametrize("page", ["reads", "reads after an hour", "is static"])
@over_every_kind
def test_a_late_page_that_only_reads_brings_nothing_old_back(
    customer: Customer, page: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    customer.ask(write)
    if page == "reads after an hour":
        monkeypatch.setattr(base, "_SLOW_SECONDS", 0)
        customer.clock.forward(10_000)

    with customer.during(partial(asyncio.sleep, 0) if page == "is static" else look):
        assert customer.get("/token").status_code == 200
        assert customer.get("/cart").text == "new"

    assert customer.get("/cart").text == "full"
    customer.clock.forward(10_000)  # what came of the replaced one is forgotten by now
    assert customer.refresh(3) == 200


async def looked() -> Any:
    return session.get("looked")


def lasting(app: Flask, _: pytest.FixtureRequest) -> dict[str, Any]:
    app.config["PERMANENT_SESSION_LIFETIME"] = timedelta(days=5)  # which it renews
    return {}


@pytest.mark.parametrize("customer", [*KINDS, lasting], indirect=True)
def test_a_late_page_writes_nothing_of_the_user_before(customer: Customer) -> None:
    with customer.during(write):
        customer.get("/logout")
        customer.username = "bob"
        customer.login()

    assert (customer.user.get("sub"), customer.ask(looked)) == ("auth0|bob", None)


@over_every_kind
def test_who_ends_their_own_session_keeps_what_else_it_has(customer: Customer) -> None:
    async def end() -> None:
        await auth0.logout_everywhere()
        session["looked"] = "signed out"

    customer.ask(end)
    assert (customer.user, customer.ask(looked)) == ({}, "signed out")


async def ask_another() -> str:
    return await auth0.get_access_token(audience="https://another.example/")


@pytest.mark.parametrize(
    ("customer", "work", "rotates"),
    [
        *[(kind, only_write, True) for kind in (flasks_own, in_redis)],
        *[(kind, work, True) for kind in KINDS for work in (write, ask_github, clear)],
        *[(kind, work, False) for kind in KINDS for work in (ask_github, ask_another)],
    ],
    indirect=["customer"],
)
def test_no_late_page_brings_a_role_back(
    customer: Customer, work: Work, rotates: bool
) -> None:
    customer.tenant.rotate_refresh_tokens = rotates
    tokens = {customer.token(), customer.token(API)}
    customer.tenant.change_user("alice", roles=[], name="Alice the Reader")
    assert customer.get("/admin").text == "open"  # nobody has asked Auth0

    with customer.during(work):
        user = customer.ask(auth0.refresh_user)
        assert (user["name"], user.get(ROLES)) == ("Alice the Reader", None)
        assert customer.get("/admin").status_code == 403
        new = {customer.token(), customer.token(API)}
        assert new.isdisjoint(tokens)  # which were of the admin

    assert customer.get("/admin").status_code == (302 if work is clear else 403)
    assert customer.token() not in tokens
    customer.clock.forward(10_000)
    asked = customer.tenant.count("/oauth/token") + 1
    assert customer.refresh(asked) == (302 if work is clear else 200)


@pytest.mark.parametrize(("rotates", "asked"), [(True, 3), (False, 2)])
@over_every_kind
def test_pages_that_want_tokens_of_two_apis_at_once_come_to_have_both(
    customer: Customer, rotates: bool, asked: int
) -> None:
    customer.tenant.rotate_refresh_tokens = rotates
    before = customer.tenant.count("/oauth/token")
    for _ in range(4):
        with customer.during(partial(auth0.get_access_token, audience=API)):
            customer.token("https://b.example/")
    assert customer.tenant.count("/oauth/token") - before == asked
    customer.token()
    kept = {tokens["audience"] for tokens in customer.session["token_sets"]}
    assert kept == {API, "https://b.example/", "default"}


@over_every_kind
def test_a_session_keeps_its_newest_refresh_token_until_the_app_clears_it(
    customer: Customer, caplog: pytest.LogCaptureFixture
) -> None:
    def parts() -> Iterator[str]:
        yield "token: "
        yield asyncio.run(auth0.get_access_token(audience="https://a.example/"))

    shown = {"refresh_token": customer.session["refresh_token"]}
    customer.ask(lambda: auth0.get_token_by_refresh_token(shown))
    customer.clock.forward(10_000)
    assert customer.refresh(3) == 200

    def stream() -> Response:
        return Response(stream_with_context(parts()))

    customer.client.application.extensions["call"] = stream
    assert len(customer.get("/call").text) > len("token: ")
    assert "after the response had begun" in caplog.text
    assert customer.refresh(5) == 200

    customer.clock.forward(10_000)  # however long it was unused
    customer.ask(clear)
    assert customer.user == {}


def test_a_refresh_with_too_many_claims_loses_no_token(customer: Customer) -> None:
    for groups, status in ([token_hex(20) for _ in range(300)], 500), ([], 200):
        customer.tenant.change_user("alice", groups=groups)
        assert customer.get("/token").status_code == status
        customer.clock.forward(700)  # the result is forgotten by now
    assert customer.refresh(4) == 200


# What is kept of a refresh


def rotated(token: str, seconds: float = 60) -> dict[str, Any]:
    """Answer a refresh, with a token that is good for so long."""
    answer = {"access_token": f"of {token}", "refresh_token": f"{token}'"}
    return {"answer": answer, "fresh_until": time.time() + seconds}


async def refresh(
    store: SharedStore, token: str, how: Any = rotated, **more: Any
) -> str:
    """Refresh within reason; return the access token."""
    work = refresh_once(store, auth0.sessions, token, "any", how, **more)
    return str((await asyncio.wait_for(work, 10))[0]["answer"]["access_token"])


async def test_a_thread_that_cannot_start(monkeypatch: pytest.MonkeyPatch) -> None:
    def cannot(_: threading.Thread) -> None:
        monkeypatch.undo()
        raise RuntimeError("can't start new thread")

    monkeypatch.setattr(threading.Thread, "start", cannot)
    with pytest.raises(RuntimeError, match="can't start"):
        await refresh(SharedStore(), "threadless")
    assert await refresh(SharedStore(), "threadless") == "of threadless"


@pytest.mark.parametrize(("seconds", "kept"), [(1, 60), (86_400, 600)])
async def test_what_is_kept_of_a_refresh(clock: Clock, seconds: int, kept: int) -> None:
    store = SharedStore()
    await refresh(store, "a", partial(rotated, seconds=seconds))

    moved = store.result(digest("refresh\na")) or ""
    store.keep_result(digest("refresh\nmallory's"), moved, 60)
    with pytest.raises(DecryptionError):
        await refresh(store, "mallory's")
    for left in (1, -1):
        clock.offset = kept - left
        assert bool(newest_refresh(store, auth0.sessions, "a")) == (left > 0)
        if left > 0:  # but handed out while it is good only
            token = await refresh(store, "a")
            assert token == ("of a" if seconds > kept else "of a'")


def test_what_cannot_be_shared_at_once_is_not_lost_and_shared_later(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(shared, "_RETRY_SECONDS", 0.05)
    store, cache, asked = SqliteStore(tmp_path / "a"), tmp_path / "a-cache", list[str]()

    def exchange(token: str) -> dict[str, Any]:
        asked.append(token)
        cache.unlink()
        cache.mkdir()
        return rotated(token)

    for _ in range(2):
        assert asyncio.run(refresh(store, "unshared", exchange)) == "of unshared"
    cache.rmdir()
    other = SqliteStore(store.path)
    until(lambda: newest_refresh(other, auth0.sessions, "unshared"))
    assert asked == ["unshared"]


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_refresh_under_way_is_for_no_child_and_for_nobody_who_wants_a_newer() -> None:
    asked, store = [], SharedStore()
    has_begun, may_end = threading.Event(), threading.Event()

    def exchange(token: str) -> dict[str, Any]:
        asked.append(token)
        has_begun.set()
        may_end.wait(10)
        return rotated(str(len(asked)))

    def work(since: float = 0) -> str:
        return asyncio.run(refresh(store, "token", exchange, since=since))

    def child() -> str:
        may_end.set()  # in the child only
        return asyncio.run(refresh(SharedStore(), "token", exchange))

    with ThreadPoolExecutor(6) as pool:
        early = pool.submit(work)
        assert has_begun.wait(5)
        children = in_children(child)
        late = [pool.submit(work, store.now()) for _ in range(5)]
        time.sleep(0.1)
        may_end.set()
        found = [each.result(5) for each in (early, *late)]
        assert children + found == ["of 2", "of 1", *["of 2"] * 5]


@pytest.fixture(params=["process", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> SharedStore:
    """What workers share of their refreshes."""
    if request.param == "process":
        return SharedStore()
    if request.param == "sqlite":
        return SqliteStore(tmp_path / "shared.sqlite3")
    return RedisStore(connect(request.getfixturevalue("redis_server").url))


def test_a_lock_is_for_one_and_a_result_for_its_seconds(store: SharedStore) -> None:
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


@pytest.mark.skipif(redis.VERSION[0] < 6, reason="it does not ask again")
def test_a_lock_whose_answer_was_lost_is_held_all_the_same(
    redis_server: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = redis.Connection.read_response

    def lose_it(*given: Any, **options: Any) -> None:
        read(*given, **options)
        monkeypatch.undo()
        raise redis.ConnectionError

    store = RedisStore(client := connect(redis_server.url))
    client.ping()
    monkeypatch.setattr(redis.Connection, "read_response", lose_it)
    release = store.lock("key", 60)
    assert release
    assert store.lock("key", 60) is None
    release()
    assert store.lock("key", 60)


def test_a_token_is_refreshed_before_it_ends(customer: Customer) -> None:
    customer.tenant.access_token_lifetime = 600
    seen = []
    for seconds in (0, 565, 6, 565, 6):
        customer.clock.forward(seconds)
        seen.append(customer.token())

    assert (seen[0], seen[2]) == (seen[1], seen[3])
    assert len(set(seen)) == 3


def test_polling_for_tokens_keeps_no_session_alive(customer: Customer) -> None:
    customer.tenant.access_token_lifetime, seen = 3600, []
    for _ in range(4):
        customer.clock.forward(auth.settings.session_idle_seconds * 0.3)
        seen.append(customer.get("/poll").status_code)
    assert seen == [200, 200, 200, 401]


OUTAGES = [
    *(Fault.reset(), Fault.status(503), Fault.broken_json()),
    Fault.body({"error": "server_error"}, status=500),
    Fault.body({"token_type": "Bearer"}),
]


@pytest.mark.parametrize("path", ["/token", "/github", "/renewed"])
@pytest.mark.parametrize("outage", OUTAGES)
def test_an_outage_is_a_502_and_the_next_try_works(
    customer: Customer, outage: Fault, path: str
) -> None:
    before = customer.client.get_cookie("session_auth0")
    customer.tenant.fail("token", outage)

    failed = customer.get(path)

    assert (failed.status_code, failed.headers["Retry-After"]) == (502, "5")
    assert customer.client.get_cookie("session_auth0") == before
    assert customer.user
    assert customer.get(path).status_code == 200
    assert customer.tenant.reuse_detected == 0


ODD: list[dict[str, Any]] = [
    *({"expires_in": value} for value in ("86400", "soon", None, -1, 1e999)),
    *({"scope": 7}, {"id_token": 7}, {"id_token": "x.y.z"}, {"token_type": 7}),
    *({"refresh_token": ""}, {"refresh_token": None}),
]


@pytest.mark.parametrize("odd", ODD, ids=str)
def test_an_odd_answer_is_of_use(customer: Customer, odd: dict[str, Any]) -> None:
    customer.tenant.token_response_extra = odd
    customer.tenant.rotate_refresh_tokens = "refresh_token" not in odd

    assert customer.get("/token").status_code == 200

    customer.tenant.token_response_extra = {}
    assert customer.refresh(3) == 200
    assert customer.user


@pytest.mark.parametrize(
    ("path", "accept", "told"),
    [
        ("/token", "text/html", "/login?return_to=/token&remember=0"),
        ("/renewed", "application/json", "application/problem+json"),
        ("/api", "text/html", "text/html; charset=utf-8"),  # which never redirects
    ],
)
def test_a_revoked_refresh_token_ends_the_session(
    customer: Customer, path: str, accept: str, told: str
) -> None:
    customer.sign_in_for_a_moment("/login?remember=0")
    copied = customer.twin()
    customer.tenant.revoke_refresh_tokens("auth0|alice")

    refused = customer.get(path, Accept=accept)

    assert told in {refused.location, refused.content_type}
    assert refused.status_code == (302 if refused.location else 401)
    assert customer.user == copied.user == {}


@pytest.mark.parametrize("ask", [auth0.get_access_token, auth0.refresh_user])
def test_other_refusals_sign_nobody_out(customer: Customer, ask: Work) -> None:
    customer.tenant.require_mfa = True
    customer.call(ask)
    assert type(customer.raised) is MfaRequiredError
    customer.tenant.require_mfa = False
    customer.tenant.fail("token", Fault.body({"error": "denied"}, status=403))
    customer.call(ask)
    assert type(customer.raised) is AccessTokenError
    customer.tenant.fail("token", Fault.status(503))
    customer.call(ask)
    assert isinstance(customer.raised, ProviderDown)
    customer.tenant.forge("absent")  # there is no ID token in the answer
    customer.call(ask)
    assert isinstance(customer.raised, AccessTokenError) == (ask == auth0.refresh_user)
    assert customer.get("/admin").text == "open"
    assert customer.ask(ask)
    customer.get("/logout")
    customer.call(ask)
    assert getattr(customer.raised, "code", None) == "missing_refresh_token"


@pytest.mark.parametrize("auth_time", [1_000_000_000, None])
def test_what_is_said_of_the_login_stays(customer: Customer, auth_time: Any) -> None:
    first = {"auth_time": auth_time, "amr": ["pwd"], "acr": None, "sid": "first"}
    first |= {"org_id": "org_first", "org_name": None}
    customer.tenant.forge(claims=first)
    customer.sign_in_for_a_moment()
    newer = {"auth_time": int(time.time()), "amr": ["mfa"], "acr": "2", "sid": "next"}
    newer |= {"org_id": "org_next", "org_name": "next"}
    customer.tenant.forge(claims={**newer, "role": "admin"})

    assert customer.get("/token").status_code == 200

    assert customer.user["role"] == "admin"
    assert {name: customer.user.get(name) for name in first} == first
    assert "max_age=300" in customer.get("/fresh").location


@pytest.mark.parametrize(
    ("said", "ends_after"),
    [([None, 3000, 6000, None], 3000), ([2000, 3000], 2000), ([3000, 2000], 2000)],
)
def test_a_session_ends_where_a_refresh_says_and_never_later(
    customer: Customer, said: list[int | None], ends_after: int
) -> None:
    now = int(time.time())
    customer.tenant.access_token_lifetime = 0
    for number, seconds in enumerate(said):
        claims = {"session_expiry": now + seconds} if seconds else {"iat": now}
        customer.tenant.forge(claims=claims)
        answer = customer.get("/token") if number else customer.login()
        assert answer.status_code < 400
        customer.clock.forward(1.1)  # the shortest that a token is good for

    customer.clock.forward(ends_after - 120)
    assert customer.user
    customer.clock.forward(120)
    assert customer.user == {}


@pytest.mark.parametrize(
    ("kind", "claims"),
    [
        *((kind, {"role": "admin"}) for kind in ("signature", "issuer", "absent")),
        *((None, {"sub": sub}) for sub in ("auth0|bob", "auth0|Alice")),
    ],
)
def test_a_refreshed_id_token_that_does_not_hold_changes_nobody(
    customer: Customer, kind: str, claims: dict[str, str]
) -> None:
    before = customer.session
    customer.tenant.forge(kind, claims=claims)

    customer.get("/token")
    customer.ask(ask_github)  # changes the session

    for name in ("user", "id_token"):
        assert customer.session[name] == before[name]


def test_a_connections_token_is_asked_for_with_the_newest(customer: Customer) -> None:
    late, tenant = customer.twin(), customer.tenant
    customer.get("/token")  # and an answer that comes late brings the old cookie back

    found = []
    for browser, seconds in ((late, 0), (customer, 0), (late, 601), (late, 3000)):
        customer.clock.forward(seconds)
        found.append(browser.client.get("/github").text)

    assert [found[0] == each for each in found] == [True, True, True, False]
    assert found[0].startswith("github-token-")
    assert (tenant.count("/oauth/token"), tenant.reuse_detected) == (4, 0)


@pytest.mark.parametrize(("size", "seconds"), [(3000, 0), (30, 3600)])
def test_a_session_keeps_no_connections_token_that_is_too_much_or_expired(
    customer: Customer, size: int, seconds: int
) -> None:
    for name in ("google-oauth2", "github"):
        token = {"access_token": token_urlsafe(size), "expires_in": 60}
        customer.tenant.token_response_extra = token
        assert customer.ask(partial(ask_github, name)) == token["access_token"]
        customer.clock.forward(seconds)
    kept = customer.session["connection_token_sets"]
    assert [tokens["connection"] for tokens in kept] == ["github"]


def test_a_caller_who_gives_up_does_not_lose_the_answer(customer: Customer) -> None:
    customer.tenant.fail("token", Fault.slow(0.5))
    customer.call(lambda: asyncio.wait_for(auth0.get_access_token(), 0.1))
    assert type(customer.raised) is TimeoutError

    assert customer.refresh(3) == 200


# `refresh_user`: claims and tokens anew, after a change of role or profile


def test_a_view_that_does_both_does_not_bring_it_back(customer: Customer) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        is_asked.set()
        may_answer.wait(5)

    async def both() -> list[Any]:
        renewed = asyncio.create_task(auth0.refresh_user())
        assert await asyncio.to_thread(is_asked.wait, 10)
        other = asyncio.create_task(ask_github())
        await asyncio.sleep(0)  # it has looked at the session by now
        may_answer.set()
        await other
        return [(await renewed).get(ROLES), auth.auth_user.get(ROLES)]

    customer.tenant.change_user("alice", roles=[])
    customer.tenant.fail("token", Fault(hold))

    assert customer.ask(both) == [None, None]
    assert customer.get("/admin").status_code == 403


@pytest.mark.parametrize("rotates", [True, False])
def test_a_renewal_is_no_older_than_its_call(customer: Customer, rotates: bool) -> None:
    tenant = customer.tenant
    tenant.rotate_refresh_tokens = rotates
    before = customer.token(API)
    slow, seen = customer.twin(), []
    for role, browsers in (
        *(("reader", (customer, slow)), ("writer", (customer, slow))),
        *(("owner", (slow,)), ("admin", (customer, slow))),  # after somebody else's
    ):
        tenant.change_user("alice", roles=[role])
        for browser in browsers:  # one has the cookie of before all this
            seen += dict(browser.client.get("/renewed").json or {})[ROLES]
        customer.clock.forward(30 if role == "reader" else 0)

    assert seen == [*("reader",) * 2, *("writer",) * 2, "owner", *("admin",) * 2]
    assert customer.token(API) != before
    assert tenant.reuse_detected == 0


@pytest.mark.parametrize("customer", [flasks_own, in_redis], indirect=True)
def test_a_second_factor_reaches_the_session_and_no_copy(customer: Customer) -> None:
    own, copied = customer.session, customer.twin()
    customer.tenant.require_mfa = True
    assert customer.get("/vault").status_code == 302
    customer.call(partial(auth0.get_access_token, scope="read"))
    assert isinstance(customer.raised, MfaRequiredError)
    shown = {"mfa_token": customer.raised.mfa_token, "factor_type": "otp"}
    assert auth0.mfa.decrypt_mfa_token(shown["mfa_token"]).audience == "default"

    assert customer.ask(lambda: auth0.mfa.list_authenticators(shown)) == []
    assert customer.ask(lambda: auth0.mfa.enroll_authenticator(shown)).barcode_uri
    asked = customer.ask(lambda: auth0.mfa.challenge_authenticator(shown))
    assert asked.challenge_type == "otp"
    proved = {**shown, "otp": customer.tenant.otp_for("alice"), "persist": True}
    ceiling = int(time.time()) + 600
    customer.tenant.forge(claims={"session_expiry": ceiling})
    token = customer.ask(lambda: auth0.mfa.verify(proved)).access_token

    session = customer.session["session"]
    assert (session["id"], session["ends_at"]) == (own["session"]["id"], ceiling - 30)
    assert customer.ask(partial(auth0.get_access_token, scope="read")) == token
    assert copied.client.get("/vault").status_code == 302
    assert customer.get("/vault").text == "open"
    assert customer.ask(auth0.refresh_user)["amr"] == ["mfa"]
    assert customer.get("/vault").text == "open"


# Step-up: a view that wants more than a login, and what Auth0 wants of its own

PROVED, STALE = {"amr": ["pwd", "mfa"]}, {"auth_time": 1_000_000_000}
FACTOR = {"acr_values": [MFA]}


@pytest.mark.parametrize(
    ("path", "claims", "asked"),
    [
        ("/vault", {"amr": ["pwd"], "acr": "gold"}, FACTOR),
        ("/vault", {"amr": "mfa", "acr": [MFA]}, FACTOR),
        ("/vault", PROVED, None),
        ("/vault", {"acr": MFA}, None),
        ("/vault/now", {**PROVED, **STALE}, {**FACTOR, "max_age": ["300"]}),
        ("/vault/gold", {"acr": "silver", **PROVED}, {"acr_values": ["gold"]}),
        ("/vault/gold", {"acr": 7, "amr": {"mfa": 1}}, {"acr_values": ["gold"]}),
        ("/vault/metal", {"acr": "silver"}, None),
        ("/vault/metal", {"acr": "gold silver"}, {"acr_values": ["gold silver"]}),
    ],
)
def test_who_has_not_proved_it_is_asked_for_it(
    customer: Customer, path: str, claims: dict[str, Any], asked: Any
) -> None:
    auth.login_as(customer.client, **claims)

    page, program = customer.get(path, **HTML), customer.get(path, **JSON)

    if asked is None:
        assert (page.text, program.text) == ("open", "open")
        return
    login, code = urlsplit(page.location), "insufficient_user_authentication"
    assert login.path == "/login"
    assert parse_qs(login.query) == {"return_to": [path], **asked}
    assert (program.status_code, (program.json or {})["code"]) == (401, code)
    challenge, told = program.www_authenticate, {"error": [code], **asked}
    assert parse_qs(urlsplit(str(challenge["form-action"])).query) == asked
    assert {name: [challenge[name]] for name in told} == told
    guest = customer.client.application.test_client().get(path, headers=JSON)
    assert (guest.json or {})["code"] == "signed_out"
    with pytest.raises(TypeError, match="not both"):
        auth.login_required(mfa=True, acr="gold")


@pytest.mark.parametrize(
    ("path", "claims"),
    [("/vault", {"amr": ["pwd"], "acr": None}), ("/vault/gold", {"acr": MFA})],
)
def test_a_login_without_what_was_asked_for_ends_on_a_page_and_does_not_go_round(
    customer: Customer, path: str, claims: dict[str, Any]
) -> None:
    before, callback = customer.session, customer.sign_in(path)
    customer.tenant.forge(claims=claims)

    answer = customer.get(callback, **JSON)

    assert (answer.status_code, (answer.json or {})["code"]) == (400, "not_stepped_up")
    assert customer.session == before
    assert customer.get(path).status_code == 302


def test_who_is_asked_for_a_second_factor_is_led_there(customer: Customer) -> None:
    customer.sign_in_for_a_moment("/login?remember=0")
    customer.tenant.require_mfa = True
    for path in ("/vault", "/token?open=1"):
        login = parse_qs(urlsplit(customer.get(path).location).query)
        assert login == {"return_to": [path], **FACTOR, "remember": ["0"]}
    for path, headers in (("/token", JSON), ("/api", HTML), ("/vault/api", HTML)):
        answer = customer.get(path, **headers)
        assert answer.status_code == 401
        assert answer.www_authenticate["acr_values"] == MFA

    assert parse_qs(urlsplit(customer.start("/vault")).query)["acr_values"] == [MFA]
    assert customer.login("/token?open=1").location == "/token?open=1"
    assert customer.get("/token").status_code == 200
    assert customer.get("/vault").text == customer.get("/vault/api").text == "open"
    asked_again = {"error": "mfa_required", "mfa_token": "m" * 40}
    customer.tenant.fail("token", Fault.body(asked_again, status=403), times=2)
    path = f"/token?audience={API}"
    answer = customer.get(path, **JSON)  # another login would not help
    assert (answer.status_code, (answer.json or {})["code"]) == (403, "mfa_required")
    customer.clock.forward(61)
    assert "acr_values" in customer.get(path).location


@pytest.mark.parametrize(
    ("given", "query"), [("acme", ""), ("", "?organization=acme")], ids=str
)
def test_a_step_up_keeps_the_organization(
    tenant: Tenant, clock: Clock, given: str, query: str
) -> None:
    acme = tenant.add_organization("acme")
    own = copy_of_auth({"AUTH0_ORGANIZATION": given})
    customer = Customer(make_shop(own), tenant, clock)
    customer.sign_in_for_a_moment(f"/login{query}")
    tenant.require_mfa = True

    for path in ("/vault", "/token"):
        asked = parse_qs(urlsplit(customer.start(path)).query)
        assert asked["organization"] == [given or acme.org_id]


@pytest.mark.parametrize("kind", [MfaRequiredError, Auth0Error, AccessTokenError])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_app_answers_that_itself(
    tenant: Tenant, clock: Clock, kind: type[Exception], is_first: bool
) -> None:
    app = Flask("own")
    handler = partial(app.register_error_handler, kind, lambda error: ("handled", 418))
    steps = [handler, partial(auth.init_app, app)]
    for step in steps if is_first else reversed(steps):
        step()
    app.register_blueprint(auth.routes)
    customer = Customer(app, tenant, clock)
    tenant.require_mfa = True

    seen = [each.client.get("/token").status_code for each in (customer, Shopper(app))]

    assert seen == ([418, 302] if kind is MfaRequiredError else [302, 418])


def test_who_has_no_refresh_token_signs_in_where_that_helps(
    tenant: Tenant, clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    own = copy_of_auth({**tenant.environ(), "AUTH0_SCOPE": "openid"})
    shop, always = make_shop(own), list[bool]()

    @shop.get("/token")
    async def token() -> str:
        if name := request.args.get("of"):
            asked = {"connection": name}
            return str(await own.auth0.get_access_token_for_connection(asked))
        return str(await own.auth0.get_access_token(audience=request.args.get("for")))

    @shop.before_request
    async def ask() -> None:
        if always:
            await token()

    shopper = Shopper(shop)
    for path in ("/token", "/token?of=github"):
        away = shopper.client.get(path).location
        assert unquote(away) == f"/login?return_to={path}"
    assert "No refresh token" not in caplog.text  # of a guest that is no wonder
    for seconds, status in ((0, 403), (600, 200)):  # another login would not help
        tenant.access_token_lifetime = seconds
        shopper.login("/login?remember=0")
        assert shopper.client.get("/token").status_code == status
    clock.forward(61)
    # an access token for another API is none that a login brings
    for path in ("/token?for=https://other.example", "/token?of=github"):
        answer = shopper.client.get(path, headers=JSON)
        assert (answer.status_code, "no_refresh_token" in answer.text) == (403, True)
    assert "add offline_access to AUTH0_SCOPE" in caplog.text
    clock.forward(601)
    assert shopper.client.get("/token", headers=JSON).status_code == 401
    away = shopper.client.get("/token").location
    assert away == "/login?return_to=/token&remember=0"
    always.append(True)  # then nobody could go there
    assert shopper.client.get("/login").status_code == 403
