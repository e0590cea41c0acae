"""What a process remembers of cookies it has opened: never stale, never shared."""

from __future__ import annotations

import sqlite3
from contextlib import closing
from pathlib import Path
from typing import Any

import pytest
from flask import Flask, jsonify, session
from flask.testing import FlaskClient

from conftest import Clock
from stores import (
    FlaskSessionStateStore,
    Lifetime,
    SpanningSessionInterface,
    SqliteRevocations,
)
from stores.jwe import MOST_REMEMBERED, _opened_lately
from stores.revocations import Revocations
from stores.sealing_store import STATE_IDENTIFIER

SECRET = "s" * 32
DOMAIN = "tenant.example.com"
ALICE = {
    "user": {"sub": "auth0|alice", "roles": ["reader"]},
    "domain": DOMAIN,
    "internal": {"sid": "1", "created_at": 1},
    "token_sets": [],
}


def app_with(
    revocations: Revocations | None = None, *, max_seconds: int = 7200
) -> Flask:
    """Return an app whose views are as careless as views are."""
    app = Flask(__name__)
    app.secret_key = "of flask"
    app.session_interface = SpanningSessionInterface()
    lifetime = Lifetime(domain=DOMAIN, idle_seconds=3600, max_seconds=max_seconds)
    lifetime.revocations = revocations or lifetime.revocations
    lifetime.revocations.open()
    store = FlaskSessionStateStore(secrets=(SECRET,), scope="", lifetime=lifetime)

    @app.get("/login")
    def login() -> str:
        store.keep(STATE_IDENTIFIER, ALICE)
        return "signed in"

    @app.get("/fill")
    def fill() -> str:
        session["basket"] = ["a book"]
        return "filled"

    @app.get("/me")
    def me() -> Any:
        state = store.read()
        return jsonify(user=state and state["user"], basket=session.get("basket"))

    @app.get("/end")
    def end() -> str:
        store.lifetime.end(store.peek() or {})
        return "ended"

    @app.get("/careless")
    async def careless() -> str:
        handed_out = await store.get(STATE_IDENTIFIER) or {}
        handed_out["user"]["roles"].append("admin")
        session["basket"].append("a bomb")
        (store.show() or {})["user"] = {}
        session.modified = False
        return "changed"

    return app


def copy_of(client: FlaskClient, app: Flask) -> FlaskClient:
    """Return another client with the same cookie."""
    cookie = client.get_cookie("session")
    assert cookie
    other = app.test_client()
    other.set_cookie("session", cookie.value)
    return other


def test_what_one_request_changes_no_other_request_sees() -> None:
    client = app_with().test_client()
    client.get("/login")
    client.get("/fill")
    before = client.get("/me").json

    for _ in range(2):
        assert client.get("/careless").text == "changed"

    assert before == {"user": ALICE["user"], "basket": ["a book"]}
    assert client.get("/me").json == before


@pytest.mark.parametrize("remembered", [False, True])
def test_a_changed_secret_key_ends_what_it_signed(remembered: bool) -> None:
    app = app_with()
    client = app.test_client()
    client.get("/login")
    if remembered:
        assert client.get("/me").json["user"]  # type: ignore[index]  # JSON

    app.secret_key = "another"
    assert copy_of(client, app).get("/me").json == {"user": None, "basket": None}

    app.config["SECRET_KEY_FALLBACKS"] = fallbacks = ["of flask"]
    assert copy_of(client, app).get("/me").json["user"]  # type: ignore[index]  # JSON

    fallbacks.clear()
    assert copy_of(client, app).get("/me").json == {"user": None, "basket": None}


def test_a_remembered_session_ends_when_it_is_idle_and_when_its_cookie_is_too_old(
    clock: Clock,
) -> None:
    app = app_with()
    client = app.test_client()
    client.get("/login")
    first = copy_of(client, app)
    assert first.get("/me").json["user"]  # type: ignore[index]  # JSON

    clock.forward(3601)
    assert copy_of(client, app).get("/me").json["user"] is None  # type: ignore[index]  # JSON

    clock.forward(app.permanent_session_lifetime.total_seconds())
    assert copy_of(client, app).get("/me").json == {"user": None, "basket": None}


def test_an_ended_session_is_over_within_an_app_context_that_is_held(
    tmp_path: Path,
) -> None:
    """As notebooks, shells and test suites hold one: ``flask.g`` is theirs, then."""
    app = app_with(SqliteRevocations(tmp_path / "revocations"))
    client = app.test_client()
    client.get("/login")
    thief = copy_of(client, app)

    with app.app_context():
        assert thief.get("/me").json["user"]  # type: ignore[index]  # JSON
        client.get("/end")
        assert thief.get("/me").json["user"] is None  # type: ignore[index]  # JSON


def test_a_longer_lifetime_does_not_revive_what_was_ended(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "revocations"
    app = app_with(SqliteRevocations(path), max_seconds=1000)
    client = app.test_client()
    client.get("/login")
    thief = copy_of(client, app)
    client.get("/end")

    clock.forward(1001)  # what was ended may be forgotten from now on
    longer = app_with(SqliteRevocations(path), max_seconds=3000)

    assert copy_of(thief, longer).get("/me").json["user"] is None  # type: ignore[index]  # JSON


def test_a_lifetime_that_was_shorter_for_a_while_does_not_revive_what_was_ended(
    tmp_path: Path, clock: Clock
) -> None:
    path = tmp_path / "revocations"
    usual = app_with(SqliteRevocations(path), max_seconds=3000)
    client = usual.test_client()
    client.get("/login")
    thief = copy_of(client, usual)
    shorter = app_with(SqliteRevocations(path), max_seconds=1000)
    copy_of(client, shorter).get("/end")

    clock.forward(1001)
    usual = app_with(SqliteRevocations(path), max_seconds=3000)

    assert copy_of(thief, usual).get("/me").json["user"] is None  # type: ignore[index]  # JSON


def test_a_copy_that_is_signed_out_again_and_again_takes_no_more_room(
    tmp_path: Path,
) -> None:
    path = tmp_path / "revocations"
    app = app_with(SqliteRevocations(path))
    client = app.test_client()
    client.get("/login")

    for _ in range(3):
        assert copy_of(client, app).get("/end").text == "ended"

    with closing(sqlite3.connect(path)) as file:
        assert file.execute("SELECT count(*) FROM ended").fetchone() == (1,)


def test_no_more_is_remembered_than_said() -> None:
    app = app_with()
    for _ in range(MOST_REMEMBERED + 20):
        client = app.test_client()
        client.get("/login")
        assert client.get("/me").json["user"]  # type: ignore[index]  # JSON

    assert _opened_lately.cache_info().currsize <= MOST_REMEMBERED


def test_what_does_not_open_is_not_remembered() -> None:
    app = app_with()
    client = app.test_client()
    client.get("/login")
    cookie = client.get_cookie("session")
    assert cookie
    before = _opened_lately.cache_info().currsize

    for letter in range(20):
        thief = app.test_client()
        thief.set_cookie("session", f"{cookie.value[:-4]}{letter:04}")
        assert thief.get("/me").json == {"user": None, "basket": None}

    assert _opened_lately.cache_info().currsize == before
