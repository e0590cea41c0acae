"""Logout that stays logout: copies, late answers, everywhere, and from Auth0."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import sys
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from functools import partial
from io import BytesIO
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from auth0_server_python.error import BackchannelLogoutError
from click.testing import Result
from flask import Flask
from flask_wtf import CSRFProtect
from werkzeug.test import TestResponse

import auth
from app import create_app
from auth0_flask import SetupError, create_blueprint
from auth0_flask.tenant import Fault, Tenant
from conftest import SITE, Clock
from shop import copy_of_auth, make_shop
from visitor import Shopper, http_browser, sign_in

SAME = {"Sec-Fetch-Site": "same-origin"}


def signed_in(shop: Flask, username: str = "alice") -> Shopper:
    """Return somebody who has signed in."""
    shopper = Shopper(shop, username)
    shopper.login()
    return shopper


@pytest.fixture
def alice(shop: Flask, tenant: Tenant) -> Shopper:
    """Alice, signed in."""
    return signed_in(shop)


def who(shopper: Shopper) -> str:
    """Say who the app takes somebody for."""
    return str(shopper.user.get("sub", "nobody"))


@contextmanager
def held(
    tenant: Tenant, endpoint: str, ask: Callable[[], TestResponse]
) -> Iterator[Future[TestResponse]]:
    """Ask for a page, and hold what the tenant answers until the block ends."""
    asked, may_answer = threading.Event(), threading.Event()

    def wait(*_: object) -> None:
        asked.set()
        may_answer.wait(7)

    tenant.fail(endpoint, Fault(wait))
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(ask)
        assert asked.wait(10)
        yield answer
        may_answer.set()


def test_the_logout_that_ends_a_session_revokes_and_tells_and_no_copy_does(
    alice: Shopper, shop: Flask, tenant: Tenant
) -> None:
    told: list[str] = []
    copies = [alice.twin() for _ in range(5)]

    def note(sender: Flask, user: dict[str, Any]) -> None:
        told.append(user["sub"])

    with auth.user_logged_out.connected_to(note, shop):
        with held(tenant, "revoke", lambda: alice.client.get("/logout")) as logout:
            sub_of_copy = who(copies[0])
        for away in (logout.result(15), *[c.client.get("/logout") for c in copies]):
            assert "/v2/logout" in away.location

    assert sub_of_copy == "nobody"  # before Auth0 has answered
    assert told == ["auth0|alice"]
    assert tenant.count("/oauth/revoke") == 1


def test_a_clock_that_is_behind_ends_what_began_elsewhere(
    alice: Shopper, shop: Flask, clock: Clock
) -> None:
    copy, phone, tablet = alice.twin(), signed_in(shop), signed_in(shop)

    clock.forward(-30)
    assert alice.client.get("/logout").location
    assert phone.client.post("/logout/everywhere", headers=SAME).location
    clock.forward(30)

    assert (who(copy), who(tablet)) == ("nobody", "nobody")


@pytest.mark.parametrize("is_shared", [True, False])
def test_two_apps_with_one_client_share_logouts_or_are_told_how(
    tenant: Tenant,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
    is_shared: bool,
) -> None:
    monkeypatch.delitem(sys.modules, "pytest")  # each keeps a file of its own
    path = str(tmp_path / "revocations") if is_shared else ""
    own = copy_of_auth({"AUTH0_REVOCATIONS_PATH": path})
    one, two = [Flask(n, instance_path=str(tmp_path / n)) for n in ("one", "two")]
    for each in (one, two):
        own.init_app(each).register_blueprint(own.routes)
        each.add_url_rule("/me", view_func=lambda: dict(own.auth_user))
        each.extensions["auth0"].shared_store.check()  # a session has to be younger
    alice = signed_in(one)
    copy = alice.twin(two)
    assert who(copy) == "auth0|alice"
    alice.client.get("/logout")

    assert (who(copy) == "nobody") == is_shared
    assert ("Set AUTH0_REVOCATIONS_PATH" in caplog.text) == (not is_shared)


def test_a_logout_under_another_name_is_not_prefetched_and_needs_no_session(
    shop: Flask,
) -> None:
    shop.register_blueprint(auth.routes, name="de", url_prefix="/de")
    alice = Shopper(shop)
    auth.login_as(alice.client, sub="auth0|alice")
    alice.client.get("/de/logout", headers={"Sec-Purpose": "prefetch"})
    assert who(alice) == "auth0|alice"

    address = httpx.URL(shop.test_client().get("/de/logout?federated").location)
    assert address.path == "/v2/logout"
    assert address.params["returnTo"] == f"{SITE}/"
    assert "federated" in address.params


#: What another site, or no browser at all, may send.
FOREIGN = [
    *({"Sec-Fetch-Site": site} for site in ("cross-site", "same-site", "none")),
    *({"Origin": origin} for origin in ("https://evil.example.com", "null")),
    {},
]


def test_another_site_cannot_press_that_button(shop: Flask) -> None:
    alice = Shopper(shop)
    auth.login_as(alice.client, sub="auth0|alice")
    press = partial(alice.client.post, "/logout/everywhere", base_url=SITE)
    for headers in FOREIGN:
        assert press(headers=headers).status_code == 403, headers
        assert who(alice) == "auth0|alice"

    # an old browser, and one told Referrer-Policy: no-referrer
    for headers in ({"Origin": SITE}, {**SAME, "Origin": "null"}):
        auth.login_as(alice.client, sub="auth0|alice")
        assert press(headers=headers).status_code == 303, headers
        assert who(alice) == "nobody"


# From Auth0


def tell(shop: Flask, token: str | None) -> TestResponse:
    """Do what Auth0 does when a session ends there."""
    data = {"logout_token": token} if token is not None else {}
    return shop.test_client().post("/backchannel-logout", data=data)


@pytest.mark.parametrize("is_flask_wtf", [True, False])
@pytest.mark.parametrize("is_first", [True, False])
def test_an_app_with_csrf_protection_takes_what_auth0_sends(
    tenant: Tenant, is_flask_wtf: bool, is_first: bool
) -> None:
    app, routes = Flask("shop"), create_blueprint()
    routes.add_url_rule("/mine", "mine", lambda: "mine", methods=["POST"])
    if not is_first:
        auth.init_app(app).register_blueprint(routes)
    if is_flask_wtf:
        CSRFProtect(app)  # type: ignore[no-untyped-call]  # it has no types
    else:
        app.extensions["csrf"] = object()
    if is_first:
        auth.init_app(app).register_blueprint(routes)

    assert tell(app, tenant.logout_token(sub="auth0|alice")).status_code == 200
    assert app.test_client().post("/logout/everywhere").status_code == 403
    mine = app.test_client().post("/mine")
    assert mine.status_code == (400 if is_flask_wtf else 200)


def test_while_a_file_is_away_who_signed_out_is_nobody(
    tenant: Tenant, tmp_path: Path
) -> None:
    path, cache = [tmp_path / f"revocations{end}" for end in ("", "-cache")]
    shop = make_shop(own := copy_of_auth({"AUTH0_REVOCATIONS_PATH": str(path)}))

    @shop.get("/bye")
    async def bye() -> str:
        await own.auth0.logout()
        return f"bye, {own.auth_user.get('sub', 'nobody')}"

    alice, bob = signed_in(shop), signed_in(shop, "bob")
    copy = alice.twin()
    cache.unlink()
    cache.mkdir()  # which may be lost
    assert alice.client.post("/logout/everywhere", headers=SAME).status_code == 303
    assert who(copy) == "nobody"
    path.unlink()
    path.mkdir()

    assert bob.client.get("/bye").text == "bye, nobody"


def test_a_session_that_ended_at_auth0_begins_no_more_here(
    shop: Flask, tenant: Tenant
) -> None:
    """A code may be under way when the logout token of its session comes."""
    alice = Shopper(shop)
    with http_browser() as browser:
        alice.client.get(sign_in(browser, alice.start(), "alice"))
        sid = alice.session["user"]["sid"]
        late = browser.get(alice.start()).headers["Location"]

    assert tell(shop, tenant.logout_token(sid=sid)).status_code == 200
    page = alice.client.get(late)

    assert page.status_code == 400
    assert "You signed out while this sign-in was running" in page.text
    assert who(alice) == "nobody"
    alice.login()
    assert alice.session["user"]["sid"] != sid


def by_the_sdk(shop: Flask, token: str) -> None:
    with shop.app_context():
        asyncio.run(auth.auth0.handle_backchannel_logout(token))


EVENT = "http://schemas.openid.net/event/backchannel-logout"
WRONG: list[dict[str, Any]] = [
    *({"forge": kind} for kind in ("signature", "unknown_key", "algorithm", "none")),
    *({"forge": kind} for kind in ("issuer", "audience", "expired", "no_iat")),
    *({"claims": {"iat": seconds}} for seconds in (-125, 65)),  # from now
    *({"claims": {name: None}} for name in ("exp", "sub", "jti", "events")),
    *({"claims": claim} for claim in ({"nonce": "n"}, {"sid": 7}, {"jti": ""})),
    *({"claims": {"events": {}}}, {"claims": {"events": [EVENT]}}),
    {"claims": {"iss": "in capitals"}},
    *({"header": h} for h in ({"typ": "JWT"}, {"typ": "at+jwt"}, {"alg": "RS512"})),
]


@pytest.mark.parametrize("wrong", WRONG, ids=str)
def test_every_step_of_the_validation_refuses(
    shop: Flask, tenant: Tenant, wrong: dict[str, Any]
) -> None:
    alice, claims = Shopper(shop), wrong.get("claims", {})
    auth.login_as(alice.client, sub="auth0|alice")
    if "iat" in claims:
        wrong = {"claims": {"iat": int(time.time()) + claims["iat"]}}
    if "iss" in claims:
        wrong = {"claims": {"iss": tenant.issuer.upper()}}
    token = tenant.logout_token(sub="auth0|alice", **wrong)

    answer = tell(shop, token)

    assert answer.status_code == 400
    assert (answer.json or {})["error"] == "invalid_request"
    assert answer.headers["Cache-Control"] == "no-store"
    with pytest.raises((BackchannelLogoutError, jwt.PyJWTError)):
        by_the_sdk(shop, token)
    assert who(alice) == "auth0|alice"


def test_a_logout_token_counts_once(
    alice: Shopper, shop: Flask, tenant: Tenant
) -> None:
    # its type may be absent, and in any case
    by_route, by_sdk = [
        tenant.logout_token(sub="auth0|alice", header={"typ": typ})
        for typ in (None, "LOGOUT+JWT")
    ]
    answer = tell(shop, by_route)
    assert (answer.status_code, answer.data) == (200, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert who(alice) == "nobody"
    alice.login()
    by_the_sdk(shop, by_sdk)
    assert who(alice) == "nobody"
    alice.login()

    assert tell(shop, by_route).status_code == 400
    with pytest.raises(BackchannelLogoutError, match="used before"):
        by_the_sdk(shop, by_sdk)
    assert who(alice) == "auth0|alice"


def test_a_key_that_auth0_withdrew_is_good_for_ten_minutes_at_most(
    shop: Flask, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [tenant.logout_token(sub="auth0|alice") for _ in range(2)]
    now = time.monotonic
    auth.auth0.verifier.forget()

    assert tell(shop, tokens[0]).status_code == 200
    tenant.rotate_keys()
    monkeypatch.setattr(time, "monotonic", lambda: now() + 601)
    assert tell(shop, tokens[1]).status_code == 400


def test_whatever_else_is_posted_signs_nobody_out(
    alice: Shopper, shop: Flask, tenant: Tenant
) -> None:
    id_token = alice.session["id_token"]
    for token in (None, "garbage", "a.b.c", "x" * 9000, "é", id_token):
        answer = tell(shop, token)
        assert answer.status_code == 400
        assert (answer.json or {})["error"] == "invalid_request"
    form = {"logout_token": tenant.logout_token(sub="auth0|bob")}
    answer = alice.client.post("/backchannel-logout", data=form)
    assert (answer.status_code, "Set-Cookie" in answer.headers) == (200, False)
    assert who(alice) == "auth0|alice"


def test_of_a_long_body_nothing_is_kept(shop: Flask) -> None:
    for length in ({"wsgi.input_terminated": True}, {"CONTENT_LENGTH": "8193"}):
        body = BytesIO(b"x" * 1_000_000)
        sent = {"wsgi.input": body, **length}
        answer = shop.test_client().post("/backchannel-logout", environ_overrides=sent)

        assert answer.status_code == 400
        assert "The request is too long." in answer.text
        assert body.tell() < 100_000


# What cannot be written down


@pytest.mark.parametrize("secure", [False, True])
def test_what_tells_of_that_is_as_safe_as_the_session(secure: bool) -> None:
    site = f"{'https' if secure else 'http'}://localhost"
    alice = Shopper(create_app({"SESSION_COOKIE_SECURE": secure}))
    auth.login_as(alice.client)
    path = os.environ["AUTH0_REVOCATIONS_PATH"]
    with closing(sqlite3.connect(path, isolation_level=None)) as stuck:
        stuck.execute("BEGIN EXCLUSIVE")
        cookies = alice.client.get("/logout", base_url=site).headers.getlist(
            "Set-Cookie"
        )

    name = "__Host-signed_out_here_only" if secure else "signed_out_here_only"
    (told,) = [cookie for cookie in cookies if cookie.startswith(f"{name}=1;")]
    attributes = {part.partition("=")[0] for part in told.split("; ")[1:]}
    safe = {"Expires", "Max-Age", "HttpOnly", "Path", "SameSite"}
    assert attributes == (safe | {"Secure"} if secure else safe)
    assert "Path=/;" in told
    warning = "They stay valid until they expire"
    assert warning in alice.client.get("/", base_url=site).text
    auth.login_as(alice.client)  # and again, within the minute
    assert warning not in alice.client.get("/", base_url=site).text


def test_a_folder_that_cannot_be_written_is_told_at_start(
    tenant: Tenant, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "file").write_text("not a folder")
    path = str(tmp_path / "file" / "revocations.sqlite3")
    own = copy_of_auth({"AUTH0_REVOCATIONS_PATH": path})
    monkeypatch.delenv("PYTEST_VERSION")  # as a server starts it

    with pytest.raises(SetupError) as told:
        make_shop(own)
    assert f"AUTH0_REVOCATIONS_PATH: {path} cannot be written" in str(told.value)


# By an operator


def revoke(shop: Flask, *words: str) -> Result:
    return shop.test_cli_runner().invoke(args=["auth0", "revoke", *words])


@pytest.mark.parametrize(
    ("whose", "known"),
    [
        (["--sub", "auth0|moment"], "of auth0|moment that began before now (1 known)"),
        (["--sid", "test-session"], "(not known how many)"),
        (["--all"], "of everybody that began before now (not known"),
    ],
)
def test_what_began_at_the_very_moment_is_over_and_another_tenants_is_not(
    shop: Flask, monkeypatch: pytest.MonkeyPatch, whose: list[str], known: str
) -> None:
    other, sub = copy_of_auth({"AUTH0_DOMAIN": "other.eu.auth0.com"}), "auth0|moment"
    ours, theirs = Shopper(shop), Shopper(make_shop(other))
    other.login_as(theirs.client, sub=sub)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    auth.login_as(ours.client, sub=sub)
    assert who(ours) == who(theirs) == sub

    assert known in revoke(shop, *whose).output

    assert (who(ours), who(theirs)) == ("nobody", sub)


def test_an_operator_is_told_what_is_wrong(shop: Flask) -> None:
    forgetful = make_shop(copy_of_auth({"AUTH0_REVOCATIONS_PATH": "none"}))
    for app, words, code, told in (
        (shop, ("--all", "--sub", "x"), 2, "one of --sub SUB, --sid SID and --all"),
        (forgetful, ("--all",), 1, "AUTH0_REVOCATIONS_PATH is none"),
        (shop, ("--sub", "nobody"), 0, "of nobody that began before now (0 known"),
    ):
        ended = revoke(app, *words)
        assert ended.exit_code == code
        assert told in ended.output
