"""The list of a user's sessions: what it tells, what it ends, and what it lacks."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from secrets import token_hex
from typing import Any

import pytest
from redis import Redis

from app import create_app
from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Tenant
from conftest import Clock
from redis_server import RedisServer
from shop import copy_of_auth, make_shop
from visitor import Shopper

SAME = {"Sec-Fetch-Site": "same-origin"}
FIREFOX = "Mozilla/5.0 (X11; Linux x86_64; rv:140.0) Gecko/20100101 Firefox/140.0"
ANDROID = (
    "Mozilla/5.0 (Linux; Android 16) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Mobile Safari/537.36"
)
EDGE = (
    "Mozilla/5.0 (Windows NT 10.0; Win64; x64) AppleWebKit/537.36 (KHTML, like Gecko) "
    "Chrome/140.0.0.0 Safari/537.36 Edg/140.0.0.0"
)
IPHONE = (
    "Mozilla/5.0 (iPhone; CPU iPhone OS 26_0 like Mac OS X) AppleWebKit/605.1.15 "
    "(KHTML, like Gecko) Version/26.0 Mobile/15E148 Safari/604.1"
)


class Shop:
    """An app with views that list and end sessions, in a file or in Redis."""

    def __init__(self, auth: Any, path: Path, redis: Redis | None) -> None:
        self.auth, self._path, self._redis = auth, path, redis
        self.app = make_shop(auth, **({"redis": redis} if redis else {}))
        self.app.add_url_rule("/devices/<sub>", view_func=self._devices)
        self.app.add_url_rule("/end/<id>", view_func=self._end)
        self.app.add_url_rule("/session", view_func=self._session)

    async def _devices(self, sub: str) -> list[dict[str, Any]]:
        return [vars(device) for device in await self.auth.auth0.sessions_of(sub)]

    async def _end(self, id: str) -> str:  # noqa: A002 - as in its rule
        await self.auth.auth0.end_session(id)
        return id

    async def _session(self) -> dict[str, Any]:
        return await self.auth.auth0.get_session() or {}

    def browser(self, user_agent: str = FIREFOX, username: str = "alice") -> Shopper:
        """Sign in with a browser."""
        shopper = Shopper(self.app, username)
        shopper.client.environ_base["HTTP_USER_AGENT"] = user_agent
        assert shopper.login().status_code == 302
        return shopper

    def session(self, shopper: Shopper) -> dict[str, Any]:
        """Return the session of a browser; nothing if it is signed out."""
        return dict(shopper.client.get("/session").json or {})

    def id(self, shopper: Shopper) -> str:
        """Return the id of a browser's session."""
        return str(self.session(shopper)["session"]["id"])

    def list(self, sub: str = "auth0|alice") -> list[dict[str, Any]]:
        """List the sessions of a user."""
        return [*(self.app.test_client().get(f"/devices/{sub}").json or [])]

    def ids(self, sub: str = "auth0|alice") -> set[str]:
        """Return the ids of a user's sessions."""
        return {device["id"] for device in self.list(sub)}

    def end(self, *ids: str) -> None:
        """End sessions."""
        client = self.app.test_client()
        for each in ids:
            assert client.get(f"/end/{each}").status_code == 200

    def all_that_is_kept(self) -> str:
        """Return all that the file or Redis holds."""
        if self._redis is None:
            files = self._path.parent.glob(f"{self._path.name}*")
            return b"".join(f.read_bytes() for f in files).decode("latin-1")
        names = self._redis.keys()
        lists = [n for n in names if self._redis.type(n) == b"hash"]
        texts = [self._redis.get(name) for name in names if name not in lists]
        return repr([names, texts, [self._redis.hgetall(name) for name in lists]])


@pytest.fixture(params=["file", "redis"])
def shop(request: pytest.FixtureRequest, tenant: Tenant, tmp_path: Path) -> Shop:
    path, redis = tmp_path / "revocations.sqlite3", None
    if request.param == "redis":
        server: RedisServer = request.getfixturevalue("redis_server")
        redis = connect(server.url)
    return Shop(copy_of_auth({"AUTH0_REVOCATIONS_PATH": str(path)}), path, redis)


def test_each_session_is_listed_with_its_browser_and_its_times(
    shop: Shop, clock: Clock
) -> None:
    began = clock.time()
    laptop = shop.browser(FIREFOX)
    clock.forward(30)
    phone = shop.browser(ANDROID)
    shop.browser(EDGE, "bob")
    clock.forward(10_000)
    assert shop.session(laptop)["user"]["sub"] == "auth0|alice"

    first, second = shop.list()  # the last used one first

    assert first["id"] == shop.id(laptop)
    assert second["id"] == shop.id(phone)
    assert first["sid"] == shop.session(laptop)["user"]["sid"]
    assert first["browser"] == "Firefox, Linux"
    assert second["browser"] == "Chrome, Android"
    assert [device["browser"] for device in shop.list("auth0|bob")] == ["Edge, Windows"]
    for device in (first, second):  # by the clock of Redis, which nobody set
        assert device["created_at"] == pytest.approx(began, abs=50)
    assert first["used_at"] == pytest.approx(began + 10_030, abs=20)
    assert second["used_at"] == pytest.approx(began + 30, abs=20)
    until = began + shop.auth.settings.session_max_seconds
    assert first["until"] == pytest.approx(until, abs=50)


@pytest.mark.parametrize("shop", ["file"], indirect=True)
def test_a_browser_is_named_in_words_of_ours(shop: Shop) -> None:
    for user_agent, words in {
        IPHONE: "Safari, iPhone",
        "curl/8.14.1": "curl",
        "Firefox" * 2_000: "Firefox",
        **dict.fromkeys(("<script>", ""), "An unknown browser"),
    }.items():
        shop.browser(user_agent)
        assert shop.list()[0]["browser"] == words  # the last used one


def test_one_is_ended_or_all_others_and_nobody_elses(shop: Shop) -> None:
    mine, *others = [shop.browser() for _ in range(4)]
    bob = shop.browser(username="bob")

    shop.end(shop.id(others[0]))
    assert not shop.session(others[0])
    assert shop.ids() == {shop.id(each) for each in (mine, *others[1:])}

    shop.end(*shop.ids() - {shop.id(mine)})
    assert not any(shop.session(each) for each in others)
    assert shop.ids() == {shop.id(mine)}
    assert shop.ids("auth0|bob") == {shop.id(bob)}
    shop.end("no-such-id", *shop.ids())  # as it may be pressed twice
    assert shop.ids() == set()
    assert shop.session(bob)


def test_it_holds_no_token_and_names_nobody(shop: Shop) -> None:
    alice = shop.browser()
    state, kept = shop.session(alice), shop.all_that_is_kept()

    assert shop.id(alice) in kept
    secret = [state["id_token"], state["refresh_token"]]
    secret += [tokens["access_token"] for tokens in state["token_sets"]]
    secret += [cookie.value for cookie in (alice.client._cookies or {}).values()]
    for each in secret:
        first, *others = each.split(".")  # the header of a token is in all of them
        parts = [part for part in others or [first] if len(part) >= 16]
        assert not any(part in kept for part in parts)
    assert not any(word in kept for word in ("auth0|alice", "alice@", "Alice"))


@pytest.mark.parametrize("is_used", [False, True], ids=["idle", "in use"])
def test_it_is_gone_when_its_time_is_over(
    shop: Shop, clock: Clock, *, is_used: bool
) -> None:
    alice, settings = shop.browser(), shop.auth.settings
    step = settings.session_idle_seconds / 2
    for _ in range(int(settings.session_max_seconds // step) - 1 if is_used else 0):
        clock.forward(step)
        assert shop.ids() == {shop.id(alice)}
    clock.forward(2 * step + 1)

    assert shop.ids() == set()


def test_hundreds_of_sessions_of_one_user_are_listed_and_ended(
    shop: Shop, clock: Clock
) -> None:
    one, bob = shop.browser(), shop.browser(username="bob")
    state = shop.session(one)
    state["internal"] = {"sid": state["user"]["sid"]}
    with shop.app.test_request_context():
        for number in range(299):
            own = {**state["session"], "id": f"device-{number}"}
            shop.auth.auth0.sessions.lifetime.register({**state, "session": own}, "x")

    assert len(shop.ids()) == 300
    assert one.client.post("/logout/everywhere", headers=SAME).status_code == 303
    assert shop.ids() == set()
    assert not shop.session(one)
    assert shop.ids("auth0|bob") == {shop.id(bob)}
    shop.browser()
    assert len(shop.ids()) == 1


@pytest.fixture
def demo(tenant: Tenant) -> Callable[..., Shopper]:
    """Sign in at the app as it ships, with a browser, as users of this test's own."""
    app, names = create_app(), {n: f"{n}-{token_hex(4)}" for n in ("alice", "bob")}
    for name in names.values():
        tenant.add_user(name)

    def browser(user_agent: str, username: str = "alice") -> Shopper:
        shopper = Shopper(app, names[username])
        environ = {"HTTP_USER_AGENT": user_agent, "HTTP_ACCEPT": "text/html"}
        shopper.client.environ_base.update(environ)
        assert shopper.login("/login?return_to=/profile").location == "/profile"
        return shopper

    return browser


def is_signed_in(shopper: Shopper) -> bool:
    answer = shopper.client.get("/profile")
    assert answer.status_code in {200, 302}
    return answer.status_code == 200


def devices(shopper: Shopper) -> list[str]:
    """Return the items of the list of devices on the profile page; this one first."""
    page = shopper.client.get("/profile").text
    found = page.partition('<ul class="devices">')[2].partition("</ul>")[0]
    return sorted(found.split("<li>")[1:], key=lambda item: "this device" not in item)


def id_in(item: str) -> str:
    """Return what the button of an item sends."""
    return item.partition('name="id" value="')[2].partition('"')[0]


def test_the_profile_page_signs_out_one_or_all_others_and_nobody_elses(
    demo: Callable[..., Shopper],
) -> None:
    laptop, phone, tablet = demo(FIREFOX), demo(ANDROID), demo(IPHONE)
    bob = demo(EDGE, "bob")
    mine, *others = devices(laptop)
    assert "Firefox, Linux" in mine
    assert "this device" in mine
    assert "<button" not in mine
    (other,) = [item for item in others if "Chrome, Android" in item]
    one, headers = {"id": id_in(other)}, {"Sec-Fetch-Site": "cross-site"}

    def signed_in() -> list[bool]:
        return [is_signed_in(each) for each in (laptop, phone, tablet, bob)]

    refused = laptop.client.post("/devices/end", data=one, headers=headers)
    assert refused.status_code == 403
    bob.client.post("/devices/end", data=one, headers=SAME)
    assert signed_in() == [True, True, True, True]

    answer = laptop.client.post("/devices/end", data=one, headers=SAME)
    assert (answer.status_code, answer.location) == (303, "/profile")
    assert signed_in() == [True, False, True, True]
    assert len(devices(laptop)) == 2

    assert laptop.client.post("/devices/end", headers=SAME).status_code == 303
    assert signed_in() == [True, False, False, True]
    assert len(devices(laptop)) == len(devices(bob)) == 1


def test_it_takes_a_fresh_login(
    demo: Callable[..., Shopper], tenant: Tenant, clock: Clock
) -> None:
    laptop, phone = demo(FIREFOX), demo(ANDROID)
    clock.forward(361)  # five minutes, and one that clocks may differ by

    asked = laptop.client.post("/devices/end", headers=SAME)
    assert asked.location.startswith("/login?")
    assert "max_age=300" in asked.location
    assert is_signed_in(phone)

    # the library that verifies ID tokens looks at the real time
    claims = {"iat": int(clock.time()) - 361, "auth_time": int(clock.time())}
    tenant.forge(claims=claims)
    assert laptop.login(asked.location).status_code == 302
    assert laptop.client.post("/devices/end", headers=SAME).status_code == 303
    assert is_signed_in(laptop)
    assert not is_signed_in(phone)
