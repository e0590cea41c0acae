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
from auth0_flask.stores.encryption import DecryptionError
from auth0_flask.stores.shared import digest
from auth0_flask.tenant import Tenant
from auth0_flask.tenant.faults import Fault
from conftest import Clock
from redis_server import RedisServer
from servers import BIN, GUNICORN, Server, free_port, serving
from test_revocations import in_children
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
) -> list[httpx.Response]:
    """Ask in parallel, every request with the cookies there are now."""
    limits = httpx.Limits(max_connections=times)
    cookies = dict(visitor.cookies)
    async with httpx.AsyncClient(
        verify=trust, timeout=30, trust_env=False, limits=limits
    ) as http:
        asked = (
            http.get(f"{visitor.site}{path}", headers={"Cookie": _line(cookies)})
            for _ in range(times)
        )
        return list(await asyncio.gather(*asked))


def state_of(
    visitor: Visitor, app: Flask, cookies: dict[str, str] | None = None
) -> dict[str, Any]:
    """Open a visitor's session, over or not."""
    headers = {"Cookie": _line(cookies or visitor.cookies)}
    with app.test_request_context(headers=headers):
        return auth0.sessions.load_unchecked() or {}


def refresh_token_of(
    visitor: Visitor, app: Flask, cookies: dict[str, str] | None = None
) -> str:
    return str(state_of(visitor, app, cookies)["refresh_token"])


def _line(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


def flasks_own(app: Flask, _: pytest.FixtureRequest) -> dict[str, Any]:
    return {}


def in_redis(app: Flask, request: pytest.FixtureRequest) -> dict[str, Any]:
    from auth0_flask.stores.redis import connect

    client = connect(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    return {"redis": client}


def of_flask_session(app: Flask, request: pytest.FixtureRequest) -> dict[str, Any]:
    from flask_session import Session
    from redis import Redis

    client = Redis.from_url(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
    Session(app)  # type: ignore[no-untyped-call]  # it has no types
    return {}


def of_the_app(app: Flask, _: pytest.FixtureRequest) -> dict[str, Any]:
    class OfTheApp(SecureCookieSessionInterface):
        """Makes Flask keep its hands off ours."""

    app.session_interface = OfTheApp()
    return {}


KINDS = [flasks_own, in_redis, of_flask_session, of_the_app]


class Customer(Shopper):
    """Somebody at an app with Flask's defaults, and its pages."""

    def __init__(self, app: Flask) -> None:
        super().__init__(app)
        self.has_begun, self.may_end = threading.Event(), threading.Event()
        views = (self.token, self.put, self.cart, self.slow, self.slow_and_blind)
        for view in (*views, self.raw, self.stream):
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


async def test_fifty_requests_at_once_refresh_once(
    alice: Visitor, tenant: Tenant, trust: Any
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.access_token_lifetime = 86400

    answers = await tokens_at_once(alice, trust, 50)

    assert Counter(answer.status_code for answer in answers) == {200: 50}
    assert len({answer.text for answer in answers}) == 1
    assert tenant.count("/oauth/token") == 2
    late = await tokens_at_once(alice, trust, 1)  # the replaced refresh token again
    assert late[0].text == answers[0].text
    assert tenant.count("/oauth/token") == 2
    assert tenant.reuse_detected == 0


@pytest.mark.parametrize("sessions", ["cookies", "redis"])
async def test_fifty_requests_at_two_workers_refresh_once(
    tenant: Tenant,
    visitors: Visitors,
    trust: Any,
    sessions: str,
    request: pytest.FixtureRequest,
) -> None:
    more = {}
    if sessions == "redis":
        more["AUTH0_REDIS_URL"] = request.getfixturevalue("redis_server").url
    tenant.access_token_lifetime = 0
    with two_workers(tenant, **more) as server:
        alice = visitors("alice", at=server.site)
        await alice.login()
        tenant.access_token_lifetime = 86400

        answers = await tokens_at_once(alice, trust, 50)

        assert Counter(answer.status_code for answer in answers) == {200: 50}
        kinds = len({answer.text for answer in answers})
        assert (kinds, tenant.count("/oauth/token")) == (1, 2)
        assert (await alice.get("/token")).text == answers[0].text
        assert tenant.count("/oauth/token") == 2
        assert tenant.reuse_detected == 0


async def test_several_audiences_at_once_show_no_refresh_token_twice(
    alice: Visitor, tenant: Tenant, trust: Any
) -> None:
    await alice.login()
    paths = ["/token?audience=https://a.example/", f"/token?audience={API}"]

    found = await asyncio.gather(
        *(tokens_at_once(alice, trust, 10, path) for path in paths * 2)
    )

    kinds = [{answer.text for answer in answers} for answers in found]
    assert {a.status_code for answers in found for a in answers} == {200}
    assert kinds[0] == kinds[2]
    assert kinds[1] == kinds[3]
    assert len(kinds[0] | kinds[1]) == 2
    assert tenant.count("/oauth/token") == 3
    assert tenant.reuse_detected == 0
    used = await alice.http.get(
        f"https://{tenant.domain}/api/things",
        headers={"Authorization": f"Bearer {kinds[1].pop()}"},
    )
    assert used.json()["sub"] == "auth0|alice"


async def test_a_slow_answer_does_not_bring_a_replaced_refresh_token_back(
    alice: Visitor, tenant: Tenant, app: Flask, clock: Clock
) -> None:
    tenant.access_token_lifetime = 300
    await alice.login()
    replaced = refresh_token_of(alice, app)
    clock.forward(10_000)
    has_begun, may_end = app.extensions["slow"]

    slow = asyncio.create_task(alice.get("/slow"))
    assert await asyncio.to_thread(has_begun.wait, 10)
    assert (await alice.get("/token")).status_code == 200
    newest = refresh_token_of(alice, app)
    may_end.set()

    assert (await slow).text == "auth0|alice"
    assert refresh_token_of(alice, app) == newest != replaced
    clock.forward(10_000)  # what came of the replaced one is forgotten by now
    assert (await alice.get("/token")).status_code == 200
    assert tenant.reuse_detected == 0


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def customer(request: pytest.FixtureRequest, tenant: Tenant) -> Customer:
    """Somebody at an app, over each kind of session."""
    app = Flask("shop")
    options = request.param(app, request)
    auth.init_app(app, **options)
    app.register_blueprint(auth.routes)
    return Customer(app)


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
    sign_in_for_a_moment(customer, tenant)
    customer.client.get("/put?goods=apple")

    slow_page_while_much_happens(customer, page)

    assert customer.client.get("/cart").text == "apple pear"
    assert_goes_on(customer, tenant, clock)


def test_a_slow_page_loses_nothing_although_the_session_was_used_long_ago(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    sign_in_for_a_moment(customer, tenant)
    customer.client.get("/put?goods=apple")
    clock.forward(10_000)

    slow_page_while_much_happens(customer, "/slow", seconds=1.2)

    assert customer.client.get("/cart").text == "apple pear"
    assert_goes_on(customer, tenant, clock)


def test_the_sdks_own_refresh_leaves_no_replaced_token_behind(
    customer: Customer, tenant: Tenant, clock: Clock
) -> None:
    sign_in_for_a_moment(customer, tenant)

    assert customer.client.get("/raw").status_code == 200

    assert_goes_on(customer, tenant, clock)


def test_a_refresh_within_a_stream_is_logged_and_the_next_request_goes_on(
    customer: Customer, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    sign_in_for_a_moment(customer, tenant)

    assert len(customer.client.get("/stream").text) > len("token: ")

    assert "after the response had begun" in caplog.text
    assert_goes_on(customer, tenant)


def sign_in_for_a_moment(customer: Customer, tenant: Tenant) -> None:
    """Sign in with an access token that is good no more."""
    tenant.access_token_lifetime = 0
    assert customer.login().status_code == 302
    tenant.access_token_lifetime = 86_400


def assert_goes_on(
    customer: Customer, tenant: Tenant, clock: Clock | None = None
) -> None:
    """Hold a session to having the newest refresh token."""
    if clock:
        clock.forward(10_000)  # what refreshes brought is forgotten by then
    assert customer.client.get(f"/token?audience={API}").status_code == 200
    assert tenant.count("/oauth/token") == 3
    assert tenant.reuse_detected == 0


async def test_a_provider_that_gives_an_old_refresh_token_out_again_holds_nobody_up(
    clock: Clock,
) -> None:
    store = SharedStore()

    def exchange(token: str) -> dict[str, Any]:
        answer = {"access_token": "a", "refresh_token": {"1": "2", "2": "1"}[token]}
        return {"answer": answer, "fresh_until": time.time() + 5}

    for token in ("1", "2"):
        await refresh_once(store, auth0.sessions, token, "any", exchange)
    newest = asyncio.to_thread(newest_refresh_token, store, auth0.sessions, "1")
    assert await asyncio.wait_for(newest, 5) == "1"

    clock.forward(10)
    again = refresh_once(store, auth0.sessions, "1", "any", exchange)
    assert (await asyncio.wait_for(again, 5))[0]["answer"]["access_token"] == "a"


def rotated(token: str, seconds: float = 60) -> dict[str, Any]:
    """Answer a refresh, with a token that is good for so long."""
    answer = {"access_token": f"of {token}", "refresh_token": f"{token}'"}
    return {"answer": answer, "fresh_until": time.time() + seconds}


@pytest.mark.parametrize(("seconds", "kept"), [(1, 60), (86_400, 600)])
async def test_what_replaced_a_refresh_token_is_kept_a_minute_at_least_and_ten_at_most(
    clock: Clock, seconds: int, kept: int
) -> None:
    store, exchange = SharedStore(), partial(rotated, seconds=seconds)
    await refresh_once(store, auth0.sessions, "a", "any", exchange)

    for left, newest in ((1, "a'"), (-1, "a")):
        clock.offset = kept - left
        assert newest_refresh_token(store, auth0.sessions, "a") == newest


async def test_a_result_is_handed_out_while_its_token_is_good_and_no_longer(
    clock: Clock,
) -> None:
    store, exchange = SharedStore(), partial(rotated, seconds=5)
    for offset, token in ((0, "of a"), (4, "of a"), (6, "of a'")):
        clock.offset = offset
        found, _ = await refresh_once(store, auth0.sessions, "a", "any", exchange)
        assert found["answer"]["access_token"] == token


async def test_a_result_that_is_moved_in_the_store_is_nobody_elses() -> None:
    store = SharedStore()
    await refresh_once(store, auth0.sessions, "alice's", "any", rotated)
    alices = store.result(digest("refresh\nalice's")) or ""
    store.keep_result(digest("refresh\nmallory's"), alices, 60)

    with pytest.raises(DecryptionError):
        await refresh_once(store, auth0.sessions, "mallory's", "any", rotated)


@pytest.mark.filterwarnings("ignore:.*use of fork.*:DeprecationWarning")
def test_a_forked_child_waits_for_no_refresh_of_its_parent() -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def exchange(token: str) -> dict[str, Any]:
        has_begun.set()
        may_end.wait(10)
        return rotated(token)

    async def refresh() -> str:
        work = refresh_once(SharedStore(), auth0.sessions, "forked", "any", exchange)
        return str((await asyncio.wait_for(work, 5))[0]["answer"]["access_token"])

    def child() -> object:
        may_end.set()
        return asyncio.run(refresh())

    with ThreadPoolExecutor(1) as pool:
        parents = pool.submit(asyncio.run, refresh())
        assert has_begun.wait(5)
        (found,) = in_children(child)
        may_end.set()
        assert found == parents.result(5) == "of forked"


async def test_without_rotation_one_refresh_serves_all(
    alice: Visitor, tenant: Tenant, trust: Any
) -> None:
    tenant.rotate_refresh_tokens = False
    await alice.login()

    path = f"/token?audience={API}"
    answers = [*await tokens_at_once(alice, trust, 20, path)]
    answers += await tokens_at_once(alice, trust, 20, path)

    assert len({answer.text for answer in answers}) == 1
    assert tenant.count("/oauth/token") == 2


async def test_a_thousand_requests_over_short_tokens_all_succeed(
    tenant: Tenant, visitors: Visitors
) -> None:
    tenant.access_token_lifetime = 2
    with two_workers(tenant) as server:
        alice = visitors("alice", at=server.site)
        await alice.login()
        tenant.requests.clear()
        began = time.monotonic()

        async def ask(times: int) -> list[int]:
            return [(await alice.get("/token")).status_code for _ in range(times)]

        found = await asyncio.gather(*(ask(125) for _ in range(8)))
        elapsed = time.monotonic() - began

    assert Counter(status for part in found for status in part) == {200: 1000}
    assert tenant.count("/oauth/token") <= elapsed / 1.8 + 2
    assert tenant.reuse_detected == 0


async def test_a_token_is_refreshed_before_it_ends(
    alice: Visitor, tenant: Tenant, clock: Clock
) -> None:
    tenant.access_token_lifetime = 600
    await alice.login()
    first = (await alice.get("/token")).text

    clock.forward(565)
    assert (await alice.get("/token")).text == first
    clock.forward(6)
    second = (await alice.get("/token")).text
    assert second != first
    clock.forward(565)
    assert (await alice.get("/token")).text == second
    clock.forward(6)
    assert (await alice.get("/token")).text != second


async def test_a_scope_that_is_not_granted_is_not_asked_for_again(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login()

    path = f"/token?audience={API}&scope=read:things"
    first = await alice.get(path)

    assert first.status_code == 200
    assert (await alice.get(path)).text == first.text
    assert tenant.count("/oauth/token") == 2


@pytest.mark.parametrize(
    "fault",
    [
        Fault.reset(),
        Fault.status(503),
        Fault.broken_json(),
        Fault.body({"error": "server_error"}, status=500),
        Fault.body({"token_type": "Bearer"}),
        Fault.body({}),
    ],
    ids=["reset", "503", "broken", "server_error", "no token", "empty"],
)
async def test_an_outage_is_a_502_and_the_next_try_works(
    alice: Visitor, tenant: Tenant, fault: Fault
) -> None:
    await alice.login()
    before, path = alice.cookies, f"/token?audience={API}"
    tenant.fail("token", fault)

    assert (await alice.get(path)).status_code == 502
    assert alice.cookies == before
    assert await alice.claims()
    assert (await alice.get(path)).status_code == 200
    assert tenant.reuse_detected == 0


def overloaded(status: int) -> Fault:
    """Answer as Auth0 does then: in the form of a refusal."""
    refusal, headers = {"error": "invalid_grant"}, {"Retry-After": "17"}
    return Fault(
        lambda *_: BaseResponse(
            json.dumps(refusal), status, headers, mimetype="application/json"
        )
    )


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("path", ["/token", "/token-of/github"])
async def test_an_overload_is_an_outage_whatever_its_body_says(
    alice: Visitor, tenant: Tenant, status: int, path: str
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.fail("token", overloaded(status))

    answer = await alice.get(path)

    assert answer.status_code == 502
    assert answer.headers["Retry-After"] == "17"
    assert await alice.claims()
    assert (await alice.get(path)).status_code == 200
    assert tenant.reuse_detected == 0


ODD: dict[str, list[Any]] = {
    "expires_in": [
        "86400",
        "soon",
        None,
        -1,
        1e300,
        float("inf"),
        float("nan"),
        [],
        {},
    ],
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
    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.access_token_lifetime = 86_400
    tenant.token_response_extra = odd

    assert (await alice.get("/token")).status_code == 200

    tenant.token_response_extra = {}
    assert (await alice.get(f"/token?audience={API}")).status_code == 200
    assert await alice.claims()
    assert tenant.reuse_detected == 0


async def test_a_revoked_refresh_token_ends_the_session(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    copied = alice.cookies
    tenant.revoke_refresh_tokens("auth0|alice")

    turned_away = await alice.get("/token")
    assert turned_away.headers["Location"] == "/login?return_to=/token"
    assert "session_auth0" not in alice.cookies
    alice.http.cookies.update(copied)
    assert await alice.claims() is None


async def test_a_program_is_told_401_when_the_session_has_ended(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.revoke_refresh_tokens("auth0|alice")

    answer = await alice.get("/token", Accept="application/json")

    assert answer.status_code == 401
    assert answer.headers["Content-Type"] == "application/problem+json"
    assert answer.json()["code"] == "signed_out"
    assert "session_auth0" not in alice.cookies


@pytest.mark.parametrize("customer", [flasks_own], indirect=True)
def test_an_api_that_never_redirects_does_not_when_a_refresh_ends_the_session(
    customer: Customer, tenant: Tenant
) -> None:
    sign_in_for_a_moment(customer, tenant)
    tenant.revoke_refresh_tokens("auth0|alice")

    assert customer.client.get("/api").status_code == 401


async def test_a_second_factor_and_other_refusals_are_typed(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.require_mfa = True
    assert (await alice.get("/token-or-why")).json() == {"kind": "MfaRequiredError"}
    tenant.require_mfa = False
    tenant.fail("token", Fault.body({"error": "access_denied"}, status=403))
    assert (await alice.get("/token-or-why")).json() == {"kind": "AccessTokenError"}
    assert (await alice.get("/token-or-why")).status_code == 200


async def test_claims_are_renewed_with_a_refresh_and_sessions_stay_small(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.add_user("alice", given_name="Alice", role="admin")
    tenant.access_token_lifetime = 0
    await alice.login()
    size = len(alice.cookies["session_auth0"])
    tenant.add_user("alice", given_name="Alice", role="guest")

    await alice.get("/token")

    assert ((await alice.claims()) or {})["role"] == "guest"
    assert len(alice.cookies["session_auth0"]) < size + 100


LONG_AGO = 1_000_000_000


@pytest.mark.parametrize("auth_time", [LONG_AGO, None])
@pytest.mark.parametrize("customer", [flasks_own], indirect=True)
def test_what_is_said_of_the_login_outlives_a_refresh(
    customer: Customer, tenant: Tenant, auth_time: int | None
) -> None:
    tenant.forge(claims={"auth_time": auth_time, "amr": ["pwd"], "sid": "first"})
    sign_in_for_a_moment(customer, tenant)
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
    tenant.access_token_lifetime = 0
    await alice.login()
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

    answers = await tokens_at_once(alice, trust, 10, "/token-of/github")
    assert len({answer.text for answer in answers}) == 1
    first = await alice.get("/token-of/github")
    assert first.text == answers[0].text
    assert first.text.startswith("github-token-")
    clock.forward(601)
    assert (await alice.get("/token-of/github")).text == first.text
    assert await alice.claims()
    assert tenant.count("/oauth/token") == 2
    clock.forward(3000)
    assert (await alice.get("/token-of/github")).text != first.text


async def test_a_token_of_a_connection_is_asked_for_with_the_newest_refresh_token(
    alice: Visitor, tenant: Tenant, trust: Any
) -> None:
    await alice.login()
    held = dict(alice.cookies)
    await alice.get(f"/token?audience={API}")
    alice.http.cookies.clear()
    alice.http.cookies.update(held)  # a late answer brought the old cookie back

    assert (await alice.get("/token-of/github")).status_code == 200
    assert tenant.reuse_detected == 0


@pytest.mark.parametrize("fault", [Fault.reset(), Fault.status(503)])
async def test_an_outage_at_a_connection_is_a_502(
    alice: Visitor, tenant: Tenant, fault: Fault
) -> None:
    await alice.login()
    tenant.fail("token", fault)

    assert (await alice.get("/token-of/github")).status_code == 502
    assert (await alice.get("/token-of/github")).status_code == 200


async def test_userinfo_is_what_auth0_says_with_a_token_refreshed_if_need_be(
    alice: Visitor, tenant: Tenant
) -> None:
    refused = await alice.get("/api/userinfo")
    assert refused.status_code == 401
    assert refused.headers["Content-Type"] == "application/problem+json"
    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.access_token_lifetime = 86400

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
    cookies = dict(alice.cookies)
    tenant.fail("revoke", Fault.slow(30))
    began = time.monotonic()
    with caplog.at_level(logging.ERROR):
        home = await alice.get("/logout")
    assert time.monotonic() - began < 15  # gives up, rather than waits
    assert home.status_code == 302
    assert await alice.claims() is None
    assert "not revoked" in caplog.text
    assert refresh_token_of(alice, app, cookies) not in caplog.text


async def test_whoever_listens_is_told_of_one_refresh_once(
    alice: Visitor, tenant: Tenant, trust: Any, app: Flask
) -> None:
    told: list[str] = []

    def receive(_: object, user: dict[str, str]) -> None:
        asyncio.get_running_loop()
        told.append(user["sub"])

    tenant.access_token_lifetime = 0
    await alice.login()
    tenant.access_token_lifetime = 86400
    with auth.tokens_refreshed.connected_to(receive, app):
        await tokens_at_once(alice, trust, 20)
        await tokens_at_once(alice, trust, 1)  # gets what was kept

    assert told == ["auth0|alice"]


async def test_a_caller_who_gives_up_does_not_lose_the_answer(
    alice: Visitor, tenant: Tenant, app: Flask
) -> None:
    await alice.login()
    tenant.fail("token", Fault.slow(0.5))
    cookies = {"Cookie": _line(alice.cookies)}
    with app.test_request_context(headers=cookies), pytest.raises(TimeoutError):
        await asyncio.wait_for(auth0.get_access_token(audience=API), 0.1)

    assert (await alice.get(f"/token?audience={API}")).status_code == 200
    assert tenant.count("/oauth/token") == 2
    assert tenant.reuse_detected == 0


@pytest.fixture(params=["process", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Iterator[SharedStore]:
    """What workers share of their refreshes."""
    if request.param == "process":
        yield SharedStore()
    elif request.param == "sqlite":
        yield SqliteStore(tmp_path / "shared.sqlite3")
    else:
        from redis import Redis

        from auth0_flask.stores.redis import RedisStore

        server: RedisServer = request.getfixturevalue("redis_server")
        with Redis(port=server.port) as client:
            yield RedisStore(client)


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

    def refresh() -> dict[str, Any]:
        work = refresh_once(store, auth0.sessions, "token", "any", exchange)
        return asyncio.run(work)[0]

    lock = store.lock

    def lock_late(key: str, seconds: float) -> Any:
        monkeypatch.setattr(store, "lock", lock)
        other = SimpleNamespace(getpid=lambda: -1)  # another worker is quicker
        monkeypatch.setattr(refresh_lock, "os", other)
        refresh()
        monkeypatch.undo()
        return lock(key, seconds)

    monkeypatch.setattr(store, "lock", lock_late)

    assert (await asyncio.to_thread(refresh))["answer"]["access_token"] == "of token"
    assert exchanged == ["token"]


async def test_a_killed_process_blocks_nobody_for_longer_than_its_turn(
    tenant: Tenant, visitors: Visitors
) -> None:
    tenant.rotate_refresh_tokens = False  # or its request would have spent the token
    flask = [str(BIN / "flask"), "--app", "tests.with_tokens:create", "run"]
    path, port = f"/token?audience={API}", free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    command = [*flask, "--port", "{port}"]
    with (
        serving(command, {**environment, **OFFLINE}, port) as doomed,
        serving(command, {**environment, **OFFLINE}, free_port()) as other,
    ):
        alice = visitors("alice", at=doomed.site)
        await alice.login()
        tenant.fail("token", Fault.slow(5))
        lost = asyncio.create_task(alice.get(path))
        while tenant.count("/oauth/token") < 2:  # noqa: ASYNC110 - the tenant has threads, no events
            await asyncio.sleep(0.01)
        doomed.process.kill()
        with pytest.raises(httpx.HTTPError):
            await lost
        alice.site = other.site

        assert (await alice.get(path)).status_code == 200
        assert EXCHANGE_SECONDS < LOCK_SECONDS <= 10
