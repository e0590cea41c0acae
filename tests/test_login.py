"""The whole login: a browser, the app and a tenant, over real sockets."""

from __future__ import annotations

import asyncio
import json
import logging
import sys
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from secrets import token_hex
from urllib.parse import parse_qs, parse_qsl, quote, urlsplit

import pytest
from flask import Flask, jsonify, redirect, render_template_string, request, session
from werkzeug.wrappers import Response

import auth
from auth import auth0
from auth0_flask.stores.cookies import STATE_KEY
from auth0_flask.tenant import Tenant
from conftest import SITE, Clock
from visitor import Shopper, Visitor, on_site

Visitors = Callable[..., Visitor]


async def test_sign_in_see_the_profile_sign_out(alice: Visitor) -> None:
    assert "Sign in" in (await alice.go("/")).text
    assert await alice.claims() is None

    home = await alice.login()
    assert home.url.path == "/"
    assert "Alice" in home.text
    profile = await alice.go("/profile")
    assert "alice@example.com" in profile.text
    assert ((await alice.claims()) or {})["sub"] == "auth0|alice"

    away = await alice.logout()
    assert away.url.path == "/"
    assert "Sign in" in away.text
    assert await alice.claims() is None


async def test_signing_out_ends_the_session_at_the_provider_too(alice: Visitor) -> None:
    await alice.login()
    await alice.logout()

    page = await alice.start()

    assert not on_site(page, alice.site)  # asked who they are, not waved through


async def test_the_users_claims_are_in_the_cookie_once_as_the_id_token(
    alice: Visitor, app: Flask
) -> None:
    await alice.login()
    cookies = "; ".join(f"{name}={value}" for name, value in alice.cookies.items())

    with app.test_request_context(headers={"Cookie": cookies}):
        kept = auth0.sessions.decrypt(STATE_KEY, session[STATE_KEY])
        user = (auth0.read_session() or {})["user"]

    assert "id_token" in kept
    assert "user" not in kept
    assert user["email"] == "alice@example.com"
    assert "nonce" not in user


async def test_fifty_logins_in_a_row(visitors: Visitors, tenant: Tenant) -> None:
    for number in range(50):
        tenant.add_user(f"user{number}")
        visitor = visitors(f"user{number}")
        await visitor.login()
        assert (await visitor.claims() or {})["sub"] == f"auth0|user{number}"


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
        state = shopper.client.get("/session").json or {}
        (access,) = state["token_sets"]
        grants = (
            tenant.directory.refresh_tokens.grant(state["refresh_token"]),
            tenant.directory.access_tokens.get(access["access_token"]),
        )
        subs = [grant.session.user.sub for grant in grants if grant]
        return [state["user"]["sub"], *subs]

    interval = sys.getswitchinterval()
    sys.setswitchinterval(1e-5)
    try:
        with ThreadPoolExecutor(8) as threads:
            seen = list(threads.map(log_in, names))
    finally:
        sys.setswitchinterval(interval)

    assert seen == [[f"auth0|{name}"] * 3 for name in names]


async def test_sixteen_at_once_each_see_their_own(
    visitors: Visitors, tenant: Tenant
) -> None:
    names = [tenant.add_user(f"user{number}").username for number in range(16)]
    everybody = [visitors(name) for name in names]
    for _ in range(2):
        await asyncio.gather(*(visitor.login() for visitor in everybody))
        seen = await asyncio.gather(*(visitor.claims() for visitor in everybody))
        assert [(c or {})["sub"] for c in seen] == [f"auth0|{name}" for name in names]
        await asyncio.gather(*(visitor.logout() for visitor in everybody))


async def test_a_login_makes_one_token_request_and_no_other(
    visitors: Visitors, tenant: Tenant
) -> None:
    await visitors("alice").login()  # discovery and keys are cached from here on
    tenant.requests.clear()
    visitor = visitors("alice")
    assert (await visitor.get("/login")).status_code == 302
    assert tenant.requests == []
    await visitor.login()

    paths = [seen.path for seen in tenant.requests]
    assert paths == ["/authorize", *["/u/login"] * 2, "/oauth/token"]


async def test_a_login_after_the_provider_closed_its_idle_connections(
    visitors: Visitors, tenant: Tenant
) -> None:
    for _ in range(3):
        visitor = visitors()
        await visitor.login()
        assert await visitor.claims()
        tenant.close_connections()


async def test_twelve_abandoned_logins_and_then_one(alice: Visitor) -> None:
    for _ in range(12):
        await alice.get("/login?return_to=/" + "x" * 400)

    await alice.login()

    assert await alice.claims()
    assert all(len(n) + len(v) < 4093 for n, v in alice.cookies.items())
    assert sum(len(n) + len(v) for n, v in alice.cookies.items()) < 7600


@pytest.mark.parametrize("at_once", [False, True], ids=["in turn", "at once"])
async def test_two_tabs_finished_in_reverse_order(
    alice: Visitor, at_once: bool
) -> None:
    starts = [alice.start(f"/login?return_to=/?tab={tab}") for tab in (1, 2)]
    if at_once:
        tabs = await asyncio.gather(*starts)
    else:
        tabs = [await start for start in starts]

    for number, tab in ((2, tabs[1]), (1, tabs[0])):
        ended = await alice.follow(await alice.choose(tab, username="alice"))
        assert str(ended.url) == f"{alice.site}/?tab={number}"
        assert await alice.claims()


async def test_whoever_wants_a_page_comes_back_to_it(alice: Visitor) -> None:
    ended = await alice.login("/profile?tab=security&x=%C3%A4%20%26")

    assert ended.url.path == "/profile"
    assert parse_qs(ended.url.query.decode()) == {"tab": ["security"], "x": ["ä &"]}


@pytest.mark.parametrize(
    "wanted",
    [
        *("https://evil.example.com/", "//evil.example.com", "///evil.example.com"),
        *("/\\evil.example.com", "\\\\evil.example.com", "/\t/evil.example.com"),
        *("/%09/evil.example.com\n", "https:evil.example.com"),
        *("https:/evil.example.com", "http:///evil.example.com"),
        *("javascript:alert(1)", "data:text/html,x", " //evil.example.com"),
        *("\x00//evil.example.com", "evil.example.com", "//["),
        *(f"{SITE}{more}evil.example.com/" for more in ("@", ".", "//")),
        *("/" + "x" * 2048, "", "/login", "/login?return_to=/login", "/login/"),
        *("/%6Cogin", "/callback?code=1", "/logout", "/./logout", "/x/../logout"),
        "/%2e/login",
    ],
    ids=lambda wanted: wanted.replace(SITE, "SITE"),
)
def test_a_foreign_or_looping_return_to_ends_at_home(
    shop: Flask, tenant: Tenant, wanted: str
) -> None:
    answer = Shopper(shop).login(f"/login?return_to={quote(wanted)}")

    assert (answer.status_code, answer.location) == (302, "/")
    with shop.test_request_context():  # an app may have kept it by itself
        assert auth.return_to({"app_state": {"return_to": wanted}}) == "/"


@pytest.mark.parametrize("method", ["GET", "POST"])
@pytest.mark.parametrize("wanted", ["/sub/out", "/sub/out/"])
def test_a_logout_of_another_path_is_no_page_to_return_to(
    wanted: str, method: str
) -> None:
    app = auth.init_app(Flask("shop"), logout="out")
    app.add_url_rule("/out/", "out", lambda: "out", methods=[method])

    with app.test_request_context("/", base_url=f"{SITE}/sub"):
        assert auth.return_to({"app_state": {"return_to": wanted}}) == "/sub/"
        away = wanted.replace("sub", "bus")  # of another app
        assert auth.return_to({"app_state": {"return_to": away}}) == away


@pytest.mark.parametrize("site", ["", SITE], ids=["path", "address"])
def test_a_page_of_this_app_is_returned_to(
    shop: Flask, tenant: Tenant, site: str
) -> None:
    wanted = quote(f"{site}/profile?a=1#b")

    answer = Shopper(shop).login(f"/login?return_to={wanted}")

    assert answer.location == "/profile?a=1#b"


@pytest.mark.parametrize(
    "query",
    [
        *("?filter=" + "x" * 520, "?path=C:%5CUsers%5C&a=%0A%20"),
        *("?filter=" + token_hex(1000), f"?filter={quote('字' * 200)}#"),
    ],
    ids=["long", "escaped", "2 KB of random", "wide"],
)
def test_a_deep_link_is_returned_to(shop: Flask, tenant: Tenant, query: str) -> None:
    shop.add_url_rule("/reports", "reports", auth.login_required(lambda: "reports"))

    answer = Shopper(shop).login(f"/reports{query}")

    assert answer.location == f"/reports{query}".rstrip("#")


@pytest.mark.parametrize("wanted", ["/" + "x" * 2048, "//evil.example.com"])
def test_a_page_that_is_not_returned_to_is_logged(
    shop: Flask, tenant: Tenant, wanted: str, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.INFO):
        answer = Shopper(shop).login(f"/login?return_to={quote(wanted)}")

    assert answer.location == "/"
    (line,) = [text for text in caplog.messages if "return_to dropped" in text]
    assert wanted[:70] in line


def test_a_login_whose_route_the_callback_cannot_build_leads_to_its_page(
    tenant: Tenant,
) -> None:
    shop = auth.init_app(Flask("shop"))

    @shop.get("/<group>/login")
    async def login(group: str) -> Response:
        return redirect(await auth0.start_interactive_login(auth.login_options()))

    @shop.get("/callback")
    async def callback() -> Response:
        result = await auth0.complete_interactive_login(request.url)
        return redirect(auth.return_to(result))

    answer = Shopper(shop).login("/acme/login?return_to=/acme/reports")

    assert (answer.status_code, answer.location) == (302, "/acme/reports")


def test_a_login_that_took_too_long_still_knows_its_page(
    shop: Flask, tenant: Tenant, clock: Clock
) -> None:
    @shop.errorhandler(auth.LoginError)
    def failed(error: auth.LoginError) -> list[str]:
        return [error.error, auth.return_to(error)]

    shopper = Shopper(shop)
    callback = shopper.sign_in("/login?return_to=/reports")
    clock.forward(3601)

    assert shopper.client.get(callback).json == ["missing_transaction", "/reports"]
    unknown = "/callback?state=unknown&code=x&return_to=/reports"
    assert shopper.client.get(unknown).json == ["missing_transaction", "/reports"]


def test_claims_become_json_as_any_mapping(shop: Flask, tenant: Tenant) -> None:
    page = partial(render_template_string, "{{ auth_user|tojson }}")
    shop.add_url_rule("/json", "json", lambda: jsonify(auth.auth_user))
    shop.add_url_rule("/page", "page", page)
    shop.add_url_rule("/nested", "nested", lambda: {"user": auth.auth_user})
    shopper = Shopper(shop)
    assert shopper.client.get("/json").json == {}

    shopper.login()

    user = shopper.client.get("/json").json
    assert user
    assert user["sub"] == "auth0|alice"
    assert json.loads(shopper.client.get("/page").text) == user
    assert shopper.client.get("/nested").json == {"user": user}


def test_what_login_passes_on_and_what_it_does_not(shop: Flask, tenant: Tenant) -> None:
    passed = {
        "screen_hint": "signup",
        "connection": "github",
        "prompt": "login",
        "login_hint": "a@b.example",
        "max_age": "60",
        "organization": "org_1",
        "invitation": "inv_1",
    }
    made_up = {
        "redirect_uri": "https://evil.example.com",
        "scope": "admin",
        "client_id": "x",
        "state": "fixed",
        "response_type": "token",
        "audience": "https://evil.example.com",
        "nonce": "fixed",
    }
    answer = shop.test_client().get(
        "/login",
        query_string=passed | made_up,
        headers={"Accept-Language": "de-CH, de;q=0.9, en;q=0.8, *;q=0.1"},
    )

    sent = dict(parse_qsl(urlsplit(answer.location).query))
    for secret in ("state", "nonce", "code_challenge"):
        assert sent.pop(secret) != "fixed"
    assert sent == {
        **passed,
        "ui_locales": "de-CH de en",
        "client_id": tenant.client_id,
        "redirect_uri": f"{SITE}/callback",
        "scope": "openid profile email offline_access",
        "response_type": "code",
        "code_challenge_method": "S256",
    }


async def test_login_begun_on_127_0_0_1_works_as_well(alice: Visitor) -> None:
    elsewhere = alice.site.replace("localhost", "127.0.0.1")

    hop = await alice.http.get(f"{elsewhere}/login?return_to=/profile")
    assert hop.headers["Location"] == f"{alice.site}/login?return_to=/profile"
    page = await alice.follow(hop)
    ended = await alice.follow(await alice.choose(page, username="alice"))

    assert str(ended.url) == f"{alice.site}/profile"


@pytest.mark.parametrize("offset", [-30, 30])
def test_a_provider_whose_clock_is_off_costs_nobody_a_login(
    shop: Flask, tenant: Tenant, offset: float
) -> None:
    tenant.clock_offset = offset

    assert Shopper(shop).login().status_code == 302


def test_a_rotated_key_costs_nobody_a_login(shop: Flask, tenant: Tenant) -> None:
    Shopper(shop).login()
    tenant.rotate_keys()

    assert Shopper(shop).login().status_code == 302


async def test_a_refresh_without_audience_keeps_everybody_signed_in(
    alice: Visitor, tenant: Tenant, clock: Clock
) -> None:
    tenant.access_token_lifetime = 3600
    await alice.login()
    clock.forward(3601)

    first = await alice.get("/token")
    assert first.status_code == 200, first.text
    for _ in range(20):
        assert (await alice.get("/token")).text == first.text

    assert tenant.count("/oauth/token") == 2
    assert await alice.claims()


@pytest.mark.parametrize(
    "fields",
    [
        {"sub": "auth0|x", "name": None, "email": None},
        {"sub": "auth0|x", "name": "<script>alert(1)</script>", "email": None},
        {"sub": "auth0|x", "name": "Zoë \U0001f600 北京", "email": None},
        {"sub": "auth0|x", "name": "", "email": "", "picture": "javascript:alert(1)"},
        {"sub": "auth0|x", "name": "x" * 1500, "https://a.example/roles": [{"b": 1}]},
        {"sub": "auth0|x", "name": 7, "email": ["a"], "picture": {"x": 1}},
    ],
    ids=["bare", "script", "wide", "empty", "long", "odd types"],
)
async def test_every_user_is_shown_properly(
    visitors: Visitors, tenant: Tenant, fields: dict[str, object]
) -> None:
    tenant.add_user("somebody", **fields)
    visitor = visitors("somebody")
    await visitor.login()

    for path in ("/", "/profile"):
        page = await visitor.go(path)
        assert page.status_code == 200
        assert "<script>" not in page.text
        assert "javascript:" not in page.text.partition("<dl")[0]


async def test_a_session_is_over_when_its_time_is(alice: Visitor, clock: Clock) -> None:
    await alice.login()
    clock.forward(86_400)

    assert await alice.claims() is None
    answer = await alice.get("/profile")
    assert answer.headers["Location"] == "/login?return_to=/profile"


async def test_a_name_that_is_no_unicode_is_shown_all_the_same(
    alice: Visitor, tenant: Tenant
) -> None:
    tenant.forge(claims={"name": "A\ud800lice"})
    await alice.login()

    assert "A?lice" in (await alice.go("/profile")).text
