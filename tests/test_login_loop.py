"""A login that goes round ends on a page; who signs in as people do never sees it."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask, redirect, request

import auth
from auth0_flask.tenant import Tenant
from conftest import Clock
from shop import copy_of_auth, make_shop
from visitor import Shopper

HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}


@pytest.fixture
def alice(shop: Flask, tenant: Tenant) -> Shopper:
    """Alice at an app made as the README says, with a page that asks for a login."""
    shop.add_url_rule("/reports", "reports", auth.login_required(lambda: "reports"))
    return Shopper(shop)


def lose(shopper: Shopper, *, rounds: bool = False) -> None:
    """Have a browser drop the session, or how often it went round."""
    for cookie in [*(shopper.client._cookies or {}).values()]:
        if cookie.key.endswith("_rounds") == rounds:
            shopper.client.delete_cookie(cookie.key)


def go_round(shopper: Shopper, times: int) -> None:
    """Sign in again and again, in a browser that drops the session, and only that."""
    for _ in range(times):
        assert shopper.login("/login?return_to=/reports").location == "/reports"
        lose(shopper)


@pytest.mark.parametrize("scheme", ["http", "https"])
def test_after_three_logins_that_ended_signed_out_a_page_says_so_for_a_minute(
    tenant: Tenant, scheme: str
) -> None:
    callback = f"{scheme}://localhost/callback"
    tenant.allowed_callback_urls.add(callback)
    alice = Shopper(make_shop(copy_of_auth({"AUTH0_REDIRECT_URI": callback})))
    alice.client.application.config["PREFERRED_URL_SCHEME"] = scheme
    go_round(alice, 3)
    tenant.requests.clear()
    (rounds,) = (alice.client._cookies or {}).values()
    assert (rounds.max_age, rounds.http_only) == (60, True)
    assert rounds.secure == rounds.key.startswith("__Host-") == (scheme == "https")

    page = alice.client.get("/login?return_to=/reports", headers=HTML)
    program = alice.client.get("/login?return_to=/reports", headers=JSON)

    assert page.status_code == program.status_code == 400
    assert "Location" not in page.headers
    assert "login_loop" in page.text
    assert "cookies" in page.text
    assert (program.json or {})["code"] == "login_loop"
    assert not tenant.requests
    lose(alice, rounds=True)  # as the browser does a minute later
    go_round(alice, 3)
    assert alice.client.get("/login").status_code == 400


def test_an_app_that_greets_in_its_callback_notices_as_well(alice: Shopper) -> None:
    async def callback() -> Any:
        result = await auth.auth0.complete_interactive_login(request.url)
        assert auth.auth_user["sub"] == "auth0|alice"
        return redirect(auth.return_to(result))

    alice.client.application.view_functions["auth0.callback"] = callback
    go_round(alice, 3)

    assert alice.client.get("/login").status_code == 400


def test_who_signs_out_can_sign_in_at_once_however_often(alice: Shopper) -> None:
    for rounds in (3, *[0] * 5):
        go_round(alice, rounds)
        assert "/v2/logout" in alice.client.get("/logout").location
        assert not alice.client._cookies  # nothing stays behind
        assert alice.login("/reports").location == "/reports"


def test_who_was_seen_signed_in_did_not_go_round(alice: Shopper) -> None:
    """Such as one whose sessions were ended from elsewhere, several times."""
    shop = alice.client.application
    shop.add_url_rule("/user", "user", lambda: dict(auth.auth_user))
    for is_lost in [True] * 6 + [False] * 4:
        assert alice.login("/login?prompt=login&return_to=/reports").location
        page = alice.client.get("/user")
        assert (page.json or {})["sub"] == "auth0|alice"
        assert len(page.headers.getlist("Set-Cookie")) == 1  # however often it asks
        if is_lost:
            lose(alice)


@pytest.mark.parametrize("value", ["", "x", "1", "9.", "-9", "x" * 4000, "٣.٣"])
def test_a_cookie_of_rounds_that_is_made_up_does_no_harm(
    alice: Shopper, value: str
) -> None:
    alice.client.set_cookie("session_auth0_rounds", value)
    assert alice.login("/reports").location == "/reports"

    alice.client.set_cookie("session_auth0_rounds", "9" * 4000)
    assert alice.login("/login?return_to=/reports").location == "/reports"
    alice.client.set_cookie("session_auth0_rounds", "9" * 4000)
    lose(alice)
    assert "login_loop" in alice.client.get("/login", headers=HTML).text


def test_guests_who_are_asked_silently_and_logins_that_fail_do_not_go_round(
    alice: Shopper, tenant: Tenant
) -> None:
    """``prompt=none``: a page may ask at each visit whether somebody is there."""
    for headers in (HTML, JSON) * 2:
        at_tenant = alice.start("/login?prompt=none&return_to=/reports")
        back = httpx.get(at_tenant, trust_env=False, timeout=60).headers["Location"]
        answer = alice.client.get(back, headers=headers)
        assert answer.status_code == 403
        assert "login_required" in answer.text
        tenant.forge("audience")
        assert alice.login().status_code == 400

    assert alice.login("/reports").location == "/reports"


def test_who_was_signed_out_after_the_clock_was_set_back_can_sign_in_at_once(
    tenant: Tenant, clock: Clock, tmp_path: Path
) -> None:
    file = str(tmp_path / "revocations.sqlite3")
    alice = Shopper(make_shop(copy_of_auth({"AUTH0_REVOCATIONS_PATH": file})))
    clock.forward(30)
    assert alice.login().status_code == 302
    clock.offset = 0.0
    token = {"logout_token": tenant.logout_token(sub="auth0|alice")}
    assert alice.client.post("/backchannel-logout", data=token).status_code == 200

    for _ in range(2):
        assert alice.login().status_code == 302
