"""Logout that stays logout: copies, late answers, everywhere, and from Auth0."""

from __future__ import annotations

import asyncio
import io
import os
import sqlite3
import subprocess
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import jwt
import pytest
from auth0_server_python.error import BackchannelLogoutError
from flask import Flask, session

import auth
from app import create_app
from auth0_flask.stores import SqliteStore
from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Fault, Tenant
from conftest import SITE, Clock
from redis_server import RedisServer
from servers import (
    BIN,
    GUNICORN,
    ROOT,
    Server,
    clean_environment,
    flask,
    free_port,
    serving,
)
from shop import copy_of_auth, make_shop
from visitor import Shopper, Visitor

Visitors = Callable[..., Visitor]
SAME = {"Sec-Fetch-Site": "same-origin"}


def shop_of(auth: Any, **options: Any) -> Flask:
    """Make an app as the README has it, and a view that tells who is there."""
    app = make_shop(auth, **options)
    app.add_url_rule("/me", view_func=lambda: auth.auth_user.get("sub", "nobody"))
    app.add_url_rule("/keep", "keep", lambda: str(session.setdefault("a", "kept")))
    return app


@pytest.fixture
def shop(tenant: Tenant) -> Flask:
    """An app as the README has it; it shares its file with the other app here."""
    return shop_of(auth)


def who(shopper: Shopper) -> str:
    """Say who the app takes somebody for."""
    return shopper.client.get("/me").text


def copy_of(visitor: Visitor, thief: Visitor) -> Visitor:
    """Hand a copy of somebody's cookies to somebody else."""
    for name, value in visitor.cookies.items():
        thief.http.cookies.set(name, value, domain="localhost.local", path="/")
    return thief


@pytest.fixture
def workers(tenant: Tenant) -> Iterator[Server]:
    """The app on two workers."""
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    with serving(GUNICORN, environment, port) as server:
        yield server


async def test_a_cookie_copied_before_logout_is_signed_out_after_it(
    visitors: Visitors, workers: Server
) -> None:
    alice = visitors("alice", at=workers.site)
    await alice.login()
    thief = copy_of(alice, visitors(at=workers.site))
    assert await thief.claims()

    await alice.logout()

    for _ in range(10):  # both workers answer one or another
        await thief.http.aclose()
        thief = copy_of(thief, visitors(at=workers.site))
        assert await thief.claims() is None


async def test_with_redis_it_is_signed_out_on_every_machine(
    visitors: Visitors, tenant: Tenant, redis_server: RedisServer
) -> None:
    one, other = free_port(), free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{one}/callback")
    environment["AUTH0_REDIS_URL"] = redis_server.url
    with (
        serving(GUNICORN, environment, one) as first,
        serving(GUNICORN, environment, other) as second,
    ):
        alice = visitors("alice", at=first.site)
        await alice.login()
        thief = copy_of(alice, visitors(at=second.site))
        assert await thief.claims()
        await alice.logout()

        assert await thief.claims() is None


async def test_an_answer_later_than_the_logout_signs_nobody_in(
    alice: Visitor, site: str, clock: Clock
) -> None:
    await alice.login()
    clock.forward(5000)  # the next answer writes the session anew
    late = await alice.http.get(f"{site}/api/me")
    name, _, value = late.headers["Set-Cookie"].partition(";")[0].partition("=")
    assert name == "session_auth0"
    await alice.logout()
    alice.http.cookies.set(name, value, domain="localhost.local", path="/")

    assert await alice.claims() is None
    assert name not in alice.cookies


@pytest.mark.parametrize("is_signed_in", [False, True])
def test_a_logout_ends_a_login_whose_callback_is_being_answered(
    shop: Flask, tenant: Tenant, *, is_signed_in: bool
) -> None:
    alice = Shopper(shop)
    if is_signed_in:
        alice.login()
    callback = alice.sign_in()
    may_answer = hold(tenant, "token")
    seen, twin = tenant_saw(tenant, "/oauth/token"), alice.twin()

    with ThreadPoolExecutor(1) as pool:
        late = pool.submit(twin.client.get, callback)
        while tenant_saw(tenant, "/oauth/token") == seen:
            time.sleep(0.01)
        away = alice.client.get("/logout")
        may_answer.set()
        answer = late.result(timeout=15)

    assert "/v2/logout" in away.location
    assert answer.status_code == 400
    assert "You signed out while this sign-in was running" in answer.text
    assert (who(alice), who(twin)) == ("nobody", "nobody")
    alice.login()
    assert who(alice) == "auth0|alice"


def hold(tenant: Tenant, endpoint: str) -> threading.Event:
    """Have the tenant's next answer wait for an event."""
    may_answer = threading.Event()

    def wait(*_: object) -> None:
        may_answer.wait(7)

    tenant.fail(endpoint, Fault(wait))
    return may_answer


def tenant_saw(tenant: Tenant, path: str) -> int:
    """Count the requests of a path."""
    return [seen.path for seen in tenant.requests].count(path)


def test_only_the_logout_that_ends_a_session_revokes_and_tells_of_it(
    shop: Flask, tenant: Tenant
) -> None:
    alice, told, revoked = Shopper(shop), [], tenant_saw(tenant, "/oauth/revoke")
    alice.login()
    copies = [alice.twin() for _ in range(20)]

    def note(sender: Flask, user: dict[str, Any]) -> None:
        told.append(user["sub"])

    with auth.user_logged_out.connected_to(note, shop):
        for each in (alice, *copies):
            assert "/v2/logout" in each.client.get("/logout").location

    assert told == ["auth0|alice"]
    assert tenant_saw(tenant, "/oauth/revoke") == revoked + 1


@pytest.mark.parametrize("way", ["/logout", "/logout/everywhere"])
def test_a_clock_that_is_behind_ends_what_began_elsewhere(
    shop: Flask, clock: Clock, way: str
) -> None:
    alice, elsewhere = Shopper(shop), Shopper(shop)
    for each in (alice, elsewhere):
        each.login()
    copy = alice.twin() if way == "/logout" else elsewhere

    clock.forward(-30)
    method = "GET" if way == "/logout" else "POST"
    assert alice.client.open(way, method=method, headers=SAME).location
    clock.forward(30)

    assert who(copy) == "nobody"


def test_a_session_is_over_before_auth0_has_revoked_its_token(
    shop: Flask, tenant: Tenant
) -> None:
    alice = Shopper(shop)
    alice.login()
    copy, revoked = alice.twin(), tenant_saw(tenant, "/oauth/revoke")
    may_answer = hold(tenant, "revoke")

    with ThreadPoolExecutor(1) as pool:
        logout = pool.submit(alice.client.get, "/logout")
        while tenant_saw(tenant, "/oauth/revoke") == revoked:
            time.sleep(0.01)
        sub_of_copy = who(copy)
        may_answer.set()
        assert logout.result(timeout=15).location

    assert sub_of_copy == "nobody"


@pytest.fixture
def own_redis(tmp_path: Path) -> Iterator[RedisServer]:
    """A redis-server of this test's own, that it may spoil."""
    server = RedisServer(tmp_path).start()
    yield server
    server.thaw()
    server.kill()


@pytest.mark.parametrize(
    ("spoil", "mend"),
    [
        ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
        ("CONFIG SET maxmemory 1", "CONFIG SET maxmemory 0"),
        ("freeze", "thaw"),
    ],
)
def test_a_logout_gets_out_of_the_browser_and_to_auth0_whatever_redis_says(
    tenant: Tenant, own_redis: RedisServer, spoil: str, mend: str
) -> None:
    alice = Shopper(shop_of(auth, redis=connect(own_redis.url)))
    alice.login()
    copy = alice.twin()
    assert who(copy) == "auth0|alice"

    own_redis.freeze() if spoil == "freeze" else own_redis.say(spoil)
    assert spoil == "freeze" or alice.client.get("/keep").status_code == 503
    away = alice.client.get("/logout")
    own_redis.thaw() if mend == "thaw" else own_redis.say(mend)

    assert away.status_code == 302
    assert "/v2/logout" in away.location
    assert alice.client.get_cookie("session") is None
    assert who(alice) == "nobody"
    give_up = time.monotonic() + 10
    while spoil != "freeze" and who(copy) != "nobody":  # what is known is tried on
        assert time.monotonic() < give_up
        time.sleep(0.1)


async def test_a_login_ends_the_session_it_replaces(
    alice: Visitor, visitors: Visitors
) -> None:
    await alice.login()
    old = copy_of(alice, visitors())
    await alice.login("/login?prompt=login")

    assert await alice.claims()
    assert await old.claims() is None


async def test_logout_without_a_session_still_reaches_auth0(alice: Visitor) -> None:
    answer = await alice.get("/logout?federated")

    address = httpx.URL(answer.headers["Location"])
    assert address.path == "/v2/logout"
    assert address.params["returnTo"] == f"{alice.site}/"
    assert "federated" in address.params


async def test_signing_out_on_all_devices(alice: Visitor, visitors: Visitors) -> None:
    phone, bob = visitors("alice"), visitors("bob")
    for visitor in (alice, phone, bob):
        await visitor.login()

    answer = await alice.http.post(f"{alice.site}/logout/everywhere", headers=SAME)

    assert answer.status_code == 303
    assert "/v2/logout" in answer.headers["Location"]
    assert await alice.claims() is None
    assert await phone.claims() is None
    assert await bob.claims()
    await phone.login()
    assert await phone.claims()  # at once


def test_logins_that_work_do_not_count_as_a_loop(shop: Flask) -> None:
    here, elsewhere = Shopper(shop), Shopper(shop)
    for _ in range(5):
        here.login()
        assert who(here) == "auth0|alice"
        elsewhere.login()
        assert elsewhere.client.post("/logout/everywhere", headers=SAME).location
        assert who(here) == "nobody"


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {},
    ],
    ids=str,
)
async def test_another_site_cannot_press_that_button(
    alice: Visitor, headers: dict[str, str]
) -> None:
    await alice.login()

    answer = await alice.http.post(f"{alice.site}/logout/everywhere", headers=headers)

    assert answer.status_code == 403
    assert await alice.claims()


@pytest.mark.parametrize("headers", [{"Origin": SITE}, {**SAME, "Origin": "null"}])
async def test_an_old_browser_and_a_page_without_referrer_can(
    alice: Visitor, headers: dict[str, str]
) -> None:
    """With ``Referrer-Policy: no-referrer`` a form's origin is null."""
    await alice.login()

    answer = await alice.http.post(f"{alice.site}/logout/everywhere", headers=headers)

    assert answer.status_code == 303
    assert await alice.claims() is None


async def post_token(site: str, token: str | None, **more: Any) -> httpx.Response:
    """Do what Auth0 does when a session ends there."""
    async with httpx.AsyncClient(timeout=5) as auth0:
        data = {"logout_token": token} if token is not None else {}
        return await auth0.post(f"{site}/backchannel-logout", data=data, **more)


async def test_back_channel_logout_by_sid_ends_one_session_by_sub_all(
    visitors: Visitors, tenant: Tenant, site: str
) -> None:
    laptop, phone = visitors("alice"), visitors("alice")
    await laptop.login()
    await phone.login()
    claims = await laptop.claims() or {}

    both = tenant.logout_token(sid=claims["sid"], sub=claims["sub"])
    assert (await post_token(site, both)).status_code == 200
    assert await laptop.claims() is None
    assert await phone.claims()

    copy = copy_of(phone, visitors())
    by_sub = tenant.logout_token(sub=claims["sub"])
    answer = await post_token(site, by_sub)
    assert (answer.status_code, answer.content) == (200, b"")
    assert answer.headers["Cache-Control"] == "no-store"
    assert await phone.claims() is None

    again = laptop.login("/login?prompt=login"), phone.login()
    await asyncio.gather(*again)  # in the same second
    assert await laptop.claims()
    assert await phone.claims()
    assert await copy.claims() is None


async def test_a_session_that_ended_at_auth0_begins_no_more_here(
    alice: Visitor, tenant: Tenant, site: str
) -> None:
    """A code may be under way when the logout token of its session comes."""
    await alice.login()
    sid = (await alice.claims() or {})["sid"]
    answer = await alice.get("/login")
    while not answer.headers["Location"].startswith(f"{site}/callback"):
        answer = await alice.http.get(answer.headers["Location"])

    assert (await post_token(site, tenant.logout_token(sid=sid))).status_code == 200
    page = await alice.follow(answer)

    assert page.status_code == 400
    assert "logged_out_meanwhile" in page.text
    assert await alice.claims() is None
    await alice.login("/login?prompt=login")
    assert (await alice.claims() or {})["sid"] != sid


async def test_the_provider_itself_signs_somebody_out(
    visitors: Visitors, tenant: Tenant, site: str
) -> None:
    tenant.backchannel_logout_uri = f"{site}/backchannel-logout"
    laptop, phone = visitors("alice"), visitors("alice")
    await laptop.login()
    await phone.login()
    copy = copy_of(laptop, visitors())
    await laptop.http.get(f"{tenant.origin}/v2/logout")
    assert await asyncio.to_thread(tenant.finish_backchannel)

    assert tenant.backchannel_answers == [200]
    assert await copy.claims() is None
    assert await laptop.claims() is None
    assert await phone.claims()


EVENT = "http://schemas.openid.net/event/backchannel-logout"


@pytest.mark.parametrize(
    ("forge", "claims", "header"),
    [
        ("signature", {}, {}),
        ("unknown_key", {}, {}),
        ("algorithm", {}, {}),
        ("none", {}, {}),
        ("issuer", {}, {}),
        ("audience", {}, {}),
        ("expired", {}, {}),
        ("no_iat", {}, {}),
        (None, {"iat": -125}, {}),
        (None, {"iat": 65}, {}),
        (None, {"iss": "in capitals"}, {}),
        (None, {"exp": None}, {}),
        (None, {"sub": None}, {}),
        (None, {"sub": 7}, {}),
        (None, {"sid": 7}, {}),
        (None, {"events": None}, {}),
        (None, {"events": {}}, {}),
        (None, {"events": EVENT}, {}),
        (None, {"events": {EVENT: None}}, {}),
        (None, {"events": [EVENT]}, {}),
        (None, {"nonce": "n"}, {}),
        (None, {"jti": None}, {}),
        (None, {"jti": ""}, {}),
        (None, {"jti": 7}, {}),
        (None, {}, {"typ": "JWT"}),
        (None, {}, {"typ": "at+jwt"}),
        (None, {}, {"alg": "RS512"}),
    ],
    ids=str,
)
async def test_every_step_of_the_validation_refuses(
    alice: Visitor,
    tenant: Tenant,
    site: str,
    app: Flask,
    forge: str | None,
    claims: dict[str, Any],
    header: dict[str, Any],
) -> None:
    await alice.login()
    if isinstance(claims.get("iat"), int):
        claims = {"iat": int(time.time()) + claims["iat"]}
    if "iss" in claims:
        claims = {"iss": tenant.issuer.upper()}
    token = tenant.logout_token(
        sub="auth0|alice", forge=forge, claims=claims, header=header
    )

    answer = await post_token(site, token)

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert answer.headers["Cache-Control"] == "no-store"
    with app.app_context(), pytest.raises((BackchannelLogoutError, jwt.PyJWTError)):
        await auth.auth0.handle_backchannel_logout(token)  # as the SDK calls it
    assert await alice.claims()


@pytest.mark.parametrize("header", [{"typ": None}, {"typ": "LOGOUT+JWT"}], ids=str)
async def test_the_type_may_be_absent_and_in_any_case(
    alice: Visitor, tenant: Tenant, site: str, header: dict[str, Any]
) -> None:
    await alice.login()

    answer = await post_token(
        site, tenant.logout_token(sub="auth0|alice", header=header)
    )

    assert answer.status_code == 200
    assert await alice.claims() is None


async def test_the_sdks_own_handler_ends_the_session_as_well_and_once(
    alice: Visitor, tenant: Tenant, app: Flask
) -> None:
    await alice.login()
    claims = await alice.claims() or {}
    token = tenant.logout_token(sub=claims["sub"], sid=claims["sid"])

    with app.app_context():
        await auth.auth0.handle_backchannel_logout(token)
        assert await alice.claims() is None
        with pytest.raises(BackchannelLogoutError, match="used before"):
            await auth.auth0.handle_backchannel_logout(token)


async def test_a_logout_token_counts_once(
    alice: Visitor, tenant: Tenant, site: str
) -> None:
    await alice.login()
    token = tenant.logout_token(sub="auth0|alice")
    assert (await post_token(site, token)).status_code == 200
    await alice.login()

    again = await post_token(site, token)

    assert again.status_code == 400
    assert await alice.claims()


def test_a_key_that_auth0_withdrew_is_good_for_ten_minutes_at_most(
    shop: Flask, tenant: Tenant, monkeypatch: pytest.MonkeyPatch
) -> None:
    tokens = [tenant.logout_token(sub="auth0|alice") for _ in range(2)]
    post, now = shop.test_client().post, time.monotonic
    auth.auth0.verifier.forget()

    def answer(token: str) -> int:
        return post("/backchannel-logout", data={"logout_token": token}).status_code

    assert answer(tokens[0]) == 200
    tenant.rotate_keys()
    monkeypatch.setattr(time, "monotonic", lambda: now() + 601)
    assert answer(tokens[1]) == 400


async def test_an_id_token_signs_nobody_out(
    alice: Visitor, tenant: Tenant, site: str, app: Flask
) -> None:
    await alice.login()
    pairs = "; ".join(f"{name}={value}" for name, value in alice.cookies.items())
    with app.test_request_context(headers={"Cookie": pairs}):
        id_token = (auth.auth0.read_session() or {})["id_token"]

    assert (await post_token(site, id_token)).status_code == 400
    assert await alice.claims()


@pytest.mark.parametrize("token", [None, "", "garbage", "a.b.c", "x" * 9000, "é"])
async def test_whatever_else_is_posted_is_refused(site: str, token: str | None) -> None:
    answer = await post_token(site, token)

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"


class Endless(io.RawIOBase):
    """A body that has no end, and counts what is read of it."""

    taken = 0

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: Any) -> int:
        buffer[:] = b"logout_token=".ljust(len(buffer), b"x")
        self.taken += len(buffer)
        return len(buffer)


@pytest.mark.parametrize(
    "length",
    [
        {"wsgi.input_terminated": True, "HTTP_TRANSFER_ENCODING": "chunked"},
        {"CONTENT_LENGTH": "400000"},
        {"CONTENT_LENGTH": "8193"},
    ],
    ids=str,
)
def test_of_a_long_body_nothing_is_kept(shop: Flask, length: dict[str, Any]) -> None:
    body = Endless()
    answer = shop.test_client().post(
        "/backchannel-logout",
        content_type="application/x-www-form-urlencoded",
        environ_overrides={"wsgi.input": body, **length},
    )

    assert answer.status_code == 400
    assert "The request is too long." in answer.text
    assert body.taken < 100_000


async def test_it_touches_no_session_of_the_request(
    alice: Visitor, tenant: Tenant, site: str
) -> None:
    await alice.login()

    answer = await alice.http.post(
        f"{site}/backchannel-logout",
        data={"logout_token": tenant.logout_token(sub="auth0|bob")},
    )

    assert answer.status_code == 200
    assert "Set-Cookie" not in answer.headers
    assert await alice.claims()


@contextmanager
def locked() -> Iterator[None]:
    """Lock the file of revocations, as a stuck process would."""
    path = os.environ["AUTH0_REVOCATIONS_PATH"]
    connection = sqlite3.connect(path, isolation_level=None)
    connection.execute("BEGIN EXCLUSIVE")
    yield
    connection.close()


async def test_where_it_cannot_be_written_down_the_browser_is_signed_out_and_told(
    alice: Visitor, visitors: Visitors
) -> None:
    await alice.login()
    copy = copy_of(alice, visitors())
    with locked():
        home = await alice.logout()

    assert home.url.path == "/"
    assert "They stay valid until they expire" in home.text
    assert set(alice.cookies) == {"signed_out_here_only"}
    give_up = time.monotonic() + 10
    while await copy.claims():  # it is tried on
        assert time.monotonic() < give_up
        await asyncio.sleep(0.1)


@pytest.mark.parametrize(
    ("secure", "name"),
    [(False, "signed_out_here_only"), (True, "__Host-signed_out_here_only")],
)
def test_what_tells_of_that_is_as_safe_as_the_session(secure: bool, name: str) -> None:
    site = f"{'https' if secure else 'http'}://localhost"
    client = create_app({"SESSION_COOKIE_SECURE": secure}).test_client()
    auth.login_as(client)
    with locked():
        away = client.get("/logout", base_url=site)

    told = [c for c in away.headers.getlist("Set-Cookie") if c.startswith(f"{name}=1;")]
    assert len(told) == 1
    attributes = {part.partition("=")[0] for part in told[0].split("; ")[1:]}
    safe = {"Expires", "Max-Age", "HttpOnly", "Path", "SameSite"}
    assert attributes == (safe | {"Secure"} if secure else safe)
    assert "Path=/;" in told[0]
    home = client.get("/", base_url=site)
    assert "They stay valid until they expire" in home.text
    auth.login_as(client)  # and again, within the minute
    home = client.get("/", base_url=site)
    assert "They stay valid until they expire" not in home.text


async def test_a_logout_token_that_cannot_be_written_down_may_come_again(
    alice: Visitor, tenant: Tenant, site: str
) -> None:
    await alice.login()
    token = tenant.logout_token(sub="auth0|alice")
    with locked():
        assert (await post_token(site, token)).status_code == 503

    assert (await post_token(site, token)).status_code == 200
    assert await alice.claims() is None


async def test_a_file_that_vanishes_under_the_app_ends_older_sessions_everywhere(
    visitors: Visitors, tenant: Tenant, tmp_path: Path
) -> None:
    path = tmp_path / "revocations.sqlite3"
    port = free_port()
    environment = tenant.environ(redirect_uri=f"http://localhost:{port}/callback")
    environment["AUTH0_REVOCATIONS_PATH"] = str(path)
    with serving(GUNICORN, environment, port) as server:
        alice = visitors("alice", at=server.site)
        await alice.login()
        copies = [copy_of(alice, visitors(at=server.site)) for _ in range(8)]
        assert all([await copy.claims() for copy in copies])
        path.unlink()

        assert not any([await copy.claims() for copy in copies])
        await alice.login()
        assert all([await alice.claims() for _ in range(8)])  # both workers agree
    assert path.exists()


async def test_a_folder_that_cannot_be_written_is_told_at_start(
    tenant: Tenant, tmp_path: Path
) -> None:
    in_the_way = tmp_path / "file"
    in_the_way.write_text("not a folder")
    environment = {
        **tenant.environ(),
        "AUTH0_REVOCATIONS_PATH": str(in_the_way / "revocations.sqlite3"),
    }

    ended = flask(["run", "--port", str(free_port())], environment)

    assert ended.returncode == 1
    assert "AUTH0_REVOCATIONS_PATH" in ended.stderr
    assert "cannot be written" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize("is_new", [True, False])
def test_a_full_disk_is_told_at_start(
    tenant: Tenant, tmp_path: Path, *, is_new: bool
) -> None:
    path = str(tmp_path / "revocations.sqlite3")
    if not is_new:
        SqliteStore(path).check()
    ended = subprocess.run(
        ["bash", "-c", f"ulimit -f 0; exec {BIN}/flask run --port {free_port()}"],
        cwd=ROOT,
        env=clean_environment({**tenant.environ(), "AUTH0_REVOCATIONS_PATH": path}),
        capture_output=True,
        text=True,
        timeout=30,
        check=False,
    )

    assert ended.returncode == 1
    assert f"AUTH0_REVOCATIONS_PATH: {path} cannot be written" in ended.stderr


@pytest.mark.parametrize("whose", ["--sub", "--sid", "--all"])
async def test_an_operator_ends_sessions(
    alice: Visitor, visitors: Visitors, tenant: Tenant, whose: str
) -> None:
    bob = visitors("bob")
    await alice.login()
    await bob.login()
    claims = await alice.claims() or {}
    words = {"--sub": [claims["sub"]], "--sid": [claims["sid"]], "--all": []}[whose]

    ended = flask(["auth0", "revoke", whose, *words], tenant.environ())

    assert ended.returncode == 0, ended.stderr
    assert "Ended: all sessions" in ended.stdout
    assert await alice.claims() is None
    assert (await bob.claims() is None) == (whose == "--all")
    await alice.login()
    assert await alice.claims()


@pytest.mark.parametrize(
    "whose", [["--sub", "auth0|moment"], ["--sid", "test-session"], ["--all"]], ids=str
)
def test_what_began_at_the_very_moment_is_over_and_another_tenants_is_not(
    shop: Flask, monkeypatch: pytest.MonkeyPatch, whose: list[str]
) -> None:
    other, sub = copy_of_auth({"AUTH0_DOMAIN": "other.eu.auth0.com"}), "auth0|moment"
    ours, theirs = shop.test_client(), shop_of(other).test_client()
    other.login_as(theirs, sub=sub)
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now)
    auth.login_as(ours, sub=sub)
    assert ours.get("/me").text == theirs.get("/me").text == sub

    shop.test_cli_runner().invoke(args=["auth0", "revoke", *whose])

    assert ours.get("/me").text == "nobody"
    assert theirs.get("/me").text == sub


@pytest.mark.parametrize("words", [[], ["--all", "--sub", "x"]], ids=str)
def test_an_operator_has_to_say_whose(tenant: Tenant, words: list[str]) -> None:
    ended = flask(["auth0", "revoke", *words], tenant.environ())

    assert ended.returncode == 2
    assert "one of --sub SUB, --sid SID and --all" in ended.stderr


def test_an_operator_is_told_where_nobody_remembers(tenant: Tenant) -> None:
    environment = {**tenant.environ(), "AUTH0_REVOCATIONS_PATH": "none"}

    ended = flask(["auth0", "revoke", "--all"], environment)

    assert ended.returncode == 1
    assert "AUTH0_REVOCATIONS_PATH is none" in ended.stderr
    assert "Traceback" not in ended.stderr
