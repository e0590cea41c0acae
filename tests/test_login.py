"""The whole login: a browser, the app and a tenant, over real sockets."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask

from auth import auth0
from auth0_flask.tenant import Tenant
from conftest import SITE, Clock
from stores.sealing_store import STATE_IDENTIFIER
from visitor import Visitor, on_site

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
        kept = auth0.sessions.decrypt(STATE_IDENTIFIER, auth0.sessions.sealed())
        opened = auth0.sessions.read() or {}

    assert "id_token" in kept
    assert "user" not in kept
    assert opened["user"]["email"] == "alice@example.com"
    assert "nonce" not in opened["user"]


async def test_fifty_logins_in_a_row(visitors: Visitors, tenant: Tenant) -> None:
    for number in range(50):
        tenant.add_user(f"user{number}")
        visitor = visitors(f"user{number}")
        await visitor.login()
        claims = await visitor.claims()
        assert claims
        assert claims["sub"] == f"auth0|user{number}"


async def test_sixteen_at_once_each_see_their_own(
    visitors: Visitors, tenant: Tenant
) -> None:
    names = [f"user{number}" for number in range(16)]
    everybody = []
    for name in names:
        tenant.add_user(name)
        everybody.append(visitors(name))

    for _ in range(3):
        await asyncio.gather(*(visitor.login() for visitor in everybody))
        seen = await asyncio.gather(*(visitor.claims() for visitor in everybody))
        assert [claims and claims["sub"] for claims in seen] == [
            f"auth0|{name}" for name in names
        ]
        await asyncio.gather(*(visitor.logout() for visitor in everybody))


async def test_a_login_makes_one_token_request_and_no_other_on_a_kept_connection(
    visitors: Visitors, tenant: Tenant
) -> None:
    await visitors("alice").login()  # discovery and keys are cached from here on
    tenant.requests.clear()
    for _ in range(3):
        await visitors("alice").login()

    back_channel = [
        seen for seen in tenant.requests if seen.path not in {"/authorize", "/u/login"}
    ]
    assert [seen.path for seen in back_channel] == ["/oauth/token"] * 3
    assert len({seen.connection for seen in back_channel}) == 1


async def test_starting_a_login_asks_nobody(alice: Visitor, tenant: Tenant) -> None:
    await alice.get("/login")
    tenant.requests.clear()

    for _ in range(5):
        assert (await alice.get("/login")).status_code == 302

    assert tenant.requests == []


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
    starts = [
        alice.start("/login?return_to=/?tab=1"),
        alice.start("/login?return_to=/?tab=2"),
    ]
    if at_once:
        first, second = await asyncio.gather(*starts)
    else:
        first, second = await starts[0], await starts[1]

    ended_second = await alice.follow(await alice.choose(second, username="alice"))
    ended_first = await alice.follow(await alice.choose(first, username="alice"))

    assert str(ended_second.url) == f"{alice.site}/?tab=2"
    assert str(ended_first.url) == f"{alice.site}/?tab=1"
    assert await alice.claims()


async def test_whoever_wants_a_page_comes_back_to_it(alice: Visitor) -> None:
    ended = await alice.login("/profile?tab=security&x=%C3%A4%20%26")

    assert ended.url.path == "/profile"
    assert parse_qs(ended.url.query.decode()) == {"tab": ["security"], "x": ["ä &"]}


@pytest.mark.parametrize(
    "wanted",
    [
        "https://evil.example.com/",
        "//evil.example.com",
        "///evil.example.com",
        "/\\evil.example.com",
        "\\\\evil.example.com",
        "/\t/evil.example.com",
        "/%09/evil.example.com\n",
        "https:evil.example.com",
        "https:/evil.example.com",
        "http:///evil.example.com",
        "javascript:alert(1)",
        "data:text/html,x",
        " //evil.example.com",
        "\x00//evil.example.com",
        "evil.example.com",
        "//[",
        f"{SITE}@evil.example.com/",
        f"{SITE}.evil.example.com/",
        f"{SITE}//evil.example.com/",
        "/" + "x" * 600,
        "/login",
        "/login?return_to=/login",
        "/login/",
        "/%6Cogin",
        "/callback?code=1",
        "/logout",
        "/./logout",
        "/x/../logout",
        "/%2e/login",
        "",
    ],
    ids=lambda wanted: wanted.replace(SITE, "SITE"),
)
async def test_a_foreign_or_looping_return_to_ends_at_home(
    alice: Visitor, wanted: str
) -> None:
    page = await alice.follow(
        await alice.http.get(f"{alice.site}/login", params={"return_to": wanted})
    )

    back = await alice.choose(page, username="alice")
    answer = await alice.http.get(back.headers["Location"])

    assert answer.status_code == 302
    assert answer.headers["Location"] == "/"


@pytest.mark.parametrize(
    "wanted", ["/profile?a=1#b", f"{SITE}/profile?a=1#b"], ids=["path", "address"]
)
async def test_a_page_of_this_app_is_returned_to(alice: Visitor, wanted: str) -> None:
    page = await alice.follow(
        await alice.http.get(f"{alice.site}/login", params={"return_to": wanted})
    )

    back = await alice.choose(page, username="alice")
    answer = await alice.http.get(back.headers["Location"])

    assert answer.headers["Location"] == "/profile?a=1#b"


async def test_what_login_passes_on_and_what_it_does_not(alice: Visitor) -> None:
    answer = await alice.get(
        "/login?screen_hint=signup&connection=google-oauth2&login_hint=a@b.example"
        "&prompt=login&max_age=60&organization=org_1&invitation=inv_1"
        "&redirect_uri=https://evil.example.com&scope=admin&client_id=x&state=fixed"
        "&response_type=token&audience=https://evil.example.com",
        **{"Accept-Language": "de-CH, de;q=0.9, en;q=0.8, *;q=0.1"},
    )

    sent = parse_qs(urlsplit(answer.headers["Location"]).query)

    assert sent["screen_hint"] == ["signup"]
    assert sent["connection"] == ["google-oauth2"]
    assert sent["login_hint"] == ["a@b.example"]
    assert sent["prompt"] == ["login"]
    assert sent["max_age"] == ["60"]
    assert sent["organization"] == ["org_1"]
    assert sent["invitation"] == ["inv_1"]
    assert sent["ui_locales"] == ["de-CH de en"]
    assert sent["redirect_uri"] == [f"{SITE}/callback"]
    assert sent["scope"] == ["openid profile email offline_access"]
    assert sent["response_type"] == ["code"]
    assert sent["code_challenge_method"] == ["S256"]
    assert sent["state"] != ["fixed"]
    assert "audience" not in sent


async def test_login_begun_on_127_0_0_1_works_as_well(alice: Visitor) -> None:
    elsewhere = alice.site.replace("localhost", "127.0.0.1")

    hop = await alice.http.get(f"{elsewhere}/login?return_to=/profile")
    assert hop.headers["Location"] == f"{alice.site}/login?return_to=/profile"
    page = await alice.follow(hop)
    ended = await alice.follow(await alice.choose(page, username="alice"))

    assert str(ended.url) == f"{alice.site}/profile"


@pytest.mark.parametrize("offset", [-30, 30])
async def test_a_provider_whose_clock_is_off_costs_nobody_a_login(
    alice: Visitor, tenant: Tenant, offset: float
) -> None:
    tenant.clock_offset = offset

    await alice.login()

    assert await alice.claims()


async def test_a_rotated_key_costs_nobody_a_login(
    visitors: Visitors, tenant: Tenant
) -> None:
    await visitors("alice").login()
    tenant.rotate_keys()
    visitor = visitors("alice")

    await visitor.login()

    assert await visitor.claims()


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
        {
            "sub": "auth0|x",
            "name": "x" * 1500,
            "https://a.example/roles": ["a", {"b": 1}],
        },
    ],
    ids=["bare", "script", "wide", "empty", "long"],
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
