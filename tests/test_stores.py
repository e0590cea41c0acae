"""The stores' contract, the same over every session interface."""

from __future__ import annotations

import base64
import json
import random
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from hashlib import sha256
from typing import Any

import pytest
from auth0_server_python.auth_types import StateData, TransactionData
from flask import Flask, jsonify, request, session
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from conftest import Clock
from redis_server import RedisServer
from stores import (
    FlaskSessionStateStore,
    FlaskSessionTransactionStore,
    Lifetime,
    SpanningSessionInterface,
)
from stores.cookies import TOTAL_BYTES
from stores.sealing_store import STATE_IDENTIFIER as STATE

SECRET, OLD = "s" * 32, "o" * 32
DOMAIN = "tenant.example.com"
DAY = 86_400
AppFor = Callable[..., Flask]
Secrets = tuple[str, ...]


def several_cookies(app: Flask, _: pytest.FixtureRequest, secrets: Secrets) -> None:
    app.session_interface = SpanningSessionInterface()


def flasks_own(app: Flask, _: pytest.FixtureRequest, secrets: Secrets) -> None:
    pass


def in_redis(app: Flask, request: pytest.FixtureRequest, secrets: Secrets) -> None:
    from stores.in_redis import RedisSessionInterface, connect

    client = connect(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    app.session_interface = RedisSessionInterface(
        client, secrets=secrets, seconds=7 * DAY
    )


def flask_session(app: Flask, request: pytest.FixtureRequest, secrets: Secrets) -> None:
    """The published way to keep Flask's session in Redis."""
    from flask_session import Session
    from redis import Redis

    client = Redis.from_url(request.getfixturevalue("redis_server").url)
    request.addfinalizer(client.close)
    app.config.update(SESSION_TYPE="redis", SESSION_REDIS=client)
    Session(app)  # type: ignore[no-untyped-call]  # it has no types


BACKENDS = [several_cookies, flasks_own, in_redis, flask_session]


@pytest.fixture(params=BACKENDS, ids=lambda backend: backend.__name__)
def app_for(request: pytest.FixtureRequest) -> AppFor:
    """Make an app over each of the session interfaces."""

    def make(secrets: Secrets = (SECRET,), **options: Any) -> Flask:
        app = _app(secrets, **options)
        request.param(app, request, secrets)
        return app

    return make


def _app(
    secrets: Secrets = (SECRET,),
    domain: str = DOMAIN,
    idle: int = DAY,
    most: int = 7 * DAY,
) -> Flask:
    app = Flask(__name__)
    app.secret_key = "of flask"
    state = FlaskSessionStateStore(
        secrets=secrets,
        scope="openid profile",
        lifetime=Lifetime(domain=domain, idle_seconds=idle, max_seconds=most),
    )
    transactions = FlaskSessionTransactionStore(secrets=secrets)

    @app.post("/state")
    async def set_state() -> str:
        data = request.get_json()
        kept = data if "user" not in data else StateData.model_validate(data)
        await state.set(request.args.get("as", STATE), kept)
        session.permanent = True
        return "kept"

    @app.get("/state")
    async def get_state() -> Any:
        return jsonify(await state.get(request.args.get("as", STATE)))

    @app.post("/refresh")
    async def refresh() -> Any:
        kept = await state.get(STATE)
        assert kept
        kept["token_sets"] = [*kept["token_sets"], *request.get_json()]
        await state.set(STATE, kept)
        return jsonify(state.read())

    @app.delete("/state")
    async def delete_state() -> str:
        await state.delete(STATE)
        return "gone"

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

    @app.post("/own")
    def own() -> str:
        session.update(request.get_json())
        return "kept"

    @app.get("/own")
    def see_own() -> Any:
        return jsonify({name: v for name, v in session.items() if name[0] != "_"})

    return app


def alices(**user: Any) -> dict[str, Any]:
    """Return what the SDK keeps after Alice's login."""
    return {
        "user": {"sub": "auth0|alice", "name": "Alice", **user},
        "id_token": "an.id.token",
        "token_sets": [
            {
                "audience": "default",
                "access_token": "opaque",
                "scope": "openid profile",
                "expires_at": 4_000_000_000,
            }
        ],
        "domain": DOMAIN,
        "internal": {"sid": "sid-1", "created_at": 1},
    }


def noise(length: int) -> str:
    """Return text that does not compress."""
    raw = random.Random(length).randbytes(length)  # noqa: S311 - the same every time
    return base64.b64encode(raw).decode()[:length]


def user_of(client: FlaskClient) -> dict[str, Any] | None:
    state = client.get("/state").get_json()
    return state["user"] if state else None


def cookies_of(client: FlaskClient) -> dict[str, str]:
    return {cookie.key: cookie.value for cookie in (client._cookies or {}).values()}


def move_cookies(source: FlaskClient, target: FlaskClient) -> None:
    for name, value in cookies_of(source).items():
        target.set_cookie(name, value)


def test_what_was_kept_comes_back(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/state", json=alices(email="alice@example.com"))

    state = client.get("/state").get_json()

    assert state["user"] == {
        "sub": "auth0|alice",
        "name": "Alice",
        "email": "alice@example.com",
    }
    assert state["id_token"] == "an.id.token"
    assert state["internal"]["sid"] == "sid-1"
    assert len(state["session"]["id"]) >= 22  # 16 random bytes


def test_nobody_is_signed_in_without_a_session(app_for: AppFor) -> None:
    client = app_for().test_client()

    assert user_of(client) is None
    assert client.get("/transaction/x").get_json() is None
    assert cookies_of(client) == {}


def test_two_users_never_see_each_other(app_for: AppFor) -> None:
    app = app_for()
    alice, bob = app.test_client(), app.test_client()
    alice.post("/state", json=alices())
    bob.post("/state", json=alices(sub="auth0|bob", name="Bob"))

    assert (user_of(alice) or {})["sub"] == "auth0|alice"
    assert (user_of(bob) or {})["sub"] == "auth0|bob"


def test_the_cookie_shows_nothing_of_what_it_holds(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/state", json=alices())

    value = "".join(cookies_of(client).values())
    payload = base64.urlsafe_b64decode(value.lstrip(".").partition(".")[0] + "==")

    assert b"alice" not in payload.lower()


def test_deleting_leaves_what_the_app_keeps_itself(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/own", json={"cart": [1, 2]})
    client.post("/state", json=alices())
    client.delete("/state")

    assert user_of(client) is None
    assert client.get("/own").get_json() == {"cart": [1, 2]}


def test_other_identifiers_are_sealed_as_they_are(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/state?as=mfa", json={"token": "m"})

    assert client.get("/state?as=mfa").get_json() == {"token": "m"}
    assert user_of(client) is None


@pytest.mark.parametrize(
    "other",
    [{"secrets": ("x" * 32,)}, {"domain": "another.example.com"}],
    ids=["another secret", "another Auth0 domain"],
)
def test_a_session_of_another_setup_is_none(
    app_for: AppFor, other: dict[str, Any]
) -> None:
    before, after = app_for().test_client(), app_for(**other).test_client()
    before.post("/state", json=alices())
    move_cookies(before, after)

    assert user_of(after) is None
    assert user_of(after) is None


def test_a_session_made_under_an_old_secret_goes_on(app_for: AppFor) -> None:
    before = app_for(secrets=(OLD,)).test_client()
    before.post("/state", json=alices())
    after = app_for(secrets=(SECRET, OLD)).test_client()
    move_cookies(before, after)

    assert user_of(after)


def test_a_session_that_is_not_used_ends(app_for: AppFor, clock: Clock) -> None:
    client = app_for(idle=600).test_client()
    client.post("/state", json=alices())
    clock.forward(599)
    assert user_of(client)
    clock.forward(599)
    assert user_of(client)  # the use before kept it alive
    clock.forward(600)

    assert user_of(client) is None


def test_a_session_ends_for_good_however_much_it_is_used(
    app_for: AppFor, clock: Clock
) -> None:
    client = app_for(idle=600, most=1500).test_client()
    client.post("/state", json=alices())
    for _ in range(3):
        clock.forward(499)
        assert user_of(client)
    clock.forward(3)

    assert user_of(client) is None


def test_shorter_settings_hold_for_sessions_that_are_there(
    app_for: AppFor, clock: Clock
) -> None:
    before, after = app_for().test_client(), app_for(most=60).test_client()
    before.post("/state", json=alices())
    clock.forward(61)
    move_cookies(before, after)

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


def test_use_is_noted_seldom(app_for: AppFor, clock: Clock) -> None:
    app = app_for(idle=2000)
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    client = app.test_client()
    client.post("/state", json=alices())
    assert "Set-Cookie" not in client.get("/state").headers
    clock.forward(99)
    assert "Set-Cookie" not in client.get("/state").headers
    clock.forward(2)

    assert "Set-Cookie" in client.get("/state").headers
    assert "Set-Cookie" not in client.get("/state").headers


def test_a_refresh_keeps_the_session_and_a_login_makes_a_new_one(
    app_for: AppFor,
) -> None:
    client = app_for().test_client()
    client.post("/state", json=alices())
    first = client.get("/state").get_json()["session"]
    client.post("/refresh", json=[])
    refreshed = client.get("/state").get_json()["session"]
    client.post("/state", json=alices())
    second = client.get("/state").get_json()["session"]

    assert refreshed["id"] == first["id"]
    assert refreshed["created_at"] == first["created_at"]
    assert second["id"] != first["id"]


@pytest.mark.parametrize("scope", [None, "", "openid profile", "openid"])
def test_a_refresh_without_audience_replaces_the_default_token(
    app_for: AppFor, clock: Clock, scope: str | None
) -> None:
    client = app_for().test_client()
    state = alices()
    state["token_sets"][0]["expires_at"] = int(clock.time()) + 10
    client.post("/state", json=state)
    clock.forward(11)
    fresh = {
        "audience": None,
        "access_token": "fresh",
        "scope": scope,
        "expires_at": int(clock.time()) + 3600,
    }
    client.post("/refresh", json=[fresh])

    token_sets = client.get("/state").get_json()["token_sets"]

    assert token_sets == [{**fresh, "audience": "default", "scope": "openid profile"}]


def test_tokens_for_several_audiences_live_side_by_side(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/state", json=alices())
    other = {"access_token": "b", "scope": "read", "expires_at": 4_000_000_000}
    client.post("/refresh", json=[{**other, "audience": "https://b.example.com"}])

    token_sets = client.get("/state").get_json()["token_sets"]

    assert [tokens["audience"] for tokens in token_sets] == [
        "default",
        "https://b.example.com",
    ]


def test_a_transaction_is_there_until_it_is_used(app_for: AppFor) -> None:
    client = app_for().test_client()
    client.post("/transaction/one", json={"return_to": "/x"})
    client.post("/transaction/two", json={"return_to": "/y"})

    one = client.get("/transaction/one").get_json()
    client.delete("/transaction/one")

    assert one["app_state"] == {"return_to": "/x"}
    assert client.get("/transaction/one").get_json() is None
    assert client.get("/transaction/two").get_json()


def test_a_transaction_lives_an_hour(app_for: AppFor, clock: Clock) -> None:
    client = app_for().test_client()
    client.post("/transaction/one")
    clock.forward(3599)
    assert client.get("/transaction/one").get_json()
    clock.forward(1)

    assert client.get("/transaction/one").get_json() is None


def test_of_many_transactions_the_newest_stay(app_for: AppFor, clock: Clock) -> None:
    client = app_for().test_client()
    for number in range(30):
        client.post(f"/transaction/{number}", json={"return_to": "/" + "x" * 100})
        clock.forward(1)

    kept = [n for n in range(30) if client.get(f"/transaction/{n}").get_json()]

    assert kept == list(range(30 - len(kept), 30))
    assert 3 <= len(kept) <= 8
    assert all(len(name) + len(v) < 4093 for name, v in cookies_of(client).items())
    assert sum(len(name) + len(v) for name, v in cookies_of(client).items()) < 4093


def test_a_session_and_a_transaction_are_not_interchangeable(app_for: AppFor) -> None:
    app = app_for()
    client = app.test_client()
    client.post("/state", json=alices())
    with client.session_transaction() as opened:
        sealed = opened[STATE]
        under_way = getattr(opened, "under_way", None)
        held = opened if under_way is None else under_way.transactions
        held["_a0_tx:stolen"] = sealed

    assert client.get("/transaction/stolen").get_json() is None


def test_what_is_too_large_is_refused_and_named(
    app_for: AppFor, caplog: pytest.LogCaptureFixture
) -> None:
    client = app_for().test_client()
    client.post("/state", json=alices(name="before"))
    groups = {"https://example.com/groups": noise(90_000)}

    answer = client.post("/state", json=alices(**groups, nickname=noise(500)))

    assert answer.status_code == 500
    assert "claim https://example.com/groups (90002 bytes)" in caplog.text
    assert "claim nickname (502 bytes)" in caplog.text
    assert "AUTH0_REDIS_URL" in caplog.text
    assert noise(500)[:20] not in caplog.text + answer.text
    assert (user_of(client) or {})["name"] == "before"


def test_writes_at_the_same_moment_leave_one_of_them_whole(app_for: AppFor) -> None:
    app = app_for()
    client = app.test_client()
    client.post("/state", json=alices())

    def write(number: int) -> FlaskClient:
        tab = app.test_client()
        move_cookies(client, tab)
        assert tab.post("/own", json={"number": number}).status_code == 200
        return tab

    with ThreadPoolExecutor(8) as pool:
        tabs = list(pool.map(write, range(24)))

    for tab in tabs:
        assert (user_of(tab) or {})["sub"] == "auth0|alice"
        assert tab.get("/own").get_json()["number"] in range(24)


@pytest.mark.parametrize("backend", [in_redis, flask_session])
def test_a_session_id_from_before_the_login_is_worth_nothing_after_it(
    request: pytest.FixtureRequest, backend: Any
) -> None:
    app = _app()
    backend(app, request, (SECRET,))
    victim, attacker = app.test_client(), app.test_client()
    attacker.post("/own", json={"planted": 1})
    move_cookies(attacker, victim)
    victim.post("/state", json=alices())

    assert (user_of(victim) or {})["sub"] == "auth0|alice"
    assert victim.get("/own").get_json() == {"planted": 1}
    assert user_of(attacker) is None
    assert attacker.get("/own").get_json() == {}


def test_an_id_that_a_visitor_made_up_is_not_taken_over(
    request: pytest.FixtureRequest,
) -> None:
    app = _app()
    in_redis(app, request, (SECRET,))
    client = app.test_client()
    client.set_cookie("session", "x" * 43)
    client.post("/own", json={"a": 1})

    assert cookies_of(client)["session"] != "x" * 43
    assert client.get("/own").get_json() == {"a": 1}


def test_a_session_ended_meanwhile_is_not_brought_back_by_a_slow_request(
    request: pytest.FixtureRequest,
) -> None:
    app = _app()
    in_redis(app, request, (SECRET,))
    client, other = app.test_client(), app.test_client()
    client.post("/state", json=alices())
    move_cookies(client, other)
    with app.test_request_context(
        headers={"Cookie": f"session={cookies_of(client)['session']}"}
    ) as slow:
        session["note"] = 1
        other.delete("/state")
        app.process_response(app.make_response("late"))
        assert slow.session is not None

    assert user_of(client) is None


def test_redis_sees_nothing_in_clear_and_lets_go_in_time(
    request: pytest.FixtureRequest, redis_server: RedisServer
) -> None:
    app = _app()
    in_redis(app, request, (SECRET,))
    client = app.test_client()
    client.post("/state", json=alices())
    client.post("/own", json={"cart": "of-the-app"})
    sid = cookies_of(client)["session"]
    key = f"auth0-flask:session:{sha256(sid.encode()).hexdigest()}"

    assert sid.encode() not in redis_server.say("KEYS *")

    assert b"of-the-app" not in redis_server.say(f"GET {key}")
    assert redis_server.say(f"TTL {key}").strip() in {b":604800", b":604799"}


def test_reads_that_need_an_old_secret_are_counted_once_a_minute(
    clock: Clock, caplog: pytest.LogCaptureFixture
) -> None:
    before = _app((OLD,)).test_client()
    before.post("/state", json=alices())
    after = _app((SECRET, OLD)).test_client()
    move_cookies(before, after)
    clock.forward(61)
    user_of(after)
    caplog.clear()
    for _ in range(5):
        user_of(after)
    assert "old secret" not in caplog.text

    clock.forward(61)
    user_of(after)

    assert "since this was last said: 6." in caplog.text


def test_every_decoded_byte_of_a_session_matters(app_for: AppFor) -> None:
    app = app_for()
    client = app.test_client()
    client.post("/state", json=alices())
    with client.session_transaction() as opened:
        header, key, *parts = opened[STATE].split(".")
    with app.test_request_context():
        for place, part in enumerate(parts):
            raw = base64.urlsafe_b64decode(part + "==")
            for index in range(0, len(raw), 7):
                changed = bytearray(raw)
                changed[index] ^= 0x40
                text = base64.urlsafe_b64encode(changed).rstrip(b"=").decode()
                pieces = [*parts[:place], text, *parts[place + 1 :]]
                session[STATE] = ".".join([header, key, *pieces])
                store = app.view_functions["get_state"].__closure__
                assert store
                state_store = next(
                    cell.cell_contents
                    for cell in store
                    if isinstance(cell.cell_contents, FlaskSessionStateStore)
                )
                assert state_store.read() is None


@settings(suppress_health_check=[HealthCheck.function_scoped_fixture], deadline=None)
@given(
    value=st.text(st.characters(min_codepoint=33, max_codepoint=126)),
    piece=st.text(st.characters(min_codepoint=33, max_codepoint=126)),
)
def test_whatever_comes_in_cookies_signs_nobody_in(
    app_for: AppFor, value: str, piece: str
) -> None:
    client = app_for().test_client()
    jar = {"session": value, "session.1": piece, "session_a0_tx.x": value}
    header = "; ".join(f"{name}={text}" for name, text in jar.items())

    answer = client.get("/state", headers={"Cookie": header})

    assert answer.status_code == 200
    assert answer.get_json() is None
    found = client.get("/transaction/x", headers={"Cookie": header})
    assert found.get_json() is None


def spanning() -> FlaskClient:
    app = _app()
    app.session_interface = SpanningSessionInterface()
    app.config["SESSION_REFRESH_EACH_REQUEST"] = False
    return app.test_client()


def test_a_session_grows_from_one_cookie_to_three_and_back() -> None:
    client = spanning()
    for length, number in [(100, 1), (4000, 2), (6500, 3), (4000, 2), (100, 1)]:
        client.post("/state", json=alices(bio=noise(length)))
        state = client.get("/state").get_json()

        assert state["user"]["bio"] == noise(length)
        assert len(cookies_of(client)) == number, length


def test_every_cookie_is_one_that_browsers_keep() -> None:
    client = spanning()

    answer = client.post("/state", json=alices(bio=noise(6500)))

    cookies = answer.headers.getlist("Set-Cookie")
    assert len(cookies) == 3
    assert all(len(cookie) < 4093 for cookie in cookies)
    sent = "; ".join(f"{name}={value}" for name, value in cookies_of(client).items())
    assert len(sent) <= TOTAL_BYTES


def test_an_answer_that_proxies_may_refuse_is_warned_of_once(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = spanning()
    for _ in range(3):
        client.post("/state", json=alices(bio=noise(4000)))

    assert caplog.text.count("proxy_buffer_size") == 1


def test_claims_that_stand_in_the_id_token_are_kept_once() -> None:
    claims = {"sub": "auth0|alice", "https://a.example/groups": noise(2000)}
    payload = base64.urlsafe_b64encode(json.dumps(claims).encode()).decode()
    token = f"e30.{payload.rstrip('=')}.c2ln"
    client, other = spanning(), spanning()

    client.post("/state", json={**alices(), "user": claims, "id_token": token})
    other.post(
        "/state", json={**alices(), "user": {**claims, "name": "A"}, "id_token": token}
    )

    assert user_of(client) == claims
    assert user_of(other) == {**claims, "name": "A"}
    once, twice = (sum(map(len, cookies_of(c).values())) for c in (client, other))
    assert once < twice * 0.7


def test_deleting_clears_every_cookie() -> None:
    client = spanning()
    client.post("/state", json=alices(bio=noise(6500)))
    client.delete("/state")

    assert cookies_of(client) == {}


def test_a_set_with_a_missing_piece_is_no_session_and_is_cleared() -> None:
    client = spanning()
    client.post("/state", json=alices(bio=noise(6500)))
    client.delete_cookie("session.1")

    assert user_of(client) is None
    assert cookies_of(client) == {}


def test_a_piece_of_another_session_makes_it_none() -> None:
    one, other = spanning(), spanning()
    one.post("/state", json=alices(bio=noise(6500)))
    other.post("/state", json=alices(bio=noise(6501)))
    one.set_cookie("session.1", cookies_of(other)["session.1"])

    assert user_of(one) is None


def test_a_piece_left_over_from_a_longer_session_does_no_harm() -> None:
    client = spanning()
    client.post("/state", json=alices(bio=noise(6500)))
    stale = cookies_of(client)["session.2"]
    client.post("/state", json=alices(bio=noise(4000)))
    client.set_cookie("session.2", stale)

    assert user_of(client)


def test_a_login_under_way_leaves_the_sessions_cookie_alone() -> None:
    client = spanning()
    client.post("/state", json=alices())

    answer = client.post("/transaction/one")

    names = [c.partition("=")[0] for c in answer.headers.getlist("Set-Cookie")]
    assert names == ["session_a0_tx.one"]


def test_logins_started_at_the_same_moment_do_not_overwrite_one_another() -> None:
    client = spanning()
    answers = [client.post(f"/transaction/{n}", headers={"Cookie": ""}) for n in "ab"]

    assert [answer.status_code for answer in answers] == [200, 200]
    assert client.get("/transaction/a").get_json()
    assert client.get("/transaction/b").get_json()


def test_a_long_session_and_logins_under_way_stay_below_the_limit_together() -> None:
    client = spanning()
    client.post("/state", json=alices(bio=noise(6300)))
    for number in range(5):
        started = client.post(f"/transaction/{number}", json={"return_to": "/" * 99})
        sent = "; ".join(f"{n}={value}" for n, value in cookies_of(client).items())

        assert started.status_code == 200
        assert len(sent) <= TOTAL_BYTES
        assert client.get(f"/transaction/{number}").get_json()
    assert user_of(client)


def test_abandoned_logins_make_room_for_a_long_session() -> None:
    client = spanning()
    for number in range(4):
        client.post(f"/transaction/{number}")

    assert client.post("/state", json=alices(bio=noise(6500))).status_code == 200
    assert user_of(client)


def test_in_flasks_own_cookie_a_login_that_does_not_fit_is_told() -> None:
    app = _app()
    for length, status in ((2000, 200), (3700, 500)):
        client = app.test_client()
        client.post("/own", json={"own": noise(length)})
        answer = client.post("/transaction/one")

        assert answer.status_code == status
        assert all(len(n) + len(v) < 4093 for n, v in cookies_of(client).items())


def test_what_a_view_does_to_the_user_is_not_kept(app_for: AppFor) -> None:
    app = app_for()
    store = FlaskSessionStateStore(
        secrets=(SECRET,),
        scope="",
        lifetime=Lifetime(domain=DOMAIN, idle_seconds=9, max_seconds=9),
    )

    @app.post("/meddle")
    async def meddle() -> str:
        kept = await store.get(STATE)
        assert kept
        kept["user"]["is_admin"] = True
        kept["user"].pop("name")
        again = await store.get(STATE)
        assert again
        await store.set(STATE, again)
        return "kept"

    client = app.test_client()
    client.post("/state", json=alices())
    client.post("/meddle")

    assert user_of(client) == {"sub": "auth0|alice", "name": "Alice"}


def test_a_refresh_without_an_id_token_takes_none_away(app_for: AppFor) -> None:
    app = app_for()

    @app.post("/bare-refresh")
    async def bare_refresh() -> str:
        store = FlaskSessionStateStore(
            secrets=(SECRET,),
            scope="",
            lifetime=Lifetime(domain=DOMAIN, idle_seconds=9, max_seconds=9),
        )
        kept = await store.get(STATE)
        assert kept
        await store.set(STATE, {**kept, "id_token": None})
        return "kept"

    client = app.test_client()
    client.post("/state", json=alices())
    client.post("/bare-refresh")

    assert client.get("/state").get_json()["id_token"] == "an.id.token"


def test_an_apps_own_session_beyond_the_budget_is_not_written_but_told(
    caplog: pytest.LogCaptureFixture,
) -> None:
    client = spanning()
    client.post("/own", json={"small": 1})

    answer = client.post("/own", json={"large": noise(12_000)})

    assert answer.status_code == 200
    assert "AUTH0_REDIS_URL" in caplog.text
    assert client.get("/own").get_json() == {"small": 1}
