"""What visitors and providers may send that they should not, and what it gets."""

from __future__ import annotations

import json
import logging
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.sessions import SecureCookieSessionInterface
from werkzeug.wrappers import Response

import auth
from auth0_flask.stores.cookies import STATE_KEY
from auth0_flask.stores.encryption import encrypt
from auth0_flask.tenant import Fault, Tenant
from sdk_calls import Caller
from shop import make_shop
from test_tokens import flasks_own, in_redis
from visitor import Shopper, Visitor, code_of, on_site

Visitors = Callable[..., Visitor]
SCRIPT = "<script>alert(1)</script>"


async def back_from_tenant(visitor: Visitor) -> str:
    """Sign in up to the point where the browser is sent back; return that address."""
    page = await visitor.start()
    answer = await visitor.choose(page, username=visitor.username)
    return answer.headers["Location"]


async def back_from_tenant_again(visitor: Visitor) -> str:
    """Do the same for somebody whom the tenant still knows."""
    started = await visitor.get("/login")
    answer = await visitor.http.get(started.headers["Location"])
    return answer.headers["Location"]


async def assert_can_sign_in(visitor: Visitor) -> None:
    await visitor.login()
    assert await visitor.claims()


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "incomplete_callback"),
        ("?code=x", "incomplete_callback"),
        ("?state=", "incomplete_callback"),
        ("?state=unknown", "missing_transaction"),
        ("?state=unknown&code=x", "missing_transaction"),
        (
            f"?state=unknown&error=access_denied&error_description={SCRIPT}",
            "missing_transaction",
        ),
        (f"?state={SCRIPT}", "missing_transaction"),
        ("?state=%00%ff%0d%0aSet-Cookie:x", "missing_transaction"),
        ("?state=a&state=b", "missing_transaction"),
        ("?" + "state=x&" * 1000, "missing_transaction"),
    ],
)
async def test_a_callback_that_nobody_began(
    alice: Visitor, query: str, code: str
) -> None:
    answer = await alice.get(f"/callback{query}")

    assert answer.status_code == 400
    assert code_of(answer) == code
    assert "Try again" in answer.text
    assert "<script" not in answer.text
    await assert_can_sign_in(alice)


async def test_a_callback_without_a_code(alice: Visitor) -> None:
    address = await back_from_tenant(alice)

    answer = await alice.http.get(address.replace("code=", "kode="))

    assert (answer.status_code, code_of(answer)) == (400, "incomplete_callback")
    await assert_can_sign_in(alice)


async def test_a_callback_used_twice(alice: Visitor, visitors: Visitors) -> None:
    address = await back_from_tenant(alice)
    assert (await alice.http.get(address)).status_code == 302

    again = await alice.http.get(address)
    assert (again.status_code, again.headers["Location"]) == (302, "/")
    assert await alice.claims()

    mallory = visitors("bob")
    stolen = await mallory.http.get(address)
    assert (stolen.status_code, code_of(stolen)) == (400, "missing_transaction")
    assert await mallory.claims() is None


async def test_a_callback_that_failed_cannot_be_used_again(
    alice: Visitor, tenant: Tenant
) -> None:
    address = await back_from_tenant(alice)
    tenant.fail("token", Fault.status(500))
    await alice.http.get(address)

    again = await alice.http.get(address)

    assert (again.status_code, code_of(again)) == (400, "missing_transaction")


async def test_somebody_elses_callback_signs_nobody_in(
    visitors: Visitors,
) -> None:
    alice, mallory = visitors("alice"), visitors("bob")
    await alice.start()
    address = await back_from_tenant(mallory)

    answer = await alice.http.get(address)

    assert answer.status_code == 400
    assert await alice.claims() is None


async def test_a_visitor_who_declines_can_try_again_for_the_same_page(
    alice: Visitor,
) -> None:
    page = await alice.start("/login?return_to=/profile")

    answer = await alice.follow(await alice.choose(page, action="deny"))

    assert (answer.status_code, code_of(answer)) == (403, "access_denied")
    assert 'href="/login?return_to=/profile"' in answer.text
    assert "User did not authorize the request" in answer.text
    await assert_can_sign_in(alice)


@pytest.mark.parametrize(
    ("error", "status", "code"),
    [
        ("access_denied", 403, "access_denied"),
        ("login_required", 403, "login_required"),
        ("interaction_required", 403, "interaction_required"),
        (SCRIPT, 403, "login_refused"),
        ("server_error", 403, "provider_unavailable"),
        ("temporarily_unavailable", 403, "provider_unavailable"),
    ],
)
async def test_what_the_provider_says_is_escaped(
    alice: Visitor, error: str, status: int, code: str
) -> None:
    began = await back_from_tenant(alice)
    state = parse_qs(urlsplit(began).query)["state"][0]

    answer = await alice.http.get(
        f"{alice.site}/callback",
        params={"state": state, "error": error, "error_description": SCRIPT},
    )

    assert (answer.status_code, code_of(answer)) == (status, code)
    assert "<script" not in answer.text
    await assert_can_sign_in(alice)


@pytest.mark.parametrize(
    "forgery",
    [
        "signature",
        "issuer",
        "audience",
        "algorithm",
        "none",
        "expired",
        "unknown_key",
        "no_iat",
        "absent",
    ],
)
async def test_a_wrong_id_token_signs_nobody_in(
    alice: Visitor, tenant: Tenant, forgery: str
) -> None:
    tenant.forge(forgery)

    answer = await alice.login()

    assert (answer.status_code, code_of(answer)) == (400, "invalid_token")
    assert await alice.claims() is None
    await assert_can_sign_in(alice)


@pytest.mark.parametrize("id_token", [None, "garbage"])
async def test_claims_that_nobody_signed_sign_nobody_in(
    alice: Visitor, tenant: Tenant, id_token: str | None
) -> None:
    address = await back_from_tenant(alice)
    answer = {"access_token": "x", "userinfo": {"sub": "auth0|admin"}}
    body = {**answer, "id_token": id_token} if id_token else answer
    tenant.fail("token", Fault.body(body, status=200))

    page = await alice.http.get(address)

    assert (page.status_code, code_of(page)) == (400, "invalid_token")
    assert await alice.claims() is None


async def test_a_second_login_that_fails_leaves_the_first_as_it_was(
    alice: Visitor, tenant: Tenant
) -> None:
    await alice.login()
    for forgery in ("absent", "signature"):
        address = await back_from_tenant_again(alice)
        tenant.forge(forgery)
        assert (await alice.http.get(address)).status_code == 400
        assert await alice.claims()


@pytest.mark.parametrize(
    "claims",
    [
        {"azp": "another-client"},
        {"sub": None},
        {"iss": "https://evil.example.com/"},
        {"aud": ["OURS", "another-client"], "azp": None},
        {"iat": 4_000_000_000},
    ],
)
async def test_an_id_token_with_wrong_claims_signs_nobody_in(
    alice: Visitor, tenant: Tenant, claims: dict[str, Any]
) -> None:
    if "aud" in claims:
        claims = {**claims, "aud": [tenant.client_id, *claims["aud"][1:]]}
    tenant.forge(claims=claims)

    answer = await alice.login()

    assert (answer.status_code, code_of(answer)) == (400, "invalid_token")
    assert await alice.claims() is None


@pytest.mark.parametrize("sub", ["", 7, ["auth0|alice"], None], ids=repr)
def test_an_id_token_that_names_nobody_signs_nobody_in(
    shop: Flask, tenant: Tenant, sub: object
) -> None:
    tenant.forge(claims={"sub": sub})
    shopper = Shopper(shop)

    answer = shopper.login()

    assert answer.status_code == 400
    assert "invalid_token" in answer.text
    assert shopper.client.get("/me").json == {}


def test_claims_of_odd_types_are_claims(
    shop: Flask, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    odd = {
        "name": 7,
        "email": ["a"],
        "email_verified": "perhaps",
        "picture": {"x": None},
        "org_id": 1,
        "auth_time": "never",
        "session_expiry": "x",
    }
    tenant.forge(claims=odd)
    shopper = Shopper(shop)

    assert shopper.login().status_code == 302

    user = shopper.client.get("/me").json or {}
    assert odd.items() <= user.items()
    assert user["sub"] == "auth0|alice"
    assert "failed" not in caplog.text


def test_a_flood_of_tokens_with_made_up_keys_fetches_few_keys(
    shop: Flask, tenant: Tenant
) -> None:
    client = shop.test_client()
    tenant.requests.clear()
    for _ in range(100):
        token = tenant.logout_token(sub="auth0|alice", forge="unknown_key")
        answer = client.post("/backchannel-logout", data={"logout_token": token})
        assert answer.status_code == 400

    assert tenant.count("/.well-known/jwks.json") <= 40


@pytest.mark.parametrize("kind", [flasks_own, in_redis])
@pytest.mark.parametrize("seconds", [0, 0.5], ids=["in turn", "at once"])
def test_a_callback_that_is_fetched_twice_signs_in_once(
    tenant: Tenant, seconds: float, kind: Any, request: pytest.FixtureRequest
) -> None:
    """A browser may, and shows the second answer; both are the same session."""
    shop = make_shop(auth, **kind(Flask("none"), request))
    shop.add_url_rule("/session", "session", lambda: auth.auth0.read_session() or {})
    shopper, began = Caller(shop, tenant), list[int]()
    shopper.username = "bob"
    shopper.login()
    assert shopper.client.get("/cart").text == "new"
    shopper.username = "alice"
    callback = shopper.sign_in("/login?return_to=/reports")
    tenant.requests.clear()

    def session_after(shopper: Shopper) -> Any:
        answer = shopper.client.get(callback)
        assert (answer.status_code, answer.location) == (302, "/reports")
        assert shopper.client.get("/cart").text == "new"  # Bob's is gone
        return shopper.client.get("/session").json

    if seconds:
        tenant.fail("token", Fault.slow(seconds))
    with (
        auth.user_logged_in.connected_to(lambda *_, **__: began.append(1), shop),
        ThreadPoolExecutor(2 if seconds else 1) as threads,
    ):
        twins = [shopper.twin(), shopper.twin()]
        first, second = threads.map(session_after, twins)

    assert first["user"]["sub"] == "auth0|alice"
    assert first == second
    assert len(began) == 1
    assert tenant.count("/oauth/token") == 1


@pytest.mark.parametrize("kind", [flasks_own, in_redis])
def test_a_script_that_is_late_does_not_sign_out_who_has_signed_in_again(
    tenant: Tenant, kind: Any, request: pytest.FixtureRequest
) -> None:
    """Such as one that polls in another tab, with the cookie of just before."""
    shop = make_shop(auth, **kind(Flask("none"), request))
    shop.add_url_rule("/me", "me", lambda: dict(auth.auth_user))
    alice = Shopper(shop)
    alice.login()
    late = alice.twin()
    alice.login()

    for mode, deleted in (("cors", False), ("navigate", True)):
        answer = late.client.get("/me", headers={"Sec-Fetch-Mode": mode})
        assert answer.json == {}
        assert ("Set-Cookie" in answer.headers) == deleted


@pytest.mark.parametrize("status", [429, 500, 503])
@pytest.mark.parametrize("error", ["invalid_grant", "access_denied", "too_many"])
def test_a_provider_that_is_overloaded_is_an_outage_whatever_its_body_says(
    shop: Flask, tenant: Tenant, status: int, error: str
) -> None:
    shopper = Shopper(shop)
    callback = shopper.sign_in()
    body, headers = json.dumps({"error": error}), {"Retry-After": "17"}
    tenant.fail(
        "token",
        Fault(lambda *_: Response(body, status, headers, "application/json")),
    )

    answer = shopper.client.get(callback)

    assert answer.status_code == 502
    assert "provider_unreachable" in answer.text
    assert answer.headers["Retry-After"] == "17"


def test_what_a_visitor_says_of_the_provider_changes_nothing(
    shop: Flask, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    for error in ("server_error", "temporarily_unavailable"):
        shopper = Shopper(shop)
        (state,) = parse_qs(urlsplit(shopper.start()).query)["state"]
        tenant.requests.clear()

        answer = shopper.client.get(f"/callback?state={state}&error={error}")
        shopper.start()

        assert answer.status_code == 403
        assert "provider_unavailable" in answer.text
        assert tenant.requests == []  # discovery is known as before
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []


@pytest.mark.parametrize(
    ("endpoint", "fault", "status", "code"),
    [
        ("token", Fault.status(500), 502, "provider_unreachable"),
        ("token", Fault.status(503), 502, "provider_unreachable"),
        ("token", Fault.status(429), 502, "provider_unreachable"),
        ("token", Fault.broken_json(), 502, "invalid_response"),
        ("token", Fault.reset(), 502, "provider_unreachable"),
        (
            "token",
            Fault.body({"error": "invalid_grant"}, status=403),
            400,
            "code_refused",
        ),
        (
            "token",
            Fault.body({"error": "access_denied"}, status=401),
            500,
            "client_refused",
        ),
        ("token", Fault.body({}, status=200), 400, "invalid_token"),
        (
            "token",
            Fault.body({"access_token": 1, "id_token": 2}, status=200),
            400,
            "invalid_token",
        ),
        ("jwks", Fault.status(500), 502, "provider_unreachable"),
        ("jwks", Fault.body({"keys": "none"}, status=200), 400, "invalid_token"),
    ],
    ids=[
        *("500", "503", "429", "broken JSON", "cut", "grant refused", "client refused"),
        *("no tokens", "odd tokens", "keys 500", "odd keys"),
    ],
)
async def test_a_provider_that_fails_signs_nobody_in_and_out(
    alice: Visitor,
    tenant: Tenant,
    endpoint: str,
    fault: Any,
    status: int,
    code: str,
    caplog: pytest.LogCaptureFixture,
) -> None:
    tenant.rotate_keys()
    address = await back_from_tenant(alice)
    tenant.fail(endpoint, fault, times=2)  # keys are asked for anew at times
    with caplog.at_level(logging.INFO):
        answer = await alice.http.get(address)

    assert (answer.status_code, code_of(answer)) == (status, code)
    assert (answer.headers.get("Retry-After") is not None) == (status == 502)
    reference = answer.text.partition("Reference: <code>")[2].partition("<")[0]
    assert len(reference) == 8
    assert reference in caplog.text
    assert tenant.client_secret not in caplog.text + answer.text
    tenant.clear_faults()
    await assert_can_sign_in(alice)


async def test_a_slow_token_endpoint_is_given_up_on(
    alice: Visitor, tenant: Tenant
) -> None:
    address = await back_from_tenant(alice)
    tenant.fail("token", Fault.slow(60))  # or until the tenant stops

    answer = await alice.http.get(address)

    assert (answer.status_code, code_of(answer)) == (502, "provider_unreachable")
    await assert_can_sign_in(alice)


@pytest.mark.parametrize(
    "fault",
    [
        Fault.status(500),
        Fault.broken_json(),
        Fault.reset(),
        Fault.body({}, status=200),
        Fault.body({"authorization_endpoint": 1}, status=200),
    ],
    ids=["500", "broken", "reset", "empty", "nonsense"],
)
async def test_discovery_that_fails_is_told_and_gets_well(
    alice: Visitor, tenant: Tenant, fault: Any, nothing_discovered: None
) -> None:
    tenant.fail("discovery", fault)

    answer = await alice.get("/login?return_to=/profile")

    assert answer.status_code == 502
    assert code_of(answer) in {"provider_unreachable", "invalid_response"}
    await assert_can_sign_in(alice)


@pytest.mark.parametrize(
    "cookie",
    [
        "session=garbage",
        "session=.eJw.a.b",
        "session=3~abc; session.1=x",
        "session=eyJfYTBfc2Vzc2lvbiI6ICJmb3JlaWduIn0.aSA.AAAA",
        "session_auth0=garbage",
        "session_auth0=",
        "session_auth0=eyJhbGciOiJkaXIifQ..AAAAAAAAAAAAAAAA.AAAA.AAAAAAAAAAAAAAAAAAAAAA",
        "session_auth0=3~abc",
        "session_auth0=9~abc; session_auth0.1=x",
        "session_auth0=%00%01",
        'session_auth0="quoted;',
        "session_auth0_tx0=garbage; session_auth0_tx1=x.garbage",
        "session_a0_tx.x=garbage",
        "=; ;;; a",
    ],
)
async def test_a_garbage_cookie_is_a_visitor_who_is_signed_out(
    alice: Visitor, cookie: str
) -> None:
    for path in ("/", "/api/me", "/profile", "/login", "/logout", "/callback?state=x"):
        answer = await alice.get(path, Cookie=cookie)
        assert answer.status_code in {200, 302, 400, 401}, path
    await assert_can_sign_in(alice)


async def test_a_signed_cookie_that_is_no_session_is_a_visitor_who_is_signed_out(
    alice: Visitor, app: Flask
) -> None:
    """As another use of the same key and salt might sign one."""
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    for data in ([1], "text", None, 7):
        answer = await alice.get("/api/me", Cookie=f"session={serializer.dumps(data)}")
        assert answer.status_code == 401, data


async def test_a_tampered_session_is_none_and_is_left_to_who_can_open_it(
    alice: Visitor,
) -> None:
    """It may be another machine's, which has a newer secret."""
    await alice.login()
    value = alice.cookies["session_auth0"]
    flipped = "A" if value[-30] != "A" else "B"
    tampered = value[:-30] + flipped + value[-29:]

    answer = await alice.get("/", Cookie=f"session_auth0={tampered}")

    assert "Sign in" in answer.text
    assert "Set-Cookie" not in answer.headers


def test_a_large_session_that_cannot_be_opened_keeps_nobody_from_signing_in(
    shop: Flask, tenant: Tenant
) -> None:
    """As after a change of AUTH0_SECRET; it stays until a login replaces it."""
    shopper = Shopper(shop)
    state = {"noise": token_hex(4_700)}
    value = f"3~{encrypt(STATE_KEY, state, [token_hex(32)])}"
    assert 7_000 < len(value) < 7_500
    for number in range(3):
        name = f"session_auth0.{number}" if number else "session_auth0"
        piece = value[3_000 * number : 3_000 * (number + 1)]
        shopper.client.set_cookie(name, piece)

    assert shopper.login().status_code == 302

    assert (shopper.client.get("/me").json or {})["sub"] == "auth0|alice"


PATHS = [
    "/",
    "/login",
    "/callback?state=x",
    "/profile",
    "/api/me",
    "/logout",
    "/healthz",
]


@pytest.mark.parametrize("path", PATHS)
async def test_head_starts_and_ends_nothing(alice: Visitor, path: str) -> None:
    await alice.login()
    before = alice.cookies

    answer = await alice.http.head(f"{alice.site}{path}")

    assert answer.status_code in {200, 204}
    assert alice.cookies == before
    assert await alice.claims()


@pytest.mark.parametrize("path", ["/login", "/logout"])
@pytest.mark.parametrize(
    "header",
    [
        {"Sec-Purpose": "prefetch;prerender"},
        {"Purpose": "prefetch"},
        {"X-Moz": "prefetch"},
    ],
)
async def test_a_prefetch_starts_and_ends_nothing(
    alice: Visitor, path: str, header: dict[str, str]
) -> None:
    await alice.login()

    answer = await alice.get(path, **header)

    assert answer.status_code == 204
    assert "Set-Cookie" not in answer.headers
    assert await alice.claims()


@pytest.mark.parametrize("path", PATHS)
async def test_post_is_not_for_any_of_these(alice: Visitor, path: str) -> None:
    answer = await alice.http.post(f"{alice.site}{path}", data={"a": SCRIPT})

    assert answer.status_code == 405
    assert "HEAD" in answer.headers["Allow"]
    assert "<script" not in answer.text


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost:abc", "[", "a b", SCRIPT]
)
@pytest.mark.parametrize("path", [*PATHS, "/nowhere"])
async def test_the_host_header_leads_nowhere(
    alice: Visitor, host: str, path: str
) -> None:
    answer = await alice.get(path, Host=host)

    assert answer.status_code < 500
    assert "evil" not in answer.text + str(answer.headers)
    assert "<script" not in answer.text


@pytest.mark.parametrize(
    "path",
    [
        "/" + SCRIPT,
        "/%00",
        "/%ff",
        "/..%2f..%2fetc/passwd",
        "/static/../app.py",
        "/login/x",
    ],
)
async def test_a_page_that_is_not_there(alice: Visitor, path: str) -> None:
    answer = await alice.get(path)

    assert answer.status_code == 404
    assert "<script" not in answer.text
    assert on_site(answer, alice.site)


async def test_programs_get_problem_json(alice: Visitor) -> None:
    for path, status in {"/api/me": 401, "/profile": 401, "/nowhere": 404}.items():
        answer = await alice.get(path, Accept="application/json")
        assert answer.status_code == status
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.json()["status"] == status
    assert "WWW-Authenticate" in (await alice.get("/api/me")).headers


async def test_every_page_carries_the_headers(alice: Visitor) -> None:
    await alice.login()
    for path in ("/", "/profile", "/api/me", "/nowhere", "/callback"):
        headers = (await alice.get(path)).headers
        assert headers["Cache-Control"].endswith("no-store")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        assert "default-src 'none'" in headers["Content-Security-Policy"]
        assert "frame-ancestors 'none'" in headers["Content-Security-Policy"]
        assert "script-src" not in headers["Content-Security-Policy"]


async def test_no_token_or_secret_is_logged_or_shown(
    alice: Visitor, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        address = await back_from_tenant(alice)
        tenant.forge("audience")
        failed = await alice.http.get(address)
        await alice.login()
        pages = [(await alice.get(path)).text for path in ("/", "/profile", "/api/me")]

    code = address.partition("code=")[2].partition("&")[0]
    said = "".join(
        record.getMessage()
        for record in caplog.records
        if record.name.startswith(("auth", "app"))
    )
    for text in (said, failed.text, *pages):
        assert code not in text
        assert tenant.client_secret not in text
        assert "eyJ" not in text


async def test_parameters_of_any_length_are_no_error(alice: Visitor) -> None:
    for name in ("organization", "invitation", "login_hint", "screen_hint", "prompt"):
        for value in ("x" * 6000, "字" * 512, "%00", "\u202e"):
            answer = await alice.http.get(f"{alice.site}/login", params={name: value})
            assert answer.status_code == 302, (name, value)
    languages = ", ".join("x" * 6000 for _ in range(3))
    answer = await alice.get("/login", **{"Accept-Language": languages[:8000]})
    assert len(answer.headers["Location"]) < 2000


async def test_healthz_touches_no_session(alice: Visitor) -> None:
    await alice.login()

    answer = await alice.get("/healthz")

    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert "Cookie" not in answer.headers.get("Vary", "")
    answer = await alice.get("/healthz", Cookie="session_auth0=garbage")
    assert "Set-Cookie" not in answer.headers
