"""The session in cookies: the app's part in Flask's own, ours in our own."""

from __future__ import annotations

import logging
import re
from datetime import timedelta
from http.cookies import SimpleCookie
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlencode, urlsplit

import pytest
from flask.sessions import SecureCookieSessionInterface
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

import auth
from auth0_flask.stores.cookies import TOTAL_BYTES
from auth0_flask.tenant import Tenant
from conftest import Clock
from shop import copy_of_auth, make_shop
from test_stores import (
    DAY,
    STATE,
    alices,
    cookies_of,
    noise,
    our_app,
    own_of,
    signed_in,
    transaction,
    user_of,
)
from test_tokens import in_redis, of_the_app
from visitor import Shopper


@pytest.fixture
def alice(tenant: Tenant, tmp_path: Path) -> Shopper:
    """Alice at an app that remembers logouts."""
    return Shopper(our_app(domain=tenant.domain, revocations_path=tmp_path / "ended"))


def ours(**user: Any) -> FlaskClient:
    """Return a client of our own cookies, and of Alice's where there is more of her."""
    return signed_in(our_app(), **user) if user else our_app().test_client()


def header_of(client: FlaskClient) -> str:
    return "; ".join(f"{name}={value}" for name, value in cookies_of(client).items())


def set_cookies(answer: TestResponse) -> dict[str, Any]:
    """Return the cookies that an answer sets, with their attributes."""
    found = SimpleCookie()
    for header in answer.headers.getlist("Set-Cookie"):
        found.load(header)
    return dict(found)


def test_every_cookie_is_one_that_browsers_keep_and_none_stays(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    client = ours()
    for length, number in [(100, 1), (4000, 2), (6500, 3), (4000, 2), (100, 1)]:
        answer = client.post("/state", json=alices(bio=noise(length)))

        assert all(len(each) < 4093 for each in answer.headers.getlist("Set-Cookie"))
        assert (user_of(client) or {})["bio"] == noise(length)
        assert len(cookies_of(client)) == number, length
        assert len(header_of(client)) <= TOTAL_BYTES
    assert caplog.text.count("proxy_buffer_size") == 1  # proxies may refuse it
    client.delete("/state")
    assert cookies_of(client) == {}
    client.post("/state", json=alices(bio=noise(6500)))
    clock.forward(DAY)
    assert user_of(client) is None
    client.get("/logout")
    assert cookies_of(client) == {}


def test_a_raw_id_token_is_kept_where_it_is_wanted_and_fits() -> None:
    client, smaller = ours(), our_app(keep_id_token=False).test_client()
    for each in (client, smaller):
        each.post("/state", json={**alices(), "id_token": noise(400)})

    assert user_of(smaller) == user_of(client) == alices()["user"]
    assert "id_token" not in smaller.get("/state").get_json()
    assert len(header_of(client)) - len(header_of(smaller)) > 340
    long = {**alices(bio=noise(6300)), "id_token": noise(1000)}
    state = client.post("/state", json=long).get_json()
    assert state["user"]["bio"] == noise(6300)  # its claims are, in any case
    assert state.get("id_token") is None
    assert len(header_of(client)) <= TOTAL_BYTES


def test_whatever_comes_in_cookies_signs_nobody_in() -> None:
    client, other = ours(bio=noise(6500)), ours(bio=noise(6501))
    whole = cookies_of(client)
    piece, left_over = whole["session_auth0.1"], whole["session_auth0.2"]
    changed = f"{'B' if piece[0] == 'A' else 'A'}{piece[1:]}"
    for sent in (cookies_of(other)["session_auth0.1"], changed, "x", "2~x", ""):
        client.set_cookie("session_auth0.1", sent)
        answer = client.get("/state")
        assert answer.get_json() is None
        assert "Set-Cookie" not in answer.headers  # perhaps another machine can open it
    for name in ("session", "session_auth0", "session_a0_tx.x", "session_auth0_tx0"):
        client.set_cookie(name, "x.a..b.c.d")
    assert user_of(client) is transaction(client, "x") is None
    client.post("/state", json=alices(bio=noise(4000)))
    assert user_of(client)
    assert "session_auth0.2" not in cookies_of(client)

    client.set_cookie("session_auth0.2", left_over)
    assert user_of(client)


@pytest.mark.parametrize("foreign", ["x", "2~x", None])
def test_of_several_cookies_of_one_name_ours_is_found(
    foreign: str | None, caplog: pytest.LogCaptureFixture
) -> None:
    """An older one for another path or domain comes along, and cannot be deleted."""
    caplog.set_level(logging.INFO)
    client, other = ours(), our_app(secret="x" * 32).test_client()
    other.application.secret_key = "another"
    for cart, each in enumerate((client, other)):
        each.post("/state", json=alices(bio=noise(4000)))
        each.post("/own", json={"cart": cart})
    alien = {"session": "x", "session_auth0": foreign} if foreign else cookies_of(other)
    aliens = [f"{name}={value}" for name, value in alien.items()]
    known = header_of(client).split("; ")
    bare = client.application.test_client(use_cookies=False)

    for pairs in ([*aliens, *known], [*known, *aliens]):
        cookie = {"Cookie": "; ".join(pairs)}
        assert bare.get("/state", headers=cookie).get_json()["user"]["name"] == "Alice"
        assert bare.get("/own", headers=cookie).get_json() == {"cart": 0}
        assert "several cookies named session_auth0" in caplog.text
        caplog.clear()


def test_of_several_sessions_the_one_that_is_not_over_counts(alice: Shopper) -> None:
    sent = []
    for _ in range(2):  # the second login ends the session of the first
        alice.login()
        sent.append(header_of(alice.client))
    bare = alice.client.application.test_client(use_cookies=False)

    for pairs in (sent, sent[::-1]):
        answer = bare.get("/state", headers={"Cookie": "; ".join(pairs)})
        assert "auth0|alice" in answer.text


def test_the_apps_own_session_is_flasks_own_cookie_and_ours_are_beside_it(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    client = ours()
    app = client.application
    app.permanent_session_lifetime = timedelta(days=31)
    signer: Any = SecureCookieSessionInterface().get_signing_serializer(app)

    assert list(set_cookies(client.post("/own", json={"cart": 1}))) == ["session"]
    assert list(set_cookies(client.post("/state", json=alices()))) == ["session_auth0"]
    (started,) = set_cookies(client.post("/transaction/one"))
    assert re.fullmatch(r"session_auth0_tx\d", started)
    assert set_cookies(client.get("/state")) == {}

    assert signer.loads(cookies_of(client)["session"]) == {"cart": 1}
    client.set_cookie("session", signer.dumps({"cart": 2}))
    for seconds in (0, -0.4, -59):  # as another machine's clock may be
        clock.offset = seconds
        assert own_of(client) == {"cart": 2}
        assert user_of(client)
    for seconds in (31 * DAY + 1, -62):
        clock.offset = seconds
        caplog.clear()
        assert own_of(client) == {}
        assert re.search(r"rejected: it is -?\d+ seconds old", caplog.text)
    clock.offset = 0
    app.secret_key = "another"
    assert own_of(client) == {}  # it ends what it signed, and no login
    assert user_of(client)


@pytest.mark.parametrize("remember", [True, False])
def test_a_cookie_lives_as_long_as_its_session_or_the_browsers_window(
    alice: Shopper, clock: Clock, remember: bool
) -> None:
    most = alice.client.application.permanent_session_lifetime.total_seconds()
    assert most == auth.settings.session_max_seconds
    began = clock.time()
    answer = alice.login("/login" if remember else "/login?remember=0")
    for _ in range(6):
        cookie = set_cookies(answer)["session_auth0"]
        assert (cookie["httponly"], cookie["samesite"]) == (True, "Lax")
        if remember:
            ends_at = clock.time() + int(cookie["max-age"])
            assert most - 5 <= ends_at - began <= most + 5
        else:
            assert (cookie["max-age"], cookie["expires"]) == ("", "")
        clock.forward(0.9 * DAY)
        answer = alice.client.get("/state")


def test_a_cookie_lives_no_longer_than_app_and_provider_say(clock: Clock) -> None:
    client = our_app(PERMANENT_SESSION_LIFETIME=60).test_client()
    client.post("/own", json={"_permanent": True, "cart": 1})
    for _ in range(2):  # it counts from the last request
        clock.forward(40)
        assert own_of(client) == {"cart": 1}
    clock.forward(61)
    assert own_of(client) == {}

    state = alices()
    state["internal"]["session_expires_at"] = int(clock.time()) + 600
    answer = ours().post("/state", json=state)
    assert int(set_cookies(answer)["session_auth0"]["max-age"]) <= 600


def test_a_transaction_that_a_sibling_planted_is_not_taken(tenant: Tenant) -> None:
    """A subdomain sets cookies for the whole domain, but none that is ``__Host-``."""
    site = "https://shop.example"
    app = our_app(domain=auth.settings.domain, redirect_uri=f"{site}/callback")
    attacker, victim = app.test_client(), app.test_client()
    started = attacker.get("/login", base_url=site)
    state = parse_qs(urlsplit(started.location).query)["state"][0]
    (name, cookie), *_ = set_cookies(started).items()
    plain = name.removeprefix("__Host-")

    for planted in (plain, f"__Secure-{plain}"):
        victim.set_cookie(planted, cookie.value, domain="shop.example")
    encrypted = cookie.value.partition(".")[2]  # as version 1.0 kept it
    victim.set_cookie(f"session_a0_tx.{state}", encrypted, domain="shop.example")
    answer = victim.get(f"/callback?state={state}&code=x", base_url=site)

    assert answer.status_code == 400
    assert "missing_transaction" in answer.text
    assert tenant.count("/oauth/token") == 0


LONG = "/reports/" + noise(1900)


@pytest.mark.parametrize(
    ("bio", "page"), [(0, "/"), (3000, LONG), (6300, "/"), (6300, LONG)]
)
def test_however_many_logins_start_at_the_same_moment_servers_take_the_cookies(
    alice: Shopper, page: str, bio: int
) -> None:
    """As restored tabs do: each request has the cookies from before the others."""
    client = alice.client
    auth.login_as(client, bio=noise(bio))
    tabs = [alice.twin().client for _ in range(17)]
    started = [t.get("/login", query_string={"return_to": page}) for t in tabs]
    for answer in started:
        for name, cookie in set_cookies(answer).items():
            client.set_cookie(name, cookie.value)

    assert len(f"Cookie: {header_of(client)}\r\n") <= 8190  # gunicorn's limit of a line
    latest = parse_qs(urlsplit(started[-1].headers["Location"]).query)["state"][0]
    back = client.get("/callback", query_string={"state": latest, "error": "x"})
    assert back.status_code == 403  # and not 400: it is known
    client.get("/logout")
    assert cookies_of(client) == {}


PAGE = "/customers/4711/invoices?from=2026-11-01&to=2026-11-28&sort=-date&page=2"


@pytest.mark.parametrize(
    ("bio", "page", "leads_to"), [(0, PAGE, PAGE), (0, LONG, "/"), (3000, "/a", "/a")]
)
def test_the_logins_of_other_tabs_leave_that_of_the_first_one(
    tenant: Tenant, clock: Clock, bio: int, page: str, leads_to: str
) -> None:
    """As where a browser restores its tabs, and the session is over."""
    own = copy_of_auth({**tenant.environ(), "AUTH0_SESSION_IDLE_SECONDS": "30"})
    alice = Shopper(make_shop(own))
    own.login_as(alice.client, bio=noise(bio))
    clock.forward(45)
    assert alice.client.get("/me").json == {}
    first = alice.sign_in(login := f"/login?{urlencode({'return_to': page})}")
    for _ in range(5 if bio else 1):
        alice.start(login)
    assert alice.client.get(first).location == leads_to


def test_a_transaction_that_does_not_fit_leaves_a_long_session_alone() -> None:
    client = ours(bio=noise(6250))
    assert client.post("/transaction/one", json=[noise(2500)]).status_code == 500
    assert user_of(client)

    for name in "abcde":
        started = client.post(f"/transaction/{name}", json={"return_to": "/" * 99})
        assert started.status_code == 200
        assert len(header_of(client)) <= TOTAL_BYTES
        assert transaction(client, name)
    assert user_of(client)

    # abandoned ones make room
    assert client.post("/state", json=alices(bio=noise(6500))).status_code == 200
    assert user_of(client)


def test_an_app_keeps_its_own_interface_and_is_told_what_does_not_fit(
    request: pytest.FixtureRequest, clock: Clock
) -> None:
    app = our_app(lambda app: of_the_app(app, request) | in_redis(app, request))
    client = app.test_client()
    for length, status in ((2000, 200), (3700, 500)):
        client.post("/own", json={"own": noise(length)})

        assert client.post("/transaction/one").status_code == status
        assert all(len(n) + len(v) < 4093 for n, v in cookies_of(client).items())
    assert list(cookies_of(client)) == ["session"]
    client = signed_in(app, bio=noise(3000))
    client.post("/own", json={"own": noise(100)})
    assert client.post("/transaction/one").status_code == 500
    clock.forward(DAY)
    assert client.post("/transaction/one").status_code == 200
    assert (user_of(client), own_of(client)) == (None, {})
    assert app.extensions["auth0"].shared_store.remembers


def test_an_apps_own_session_beyond_the_budget_keeps_nobody_signed_in(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = signed_in(our_app())
    client.post("/own", json={"small": 1})
    assert client.post("/own", json={"basket": noise(12_000)}).status_code == 200
    assert "too large for cookies, mostly for 'basket'." in caplog.text
    assert "AUTH0_REDIS_URL" in caplog.text
    assert own_of(client) == {"small": 1}
    with client.session_transaction() as opened:
        opened["large"] = noise(12_000)
        del opened[STATE]
    assert user_of(client) is None
    assert own_of(client) == {"small": 1}
