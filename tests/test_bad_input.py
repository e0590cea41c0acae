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
from werkzeug.test import TestResponse
from werkzeug.wrappers import Response

import auth
from auth0_flask.stores.cookies import STATE_KEY
from auth0_flask.stores.encryption import encrypt
from auth0_flask.tenant import Fault, Tenant
from sdk_calls import Caller
from shop import make_shop
from test_tokens import flasks_own, in_redis
from visitor import Shopper, Visitor, code_of, http_browser

SCRIPT = "<script>alert(1)</script>"
PATHS = (
    "/",
    "/login",
    "/callback?state=x",
    "/profile",
    "/api/me",
    "/logout",
    "/healthz",
)


class Person(Shopper):
    """Somebody at a browser of the demo."""

    def __init__(self, app: Flask, username: str = "alice") -> None:
        super().__init__(app, username)
        self.client.environ_base["HTTP_ACCEPT"] = "text/html"

    def get(self, path: str) -> TestResponse:
        return self.client.get(path)

    @property
    def is_signed_in(self) -> bool:
        status = self.get("/api/me").status_code
        assert status in {200, 401}
        return status == 200

    @property
    def cookies(self) -> dict[str, str]:
        return {c.key: c.value for c in (self.client._cookies or {}).values()}

    def can_sign_in(self) -> bool:
        self.login()
        return self.is_signed_in


@pytest.fixture
def alice(app: Flask, tenant: Tenant) -> Person:
    return Person(app)


def result(answer: Any) -> tuple[int, str]:
    """Return the status of a page and the code that it shows."""
    assert "<script" not in answer.text
    return answer.status_code, code_of(answer)


@pytest.mark.parametrize(
    ("query", "code"),
    [
        ("", "incomplete_callback"),
        ("?code=x", "incomplete_callback"),
        ("?state=", "incomplete_callback"),
        ("?state=unknown", "missing_transaction"),
        ("?state=unknown&code=x", "missing_transaction"),
        (f"?state=x&error=x&error_description={SCRIPT}", "missing_transaction"),
        (f"?state={SCRIPT}", "missing_transaction"),
        ("?state=%00%ff%0d%0aSet-Cookie:x", "missing_transaction"),
        ("?state=a&state=b", "missing_transaction"),
        ("?" + "state=x&" * 1000, "missing_transaction"),
    ],
)
def test_a_callback_that_nobody_began(alice: Person, query: str, code: str) -> None:
    answer = alice.get(f"/callback{query}")

    assert result(answer) == (400, code)
    assert "Try again" in answer.text
    assert alice.can_sign_in()


def test_a_callback_used_twice(alice: Person, app: Flask) -> None:
    callback = alice.sign_in()
    for _ in range(2):
        answer = alice.get(callback)
        assert (answer.status_code, answer.location) == (302, "/")
        assert alice.is_signed_in

    mallory = Person(app, "bob")
    assert result(mallory.get(callback)) == (400, "missing_transaction")
    assert not mallory.is_signed_in


def test_a_callback_that_failed_cannot_be_used_again(
    alice: Person, tenant: Tenant
) -> None:
    callback = alice.sign_in()
    tenant.fail("token", Fault.status(500))
    assert alice.get(callback).status_code == 502
    assert result(alice.get(callback)) == (400, "missing_transaction")

    without = alice.sign_in().replace("code=", "kode=")
    assert result(alice.get(without)) == (400, "incomplete_callback")
    assert alice.can_sign_in()


def test_somebody_elses_callback_signs_nobody_in(alice: Person, app: Flask) -> None:
    alice.start()

    assert alice.get(Person(app, "bob").sign_in()).status_code == 400
    assert not alice.is_signed_in


def test_a_visitor_who_declines_can_try_again_for_the_same_page(alice: Person) -> None:
    with http_browser() as http:
        page = http.get(alice.start("/login?return_to=/profile"), follow_redirects=True)
        form = {**page.url.params, "action": "deny"}
        back = http.post(page.url.copy_with(query=None), data=form)

    answer = alice.get(back.headers["Location"])

    assert result(answer) == (403, "access_denied")
    assert 'href="/login?return_to=/profile"' in answer.text
    assert "User did not authorize the request" in answer.text
    assert alice.can_sign_in()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        *((same, same) for same in ("access_denied", "login_required")),
        ("interaction_required", "interaction_required"),
        (SCRIPT, "login_refused"),
        ("server_error", "provider_unavailable"),
        ("temporarily_unavailable", "provider_unavailable"),
    ],
)
def test_what_the_provider_says_is_escaped(
    alice: Person, error: str, code: str
) -> None:
    (state,) = parse_qs(urlsplit(alice.start()).query)["state"]
    told = {"state": state, "error": error, "error_description": SCRIPT}

    answer = alice.client.get("/callback", query_string=told)

    assert result(answer) == (403, code)
    assert alice.can_sign_in()


@pytest.mark.parametrize(
    "forgery",
    [
        *("signature", "issuer", "audience", "algorithm", "none", "expired"),
        *("unknown_key", "no_iat", "absent"),
    ],
)
def test_a_wrong_id_token_signs_nobody_in(
    alice: Person, tenant: Tenant, forgery: str
) -> None:
    tenant.forge(forgery)

    assert result(alice.login()) == (400, "invalid_token")
    assert not alice.is_signed_in
    assert alice.can_sign_in()


def test_a_second_login_that_fails_leaves_the_first_as_it_was(
    alice: Person, tenant: Tenant
) -> None:
    alice.login()
    for forgery in ("absent", "signature"):
        tenant.forge(forgery)
        assert alice.login().status_code == 400
        assert alice.is_signed_in


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
def test_an_id_token_with_wrong_claims_signs_nobody_in(
    alice: Person, tenant: Tenant, claims: dict[str, Any]
) -> None:
    if "aud" in claims:
        claims = {**claims, "aud": [tenant.client_id, *claims["aud"][1:]]}
    tenant.forge(claims=claims)

    assert result(alice.login()) == (400, "invalid_token")
    assert not alice.is_signed_in


@pytest.mark.parametrize("sub", ["", 7, ["auth0|alice"], None], ids=repr)
def test_an_id_token_that_names_nobody_signs_nobody_in(
    alice: Person, tenant: Tenant, sub: object
) -> None:
    tenant.forge(claims={"sub": sub})

    assert result(alice.login()) == (400, "invalid_token")
    assert not alice.is_signed_in


def test_claims_of_odd_types_are_claims(
    shop: Flask, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    odd: dict[str, Any] = {"name": 7, "email": ["a"], "email_verified": "perhaps"}
    odd |= {"picture": {"x": None}, "org_id": 1, "session_expiry": "x"}
    odd |= {"auth_time": "never"}
    tenant.forge(claims=odd)
    shopper = Shopper(shop)

    assert shopper.login().status_code == 302

    user = shopper.client.get("/me").json or {}
    assert {**odd, "sub": "auth0|alice"}.items() <= user.items()
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
    alice: Person, tenant: Tenant, status: int, error: str
) -> None:
    callback, body = alice.sign_in(), json.dumps({"error": error})
    answer = Response(body, status, {"Retry-After": "17"}, "application/json")
    tenant.fail("token", Fault(lambda *_: answer))

    page = alice.get(callback)

    assert result(page) == (502, "provider_unreachable")
    assert page.headers["Retry-After"] == "17"


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


ODD, UNREACHABLE = (400, "invalid_token"), (502, "provider_unreachable")
UNSIGNED = {"access_token": "x", "userinfo": {"sub": "auth0|admin"}}
FAILS: dict[str, tuple[str, Fault, tuple[int, str]]] = {
    "500": ("token", Fault.status(500), UNREACHABLE),
    "broken JSON": ("token", Fault.broken_json(), (502, "invalid_response")),
    "cut": ("token", Fault.reset(), UNREACHABLE),
    "silent": ("token", Fault.slow(60), UNREACHABLE),  # or until the tenant stops
    "grant refused": (
        *("token", Fault.body({"error": "invalid_grant"}, status=403)),
        (400, "code_refused"),
    ),
    "client refused": (
        *("token", Fault.body({"error": "access_denied"}, status=401)),
        (500, "client_refused"),
    ),
    "no tokens": ("token", Fault.body({}), ODD),
    "odd tokens": ("token", Fault.body({"access_token": 1, "id_token": 2}), ODD),
    "unsigned": ("token", Fault.body(UNSIGNED), ODD),
    "garbage": ("token", Fault.body({**UNSIGNED, "id_token": "garbage"}), ODD),
    "keys 500": ("jwks", Fault.status(500), UNREACHABLE),
    "odd keys": ("jwks", Fault.body({"keys": "none"}), ODD),
}


@pytest.mark.parametrize("case", FAILS)
def test_a_provider_that_fails_signs_nobody_in_and_out(
    alice: Person, tenant: Tenant, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, fault, told = FAILS[case]
    tenant.rotate_keys()
    callback = alice.sign_in()
    tenant.fail(endpoint, fault, times=2)  # keys are asked for anew at times
    with caplog.at_level(logging.INFO):
        answer = alice.get(callback)

    assert result(answer) == told
    assert ("Retry-After" in answer.headers) == (told[0] == 502)
    reference = answer.text.partition("Reference: <code>")[2].partition("<")[0]
    assert len(reference) == 8
    assert reference in caplog.text
    assert tenant.client_secret not in caplog.text + answer.text
    tenant.clear_faults()
    assert alice.can_sign_in()


@pytest.mark.parametrize(
    "fault",
    [
        *(Fault.status(500), Fault.broken_json(), Fault.reset(), Fault.body({})),
        Fault.body({"authorization_endpoint": 1}),
    ],
    ids=["500", "broken", "reset", "empty", "nonsense"],
)
def test_discovery_that_fails_is_told_and_gets_well(
    alice: Person, tenant: Tenant, fault: Fault, nothing_discovered: None
) -> None:
    tenant.fail("discovery", fault)

    status, code = result(alice.get("/login?return_to=/profile"))

    assert status == 502
    assert code in {"provider_unreachable", "invalid_response"}
    assert alice.can_sign_in()


def get_with(app: Flask, path: str, cookie: str) -> TestResponse:
    """Ask for a page with just this in the header Cookie."""
    client = app.test_client(use_cookies=False)
    return client.get(path, headers={"Cookie": cookie})


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
def test_a_garbage_cookie_is_a_visitor_who_is_signed_out(
    app: Flask, tenant: Tenant, cookie: str
) -> None:
    for path in PATHS:
        answer = get_with(app, path, cookie)
        assert answer.status_code in {200, 302, 400, 401}, path
    assert get_with(app, "/api/me", cookie).status_code == 401


def test_a_signed_cookie_that_is_no_session_is_a_visitor_who_is_signed_out(
    app: Flask,
) -> None:
    """As another use of the same key and salt might sign one."""
    serializer = SecureCookieSessionInterface().get_signing_serializer(app)
    assert serializer
    for data in ([1], "text", None, 7):
        cookie = f"session={serializer.dumps(data)!s}"
        assert get_with(app, "/api/me", cookie).status_code == 401, data


def test_a_tampered_session_is_none_and_is_left_to_who_can_open_it(
    alice: Person, app: Flask
) -> None:
    """It may be another machine's, which has a newer secret."""
    alice.login()
    value = alice.cookies["session_auth0"]
    flipped = "A" if value[-30] != "A" else "B"

    cookie = f"session_auth0={value[:-30]}{flipped}{value[-29:]}"
    answer = get_with(app, "/", cookie)

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


def test_head_starts_and_ends_nothing(alice: Person) -> None:
    alice.login()
    alice.get("/")  # the login has worked
    before = alice.cookies
    for path in PATHS:
        assert alice.client.head(path).status_code in {200, 204}, path
        assert alice.cookies == before, path
    assert alice.is_signed_in


@pytest.mark.parametrize(
    ("name", "value"),
    [
        *(("Sec-Purpose", "prefetch;prerender"), ("Purpose", "prefetch")),
        ("X-Moz", "prefetch"),
    ],
)
def test_a_prefetch_starts_and_ends_nothing(
    alice: Person, name: str, value: str
) -> None:
    alice.login()
    for path in ("/login", "/logout"):
        answer = alice.client.get(path, headers={name: value})
        assert answer.status_code == 204
        assert "Set-Cookie" not in answer.headers
    assert alice.is_signed_in


def test_post_is_not_for_any_of_these(alice: Person) -> None:
    for path in PATHS:
        answer = alice.client.post(path, data={"a": SCRIPT})
        assert result(answer)[0] == 405
        assert "HEAD" in answer.headers["Allow"]


@pytest.mark.parametrize(
    "host", ["evil.example.com", "localhost:abc", "[", "a b", SCRIPT]
)
async def test_the_host_header_leads_nowhere(
    visitors: Callable[..., Visitor], host: str
) -> None:
    visitor = visitors()
    for path in (*PATHS, "/nowhere"):
        answer = await visitor.get(path, Host=host)
        assert result(answer)[0] < 500
        assert "evil" not in answer.text + str(answer.headers)


async def test_a_page_that_is_not_there(visitors: Callable[..., Visitor]) -> None:
    visitor = visitors()
    ways_up = ("/..%2f..%2fetc/passwd", "/static/../app.py")
    for path in (f"/{SCRIPT}", "/%00", "/%ff", "/login/x", *ways_up):
        assert result(await visitor.get(path))[0] == 404, path


def test_programs_get_problem_json(alice: Person) -> None:
    alice.client.environ_base["HTTP_ACCEPT"] = "application/json"
    for path, status in {"/api/me": 401, "/profile": 401, "/nowhere": 404}.items():
        answer = alice.get(path)
        assert answer.headers["Content-Type"] == "application/problem+json"
        assert answer.status_code == (answer.json or {})["status"] == status
        assert ("WWW-Authenticate" in answer.headers) == (status == 401)


def test_every_page_carries_the_headers(alice: Person) -> None:
    alice.login()
    for path in ("/", "/profile", "/api/me", "/nowhere", "/callback"):
        headers = alice.get(path).headers
        assert headers["Cache-Control"].endswith("no-store")
        assert headers["X-Content-Type-Options"] == "nosniff"
        assert headers["Referrer-Policy"] == "same-origin"
        policy = headers["Content-Security-Policy"]
        assert "default-src 'none'" in policy
        assert "frame-ancestors 'none'" in policy
        assert "script-src" not in policy


def test_no_token_or_secret_is_logged_or_shown(
    alice: Person, tenant: Tenant, caplog: pytest.LogCaptureFixture
) -> None:
    with caplog.at_level(logging.DEBUG):
        callback = alice.sign_in()
        tenant.forge("audience")
        failed = alice.get(callback)
        alice.login()
        pages = [alice.get(path).text for path in ("/", "/profile", "/api/me")]

    code = parse_qs(urlsplit(callback).query)["code"][0]
    ours = [r for r in caplog.records if r.name.startswith(("auth", "app"))]
    said = "".join(record.getMessage() for record in ours)
    for text in (said, failed.text, *pages):
        assert code not in text
        assert tenant.client_secret not in text
        assert "eyJ" not in text


def test_parameters_of_any_length_are_no_error(alice: Person) -> None:
    for name in ("organization", "invitation", "login_hint", "screen_hint", "prompt"):
        for value in ("x" * 6000, "字" * 512, "\x00", "\u202e"):
            answer = alice.client.get("/login", query_string={name: value})
            assert answer.status_code == 302, (name, value)
    languages = ", ".join("x" * 2600 for _ in range(3))
    answer = alice.client.get("/login", headers={"Accept-Language": languages})
    assert len(answer.location) < 2000


def test_healthz_touches_no_session(alice: Person, app: Flask) -> None:
    alice.login()
    garbage = get_with(app, "/healthz", "session_auth0=garbage")
    for answer in (alice.get("/healthz"), garbage):
        assert answer.status_code == 200
        assert "Set-Cookie" not in answer.headers
        assert "Cookie" not in answer.headers.get("Vary", "")
