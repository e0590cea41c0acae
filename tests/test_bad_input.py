"""What visitors and providers may send that they should not, and what it gets."""

from __future__ import annotations

import json
import logging
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from secrets import token_hex
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, session
from werkzeug.wrappers import Response

import auth
from auth0_flask import session_door
from auth0_flask.stores import base
from auth0_flask.stores.cookies import STATE_KEY
from auth0_flask.stores.encryption import encrypt
from auth0_flask.tenant import Fault, Tenant
from sdk_calls import Caller
from shop import copy_of_auth, make_shop
from test_tokens import KINDS, flasks_own, in_redis
from visitor import Shopper, code_of

SCRIPT = "<script>alert(1)</script>"
PATHS = ("/", "/login", "/callback?state=x", "/profile", "/api/me", "/logout")


@pytest.fixture
def alice(app: Flask, tenant: Tenant) -> Shopper:
    return Shopper(app)


def is_signed_in(shopper: Shopper) -> bool:
    return shopper.client.get("/api/me").status_code == 200


def can_sign_in(shopper: Shopper) -> bool:
    shopper.login()
    return is_signed_in(shopper)


def result(answer: Any) -> tuple[int, str]:
    """Return the status of a page and the code that it shows."""
    assert "<script" not in answer.text
    return answer.status_code, code_of(answer)


UNKNOWN, INCOMPLETE = (400, "missing_transaction"), (400, "incomplete_callback")


@pytest.mark.parametrize(
    ("query", "told"),
    [
        *((query, INCOMPLETE) for query in ("", "code=x", "state=")),
        *(("state=unknown", UNKNOWN), ("state=a&state=b&code=x", UNKNOWN)),
        (f"state={SCRIPT}&error=x&error_description={SCRIPT}", UNKNOWN),
        ("state=%00%ff%0d%0aSet-Cookie:x", UNKNOWN),
    ],
)
def test_a_callback_that_nobody_began(
    alice: Shopper, query: str, told: tuple[int, str]
) -> None:
    answer = alice.client.get(f"/callback?{query}")

    assert result(answer) == told
    assert "Try again" in answer.text
    assert can_sign_in(alice)


def test_a_callback_signs_in_once_and_where_its_login_began(
    alice: Shopper, app: Flask, tenant: Tenant
) -> None:
    callback, mallory = alice.sign_in(), Shopper(app, "bob")
    for _ in range(2):
        answer = alice.client.get(callback)
        assert (answer.status_code, answer.location) == (302, "/")
        assert is_signed_in(alice)
    mallory.start()
    get = mallory.client.get
    assert get(callback).location == "/"  # it has the cookie of another login

    callback = mallory.sign_in()
    tenant.fail("token", Fault.status(500))
    assert get(callback).status_code == 502
    assert get(callback).location == "/"
    assert not is_signed_in(mallory)
    assert can_sign_in(mallory)


CODES = {
    **{n: n for n in ("access_denied", "login_required", "interaction_required")},
    **dict.fromkeys(
        ("server_error", "temporarily_unavailable"), "provider_unavailable"
    ),
    "x" * 500: "login_refused",
}


@pytest.mark.parametrize("error", CODES)
def test_of_what_is_said_in_a_callback_little_is_shown_and_none_logged_or_believed(
    alice: Shopper, tenant: Tenant, error: str, caplog: pytest.LogCaptureFixture
) -> None:
    start = alice.start("/login?return_to=/profile")
    (state,) = parse_qs(urlsplit(start).query)["state"]
    said = {"error": error, "error_description": SCRIPT + "secret " * 100}
    tenant.requests.clear()

    page = alice.client.get("/callback", query_string={"state": state, **said})
    alice.start()

    assert result(page) == (403, CODES[error])
    assert "&lt;script&gt;" in page.text
    assert page.text.count("secret") == 39  # 300 characters
    assert 'href="/login?return_to=/profile' in page.text
    assert tenant.requests == []  # discovery is known as before
    assert "secret" not in caplog.text
    assert "x" * 60 not in caplog.text
    assert [r for r in caplog.records if r.levelno >= logging.ERROR] == []
    assert can_sign_in(alice)


MANY: dict[str, Any] = {"aud": [auth.settings.client_id, "another-client"], "azp": None}


@pytest.mark.parametrize(
    "wrong",
    [
        *("expired", "unknown_key", "absent", MANY, {"azp": "another-client"}),
        *({"iat": 4_000_000_000}, {"sub": ""}, {"sub": ["auth0|alice"]}),
        *({"nonce": nonce} for nonce in (None, 7, "\ud800")),
    ],
    ids=lambda wrong: str({**wrong, "aud": "two"} if wrong is MANY else wrong),
)
def test_a_wrong_id_token_signs_nobody_in_or_out(
    alice: Shopper, tenant: Tenant, wrong: Any
) -> None:
    """And those of `test_conformance.py`."""
    forged = {"kind": wrong} if isinstance(wrong, str) else {"claims": wrong}
    tenant.forge(**forged)
    assert result(alice.login()) == (400, "invalid_token")
    assert not is_signed_in(alice)
    assert can_sign_in(alice)

    tenant.forge(**forged)
    assert result(alice.login()) == (400, "invalid_token")
    assert is_signed_in(alice)  # as before


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
    tenant: Tenant,
    seconds: float,
    kind: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """A browser may, and shows the second answer; both are the same session."""
    monkeypatch.setattr(session_door, "LOGIN_SECONDS", 1)
    shop = make_shop(auth, lambda app: kind(app, request))
    shop.add_url_rule("/uid", "uid", lambda: str(session.get("uid")))
    shopper, began = Caller(shop, tenant), list[int]()
    shopper.username = "bob"
    shopper.login()
    assert shopper.client.get("/cart").text == "new"
    shopper.username = "alice"
    callback = shopper.sign_in("/login?return_to=/reports")

    def provision(sender: Flask, user: Any) -> None:
        began.append(1)
        session["uid"] = "of alice"
        time.sleep(seconds * 2)

    def session_after(shopper: Shopper) -> Any:
        answer = shopper.client.get(callback)
        assert (answer.status_code, answer.location) == (302, "/reports")
        assert shopper.client.get("/cart").text == "new"  # Bob's is gone
        assert shopper.client.get("/uid").text == "of alice"
        return shopper.session

    tenant.fail("token", Fault.status(503))
    assert shopper.twin().client.get(callback).status_code == 502  # which is no result
    tenant.requests.clear()
    tenant.fail("token", Fault.slow(seconds))
    with (
        auth.user_logged_in.connected_to(provision, shop),
        ThreadPoolExecutor(2 if seconds else 1) as threads,
    ):
        first, second = threads.map(session_after, [shopper.twin(), shopper.twin()])

    assert first["user"]["sub"] == "auth0|alice"
    assert first == second
    assert len(began) == tenant.count("/oauth/token") == 1


@pytest.mark.parametrize("kind", KINDS)
def test_an_answer_that_is_late_does_not_sign_out_who_has_signed_in_again(
    tenant: Tenant,
    kind: Any,
    request: pytest.FixtureRequest,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Such as that of a page which was left, with the cookie of just before."""
    monkeypatch.setattr(base, "_SLOW_SECONDS", 0)
    alice = Shopper(make_shop(auth, lambda app: kind(app, request)))
    alice.login()
    late = alice.twin()
    alice.login()

    answer = late.client.get("/me")
    assert (answer.json, "Set-Cookie" in answer.headers) == ({}, False)


def overloaded(status: int, error: str) -> Fault:
    body, wait = json.dumps({"error": error}), {"Retry-After": "17"}
    return Fault(lambda *_: Response(body, status, wait, "application/json"))


ODD, UNREACHABLE = (400, "invalid_token"), (502, "provider_unreachable")
NONSENSE = (502, "invalid_response")
UNSIGNED = {"access_token": "x", "userinfo": {"sub": "auth0|admin"}}
NO_GRANT = Fault.body({"error": "invalid_grant"}, status=403)
DENIED = Fault.body({"error": "access_denied"}, status=401)
FAILS: dict[str, tuple[str, Fault, tuple[int, str]]] = {
    "429": ("token", overloaded(429, "invalid_grant"), UNREACHABLE),
    "503": ("token", overloaded(503, "access_denied"), UNREACHABLE),
    "broken JSON": ("token", Fault.broken_json(), NONSENSE),
    "cut": ("token", Fault.reset(), UNREACHABLE),
    "grant refused": ("token", NO_GRANT, (400, "code_refused")),
    "client refused": ("token", DENIED, (500, "client_refused")),
    "odd tokens": ("token", Fault.body({"access_token": 1, "id_token": 2}), ODD),
    "unsigned": ("token", Fault.body(UNSIGNED), ODD),
    "keys 500": ("jwks", Fault.status(500), UNREACHABLE),
    "odd keys": ("jwks", Fault.body({"keys": "none"}), ODD),
    "discovery 500": ("discovery", Fault.status(500), UNREACHABLE),
    "no endpoint": ("discovery", Fault.body({"authorization_endpoint": 1}), NONSENSE),
}


@pytest.mark.parametrize("case", FAILS)
def test_a_provider_that_fails_signs_nobody_in_and_out(
    alice: Shopper, tenant: Tenant, case: str, caplog: pytest.LogCaptureFixture
) -> None:
    endpoint, fault, told = FAILS[case]
    path = "/login" if endpoint == "discovery" else alice.sign_in()
    auth.auth0.verifier.forget()
    tenant.fail(endpoint, fault, times=2)  # keys are asked for anew at times
    with caplog.at_level(logging.INFO):
        answer = alice.client.get(path)

    assert result(answer) == told
    assert ("Retry-After" in answer.headers) == (told[0] == 502)
    assert not case.isdecimal() or answer.headers["Retry-After"] == "17"
    reference = answer.text.partition("Reference: <code>")[2].partition("<")[0]
    assert len(reference) == 8
    assert reference in caplog.text
    tenant.clear_faults()
    assert can_sign_in(alice)


def test_new_keys_behind_a_broken_discovery_are_an_outage(
    alice: Shopper, tenant: Tenant
) -> None:
    alice.login()
    callback = alice.sign_in()
    tenant.rotate_keys()
    tenant.fail("discovery", Fault.broken_json())

    assert result(alice.client.get(callback)) == NONSENSE


def test_a_lock_that_cannot_be_released_does_not_hide_why_a_login_failed(
    tenant: Tenant, tmp_path: Path
) -> None:
    own = copy_of_auth({"AUTH0_REVOCATIONS_PATH": str(tmp_path / "file")})
    alice, cache = Shopper(make_shop(own)), tmp_path / "file-cache"
    callback = alice.sign_in()

    def lose_the_locks(*_: object) -> Response:
        cache.unlink()
        cache.mkdir()
        return Response("{}", 503)

    tenant.fail("token", Fault(lose_the_locks))
    answer = alice.client.get(callback, headers={"Accept": "application/json"})
    assert (answer.status_code, (answer.json or {})["code"]) == UNREACHABLE


def test_a_token_without_end_signs_nobody_in(alice: Shopper, tenant: Tenant) -> None:
    tenant.token_response_extra = {"expires_in": float("inf")}  # as 1e400 is read

    assert result(alice.login()) == NONSENSE


def test_a_large_session_that_cannot_be_opened_keeps_nobody_from_signing_in(
    shop: Flask, tenant: Tenant
) -> None:
    """As after a change of AUTH0_SECRET; it stays until a login replaces it."""
    shopper = Shopper(shop)
    state = {"noise": token_hex(4_700)}
    value = f"3~{encrypt(STATE_KEY, state, [token_hex(32)])}"
    assert 7_000 < len(value) < 7_500
    for number, name in enumerate(("", ".1", ".2")):
        piece = value[3_000 * number :][:3_000]
        shopper.client.set_cookie(f"session_auth0{name}", piece)

    assert shopper.login().status_code == 302

    assert shopper.user["sub"] == "auth0|alice"


def test_head_and_a_prefetch_start_and_end_nothing(alice: Shopper) -> None:
    alice.login()
    alice.client.get("/")  # the login has worked
    for path in PATHS:
        asked = alice.client.head(path)
        assert asked.status_code in {200, 204}, path
        assert "Set-Cookie" not in asked.headers, path
    for name in ("Sec-Purpose", "Purpose", "X-Moz"):
        for path in ("/login", "/logout"):
            asked = alice.client.get(path, headers={name: "prefetch;prerender"})
            assert asked.status_code == 204
            assert "Set-Cookie" not in asked.headers
    assert is_signed_in(alice)


@pytest.mark.parametrize("host", ["evil.example.com", "localhost:abc", "[", ".x", ".."])
def test_the_host_header_leads_nowhere(alice: Shopper, host: str) -> None:
    for accept in ("text/html", "application/json"):
        for path in (*PATHS, "/healthz", "/nowhere"):
            answer = alice.client.get(path, headers={"Host": host, "Accept": accept})
            assert result(answer)[0] < 500
            assert "evil" not in answer.text + str(answer.headers)
