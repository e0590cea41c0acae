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
from visitor import Shopper, Visitor, code_of

SCRIPT = "<script>alert(1)</script>"
PATHS = ("/", "/login", "/callback?state=x", "/profile", "/api/me", "/logout")


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


UNKNOWN, INCOMPLETE = (400, "missing_transaction"), (400, "incomplete_callback")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        *((query, INCOMPLETE) for query in ("", "code=x", "state=")),
        *(("state=unknown", UNKNOWN), ("state=unknown&code=x", UNKNOWN)),
        (f"state=x&error=x&error_description={SCRIPT}", UNKNOWN),
        (f"state={SCRIPT}", UNKNOWN),
        ("state=%00%ff%0d%0aSet-Cookie:x", UNKNOWN),
        *(("state=a&state=b", UNKNOWN), ("state=x&" * 1000, UNKNOWN)),
    ],
)
def test_a_callback_that_nobody_began(
    alice: Person, query: str, told: tuple[int, str]
) -> None:
    answer = alice.get(f"/callback?{query}")

    assert result(answer) == told
    assert "Try again" in answer.text
    assert alice.can_sign_in()


def test_a_callback_signs_in_once_and_where_its_login_began(
    alice: Person, app: Flask, tenant: Tenant
) -> None:
    callback, mallory = alice.sign_in(), Person(app, "bob")
    for _ in range(2):
        answer = alice.get(callback)
        assert (answer.status_code, answer.location) == (302, "/")
        assert alice.is_signed_in
    mallory.start()
    assert result(mallory.get(callback)) == UNKNOWN
    assert not mallory.is_signed_in

    callback = mallory.sign_in()
    tenant.fail("token", Fault.status(500))
    assert mallory.get(callback).status_code == 502
    assert result(mallory.get(callback)) == UNKNOWN
    assert result(mallory.get(mallory.sign_in().replace("code", "kode"))) == INCOMPLETE
    assert mallory.can_sign_in()


@pytest.mark.parametrize(
    ("error", "code"),
    [
        ("access_denied", "access_denied"),
        *((name, name) for name in ("login_required", "interaction_required")),
        (SCRIPT, "login_refused"),
        ("server_error", "provider_unavailable"),
        ("temporarily_unavailable", "provider_unavailable"),
    ],
)
def test_what_the_provider_says_is_escaped(
    alice: Person, error: str, code: str
) -> None:
    start = alice.start("/login?return_to=/profile")
    (state,) = parse_qs(urlsplit(start).query)["state"]
    told = {"state": state, "error": error, "error_description": SCRIPT}

    answer = alice.client.get("/callback", query_string=told)

    assert result(answer) == (403, code)
    assert "&lt;script&gt;" in answer.text
    assert 'href="/login?return_to=/profile"' in answer.text
    assert alice.can_sign_in()


NAMELESS = ("", 7, ["auth0|alice"])
MANY: dict[str, Any] = {"aud": [auth.settings.client_id, "another-client"], "azp": None}


@pytest.mark.parametrize(
    "wrong",
    [
        *("expired", "unknown_key", "absent", MANY, {"azp": "another-client"}),
        *({"iat": 4_000_000_000}, *({"sub": sub} for sub in NAMELESS)),
        *({"nonce": nonce} for nonce in (None, 7, "", "\ud800")),
    ],
    ids=lambda wrong: str({**wrong, "aud": "two"} if wrong is MANY else wrong),
)
def test_a_wrong_id_token_signs_nobody_in(
    alice: Person, tenant: Tenant, wrong: Any
) -> None:
    """And those of `test_conformance.py`."""
    tenant.forge(**({"kind": wrong} if isinstance(wrong, str) else {"claims": wrong}))

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
    tenant.requests.clear()
    for _ in range(100):
        token = {"logout_token": tenant.logout_token(sub="x", forge="unknown_key")}
        answer = shop.test_client().post("/backchannel-logout", data=token)
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
    assert len(began) == tenant.count("/oauth/token") == 1


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


def overloaded(status: int, error: str) -> Fault:
    body, wait = json.dumps({"error": error}), {"Retry-After": "17"}
    return Fault(lambda *_: Response(body, status, wait, "application/json"))


ODD, UNREACHABLE = (400, "invalid_token"), (502, "provider_unreachable")
UNSIGNED = {"access_token": "x", "userinfo": {"sub": "auth0|admin"}}
NO_GRANT = Fault.body({"error": "invalid_grant"}, status=403)
DENIED = Fault.body({"error": "access_denied"}, status=401)
FAILS: dict[str, tuple[str, Fault, tuple[int, str]]] = {
    "429": ("token", overloaded(429, "invalid_grant"), UNREACHABLE),
    "503": ("token", overloaded(503, "access_denied"), UNREACHABLE),
    "broken JSON": ("token", Fault.broken_json(), (502, "invalid_response")),
    "cut": ("token", Fault.reset(), UNREACHABLE),
    "silent": ("token", Fault.slow(60), UNREACHABLE),  # or until the tenant stops
    "grant refused": ("token", NO_GRANT, (400, "code_refused")),
    "client refused": ("token", DENIED, (500, "client_refused")),
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
    assert not case.isdecimal() or answer.headers["Retry-After"] == "17"
    reference = answer.text.partition("Reference: <code>")[2].partition("<")[0]
    assert len(reference) == 8
    assert reference in caplog.text
    tenant.clear_faults()
    assert alice.can_sign_in()


def test_a_token_that_never_ends_signs_nobody_in(alice: Person, tenant: Tenant) -> None:
    tenant.token_response_extra = {"expires_in": float("inf")}  # as 1e400 is read

    assert result(alice.login()) == (502, "invalid_response")


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
    for number, name in enumerate(
        ("session_auth0", "session_auth0.1", "session_auth0.2")
    ):
        piece = value[3_000 * number : 3_000 * (number + 1)]
        shopper.client.set_cookie(name, piece)

    assert shopper.login().status_code == 302

    assert (shopper.client.get("/me").json or {})["sub"] == "auth0|alice"


def test_head_and_a_prefetch_start_and_end_nothing(alice: Person) -> None:
    alice.login()
    alice.get("/")  # the login has worked
    before = alice.cookies
    for path in PATHS:
        assert alice.client.head(path).status_code in {200, 204}, path
        assert alice.cookies == before, path
    for name in ("Sec-Purpose", "Purpose", "X-Moz"):
        for path in ("/login", "/logout"):
            asked = alice.client.get(path, headers={name: "prefetch;prerender"})
            assert asked.status_code == 204
            assert "Set-Cookie" not in asked.headers
    assert alice.is_signed_in


@pytest.mark.parametrize(
    "host",
    [
        *("evil.example.com", "localhost:abc", "[", "a b", SCRIPT),
        *(".x", "a..b", "x" * 64, ".."),
    ],
)
async def test_the_host_header_leads_nowhere(
    visitors: Callable[..., Visitor], host: str
) -> None:
    visitor = visitors()
    for accept in ("text/html", "application/json"):
        for path in (*PATHS, "/healthz", "/nowhere"):
            answer = await visitor.get(path, Host=host, Accept=accept)
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
