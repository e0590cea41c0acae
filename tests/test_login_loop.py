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
from visitor import Shopper, http_browser, sign_in

HTML, JSON = {"Accept": "text/html"}, {"Accept": "application/json"}


@pytest.fixture
def alice(shop: Flask, tenant: Tenant) -> Shopper:
    """Alice at an app made as the README says, with a page that asks for a login."""
    shop.add_url_rule("/reports", "reports", auth.login_required(lambda: "reports"))
    return Shopper(shop)


def lose(shopper: Shopper, name: str = "session_auth0") -> None:
    """Have a browser drop a cookie."""
    shopper.client.delete_cookie(name)


def go_round(shopper: Shopper, times: int) -> None:
    """Sign in again and again, in a browser that drops the session, and only that."""
    for _ in range(times):
        assert shopper.login("/reports").location == "/reports"
        lose(shopper)


def test_after_three_logins_that_ended_signed_out_a_page_says_so(
    alice: Shopper, tenant: Tenant
) -> None:
    go_round(alice, 3)
    tenant.requests.clear()

    to_login = alice.client.get("/reports").location
    page = alice.client.get(to_login, headers=HTML)
    program = alice.client.get(to_login, headers=JSON)

    assert page.status_code == program.status_code == 400
    assert "Location" not in page.headers
    assert "login_loop" in page.text
    assert "cookies" in page.text
    assert (program.json or {})["code"] == "login_loop"
    assert not tenant.requests
    assert alice.client.get("/login", headers=HTML).status_code == 400  # and again


def test_an_app_that_greets_in_its_callback_notices_as_well(alice: Shopper) -> None:
    async def callback() -> Any:
        result = await auth.auth0.complete_interactive_login(request.url)
        assert auth.auth_user["sub"] == "auth0|alice"
        return redirect(auth.return_to(result))

    alice.client.application.view_functions["auth0.callback"] = callback
    go_round(alice, 3)

    assert alice.client.get("/login").status_code == 400


def test_a_minute_later_it_can_be_tried_again(alice: Shopper) -> None:
    go_round(alice, 3)
    assert alice.client.get("/login").status_code == 400
    rounds = alice.client.get_cookie("session_auth0_rounds")
    assert rounds
    assert (rounds.max_age, rounds.http_only) == (60, True)
    lose(alice, rounds.key)  # as the browser does then

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
    for _ in range(6):
        assert alice.login("/reports").location == "/reports"
        page = alice.client.get("/user")
        assert (page.json or {})["sub"] == "auth0|alice"
        assert len(page.headers.getlist("Set-Cookie")) == 1  # however often it asks
        lose(alice)


def test_who_is_signed_in_may_sign_in_again(alice: Shopper) -> None:
    for _ in range(6):
        assert alice.login("/login?prompt=login&return_to=/reports").location
        assert alice.client.get("/reports").text == "reports"


def test_a_browser_that_drops_one_cookie_once_is_not_troubled(alice: Shopper) -> None:
    go_round(alice, 2)

    assert alice.login("/reports").location == "/reports"
    assert alice.client.get("/reports").text == "reports"
    assert alice.client.get("/login").location.startswith("http")


@pytest.mark.parametrize("value", ["", "x", "1", "9.", "-9", "1.9", "x" * 4000, "٣.٣"])
def test_a_cookie_of_rounds_that_is_made_up_does_no_harm(
    alice: Shopper, value: str
) -> None:
    alice.client.set_cookie("session_auth0_rounds", value)

    assert alice.login("/reports").location == "/reports"


def test_whoever_makes_up_rounds_sees_the_page_or_stays_signed_in(
    alice: Shopper,
) -> None:
    alice.login()
    alice.client.set_cookie("session_auth0_rounds", "9" * 4000)

    assert alice.login("/login?return_to=/reports").location == "/reports"
    alice.client.set_cookie("session_auth0_rounds", "9" * 4000)
    lose(alice)
    assert "login_loop" in alice.client.get("/login", headers=HTML).text


def test_guests_who_are_asked_silently_do_not_go_round(alice: Shopper) -> None:
    """``prompt=none``: a page may ask at each visit whether somebody is there."""
    for headers in (HTML, JSON) * 3:
        at_tenant = alice.start("/login?prompt=none&return_to=/reports")
        back = httpx.get(at_tenant, trust_env=False, timeout=60).headers["Location"]
        answer = alice.client.get(back, headers=headers)
        assert answer.status_code == 403
        assert "login_required" in answer.text

    assert alice.login("/reports").location == "/reports"


def test_logins_that_fail_are_not_rounds(alice: Shopper, tenant: Tenant) -> None:
    for _ in range(4):
        callback = alice.sign_in()
        tenant.forge("audience")
        assert alice.client.get(callback).status_code == 400

    assert alice.login("/reports").location == "/reports"


def test_it_goes_round_over_https_as_well(tenant: Tenant) -> None:
    tenant.allowed_callback_urls.add("https://shop.example/callback")
    own = copy_of_auth({"AUTH0_REDIRECT_URI": "https://shop.example/callback"})
    client = make_shop(own).test_client()
    with http_browser() as http:
        for _ in range(3):
            at_tenant = client.get("https://shop.example/login").location
            client.get(sign_in(http, at_tenant, "alice"))
            client.delete_cookie("__Host-session_auth0", domain="shop.example")

    assert "login_loop" in client.get("https://shop.example/login").text
    (left,) = (client._cookies or {}).values()
    assert left.key == "__Host-session_auth0_rounds"
    assert left.secure


@pytest.mark.parametrize("how", ["everywhere", "backchannel"])
def test_who_was_signed_out_after_the_clock_was_set_back_can_sign_in_at_once(
    how: str, tenant: Tenant, clock: Clock, tmp_path: Path
) -> None:
    file = str(tmp_path / "revocations.sqlite3")
    alice = Shopper(make_shop(copy_of_auth({"AUTH0_REVOCATIONS_PATH": file})))
    clock.forward(30)
    assert alice.login().status_code == 302
    clock.offset = 0.0
    if how == "everywhere":
        same = {"Sec-Fetch-Site": "same-origin"}
        alice.client.post("/logout/everywhere", headers=same)
    else:
        token = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        assert alice.client.post("/backchannel-logout", data=token).status_code == 200

    for _ in range(2):
        assert alice.login().status_code == 302
