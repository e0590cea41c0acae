"""Signals, organizations and connections: what an app hears, and what it may refuse."""

from __future__ import annotations

import asyncio
import gc
import secrets
import sqlite3
import threading
from functools import partial
from typing import Any

import httpx
import pytest
from flask import Flask, g

import auth
from auth0_flask.event_loops import reuse_event_loops
from auth0_flask.tenant import Tenant
from test_deployment import CALLBACK, deployed
from visitor import Shopper


def test_an_app_hears_of_logins_and_logouts_in_both_manners(
    shop: Flask, tenant: Tenant
) -> None:
    heard: list[tuple[str, Any]] = []

    def hear(what: str, sender: Flask, user: Any = None, error: Any = None) -> None:
        heard.append((what, error.error if error else user["sub"]))

    async def later(sender: Flask, **what: Any) -> None:
        assert sender is shop
        heard.append(("later", what.get("sub") or what["user"]["sub"]))

    alice = Shopper(shop)
    with (
        auth.user_logged_in.connected_to(partial(hear, "in"), shop),
        auth.user_logged_in.connected_to(later, shop),
        auth.user_logged_out.connected_to(partial(hear, "out"), shop),
        auth.login_failed.connected_to(partial(hear, "failed"), shop),
        auth.session_revoked.connected_to(later, shop),
    ):
        alice.login()
        assert sorted(heard) == [("in", "auth0|alice"), ("later", "auth0|alice")]
        heard.clear()
        alice.client.get("/logout")
        alice.client.get("/callback?state=unknown")
        tenant.forge("signature")
        alice.login()
        told = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        alice.client.post("/backchannel-logout", data=told)
        failures = [("failed", "missing_transaction"), ("failed", "invalid_token")]
        out, later_told = ("out", "auth0|alice"), ("later", "auth0|alice")
        assert heard == [out, *failures, later_told]
        alice.login()
        heard.clear()
        alice.client.post("/logout/everywhere", headers={"Origin": "http://localhost"})
    assert heard == [later_told, out]


def test_a_receiver_that_only_a_factory_knew_refuses_and_leads_to_another_account(
    shop: Flask, tenant: Tenant
) -> None:
    """And what it hands on is awaited, and who was there before stays."""

    async def only_bob(user: Any) -> None:
        if user["sub"] != "auth0|bob":
            raise auth.LoginRefused(f"Not you, while {auth.auth_user['sub']} is here.")

    def configure() -> None:
        @partial(auth.user_logged_in.connect, sender=shop)
        def hand_on(sender: Flask, user: Any) -> Any:
            return only_bob(user)

    configure()
    gc.collect()
    shopper = Shopper(shop, "bob")
    assert shopper.login().status_code == 302
    shopper.username = "alice"
    page = shopper.login("/login?return_to=/reports")

    assert page.status_code == 403
    assert "Not you, while auth0|bob is here." in page.text
    assert 'href="/login?return_to=/reports&amp;prompt=login">Sign in<' in page.text
    assert shopper.user["sub"] == "auth0|bob"


@pytest.mark.parametrize("bridge", [None, reuse_event_loops], ids=["flask", "reused"])
def test_a_receiver_is_called_in_the_thread_of_its_request_and_may_raise_anything(
    shop: Flask, tenant: Tenant, bridge: Any
) -> None:
    if bridge:
        shop.async_to_sync = bridge  # type: ignore[method-assign]  # as documented
    shop.before_request(lambda: setattr(g, "db", sqlite3.connect(":memory:")))
    shop.teardown_request(lambda _: g.db.close())
    # a sync view that runs a loop of its own
    shop.add_url_rule("/out", view_func=lambda: asyncio.run(auth.auth0.logout()))
    shopper, threads = Shopper(shop), set()

    def keep(sender: Flask, user: Any) -> None:
        g.db.execute("SELECT 1")
        threads.add(threading.get_ident())

    def out_of_reach(sender: Flask, user: Any) -> None:
        raise httpx.ConnectError("no route")

    with (
        auth.user_logged_in.connected_to(keep, shop),
        auth.user_logged_out.connected_to(keep, shop),
    ):
        assert shopper.login().status_code == 302
        assert "/v2/logout" in shopper.client.get("/out").text
    assert threads == {threading.get_ident()}

    shopper.login()
    shopper.username = "bob"
    # a service of the app's is out of reach, not Auth0
    with auth.user_logged_out.connected_to(out_of_reach, shop):
        assert shopper.login().status_code == 500
    assert (shopper.client.get("/me").json or {})["sub"] == "auth0|bob"
    # what ends an iteration keeps nobody waiting
    with auth.user_logged_out.connected_to(lambda *_, **__: next(iter([])), shop):
        assert shopper.client.get("/logout").status_code == 500


def test_a_login_whose_session_does_not_fit_is_one_that_failed(
    shop: Flask, tenant: Tenant
) -> None:
    groups = [secrets.token_hex(20) for _ in range(700)]
    tenant.change_user("alice", **{"https://shop.example/groups": groups})
    heard: list[str] = []

    @shop.errorhandler(auth.LoginError)
    def page(error: auth.LoginError) -> tuple[str, int]:
        return f"our page for {error.error}", error.code or 500

    @auth.login_failed.connect_via(shop)
    def hear(sender: Flask, error: auth.LoginError) -> None:
        heard.append(error.error)

    answer = Shopper(shop).login()

    assert (answer.status_code, heard) == (500, ["session_too_large"])
    assert answer.text == "our page for session_too_large"


def test_an_invitation_to_an_organization_is_followed_and_no_other_is_taken(
    shop: Flask, tenant: Tenant
) -> None:
    acme, alice = tenant.add_organization("acme"), Shopper(shop)
    tenant.forge(claims={"org_id": "org_evil"})
    answer = alice.login(f"/login?organization={acme.org_id}")
    assert answer.status_code == 400
    assert "wrong_organization" in answer.text
    assert alice.user == {}

    asked = f"organization={acme.org_id}&invitation=inv_1&organization_name=acme"
    assert alice.login(f"/login?{asked}").status_code == 302
    claims = alice.user
    assert (claims["org_id"], claims["org_name"]) == (acme.org_id, "acme")


def test_an_app_of_one_organization_takes_no_other(tenant: Tenant) -> None:
    acme = tenant.add_organization("acme")
    connections = {"AUTH0_CONNECTIONS": "google-oauth2 my-company"}
    app = deployed(tenant, CALLBACK, AUTH0_ORGANIZATION=acme.org_id, **connections)
    alice = Shopper(app)
    assert alice.client.get("/login?organization=org_other").status_code == 400
    home = alice.client.get("/").text
    assert 'href="/login?screen_hint=signup"' in home
    assert "Continue with My Company" in home
    assert 'href="/login?connection=my-company"' in home

    alice.login()
    assert (alice.client.get("/api/me").json or {})["org_id"] == acme.org_id


def test_a_fresh_login_is_held_to_what_it_asked_for(
    shop: Flask, tenant: Tenant
) -> None:
    alice = Shopper(shop)
    alice.login("/login?max_age=300")
    tenant.forge(claims={"auth_time": None})

    page = alice.login("/login?max_age=300&prompt=login")

    assert page.status_code == 400
    assert "not_fresh" in page.text
    assert alice.user  # the session there was stays
