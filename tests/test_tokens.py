"""Access tokens: refreshed once, found again, refused and revoked."""

from __future__ import annotations

import asyncio
import logging
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

from auth0_flask.tenant import Tenant
from auth0_flask.tenant.faults import Fault
from conftest import Clock
from login.turns import PATIENCE, TURN, Turns
from redis_server import RedisServer
from servers import BIN, GUNICORN, Server, free_port, serving
from stores.refreshes import Refreshes, RefreshesInProcess, RefreshesInSqlite
from visitor import Visitor

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


def refresh_token_of(
    visitor: Visitor, app: Flask, cookies: dict[str, str] | None = None
) -> str:
    """Open a visitor's session, over or not."""
    from auth import auth0

    headers = {"Cookie": _line(cookies or visitor.cookies)}
    with app.test_request_context(headers=headers):
        return str((auth0.sessions.peek() or {})["refresh_token"])


def _line(cookies: dict[str, str]) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies.items())


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
        assert len({answer.text for answer in answers}) == 1
        assert tenant.count("/oauth/token") == 2
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


def test_a_provider_that_gives_an_old_refresh_token_out_again_holds_nobody_up(
    app: Flask,
) -> None:
    from auth import auth0

    turns = Turns(RefreshesInProcess(), auth0.sessions)

    def exchange(token: str) -> dict[str, Any]:
        answer = {"access_token": "a", "refresh_token": {"1": "2", "2": "1"}[token]}
        return {"answer": answer, "fresh_until": time.time() + 60}

    for token in ("1", "2"):
        asyncio.run(turns.take(token, "any", exchange))
    found: list[str] = []
    finder = threading.Thread(target=lambda: found.append(turns.newest("1")))
    finder.daemon = True
    finder.start()
    finder.join(5)

    assert found == ["1"]


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


async def test_a_revoked_refresh_token_ends_the_session(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    copied = alice.cookies
    tenant.revoke_refresh_tokens("auth0|alice")

    turned_away = await alice.get("/token")
    assert turned_away.headers["Location"] == "/login?return_to=/token"
    assert alice.cookies == {}
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
    assert alice.cookies == {}


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
    size = len(alice.cookies["session"])
    tenant.add_user("alice", given_name="Alice", role="guest")

    await alice.get("/token")

    assert ((await alice.claims()) or {})["role"] == "guest"
    assert len(alice.cookies["session"]) < size + 100


@pytest.mark.parametrize("kind", ["signature", "issuer", "absent", "another user"])
async def test_a_refreshed_id_token_that_does_not_hold_changes_nobody(
    alice: Visitor, tenant: Tenant, kind: str
) -> None:
    tenant.access_token_lifetime = 0
    await alice.login()
    if kind == "another user":
        tenant.forge(claims={"sub": "auth0|bob"})
    else:
        tenant.forge(kind, claims={"role": "admin"})

    await alice.get("/token-or-why")

    claims = await alice.claims() or {}
    assert claims["sub"] == "auth0|alice"
    assert "role" not in claims


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
    import auth

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
    from auth import auth0

    await alice.login()
    tenant.fail("token", Fault.slow(0.5))
    cookies = {"Cookie": _line(alice.cookies)}
    with app.test_request_context(headers=cookies), pytest.raises(TimeoutError):
        await asyncio.wait_for(auth0.get_access_token(audience=API), 0.1)

    assert (await alice.get(f"/token?audience={API}")).status_code == 200
    assert tenant.count("/oauth/token") == 2
    assert tenant.reuse_detected == 0


@pytest.fixture(params=["process", "sqlite", "redis"])
def store(request: pytest.FixtureRequest, tmp_path: Path) -> Refreshes:
    if request.param == "process":
        return RefreshesInProcess()
    if request.param == "sqlite":
        return RefreshesInSqlite(tmp_path / "refreshes.sqlite3")
    from redis import Redis

    from stores.refreshes_in_redis import RefreshesInRedis

    server: RedisServer = request.getfixturevalue("redis_server")
    return RefreshesInRedis(Redis(port=server.port))


def test_a_turn_is_for_one_and_ends_by_itself(store: Refreshes) -> None:
    assert store.claim("key", "one", 0.3).is_ours
    assert store.claim("key", "other", 0.3) == (False, None)
    assert store.find("key") is None
    time.sleep(0.31)
    assert store.claim("key", "other", 5).is_ours
    store.release("key", "one")  # too late: it is somebody else's
    assert not store.claim("key", "third", 5).is_ours
    store.release("key", "other")
    assert store.claim("key", "third", 5).is_ours


def test_a_result_is_there_for_its_seconds(store: Refreshes) -> None:
    assert store.claim("key", "one", 5).is_ours
    store.keep("key", "sealed", 0.3)
    assert store.claim("key", "other", 5) == (False, "sealed")
    assert store.find("key") == "sealed"
    time.sleep(0.31)
    assert store.find("key") is None
    assert store.claim("key", "other", 5).is_ours


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
        assert PATIENCE < TURN <= 10
