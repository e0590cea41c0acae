"""The stores' contract, the same over every session interface."""

from __future__ import annotations

import base64
import random
import time
from collections.abc import Callable
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from auth0_server_python.auth_types import TransactionData
from flask import Flask, jsonify, request, session
from flask.sessions import SecureCookieSessionInterface, session_json_serializer
from flask.testing import FlaskClient

from auth0_flask import user_logged_out
from auth0_flask.stores.cookies import PIECE_BYTES
from auth0_flask.stores.encryption import Json, encrypt
from auth0_flask.stores.transactions import forget_transactions
from auth0_flask.tenant import Tenant
from conftest import Clock
from redis_server import RedisServer
from shop import copy_of_auth
from test_tokens import KINDS, flasks_own, in_redis, of_flask_session
from visitor import Shopper

SECRET, OLD = "s" * 32, "o" * 32
DOMAIN = "tenant.example.com"
DAY = 86_400
STATE = "_a0_session"  # the SDK's identifier of a session
AppFor = Callable[..., Flask]


@pytest.fixture(params=KINDS, ids=lambda kind: kind.__name__)
def app_for(request: pytest.FixtureRequest) -> AppFor:
    """Make an app over each of the session interfaces."""
    return partial(our_app, lambda app: request.param(app, request))


only = partial(pytest.mark.parametrize, "app_for", indirect=True)


def our_app(prepare: Callable[[Flask], Json] = lambda _: {}, **given: object) -> Flask:
    """Make an app with settings such as ``session_max_seconds``, and its views."""
    usual = {"domain": DOMAIN, "secret": SECRET, "scope": "openid profile"}
    values = {"revocations_path": "none", **usual, **given}
    config = {name: values.pop(name) for name in given if name.isupper()}
    own = copy_of_auth({f"AUTH0_{n.upper()}": str(v) for n, v in values.items()})
    app = Flask("shop")
    app.secret_key = "of flask"
    app.config.update(config)
    own.init_app(app, **prepare(app))
    app.register_blueprint(own.routes)
    app.extensions["auth0"].shared_store.check()  # as a server does at its start
    sessions, transactions = own.auth0.sessions, own.auth0.transactions

    @app.route("/state", methods=["GET", "POST", "DELETE"])
    async def state() -> Any:
        if request.method == "DELETE":
            await sessions.delete(STATE)
        if request.method == "POST":
            await sessions.get(STATE)
            await sessions.set(STATE, request.get_json())
        return jsonify(await sessions.get(STATE))

    @app.route("/transaction/<name>", methods=["GET", "POST", "DELETE"])
    async def transaction(name: str) -> Any:
        if request.method == "DELETE":
            await transactions.delete(f"_a0_tx:{name}")
        if request.method == "POST":
            kept = request.get_json(silent=True)
            data = TransactionData(app_state=kept, domain=DOMAIN)
            await transactions.set(f"_a0_tx:{name}", data)
        found = await transactions.get(f"_a0_tx:{name}")
        return jsonify(found and found.model_dump())

    @app.route("/own", methods=["GET", "POST"])
    def apps_own() -> Any:
        if request.method == "POST":
            session.update(request.get_json())
        return jsonify({name: v for name, v in session.items() if name[0] != "_"})

    return app


def alices(**user: Any) -> Json:
    """Return what the SDK keeps after Alice's login."""
    tokens = {"access_token": "x", "scope": "openid profile", "expires_at": 4 * 10**9}
    return {
        "user": {"sub": "auth0|alice", "name": "Alice", **user},
        "id_token": "an.id.token",
        "token_sets": [{**tokens, "audience": "default"}],
        "domain": DOMAIN,
        "internal": {"sid": "sid-1", "created_at": 1},
    }


def noise(length: int) -> str:
    """Return text that does not compress."""
    raw = random.Random(length).randbytes(length)  # noqa: S311 - the same every time
    return base64.b64encode(raw).decode()[:length]


def signed_in(app: Flask, **user: Any) -> FlaskClient:
    """Return a client with a session of Alice's."""
    client = app.test_client()
    assert client.post("/state", json=alices(**user)).status_code == 200
    return client


def user_of(client: FlaskClient) -> Json | None:
    state = client.get("/state").get_json()
    return state["user"] if state else None


def cookies_of(client: FlaskClient) -> dict[str, str]:
    return {cookie.key: cookie.value for cookie in (client._cookies or {}).values()}


def own_of(client: FlaskClient) -> Any:
    return client.get("/own").get_json()


def transaction(client: FlaskClient, name: str) -> Any:
    return client.get(f"/transaction/{name}").get_json()


def copy_of(client: FlaskClient, app: Flask) -> FlaskClient:
    """Return a client of an app with the same cookies."""
    other = app.test_client()
    other._cookies = dict(client._cookies or {})
    return other


def test_what_was_kept_comes_back_and_no_cookie_shows_it(app_for: AppFor) -> None:
    app = app_for()
    nobody, bob = app.test_client(), signed_in(app, sub="auth0|bob", name="Bob")
    client = signed_in(app, email="alice@example.com")
    client.post("/own", json={"cart": [1, 2]})

    answer = client.get("/state")

    assert "Cookie" in answer.vary
    state: Any = answer.get_json()
    assert state["user"] == alices(email="alice@example.com")["user"]
    assert state["id_token"] == "an.id.token"
    assert state["internal"]["sid"] == "sid-1"
    assert len(state["session"]["id"]) >= 22  # 16 random bytes
    assert user_of(bob) == {"sub": "auth0|bob", "name": "Bob"}
    assert user_of(nobody) is transaction(nobody, "x") is None
    assert cookies_of(nobody) == {}
    for value in cookies_of(client).values():
        for part in value.split("."):
            assert b"alice" not in base64.urlsafe_b64decode(part + "==").lower()
    client.delete("/state")
    assert user_of(client) is None
    assert own_of(client) == {"cart": [1, 2]}


@only([flasks_own, in_redis])
@pytest.mark.parametrize("ends", ["at Auth0", "by idle time", "and is left", "not yet"])
def test_what_the_app_keeps_of_a_session_is_its_users_alone(
    app_for: AppFor, tenant: Tenant, clock: Clock, tmp_path: Path, ends: str
) -> None:
    idle, path, signed_out = 600, tmp_path / "revocations", list[str]()
    given = {"session_idle_seconds": idle, "revocations_path": path}
    alice = Shopper(app := app_for(domain=tenant.domain, **given))
    alice.client.post("/own", json={"address": "1 Rose Lane"})  # as a guest

    def note(sender: Flask, user: Any) -> None:
        signed_out.append(user["sub"])

    kept = {} if ends == "and is left" else {"address": "1 Rose Lane"}
    alice.login()
    for username, left in (("alice", kept), ("bob", {})):
        if ends == "at Auth0":
            form = {"logout_token": tenant.logout_token(sub="auth0|alice")}
            app.test_client().post("/backchannel-logout", data=form)
        elif ends != "not yet":
            clock.forward(idle)
            # the library that verifies ID tokens looks at the real time
            tenant.forge(claims={"iat": int(clock.time() - clock.offset)})
        assert bool(user_of(alice.client)) == (ends == "not yet")
        if ends == "and is left":
            alice.client.get("/logout")

        alice.username = username
        with user_logged_out.connected_to(note, app):
            alice.login()

        assert (user_of(alice.client) or {})["sub"] == f"auth0|{username}"
        assert own_of(alice.client) == left
    assert signed_out == (["auth0|alice"] if ends == "not yet" else [])


@pytest.mark.parametrize(
    ("limits", "today", "most", "uses"),
    [
        ({"session_idle_seconds": 600}, {}, 9999, [599, 599, 600]),
        ({}, {"session_max_seconds": 1500}, 9999, [1499, 0, 1]),
        ({}, {}, 600, [0, 600]),
        ({}, {"session_max_seconds": 60}, 9999, [61, 0]),
        ({}, {"domain": "another.example.com"}, 9999, [61, 0]),
    ],
    ids=["idle", "in use", "identity provider", "lifetime", "domain"],
)
def test_a_session_ends_when_it_has_to_by_the_settings_of_today(
    app_for: AppFor, clock: Clock, limits: Json, today: Json, most: int, uses: list[int]
) -> None:
    client, state = app_for(**limits).test_client(), alices()
    state["internal"]["session_expires_at"] = int(clock.time()) + most
    client.post("/state", json=state)
    for seconds in uses[:-1]:
        clock.forward(seconds)
        assert user_of(client)
    clock.forward(uses[-1])

    assert user_of(copy_of(client, app_for(**limits, **today))) is None


def test_only_a_login_makes_another_session(app_for: AppFor) -> None:
    app = app_for()
    auth0 = app.extensions["auth0"].client

    @app.post("/meddle")
    async def meddle() -> str:
        for kept in (await auth0.sessions.get(STATE), auth0.read_session()):
            kept["user"]["is_admin"] = True
            kept["user"].pop("name", None)
        await auth0.sessions.set(STATE, await auth0.sessions.get(STATE))
        return "kept"

    client = signed_in(app)
    first = client.get("/state").get_json()
    client.post("/state", json={**first, "id_token": None})  # a refresh brought none
    assert client.post("/meddle").text == "kept"
    refreshed = client.get("/state").get_json()
    client.post("/state", json=alices())

    assert refreshed["user"] == {"sub": "auth0|alice", "name": "Alice"}
    assert refreshed["id_token"] == "an.id.token"
    for name in ("id", "created_at"):
        assert refreshed["session"][name] == first["session"][name]
    assert client.get("/state").get_json()["session"]["id"] != first["session"]["id"]


def test_transactions_are_there_until_used_or_an_hour_old_and_the_newest_stay(
    app_for: AppFor, clock: Clock
) -> None:
    client = signed_in(app_for())
    client.post("/transaction/one", json={"return_to": "/x"})
    client.post("/transaction/two", json={"return_to": "/y"})
    with client.session_transaction() as opened:
        opened["_a0_tx:stolen"] = opened[STATE]  # a session is none

    assert transaction(client, "one")["app_state"] == {"return_to": "/x"}
    client.delete("/transaction/one")
    assert transaction(client, "one") is transaction(client, "stolen") is None
    clock.forward(3599)
    assert transaction(client, "two")
    clock.forward(1)
    assert transaction(client, "two") is None

    client.delete("/state")
    for number in range(30):
        client.post(f"/transaction/{number}", json={"return_to": "/" + "x" * 100})
        clock.forward(1)
    kept = [number for number in range(30) if transaction(client, str(number))]
    assert kept == list(range(30 - len(kept), 30))
    assert 3 <= len(kept) <= 8
    assert sum(len(name) + len(v) for name, v in cookies_of(client).items()) < 4093


def test_a_login_starts_beside_keys_that_are_no_strings(app_for: AppFor) -> None:
    with app_for().test_request_context():
        session[1] = "as Flask allows"  # type: ignore[index]
        assert forget_transactions() == []


def test_what_is_too_large_is_refused_and_named(
    app_for: AppFor, caplog: pytest.LogCaptureFixture
) -> None:
    client = signed_in(app_for(), name="before")
    client.post("/own", json={"user": noise(1500)})  # as Authlib's quickstart leaves
    groups = {"https://example.com/groups": noise(90_000)}

    github = {"connection": "github", "access_token": noise(500), "expires_at": 4e9}
    state = {**alices(**groups), "connection_token_sets": [github]}

    answer = client.post("/state", json=state)

    assert answer.status_code == 500
    for part in (
        "claim https://example.com/groups (90002 bytes)",
        *("session['user'] (1502 bytes)", "access token for github (502 bytes)"),
    ):
        assert part in caplog.text
    assert "AUTH0_REDIS_URL" in caplog.text
    assert noise(500)[:20] not in caplog.text + answer.text
    assert (user_of(client) or {})["name"] == "before"


def test_an_ended_session_is_over_in_a_held_app_context(tmp_path: Path) -> None:
    """As notebooks, shells and test suites hold one: ``flask.g`` is theirs, then."""
    client = signed_in(app := our_app(revocations_path=tmp_path / "revocations"))
    thief = copy_of(client, app)

    with app.app_context():
        assert user_of(thief)
        client.get("/logout")
        assert user_of(thief) is None


def test_whoever_signs_copies_of_a_session_out_fills_no_disk(tmp_path: Path) -> None:
    path, sizes = tmp_path / "revocations", set()
    client = signed_in(app := our_app(revocations_path=path))
    for copy in [copy_of(client, app) for _ in range(100)]:
        copy.get("/logout")
        sizes.add(path.stat().st_size)
    assert len(sizes) == 1


@pytest.mark.parametrize("at_login", [1000, 3000])
def test_a_longer_lifetime_does_not_revive_what_was_ended(
    tmp_path: Path, clock: Clock, at_login: int
) -> None:
    path = tmp_path / "revocations"
    at_first, shorter, longer = (
        our_app(revocations_path=path, session_max_seconds=most)
        for most in (at_login, 1000, 3000)
    )
    client = signed_in(at_first)
    copy_of(client, shorter).get("/logout")

    clock.forward(1001)  # by the shorter one it may be forgotten from now on

    assert user_of(copy_of(client, longer)) is None


@only([in_redis, of_flask_session])
def test_an_id_from_before_the_login_is_worth_nothing(app_for: AppFor) -> None:
    app = app_for()
    attacker = app.test_client()
    attacker.post("/own", json={"planted": 1})
    victim = copy_of(attacker, app)
    victim.post("/state", json=alices())

    assert user_of(victim)
    assert own_of(victim) == {"planted": 1}
    assert user_of(attacker) is None
    assert own_of(attacker) == {}


@only([in_redis])
def test_an_id_made_up_or_ended_meanwhile_is_not_taken_over(app_for: AppFor) -> None:
    app, made_up = app_for(), "x" * 43
    client = app.test_client()
    client.set_cookie("session", made_up)
    client.post("/own", json={"a": 1})

    known = cookies_of(client)["session"]
    assert known != made_up
    for pair in ((known, made_up), (made_up, known)):
        cookie = {"Cookie": "; ".join(f"session={sid}" for sid in pair)}
        bare = app.test_client(use_cookies=False)
        assert bare.get("/own", headers=cookie).get_json() == {"a": 1}
    client = signed_in(app)
    cookie = {"Cookie": f"session={cookies_of(client)['session']}"}
    with app.test_request_context(headers=cookie):
        session["note"] = 1
        copy_of(client, app).delete("/state")
        app.process_response(app.make_response("late"))
    assert (user_of(client), own_of(client)) == (None, {})


def record_of(client: FlaskClient) -> str:
    """Return where Redis has a session."""
    sid = cookies_of(client)["session"]
    return f"auth0-flask:session:{sha256(sid.encode()).hexdigest()}"


@only([in_redis])
def test_whoever_reads_and_writes_redis_sees_nothing_and_signs_in_as_nobody(
    app_for: AppFor, redis_server: RedisServer
) -> None:
    """None is made of another, or a cookie at an app that has the same secret."""
    app, behind = app_for(), app_for(secret=OLD)
    alice, mallory = signed_in(app), app.test_client()
    mallory.post("/own", json={"cart": "of-the-app"})
    hers, mine = record_of(alice), record_of(mallory)
    assert cookies_of(alice)["session"].encode() not in redis_server.say("KEYS *")
    assert redis_server.say(f"TTL {hers}").strip() in {b":604800", b":604799"}
    ours, rest = (
        redis_server.say(f"GET {record}").split(b"\n")[1].decode().strip()
        for record in (hers, mine)
    )
    assert "of-the-app" not in rest
    mixed = f"{ours.partition('~')[0]}~{rest.partition('~')[2]}"
    assert redis_server.say(f"SET {mine} {mixed}").strip() == b"+OK"
    assert user_of(mallory) is None
    assert redis_server.say(f"COPY {hers} {mine} REPLACE").strip() == b":1"
    assert user_of(mallory) is None

    thief = our_app().test_client()
    for part in ours.replace("~", " ").split():
        thief.set_cookie("session_auth0", part)
        assert user_of(thief) is None

    # a machine that is not restarted yet, without the new secret, signs nobody out
    there = copy_of(alice, behind)
    assert user_of(there) is None
    assert user_of(copy_of(there, app))


def of_version_1(**user: Any) -> Json:
    """Return what version 1.0 kept of Alice's session in ``flask.session``."""
    now = int(time.time())
    own = {"id": "i" * 22, "created_at": now, "used_at": now, "max_seconds": 7 * DAY}
    encrypted = encrypt(STATE, {**alices(**user), "session": own}, [SECRET])
    return {"_permanent": True, "cart": 1, STATE: encrypted}


@only([in_redis])
def test_a_session_that_version_1_kept_in_redis_goes_on(
    app_for: AppFor, redis_server: RedisServer
) -> None:
    client = app_for().test_client()
    client.set_cookie("session", "s" * 43)
    key = record_of(client)
    kept = {"session": session_json_serializer.dumps(of_version_1())}
    redis_server.say(f"SET {key} {encrypt(key, kept, [SECRET])}")

    assert user_of(client) == alices()["user"]
    assert own_of(client) == {"cart": 1}


def test_what_version_1_kept_moves_to_cookies_of_its_own(clock: Clock) -> None:
    client = our_app().test_client()
    signer = SecureCookieSessionInterface().get_signing_serializer(client.application)
    value = f"2~{signer and signer.dumps(of_version_1(bio=noise(3500)))!s}"
    login = {"domain": DOMAIN, "app_state": {"a": 1}, "created_at": time.time()}
    for name, part in {  # within Flask's cookie, which could span several
        "__Host-session": value[:PIECE_BYTES],
        "__Host-session.1": value[PIECE_BYTES:],
        "session_a0_tx.one": encrypt("_a0_tx:one", login, [SECRET]),
    }.items():
        client.set_cookie(name, part)

    assert transaction(client, "one")["app_state"] == {"a": 1}
    client.delete("/transaction/one")
    for _ in range(2):
        assert (user_of(client) or {})["bio"] == noise(3500)
        assert own_of(client) == {"cart": 1}
        clock.forward(DAY / 20 + 1)

    names = ["session", "session_auth0", "session_auth0.1"]
    assert sorted(cookies_of(client)) == names
    assert len(cookies_of(client)["session"]) < 100
    client.delete("/state")
    assert list(cookies_of(client)) == ["session"]
