"""Signals, organizations and connections: what an app hears, and what it may refuse."""

from __future__ import annotations

import asyncio
import gc
import secrets
import sqlite3
import threading
from collections.abc import Callable
from functools import partial
from typing import Any

import pytest
from flask import Flask, abort, g, request, session

import auth
from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.tenant import Tenant
from test_deployment import CALLBACK, deployed
from visitor import Shopper, Visitor, on_site

Visitors = Callable[..., Visitor]


async def test_an_app_hears_of_logins_and_logouts_in_both_manners(
    app: Flask, alice: Visitor, tenant: Tenant, site: str
) -> None:
    heard: list[tuple[str, Any]] = []

    def logged_in(sender: Flask, user: Any) -> None:
        assert sender is app
        heard.append(("in", user["sub"]))

    async def logged_in_async(sender: Flask, user: Any) -> None:
        heard.append(("in, async", user["sub"]))

    def logged_out(sender: Flask, user: Any) -> None:
        heard.append(("out", user["sub"]))

    def failed(sender: Flask, error: auth.LoginError) -> None:
        heard.append(("failed", error.error))

    async def revoked(sender: Flask, sub: str | None, sid: str | None) -> None:
        heard.append(("revoked", sub))

    with (
        auth.user_logged_in.connected_to(logged_in, app),
        auth.user_logged_in.connected_to(logged_in_async, app),
        auth.user_logged_out.connected_to(logged_out, app),
        auth.login_failed.connected_to(failed, app),
        auth.session_revoked.connected_to(revoked, app),
    ):
        await alice.login()
        assert sorted(heard) == [("in", "auth0|alice"), ("in, async", "auth0|alice")]
        heard.clear()
        await alice.logout()
        await alice.get("/callback?state=unknown")
        tenant.forge("signature")
        await alice.login()
        told = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        await alice.http.post(f"{site}/backchannel-logout", data=told)

    failures = [("failed", "missing_transaction"), ("failed", "invalid_token")]
    assert heard == [("out", "auth0|alice"), *failures, ("revoked", "auth0|alice")]


async def test_a_receiver_may_refuse_a_login_with_a_message_or_a_page_of_the_app(
    app: Flask, alice: Visitor, visitors: Visitors
) -> None:
    async def only_bob(sender: Flask, user: Any) -> None:
        if user["sub"] != "auth0|bob":
            raise auth.LoginRefused("Only Bob <may> come in.")

    def closed(sender: Flask, user: Any) -> None:
        abort(418)

    with auth.user_logged_in.connected_to(closed, app):
        assert (await alice.login()).status_code == 418
        assert await alice.claims() is None
    with auth.user_logged_in.connected_to(only_bob, app):
        page = await alice.login("/login?return_to=/profile")
        assert page.status_code == 403
        assert "Only Bob &lt;may&gt; come in." in page.text
        assert 'href="/login?return_to=/profile&amp;prompt=login"' in page.text
        assert await alice.claims() is None
        bob = visitors("bob")
        await bob.login()
        assert await bob.claims()
    await alice.login()
    assert await alice.claims()


def test_receivers_are_asked_before_anything_changes(
    shop: Flask, tenant: Tenant
) -> None:
    seen: list[str] = []

    @shop.get("/cart")
    def cart() -> str:
        session.update(request.args)
        return str(session.get("of"))

    def no_bob(sender: Flask, user: Any) -> None:
        seen.append(f"{user['sub']} after {auth.auth_user.get('sub')}")
        if user["sub"] == "auth0|bob":
            raise auth.LoginRefused("Not Bob.")

    shopper = Shopper(shop)
    with auth.user_logged_in.connected_to(no_bob, shop):
        shopper.login()
        shopper.client.get("/cart?of=alice")
        shopper.username = "bob"
        assert shopper.login().status_code == 403

    assert seen == ["auth0|alice after None", "auth0|bob after auth0|alice"]
    assert shopper.client.get("/me").json["sub"] == "auth0|alice"  # type: ignore[index]
    assert shopper.client.get("/cart").text == "alice"


@pytest.mark.parametrize("bridge", [None, reuse_event_loops], ids=["flask", "reused"])
def test_a_receiver_uses_what_the_request_has_opened_for_its_thread(
    shop: Flask, tenant: Tenant, bridge: Any
) -> None:
    if bridge:
        shop.async_to_sync = bridge  # type: ignore[method-assign]  # as documented
    shop.before_request(lambda: setattr(g, "db", sqlite3.connect(":memory:")))
    shop.teardown_request(lambda _: g.db.close())

    def keep(sender: Flask, user: Any) -> None:
        g.db.execute("SELECT 1")

    with auth.user_logged_in.connected_to(keep, shop):
        assert Shopper(shop).login().status_code == 302


def test_a_receiver_that_hands_on_a_coroutine_is_awaited(
    shop: Flask, tenant: Tenant
) -> None:
    async def nobody(sender: Flask, user: Any) -> None:
        raise auth.LoginRefused("Nobody.")

    with auth.user_logged_in.connected_to(lambda *who, **user: nobody(*who, **user)):
        refused = Shopper(shop).login()

    assert refused.status_code == 403
    assert '<a href="/login?return_to=/&amp;prompt=login">Sign in</a>' in refused.text


def test_a_receiver_that_raises_what_ends_an_iteration_keeps_nobody_waiting(
    shop: Flask, tenant: Tenant
) -> None:
    shopper = Shopper(shop)
    shopper.login()
    with auth.user_logged_out.connected_to(lambda *_, **__: next(iter([])), shop):
        assert shopper.client.get("/logout").status_code == 500


def test_a_sync_view_that_runs_a_loop_of_its_own_has_receivers_in_its_thread(
    shop: Flask, tenant: Tenant
) -> None:
    shop.add_url_rule("/out", view_func=lambda: asyncio.run(auth.auth0.logout()))
    shopper, threads = Shopper(shop), set()
    shopper.login()

    def note(sender: Flask, user: Any) -> None:
        threads.add(threading.get_ident())

    with auth.user_logged_out.connected_to(note, shop):
        assert "/v2/logout" in shopper.client.get("/out").text
    assert threads == {threading.get_ident()}


def test_a_receiver_that_only_a_factory_knew_refuses_and_leads_to_another_account(
    shop: Flask, tenant: Tenant
) -> None:
    def configure() -> None:
        @partial(auth.user_logged_in.connect, sender=shop)
        def nobody(sender: Flask, user: Any) -> None:
            raise auth.LoginRefused("Nobody.")

    configure()
    gc.collect()

    assert Shopper(shop).login().status_code == 403


def test_a_login_whose_session_does_not_fit_is_one_that_failed(
    shop: Flask, tenant: Tenant
) -> None:
    groups = [secrets.token_hex(20) for _ in range(700)]
    tenant.change_user("alice", **{"https://shop.example/groups": groups})
    heard: list[str] = []

    def failed(sender: Flask, error: auth.LoginError) -> None:
        heard.append(error.error)

    @shop.errorhandler(auth.LoginError)
    def page(error: auth.LoginError) -> tuple[str, int]:
        return f"our page for {error.error}", error.code or 500

    with auth.login_failed.connected_to(failed, shop):
        answer = Shopper(shop).login()

    assert (answer.status_code, heard) == (500, ["session_too_large"])
    assert answer.text == "our page for session_too_large"


async def test_a_bug_in_a_receiver_is_a_bug_and_signs_nobody_in(
    app: Flask, alice: Visitor, caplog: pytest.LogCaptureFixture
) -> None:
    def buggy(sender: Flask, user: Any) -> None:
        raise ZeroDivisionError("of the receiver")

    with auth.user_logged_in.connected_to(buggy, app):
        page = await alice.login()

    assert page.status_code == 500
    assert "ZeroDivisionError" in caplog.text
    assert "of the receiver" not in page.text
    assert await alice.claims() is None


async def test_an_invitation_to_an_organization_is_followed_and_no_other_is_taken(
    alice: Visitor, tenant: Tenant
) -> None:
    acme = tenant.add_organization("acme", display_name="Acme Inc.")
    unknown = await alice.login("/login?organization=org_unknown")
    assert unknown.status_code == 403
    assert "login_refused" in unknown.text
    tenant.forge(claims={"org_id": "org_evil"})
    other = await alice.login(f"/login?organization={acme.org_id}")
    assert other.status_code == 400
    assert "wrong_organization" in other.text
    assert await alice.claims() is None

    page = await alice.login(
        f"/login?organization={acme.org_id}&invitation=inv_1&organization_name=acme"
    )
    assert on_site(page, alice.site)
    claims = await alice.claims() or {}
    assert (claims["org_id"], claims["org_name"]) == (acme.org_id, "acme")
    assert "acme" in (await alice.go("/profile")).text


def test_an_app_of_one_organization_takes_no_other(tenant: Tenant) -> None:
    acme = tenant.add_organization("acme")
    connections = {"AUTH0_CONNECTIONS": "google-oauth2 my-company"}
    app = deployed(tenant, CALLBACK, AUTH0_ORGANIZATION=acme.org_id, **connections)
    alice = Shopper(app)
    assert alice.client.get("/login?organization=org_other").status_code == 400
    home = alice.client.get("/").text
    assert 'href="/login?screen_hint=signup"' in home
    assert "Continue with Google" in home
    assert "Continue with My Company" in home
    assert 'href="/login?connection=my-company"' in home

    alice.login()
    assert (alice.client.get("/api/me").json or {})["org_id"] == acme.org_id


async def test_a_fresh_login_is_held_to_what_it_asked_for(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login("/login?max_age=300")
    assert await alice.claims()
    tenant.forge(claims={"auth_time": None})

    page = await alice.login("/login?max_age=300&prompt=login")

    assert page.status_code == 400
    assert "not_fresh" in page.text
    assert await alice.claims()  # the session there was stays
