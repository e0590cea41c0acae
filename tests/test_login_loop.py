"""Logins that nobody clicked: one goes round and ends on a page, one is silent."""

from __future__ import annotations

import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urljoin, urlsplit

import httpx
import pytest
from flask import Flask, redirect, request

import auth
from auth0_flask.tenant import Fault, Tenant
from conftest import SITE, Clock
from shop import copy_of_auth, make_shop
from visitor import Shopper, http_browser, sign_in

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
    for is_lost in [True] * 6 + [False] * 4:
        assert alice.login("/login?prompt=login&return_to=/reports").location
        page = alice.client.get("/me")
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


BROWSER = {
    "Accept": "text/html,*/*;q=0.8",
    "Sec-Fetch-Dest": "document",
    "Sec-Fetch-Mode": "navigate",
    "User-Agent": "Mozilla/5.0 (X11; Linux x86_64) Gecko/20100101 Firefox/140.0",
}


class Guest(Shopper):
    """A browser that comes to a shop, and goes to the tenant where it is sent."""

    def __init__(self, app: Flask, tenant: Tenant, http: httpx.Client) -> None:
        super().__init__(app)
        self.tenant, self.http = tenant, http
        self.way: list[str] = []

    def visit(self, path: str) -> str:
        """Go where redirects lead; return what is shown in the end."""
        self.way, url = [], urljoin(SITE, path)
        while True:
            if url.startswith(self.tenant.origin):
                url = self.http.get(url).headers["Location"]
                continue
            answer = self.client.get(url, headers=BROWSER)
            self.way.append(urlsplit(url).path)
            self.at = url
            if not answer.location:
                return answer.text
            url = urljoin(url, answer.location)

    def sign_in_elsewhere(self) -> None:
        """Sign in at another app of the tenant."""
        sign_in(self.http, Shopper(self.client.application).start(), "alice")

    def an_hour_later(self) -> None:
        """Have the browser forget that it was tried."""
        tried = self.client.get_cookie("session_auth0_silent")
        assert tried
        assert (tried.max_age, tried.http_only) == (3600, True)
        self.client.delete_cookie(tried.key)


@pytest.fixture(params=["app", "view"])
def guest(
    shop: Flask, tenant: Tenant, request: pytest.FixtureRequest
) -> Iterator[Guest]:
    """Somebody new to a shop of which all pages try it, or some by a decorator."""
    if request.param == "app":
        shop.before_request(auth.login_silently)
    guard = auth.login_silently if request.param == "view" else auth.public

    def who() -> str:
        return str(auth.auth_user.get("name", "nobody"))

    for path in ("/", "/goods"):
        shop.add_url_rule(path, path, guard(who), methods=["GET", "POST"])
    with http_browser() as http:
        yield Guest(shop, tenant, http)


ROUND = ["/goods", "/login", "/callback", "/goods"]


def test_a_guest_sees_the_page_and_is_asked_once_an_hour_until_they_sign_in(
    guest: Guest, caplog: pytest.LogCaptureFixture
) -> None:
    heard: list[auth.LoginError] = []

    @auth.login_failed.connect_via(guest.client.application)
    def hear(app: Flask, error: auth.LoginError) -> None:
        heard.append(error)

    caplog.set_level(logging.INFO)
    begun_at_another_name = SITE.replace("localhost", "127.0.0.1")
    assert guest.visit(f"{begun_at_another_name}/goods?sort=price") == "nobody"
    assert guest.way == [*ROUND[:2], *ROUND[1:]]
    assert guest.at == f"{SITE}/goods?sort=price"
    for path in ("/goods", "/", "/goods"):
        assert guest.visit(path) == "nobody"
        assert guest.way == [path]
    assert heard == []  # a guest is no failure
    assert "login_required" not in caplog.text

    guest.an_hour_later()
    guest.sign_in_elsewhere()
    assert guest.visit("/goods?sort=price&%C3%A4=1") == "Alice"
    assert guest.way == ROUND
    assert guest.visit("/goods") == "Alice"
    assert guest.way == ["/goods"]
    guest.an_hour_later()
    guest.visit("/logout")
    assert guest.visit("/goods") == "nobody"  # they are not signed in again
    asked = guest.client.get("/login?return_to=/goods", headers=BROWSER)
    assert "prompt" not in asked.location


def test_only_pages_in_browsers_try_it_and_none_too_long_to_come_back_to(
    guest: Guest,
) -> None:
    no_pages: list[tuple[str, dict[str, str]]] = [
        *(("POST", {}), ("HEAD", {}), ("GET", {"Accept": "application/json"})),
        ("GET", {"Sec-Fetch-Mode": "cors", "Sec-Fetch-Dest": "empty"}),
        *(("GET", {"Sec-Fetch-Dest": dest}) for dest in ("iframe", "")),
        *(("GET", {"Sec-Purpose": "prefetch"}), ("GET", {"Authorization": "Bearer x"})),
        ("GET", {"User-Agent": "Mozilla/5.0 (compatible; Googlebot/2.1)"}),
    ]
    for method, headers in no_pages:
        sent = {**BROWSER, **headers}
        answer = guest.client.open("/goods", method=method, headers=sent)
        assert answer.status_code == 200, (method, headers)
        assert "Set-Cookie" not in answer.headers, (method, headers)
    assert guest.visit(f"/goods?q={'x' * 3000}") == "nobody"
    assert guest.way == ["/goods"]


def test_an_outage_keeps_nobody_from_the_page_nor_does_an_app_that_refuses_them(
    guest: Guest, tenant: Tenant
) -> None:
    def refuse(app: Flask, user: dict[str, str]) -> None:
        raise auth.LoginRefused("Not you.")

    guest.sign_in_elsewhere()
    with auth.user_logged_in.connected_to(refuse):
        assert guest.visit("/goods") == "nobody"
    refused = Fault.body({"error": "invalid_client"}, status=401)
    for fault in (Fault.status(503), refused):
        guest.an_hour_later()
        tenant.fail("token", fault)
        assert guest.visit("/goods") == "nobody"
        assert guest.way == ROUND
    guest.an_hour_later()
    auth.auth0.verifier.forget()
    tenant.fail("discovery", Fault.status(503))
    assert guest.visit("/goods") == "nobody"
    assert guest.way == ["/goods", "/login", "/goods"]


def test_a_browser_that_remembers_nothing_ends_on_a_page_and_does_not_go_round(
    guest: Guest,
) -> None:
    for query in ("", "&silent=1", "&silent=2"):  # a link says whether that is an error
        shown = guest.visit(f"/login?prompt=none&return_to=/goods{query}")
        assert (shown == "nobody") == (query == "&silent=1")
        assert ("login_required" in shown) == (query != "&silent=1")
    guest.client._cookies = {}

    url = SITE + guest.client.get("/goods", headers=BROWSER).location
    at_tenant = guest.client.get(url, headers=BROWSER).location
    guest.an_hour_later()
    assert "login_required" in guest.visit(at_tenant)  # it forgot the try

    guest.client = guest.client.application.test_client(use_cookies=False)
    assert "missing_transaction" in guest.visit("/goods")
    assert guest.way == ROUND[:3]
