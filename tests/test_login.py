"""The whole login: a browser, the app and a tenant, and what of it is said."""

from __future__ import annotations

import logging
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qsl, quote, urlsplit

import pytest
from flask import Flask

import auth
from auth0_flask import StoreUnavailable
from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Tenant
from conftest import SITE, Clock
from redis_server import RedisServer
from servers import run
from shop import make_shop
from visitor import Shopper, Visitor, on_site


async def test_signing_out_ends_the_session_at_the_provider_too(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login()
    for path in ("/", "/profile", "/nowhere", "/callback?state=x&error=x"):
        page = await alice.go(path)
        assert 'href="/logout"' in page.text.partition("</header>")[0], path
    away = await alice.logout()
    assert away.url.path == "/"
    assert "Sign in" in away.text
    assert await alice.claims() is None
    page = await alice.start()
    assert not on_site(page, alice.site)  # asked who they are, not waved through


async def test_a_login_asks_auth0_for_tokens_once_and_for_nothing_else(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login()  # by now discovery and keys are known
    await alice.logout()
    tenant.requests.clear()

    await alice.login()

    paths = [seen.path for seen in tenant.requests]
    assert paths == ["/authorize", *["/u/login"] * 2, "/oauth/token"]


def test_120_logins_by_8_threads_are_each_the_right_users(
    shop: Flask, tenant: Tenant
) -> None:
    """Threads that take turns all the time would show a token of another login."""
    names = [f"user{number}" for number in range(120)]
    for name in names:
        tenant.add_user(name)

    def log_in(name: str) -> list[str]:
        shopper = Shopper(shop, name)
        assert shopper.login().status_code == 302
        state = shopper.session
        (access,), issued = state["token_sets"], tenant.directory
        refresh = issued.refresh_tokens.grant(state["refresh_token"])
        grants = refresh, issued.access_tokens.get(access["access_token"])
        return [state["user"]["sub"], *(g.session.user.sub for g in grants if g)]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            seen = list(threads.map(log_in, names))
    finally:
        sys.setswitchinterval(interval)

    assert seen == [[f"auth0|{name}"] * 3 for name in names]


@pytest.mark.parametrize(
    "wanted",
    [
        *("https://evil.example.com/", "//evil.example.com", "///evil.example.com"),
        *("/\\evil.example.com", "/\t/evil.example.com", "https:evil.example.com"),
        *("http:///evil.example.com", "javascript:alert(1)", " //evil.example.com"),
        *("\x00//evil.example.com", "evil.example.com", "//["),
        *(f"{SITE}{more}evil.example.com/" for more in ("@", ".", "//")),
        *("/" + "x" * 2048, "/login?return_to=/login", "/login/", "/%6Cogin"),
        *("/callback?code=1", "/x/../logout", "/%2e/login", "/logout/everywhere"),
    ],
    ids=lambda wanted: wanted.replace(SITE, "SITE"),
)
def test_a_foreign_or_looping_return_to_ends_at_home_and_is_logged(
    shop: Flask, tenant: Tenant, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = Shopper(shop).login(f"/login?return_to={quote(wanted)}")

    assert (answer.status_code, answer.location) == (302, "/")
    assert f"return_to dropped: it is {wanted!r:.80}" in caplog.text
    with shop.test_request_context():  # an app may have kept it by itself
        assert auth.return_to({"app_state": {"return_to": wanted}}) == "/"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("wanted", ["/sub/out", "/sub/out/"])
def test_a_logout_of_another_path_is_no_page_to_return_to(
    wanted: str, method: str
) -> None:
    app = auth.init_app(Flask("shop"), logout="out")
    app.add_url_rule("/out/", "out", lambda: "out", methods=[method])
    app.add_url_rule("/<group>/login", "login")  # which a callback cannot build

    with app.test_request_context("/", base_url=f"{SITE}/sub"):
        assert auth.return_to({"app_state": {"return_to": wanted}}) == "/sub/"
        for other in (wanted.replace("sub", "bus"), "/acme/reports"):
            assert auth.return_to({"app_state": {"return_to": other}}) == other


@pytest.mark.parametrize(
    "query",
    [
        *("?filter=" + "x" * 520, "?path=C:%5CUsers%5C&a=%0A%20&b=%C3%A4%20%26"),
        *("?filter=" + token_hex(1000), f"?filter={quote('字' * 200)}"),
    ],
    ids=["long", "escaped", "2 KB of random", "wide"],
)
def test_a_page_of_this_app_is_returned_to_also_by_who_took_too_long(
    shop: Flask, tenant: Tenant, clock: Clock, query: str
) -> None:
    @shop.errorhandler(auth.LoginError)
    def failed(error: auth.LoginError) -> list[str]:
        return [error.error, auth.return_to(error)]

    shop.add_url_rule("/reports", "reports", auth.login_required(lambda: "reports"))
    page, shopper = f"/reports{query}", Shopper(shop)
    for wanted in (f"{page}#b", f"{SITE}{page}#b"):
        answer = Shopper(shop).login(f"/login?return_to={quote(wanted)}")
        assert answer.location == f"{page}#b"
    callback = shopper.sign_in(page)
    assert shopper.twin().client.get(callback).location == page

    clock.forward(3601)
    for late in (callback, f"/callback?state=unknown&code=x&return_to={quote(page)}"):
        assert shopper.client.get(late).json == ["missing_transaction", page]


def test_clocks_may_be_half_a_minute_apart(shop: Flask, tenant: Tenant) -> None:
    for seconds in (-30, 30):
        tenant.clock_offset = seconds
        assert Shopper(shop).login().status_code == 302


def test_what_login_passes_on_and_what_it_does_not(shop: Flask, tenant: Tenant) -> None:
    passed = (
        "screen_hint=signup&connection=github&prompt=login&login_hint=a@b.example"
        "&max_age=60&organization=org_1&invitation=inv_1"
    )
    made_up = (
        "redirect_uri=https://evil.example.com&audience=https://evil.example.com"
        "&scope=admin&client_id=x&state=fixed&response_type=token&nonce=fixed"
        f"&acr_values={'x' * 6000}&ui_locales={'%E5%AD%97' * 512}"
    )
    long = "x" * 2600
    languages = {"Accept-Language": f"de-CH, de;q=0.9, en;q=0.8, {long}, *;q=0.1"}
    answer = shop.test_client().get(f"/login?{passed}&{made_up}", headers=languages)

    sent = dict(parse_qsl(urlsplit(answer.location).query))
    for secret in ("state", "nonce", "code_challenge"):
        assert sent.pop(secret) != "fixed"
    assert sent == {
        **dict(parse_qsl(passed)),
        "ui_locales": "de-CH de en",
        "client_id": tenant.client_id,
        "redirect_uri": f"{SITE}/callback",
        "scope": "openid profile email offline_access",
        "response_type": "code",
        "code_challenge_method": "S256",
    }


@pytest.mark.parametrize(
    "claims",
    [
        {"name": "", "email": "", "picture": "javascript:alert(1)"},
        {"name": 7, "nickname": ["a"], "picture": {"x": 1}, "session_expiry": "x"},
        {"email": ["a"], "email_verified": "perhaps", "org_id": 1, "auth_time": "x"},
        {"name": "A\ud800lice"},
    ],
)
def test_whatever_claims_a_user_has_they_are_shown(
    app: Flask, tenant: Tenant, claims: dict[str, Any], caplog: pytest.LogCaptureFixture
) -> None:
    tenant.forge(claims=claims)
    alice = Shopper(app)
    assert alice.login().status_code == 302

    assert "failed" not in caplog.text
    for path in ("/", "/profile"):
        page = alice.client.get(path)
        assert page.status_code == 200
        assert "javascript:" not in page.text.partition("<dl")[0]
    shown = alice.client.get("/api/me").json or {}
    assert {**claims, **shown} == {**shown, **claims, "name": shown["name"]}


def test_a_run_that_says_a_secret_fails_and_tells_which_where_and_when() -> None:
    """`leaks.py` looks at every run of these tests."""
    said = {
        *("access_token in the log of some", "credentials in the log of some"),
        *("code_verifier in the log of some", "refresh_token in a warning"),
        *("id_token in an exception", "cookie in an exception", "cookie in a page"),
        *("AUTH0_CLIENT_SECRET in what a program said", "code in what was printed"),
        "AUTH0_SECRET in what a server said",
    }
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider"]
    more = ["-p", "xdist", "-p", "asyncio", "--numprocesses", "1"]
    command += [*more, "tests/said_on_purpose.py"]
    shown = run(*command, env={"PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"}, status=1)

    assert "9 passed" in shown
    told = shown.partition("secrets that were said")[2].splitlines()
    found = [line.split(", first in ") for line in told if ", first in " in line]
    assert {what for what, _ in found} == said
    for what, test in found:
        assert test.endswith(f"::test_it_is_said[{what.partition(' ')[0]}]")


def test_an_outage_is_logged_with_its_reason_once_a_minute(
    own_redis: RedisServer,
    caplog: pytest.LogCaptureFixture,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    now = time.monotonic
    monkeypatch.setattr(StoreUnavailable, "_logged_at", {})
    with connect(own_redis.url) as redis:
        client = make_shop(auth, redis=redis).test_client()
        auth.login_as(client)
        own_redis.kill()

        for times in (1, 2):
            for _ in range(3):
                assert client.get("/me").status_code == 503
            logged = [r for r in caplog.records if "store is unavail" in r.getMessage()]
            assert [r.levelname for r in logged] == ["ERROR"] * times
            assert "(sessions_unavailable): ConnectionError: " in logged[-1].message
            monkeypatch.setattr(time, "monotonic", lambda: now() + 61)
