"""Logout that stays logout: copies, late answers, everywhere, and from Auth0."""

from __future__ import annotations

import asyncio
import os
import sqlite3
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import httpx
import pytest
from flask import Flask

import auth
from app import create_app
from auth0_flask.tenant import Tenant
from conftest import Clock
from redis_server import RedisServer
from servers import GUNICORN, Server, flask, free_port, serving
from visitor import Visitor

Visitors = Callable[..., Visitor]
SAME = {"Sec-Fetch-Site": "same-origin"}


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
    assert "session=" in late.headers["Set-Cookie"]
    brought_back = late.headers["Set-Cookie"].partition("=")[2].partition(";")[0]
    await alice.logout()
    alice.http.cookies.set("session", brought_back, domain="localhost.local", path="/")

    assert await alice.claims() is None
    assert alice.cookies == {}


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


@pytest.mark.parametrize(
    "headers",
    [
        {"Sec-Fetch-Site": "cross-site"},
        {"Sec-Fetch-Site": "same-site"},
        {"Sec-Fetch-Site": "none"},
        {"Origin": "https://evil.example.com"},
        {"Origin": "null"},
        {**SAME, "Origin": "https://evil.example.com"},
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


async def test_an_old_browser_that_only_says_its_origin_can(alice: Visitor) -> None:
    await alice.login()

    answer = await alice.http.post(
        f"{alice.site}/logout/everywhere", headers={"Origin": alice.site}
    )

    assert answer.status_code == 303


async def post_token(site: str, token: str | None, **more: Any) -> httpx.Response:
    """Do what Auth0 does when a session ends there."""
    async with httpx.AsyncClient() as auth0:
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

    await asyncio.gather(laptop.login(), phone.login())  # in the same second
    assert await laptop.claims()
    assert await phone.claims()
    assert await copy.claims() is None


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


NOW = "now"
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
        (None, {"iat": 125}, {}),
        (None, {"exp": None}, {}),
        (None, {"sub": None}, {}),
        (None, {"sub": 7}, {}),
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
    ],
    ids=str,
)
async def test_every_step_of_the_validation_refuses(
    alice: Visitor,
    tenant: Tenant,
    site: str,
    forge: str | None,
    claims: dict[str, Any],
    header: dict[str, Any],
) -> None:
    await alice.login()
    if isinstance(claims.get("iat"), int):
        claims = {"iat": int(time.time()) + claims["iat"]}
    token = tenant.logout_token(
        sub="auth0|alice", forge=forge, claims=claims, header=header
    )

    answer = await post_token(site, token)

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"
    assert answer.headers["Cache-Control"] == "no-store"
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


async def test_the_sdks_own_handler_ends_the_session_as_well(
    alice: Visitor, tenant: Tenant
) -> None:
    from auth import auth0

    await alice.login()
    claims = await alice.claims() or {}

    token = tenant.logout_token(sub=claims["sub"], sid=claims["sid"])
    await auth0.handle_backchannel_logout(token)

    assert await alice.claims() is None


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


async def test_an_id_token_signs_nobody_out(
    alice: Visitor, tenant: Tenant, site: str, app: Flask
) -> None:
    from auth import auth0

    await alice.login()
    with app.test_request_context(
        headers={"Cookie": f"session={alice.cookies['session']}"}
    ):
        id_token = (auth0.read_session() or {})["id_token"]

    assert (await post_token(site, id_token)).status_code == 400
    assert await alice.claims()


@pytest.mark.parametrize("token", [None, "", "garbage", "a.b.c", "x" * 9000, "é"])
async def test_whatever_else_is_posted_is_refused(site: str, token: str | None) -> None:
    answer = await post_token(site, token)

    assert answer.status_code == 400
    assert answer.json()["error"] == "invalid_request"


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
    alice: Visitor,
) -> None:
    await alice.login()
    with locked():
        home = await alice.logout()

    assert home.url.path == "/"
    assert "they may live until they expire" in home.text
    assert "session" not in alice.cookies


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
    assert "they may live until they expire" in home.text
    auth.login_as(client)  # and again, within the minute
    assert "they may live until they expire" not in client.get("/", base_url=site).text


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
        gone_at = time.monotonic()

        while any([await copy.claims() for copy in copies]):
            assert time.monotonic() - gone_at < 20  # each worker notices within one
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
