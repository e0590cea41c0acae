"""The stores' contract, the same over every session interface."""

from __future__ import annotations

import base64
import random
import sqlite3
import time
from collections.abc import Callable
from contextlib import closing
from functools import partial
from hashlib import sha256
from pathlib import Path
from typing import Any

import pytest
from auth0_server_python.auth_types import StateData, TransactionData
from flask import Flask, jsonify, request, session
from flask.sessions import session_json_serializer
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from auth0_flask import Auth0Client, Settings, init_app
from auth0_flask.stores import (
    FlaskSessionStateStore,
    FlaskSessionTransactionStore,
    Lifetime,
)
from auth0_flask.stores.encryption import encrypt
from auth0_flask.tenant import Tenant
from conftest import Clock
from redis_server import RedisServer
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

    def make(**options: Any) -> Flask:
        app, client = Flask(__name__), client_with(**options)
        app.secret_key = "of flask"
        init_app(app, client, **request.param(app, request))
        return add_views(app, client)

    return make


only = partial(pytest.mark.parametrize, "app_for", indirect=True)


def client_with(
    *,
    secrets: tuple[str, ...] = (SECRET,),
    domain: str = DOMAIN,
    idle: int = DAY,
    most: int = 7 * DAY,
    callback: str = "http://localhost:5000/callback",
    revocations: str | Path = "none",
    keep_id_token: bool = True,
) -> Auth0Client:
    """Make a client as ``auth.py`` does, with other settings."""
    lifetime = Lifetime(domain=domain, idle_seconds=idle, max_seconds=most)
    return Auth0Client(
        Settings(
            domain=domain,
            client_id="client",
            client_secret="of-this-client",
            secrets=secrets,
            redirect_uri=callback,
            session_idle_seconds=idle,
            session_max_seconds=most,
            revocations_path=str(revocations),
        ),
        state_store=FlaskSessionStateStore(
            secrets=secrets,
            scope="openid profile",
            lifetime=lifetime,
            keep_id_token=keep_id_token,
        ),
        transaction_store=FlaskSessionTransactionStore(secrets=secrets),
    )


def our_app(**options: Any) -> Flask:
    """Make an app with our own session interface."""
    app, client = Flask(__name__), client_with(**options)
    app.secret_key = "of flask"
    init_app(app, client)
    app.extensions["auth0"].shared_store.check()  # as a server does at its start
    return add_views(app, client)


def add_views(app: Flask, client: Auth0Client) -> Flask:
    """Add views that call the stores as the SDK does, and the app's own."""
    _add_sessions(app, client)
    _add_transactions(app, client.transactions)

    @app.post("/own")
    def own() -> str:
        session.update(request.get_json())
        return "kept"

    @app.get("/own")
    def see_own() -> Any:
        return jsonify({name: v for name, v in session.items() if name[0] != "_"})

    return app


def _add_sessions(app: Flask, client: Auth0Client) -> None:
    sessions = client.sessions

    @app.post("/state")
    async def set_state() -> str:
        data = request.get_json()
        kept = data if "user" not in data else StateData.model_validate(data)
        await sessions.set(request.args.get("as", STATE), kept)
        return "kept"

    @app.get("/state")
    async def get_state() -> Any:
        return jsonify(await sessions.get(request.args.get("as", STATE)))

    @app.post("/refresh")
    async def refresh() -> str:
        kept = await sessions.get(STATE)
        assert kept
        kept["token_sets"] = [*kept["token_sets"], *request.get_json()]
        await sessions.set(STATE, {**kept, "id_token": None})
        return "kept"

    @app.delete("/state")
    async def delete_state() -> str:
        await sessions.delete(STATE)
        return "gone"

    @app.post("/end")
    def end() -> str:
        sessions.lifetime.end(sessions.load_unchecked() or {})
        return "ended"

    @app.post("/meddle")
    async def meddle() -> str:
        for kept in (await sessions.get(STATE), client.read_session()):
            assert kept
            kept["user"]["is_admin"] = True
            kept["user"].pop("name", None)
        again = await sessions.get(STATE)
        assert again
        await sessions.set(STATE, again)
        return "kept"


def _add_transactions(app: Flask, transactions: FlaskSessionTransactionStore) -> None:
    @app.post("/transaction/<name>")
    async def start(name: str) -> str:
        data = TransactionData(app_state=request.get_json(silent=True), domain=DOMAIN)
        await transactions.set(f"_a0_tx:{name}", data)
        return "kept"

    @app.get("/transaction/<name>")
    async def look(name: str) -> Any:
        found = await transactions.get(f"_a0_tx:{name}")
        return jsonify(found and found.model_dump())

    @app.delete("/transaction/<name>")
    async def finish(name: str) -> str:
        await transactions.delete(f"_a0_tx:{name}")
        return "gone"


TOKENS = {"access_token": "opaque", "scope": "openid profile", "expires_at": 4 * 10**9}


def alices(**user: Any) -> dict[str, Any]:
    """Return what the SDK keeps after Alice's login."""
    return {
        "user": {"sub": "auth0|alice", "name": "Alice", **user},
        "id_token": "an.id.token",
        "token_sets": [{**TOKENS, "audience": "default"}],
        "domain": DOMAIN,
        "internal": {"sid": "sid-1", "created_at": 1},
    }


def of_version_1(**user: Any) -> dict[str, str]:
    """Return what version 1.0 kept of Alice's session in ``flask.session``."""
    now = int(time.time())
    own = {"id": "i" * 22, "created_at": now, "used_at": now, "max_seconds": 7 * DAY}
    return {STATE: encrypt(STATE, {**alices(**user), "session": own}, [SECRET])}


def noise(length: int) -> str:
    """Return text that does not compress."""
    raw = random.Random(length).randbytes(length)  # noqa: S311 - the same every time
    return base64.b64encode(raw).decode()[:length]


def signed_in(app: Flask, **user: Any) -> FlaskClient:
    """Return a client with a session of Alice's."""
    client = app.test_client()
    assert client.post("/state", json=alices(**user)).status_code == 200
    return client


def user_of(client: FlaskClient) -> dict[str, Any] | None:
    state = client.get("/state").get_json()
    return state["user"] if state else None


def cookies_of(client: FlaskClient) -> dict[str, str]:
    return {cookie.key: cookie.value for cookie in (client._cookies or {}).values()}


def copy_of(client: FlaskClient, app: Flask) -> FlaskClient:
    """Return a client of an app with the same cookies."""
    other = app.test_client()
    for name, value in cookies_of(client).items():
        other.set_cookie(name, value)
    return other


def test_what_was_kept_comes_back(app_for: AppFor) -> None:
    app = app_for()
    nobody, bob = app.test_client(), signed_in(app, sub="auth0|bob", name="Bob")
    client = signed_in(app, email="alice@example.com")

    answer = client.get("/state")

    assert "Cookie" in answer.vary
    state: Any = answer.get_json()
    assert state["user"] == alices(email="alice@example.com")["user"]
    assert state["id_token"] == "an.id.token"
    assert state["internal"]["sid"] == "sid-1"
    assert len(state["session"]["id"]) >= 22  # 16 random bytes
    assert user_of(bob) == {"sub": "auth0|bob", "name": "Bob"}
    assert user_of(nobody) is None
    assert nobody.get("/transaction/x").get_json() is None
    assert cookies_of(nobody) == {}


def test_the_cookie_shows_nothing_of_what_it_holds(app_for: AppFor) -> None:
    client = signed_in(app_for())

    for value in cookies_of(client).values():
        for part in value.split("."):
            assert b"alice" not in base64.urlsafe_b64decode(part + "==").lower()


def test_deleting_leaves_what_the_app_keeps_itself(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/own", json={"cart": [1, 2]})
    client.post("/state?as=_a0_mfa", json={"token": "m"})
    assert user_of(client) is None
    client.post("/state", json=alices())
    client.delete("/state")

    assert user_of(client) is None
    assert client.get("/own").get_json() == {"cart": [1, 2]}
    assert client.get("/state?as=_a0_mfa").get_json() == {"token": "m"}


def test_a_session_of_another_auth0_domain_is_none(app_for: AppFor) -> None:
    before = signed_in(app_for())
    after = copy_of(before, app_for(domain="another.example.com"))

    assert user_of(after) is None


def test_a_session_under_an_unknown_secret_is_none_and_stays(app_for: AppFor) -> None:
    """A machine that is not restarted yet signs nobody out."""
    app, not_yet = app_for(secrets=(SECRET, OLD)), app_for(secrets=(OLD,))
    client = signed_in(app)
    client.post("/transaction/one")
    assert user_of(copy_of(signed_in(not_yet), app))

    there = copy_of(client, not_yet)
    assert user_of(there) is None
    assert there.get("/transaction/one").get_json() is None

    back = copy_of(there, app)
    assert user_of(back)
    assert back.get("/transaction/one").get_json()


def test_a_session_that_is_not_used_ends(app_for: AppFor, clock: Clock) -> None:
    client = signed_in(app_for(idle=600))
    clock.forward(599)
    assert user_of(client)
    clock.forward(599)
    assert user_of(client)  # the use before kept it alive
    clock.forward(600)

    assert user_of(client) is None


def test_a_session_ends_for_good_however_much_it_is_used(
    app_for: AppFor, clock: Clock
) -> None:
    client = signed_in(app_for(idle=600, most=1500))
    for _ in range(3):
        clock.forward(499)
        assert user_of(client)
    clock.forward(3)

    assert user_of(client) is None


def test_shorter_settings_hold_for_sessions_that_are_there(
    app_for: AppFor, clock: Clock
) -> None:
    before = signed_in(app_for())
    clock.forward(61)
    after = copy_of(before, app_for(most=60))

    assert user_of(before)
    assert user_of(after) is None


def test_a_session_ends_when_the_identity_provider_says(
    app_for: AppFor, clock: Clock
) -> None:
    client = app_for().test_client()
    state = alices()
    state["internal"]["session_expires_at"] = int(clock.time()) + 600
    client.post("/state", json=state)
    assert user_of(client)
    clock.forward(600)

    assert user_of(client) is None


@only([flasks_own, in_redis, of_flask_session])
def test_a_machine_whose_clock_is_behind_signs_nobody_out(
    app_for: AppFor, clock: Clock
) -> None:
    client = signed_in(app_for())
    client.post("/own", json={"cart": 1})
    for seconds in (0.4, 59):
        clock.offset = -seconds

        assert user_of(client)
        assert client.get("/own").get_json() == {"cart": 1}


def test_use_is_noted_seldom(app_for: AppFor, clock: Clock) -> None:
    client = signed_in(app_for(idle=2000))
    assert "Set-Cookie" not in client.get("/state").headers
    clock.forward(99)
    assert "Set-Cookie" not in client.get("/state").headers
    clock.forward(2)

    assert "Set-Cookie" in client.get("/state").headers
    assert "Set-Cookie" not in client.get("/state").headers


def test_a_refresh_keeps_the_session_and_a_login_makes_a_new_one(
    app_for: AppFor,
) -> None:
    client = signed_in(app_for())
    first = client.get("/state").get_json()
    other = {**TOKENS, "audience": "https://b.example.com", "scope": "read"}
    client.post("/refresh", json=[other])
    refreshed = client.get("/state").get_json()
    client.post("/state", json=alices())
    second = client.get("/state").get_json()

    for name in ("id", "created_at"):
        assert refreshed["session"][name] == first["session"][name]
    assert refreshed["id_token"] == "an.id.token"  # the refresh brought none
    audiences = [tokens["audience"] for tokens in refreshed["token_sets"]]
    assert audiences == ["default", "https://b.example.com"]
    assert second["session"]["id"] != first["session"]["id"]


@pytest.mark.parametrize("scope", [None, "", "openid profile", "openid"])
def test_a_refresh_without_audience_replaces_the_default_token(
    app_for: AppFor, clock: Clock, scope: str | None
) -> None:
    now = int(clock.time())
    client, state = app_for().test_client(), alices()
    state["token_sets"][0]["expires_at"] = now + 10
    client.post("/state", json=state)
    clock.forward(11)
    fresh = {"access_token": "fresh", "expires_at": now + 3600}
    client.post("/refresh", json=[{**fresh, "audience": None, "scope": scope}])

    token_sets = client.get("/state").get_json()["token_sets"]

    assert token_sets == [{**fresh, "audience": "default", "scope": "openid profile"}]


def test_a_transaction_is_there_until_it_is_used_or_an_hour_old(
    app_for: AppFor, clock: Clock
) -> None:
    client = signed_in(app_for())
    client.post("/transaction/one", json={"return_to": "/x"})
    client.post("/transaction/two", json={"return_to": "/y"})
    with client.session_transaction() as opened:
        opened["_a0_tx:stolen"] = opened[STATE]  # a session is none

    one = client.get("/transaction/one").get_json()
    client.delete("/transaction/one")

    assert one["app_state"] == {"return_to": "/x"}
    assert client.get("/transaction/one").get_json() is None
    assert client.get("/transaction/stolen").get_json() is None
    clock.forward(3599)
    assert client.get("/transaction/two").get_json()
    clock.forward(1)
    assert client.get("/transaction/two").get_json() is None


def test_of_many_transactions_the_newest_stay(app_for: AppFor, clock: Clock) -> None:
    client = app_for().test_client()
    for number in range(30):
        client.post(f"/transaction/{number}", json={"return_to": "/" + "x" * 100})
        clock.forward(1)

    kept = [n for n in range(30) if client.get(f"/transaction/{n}").get_json()]

    assert kept == list(range(30 - len(kept), 30))
    assert 3 <= len(kept) <= 8
    assert sum(len(name) + len(v) for name, v in cookies_of(client).items()) < 4093


def test_what_is_too_large_is_refused_and_named(
    app_for: AppFor, caplog: pytest.LogCaptureFixture
) -> None:
    client = signed_in(app_for(), name="before")
    groups = {"https://example.com/groups": noise(90_000)}

    answer = client.post("/state", json=alices(**groups, nickname=noise(500)))

    assert answer.status_code == 500
    assert "claim https://example.com/groups (90002 bytes)" in caplog.text
    assert "claim nickname (502 bytes)" in caplog.text
    assert "AUTH0_REDIS_URL" in caplog.text
    assert noise(500)[:20] not in caplog.text + answer.text
    assert (user_of(client) or {})["name"] == "before"


def test_what_a_view_does_to_the_user_is_not_kept(app_for: AppFor) -> None:
    client = signed_in(app_for())
    client.post("/meddle")

    assert user_of(client) == {"sub": "auth0|alice", "name": "Alice"}


def test_every_decoded_byte_of_a_session_matters(app_for: AppFor) -> None:
    app = app_for()
    client = signed_in(app)
    with client.session_transaction() as opened:
        header, key, *parts = opened[STATE].split(".")
    sessions = app.extensions["auth0"].client.sessions
    with app.test_request_context():
        for place, part in enumerate(parts):
            raw = base64.urlsafe_b64decode(part + "==")
            for index in range(0, len(raw), 7):
                changed = bytearray(raw)
                changed[index] ^= 0x40
                text = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
                pieces = [*parts[:place], text, *parts[place + 1 :]]
                session[STATE] = ".".join([header, key, *pieces])
                assert sessions.load() is None


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126)),
    piece=st.text(st.characters(min_codepoint=33, max_codepoint=126)),
)
def test_whatever_comes_in_cookies_signs_nobody_in(
    app_for: AppFor, value: str, piece: str
) -> None:
    names = ["session", "session_auth0", "session_auth0.1", "session.1"]
    names += ["session_auth0_tx0", "session_a0_tx.x"]
    values = [value, f"2~{value}", piece, piece, f"x.{value}", value]
    pairs = [f"{name}={text}" for name, text in zip(names, values, strict=True)]
    # a client with a jar would send that instead
    client = app_for().test_client(use_cookies=False)

    for path in ("/state", "/transaction/x"):
        answer = client.get(path, headers={"Cookie": "; ".join(pairs)})

        assert answer.status_code == 200
        assert answer.get_json() is None


def test_an_ended_session_is_over_within_an_app_context_that_is_held(
    tmp_path: Path,
) -> None:
    """As notebooks, shells and test suites hold one: ``flask.g`` is theirs, then."""
    app = our_app(revocations=tmp_path / "revocations")
    client = signed_in(app)
    thief = copy_of(client, app)

    with app.app_context():
        assert user_of(thief)
        client.post("/end")
        assert user_of(thief) is None


@pytest.mark.parametrize("at_login", [1000, 3000])
def test_a_longer_lifetime_does_not_revive_what_was_ended(
    tmp_path: Path, clock: Clock, at_login: int
) -> None:
    def app(most: int) -> Flask:
        return our_app(revocations=tmp_path / "revocations", most=most)

    client = signed_in(app(at_login))
    copy_of(client, app(1000)).post("/end")

    clock.forward(1001)  # by the shorter one it may be forgotten from now on

    assert user_of(copy_of(client, app(3000))) is None


def test_a_copy_that_is_signed_out_again_and_again_takes_no_more_room(
    shop: Flask, tenant: Tenant
) -> None:
    alice = Shopper(shop)
    alice.login()
    lengths = set()
    for copy in [alice.twin() for _ in range(3)]:
        copy.client.get("/logout")
        with closing(sqlite3.connect(shop.extensions["auth0"].shared_store.path)) as db:
            lengths.add(db.execute("SELECT count(*) FROM ended").fetchone()[0])

    assert len(lengths) == 1


@only([in_redis, of_flask_session])
def test_a_session_id_from_before_the_login_is_worth_nothing_after_it(
    app_for: AppFor,
) -> None:
    app = app_for()
    attacker = app.test_client()
    attacker.post("/own", json={"planted": 1})
    victim = copy_of(attacker, app)
    victim.post("/state", json=alices())

    assert user_of(victim)
    assert victim.get("/own").get_json() == {"planted": 1}
    assert user_of(attacker) is None
    assert attacker.get("/own").get_json() == {}


@only([in_redis])
def test_an_id_that_a_visitor_made_up_is_not_taken_over(app_for: AppFor) -> None:
    app, made_up = app_for(), "x" * 43
    client = app.test_client()
    client.set_cookie("session", made_up)
    client.post("/own", json={"a": 1})

    known = cookies_of(client)["session"]
    assert known != made_up
    for pair in ((known, made_up), (made_up, known)):
        cookie = "; ".join(f"session={sid}" for sid in pair)
        bare = app.test_client(use_cookies=False)
        assert bare.get("/own", headers={"Cookie": cookie}).get_json() == {"a": 1}


@only([in_redis])
def test_a_session_ended_meanwhile_is_not_brought_back_by_a_slow_request(
    app_for: AppFor,
) -> None:
    app = app_for()
    client = signed_in(app)
    other = copy_of(client, app)
    cookie = {"Cookie": f"session={cookies_of(client)['session']}"}
    with app.test_request_context(headers=cookie):
        session["note"] = 1
        other.delete("/state")
        app.process_response(app.make_response("late"))

    assert user_of(client) is None


def record_of(sid: str) -> str:
    """Return where Redis has a session."""
    return f"auth0-flask:session:{sha256(sid.encode()).hexdigest()}"


@only([in_redis])
def test_redis_sees_nothing_in_clear_and_lets_go_in_time(
    app_for: AppFor, redis_server: RedisServer
) -> None:
    client = signed_in(app_for())
    client.post("/own", json={"cart": "of-the-app"})
    sid = cookies_of(client)["session"]

    assert sid.encode() not in redis_server.say("KEYS *")
    assert b"of-the-app" not in redis_server.say(f"GET {record_of(sid)}")
    ttl = redis_server.say(f"TTL {record_of(sid)}").strip()
    assert ttl in {b":604800", b":604799"}


@only([in_redis])
def test_what_redis_has_of_a_session_is_no_cookie_either(
    app_for: AppFor, redis_server: RedisServer
) -> None:
    """Such as for an app with the same secret that keeps sessions in cookies."""
    sid = cookies_of(signed_in(app_for()))["session"]
    kept = redis_server.say(f"GET {record_of(sid)}").split(b"\n")[1].decode()
    thief = our_app().test_client()
    for part in kept.replace("~", " ").split():
        thief.set_cookie("session_auth0", part)
        assert user_of(thief) is None


@only([in_redis])
def test_a_session_that_is_moved_within_redis_is_none(
    app_for: AppFor, redis_server: RedisServer
) -> None:
    """Whoever can write there cannot make one session out of another."""
    app = app_for()
    alice, mallory = app.test_client(), app.test_client()
    alice.post("/state", json=alices())
    mallory.post("/own", json={"cart": 1})
    hers, mine = (record_of(cookies_of(c)["session"]) for c in (alice, mallory))
    parts = redis_server.say(f"GET {hers}"), redis_server.say(f"GET {mine}")
    ours, rest = (part.split(b"\n")[1].decode().strip() for part in parts)
    mixed = f"{ours.partition('~')[0]}~{rest.partition('~')[2]}"
    assert redis_server.say(f"SET {mine} {mixed}").strip() == b"+OK"

    assert user_of(mallory) is None

    assert redis_server.say(f"COPY {hers} {mine} REPLACE").strip() == b":1"

    assert user_of(mallory) is None


@only([in_redis])
def test_a_session_that_version_1_kept_in_redis_goes_on(
    app_for: AppFor, redis_server: RedisServer
) -> None:
    sid = "s" * 43
    key = record_of(sid)
    kept = {"session": session_json_serializer.dumps({**of_version_1(), "cart": 1})}
    redis_server.say(f"SET {key} {encrypt(key, kept, [SECRET])}")
    client = app_for().test_client()
    client.set_cookie("session", sid)

    assert user_of(client) == alices()["user"]
    assert client.get("/own").get_json() == {"cart": 1}
