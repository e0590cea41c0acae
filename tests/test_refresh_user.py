"""``refresh_user``: claims and tokens anew, after a change of role or profile."""

from __future__ import annotations

import asyncio
import threading
import time
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import Any

import pytest
from auth0_server_python.error import AccessTokenError
from flask import Flask, session

import auth
from auth import auth0
from auth0_flask.refresh_lock import refresh_once
from auth0_flask.stores import SharedStore
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.testing import ROLES
from conftest import Clock
from test_tokens import API, KINDS, flasks_own
from visitor import Shopper
from with_tokens import add_views


@pytest.fixture(params=[flasks_own])
def alice(tenant: Tenant, request: pytest.FixtureRequest) -> Shopper:
    """Alice, an admin, at a shop with a kind of session."""
    tenant.change_user("alice", roles=["admin"])
    app = add_views(Flask("shop"))
    auth.init_app(app, **request.param(app, request))
    app.register_blueprint(auth.routes)
    app.register_error_handler(AccessTokenError, lambda e: ({"code": e.code}, 418))
    guard = auth.requires_claim(ROLES, "admin")
    app.add_url_rule("/admin", "admin", guard(lambda: "open"))
    app.add_url_rule("/call", "call", lambda: app.extensions["call"]())
    alice = Shopper(app)
    alice.login()
    assert alice.client.get("/admin").text == "open"
    return alice


@pytest.mark.parametrize("alice", KINDS, indirect=True)
def test_a_role_that_was_taken_away_is_gone_at_once(
    alice: Shopper, tenant: Tenant
) -> None:
    tokens = {alice.client.get(f"/token?audience={a}").text for a in ("", API)}
    tenant.change_user("alice", roles=[], name="Alice the Reader")
    assert alice.client.get("/admin").text == "open"  # nobody has asked Auth0

    user = dict(alice.client.get("/renewed").json or {})

    assert (user["name"], user.get(ROLES)) == ("Alice the Reader", None)
    assert alice.client.get("/admin").status_code == 403
    now = {alice.client.get(f"/token?audience={a}").text for a in ("", API)}
    assert len(now | tokens) == 4  # every token was of the admin


GITHUB = {"connection": "github"}


@pytest.mark.parametrize("alice", KINDS, indirect=True)
@pytest.mark.parametrize("writes", ["a connection's token", "app data"])
def test_a_late_answer_does_not_bring_it_back(
    alice: Shopper, tenant: Tenant, writes: str
) -> None:
    has_begun, may_end = threading.Event(), threading.Event()

    def slow() -> str:
        if writes == "app data":
            session["cart"] = auth.auth_user["sub"]
        else:
            asyncio.run(auth0.get_access_token_for_connection(GITHUB))
        has_begun.set()
        may_end.wait(10)
        return "late"

    alice.client.application.extensions["call"] = slow
    tenant.change_user("alice", roles=[])
    before, late, browser = alice.twin(), alice.twin(), alice.client
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(late.client.get, "/call")
        assert has_begun.wait(10)
        assert ROLES not in dict(browser.get("/renewed").json or {})
        may_end.set()
        assert answer.result(10).text == "late"

    jar, old = browser._cookies or {}, before.client._cookies or {}
    jar |= {k: c for k, c in (late.client._cookies or {}).items() if c != old.get(k)}
    assert browser.get("/admin").status_code == 403


def test_a_view_that_does_both_at_once_does_not_bring_it_back(
    alice: Shopper, tenant: Tenant
) -> None:
    is_asked, may_answer = threading.Event(), threading.Event()

    def hold(*_: object) -> None:
        is_asked.set()
        may_answer.wait(5)

    async def ask() -> list[Any]:
        renewed = asyncio.create_task(auth0.refresh_user())
        assert await asyncio.to_thread(is_asked.wait, 10)
        other = asyncio.create_task(auth0.get_access_token_for_connection(GITHUB))
        await asyncio.sleep(0)  # it has looked at the session by now
        may_answer.set()
        await other
        return [(await renewed).get(ROLES), auth.auth_user.get(ROLES)]

    alice.client.application.extensions["call"] = lambda: asyncio.run(ask())
    tenant.change_user("alice", roles=[])
    tenant.fail("token", Fault(hold))

    assert alice.client.get("/call").json == [None, None]
    assert alice.client.get("/admin").status_code == 403


@pytest.mark.parametrize("rotates", [True, False])
def test_nothing_that_was_kept_for_others_is_older_than_the_call(
    alice: Shopper, tenant: Tenant, clock: Clock, rotates: bool
) -> None:
    tenant.rotate_refresh_tokens = rotates
    before = alice.client.get(f"/token?audience={API}").text
    slow, seen = alice.twin(), []
    for role, browsers in (
        *(("reader", (alice, slow)), ("writer", (alice, slow)), ("owner", (slow,))),
        ("admin", (alice, slow)),  # at once, after somebody else's
    ):
        tenant.change_user("alice", roles=[role])
        for browser in browsers:  # one has the cookie of before all this
            seen += dict(browser.client.get("/renewed").json or {})[ROLES]
        clock.forward(30 if role == "reader" else 0)

    assert seen == [*("reader",) * 2, *("writer",) * 2, "owner", *("admin",) * 2]
    assert alice.client.get(f"/token?audience={API}").text != before
    assert tenant.reuse_detected == 0


async def test_a_refresh_under_way_is_waited_for_and_not_taken(shop: Flask) -> None:
    asked, store = [], SharedStore()
    has_begun, may_end = threading.Event(), threading.Event()

    def exchange(token: str) -> dict[str, Any]:
        asked.append(token)
        has_begun.set()
        may_end.wait(10)
        answer = {"access_token": str(len(asked))}
        return {"answer": answer, "fresh_until": time.time() + 60}

    ask = partial(refresh_once, store, auth0.sessions, "token", "any", exchange)
    early = asyncio.create_task(ask())
    await asyncio.to_thread(has_begun.wait, 10)
    late = [asyncio.create_task(ask(since=store.now())) for _ in range(5)]
    await asyncio.sleep(0)
    may_end.set()

    answers = await asyncio.gather(early, *late)

    assert [found["answer"]["access_token"] for found, _ in answers] == ["1", *"22222"]
    assert asked == ["token", "token"]


@pytest.mark.parametrize(
    ("fault", "status"),
    [
        (Fault.body({"error": "access_denied"}, status=403), 418),
        (Fault.status(503), 502),
        (Fault.body({"error": "invalid_grant"}, status=403), 302),
        (None, 418),
    ],
    ids=["refused", "outage", "revoked", "no ID token"],
)
def test_where_it_cannot_be_had_it_says_so_and_the_user_stays(
    alice: Shopper, tenant: Tenant, fault: Fault | None, status: int
) -> None:
    if fault:
        tenant.fail("token", fault)
    else:
        tenant.forge("absent")

    assert alice.client.get("/renewed").status_code == status

    now = [alice.client.get(path).status_code for path in ("/admin", "/renewed")]
    assert now == ([302, 418] if status == 302 else [200, 200])


def test_a_guest_has_nothing_to_renew(alice: Shopper) -> None:
    alice.client.get("/logout")

    assert alice.client.get("/renewed").json == {"code": "missing_refresh_token"}
