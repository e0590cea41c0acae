"""The list of a user's sessions: what it tells, what it ends, and what it lacks."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from auth0_flask.stores.redis import connect
from auth0_flask.stores.shared import Device, browser_in_words
from auth0_flask.tenant import Tenant
from conftest import Clock
from shop import copy_of_auth, load
from visitor import Shopper

ALICE = "auth0|alice"
SAME, CROSS = [{"Sec-Fetch-Site": site} for site in ("same-origin", "cross-site")]
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
    """The demo, which notes sessions in files of a folder, or in Redis."""

    def __init__(self, folder: Path, redis_url: str) -> None:
        self._folder, self._redis = folder, connect(redis_url) if redis_url else None
        path = str(folder / "revocations.sqlite3")
        environment = {"AUTH0_REVOCATIONS_PATH": path, "AUTH0_REDIS_URL": redis_url}
        auth = copy_of_auth(environment)
        self.auth0, self.app = auth.auth0, load("app", auth).create_app()
        self.app.add_url_rule(
            "/session", "session", lambda: auth.auth0.read_session() or {}
        )

    def browser(self, user_agent: str = FIREFOX, username: str = "alice") -> Shopper:
        """Sign in with a browser."""
        shopper = Shopper(self.app, username)
        environ = {"HTTP_USER_AGENT": user_agent, "HTTP_ACCEPT": "text/html"}
        shopper.client.environ_base.update(environ)
        assert shopper.login().status_code == 302
        return shopper

    def list(self, sub: str = ALICE) -> list[Device]:
        """List the sessions of a user."""
        with self.app.app_context():
            return [*asyncio.run(self.auth0.sessions_of(sub))]

    def end(self, *ids: str) -> None:
        """End sessions."""
        with self.app.app_context():
            asyncio.run(self.auth0.end_session(*ids))

    def all_that_is_kept(self) -> str:
        """Return all that the files or Redis hold."""
        if (redis := self._redis) is None:
            return repr([file.read_bytes() for file in self._folder.iterdir()])
        names = redis.keys()
        lists = [name for name in names if redis.type(name) == b"hash"]
        texts = [redis.get(name) for name in names if name not in lists]
        return repr([names, texts, [redis.hgetall(name) for name in lists]])


@pytest.fixture(params=["file", "redis"])
def shop(request: pytest.FixtureRequest, tenant: Tenant, tmp_path: Path) -> Shop:
    if request.param == "file":
        return Shop(tmp_path, "")
    return Shop(tmp_path, request.getfixturevalue("redis_server").url)


def test_sessions_are_listed_with_their_times_and_no_secret_and_each_can_be_ended(
    shop: Shop, clock: Clock
) -> None:
    began = clock.time()
    laptop = shop.browser(FIREFOX)
    clock.forward(30)
    phone = shop.browser(ANDROID)
    bob = shop.browser(EDGE, "bob")
    clock.forward(10_000)
    state = laptop.session

    first, second = shop.list()  # the last used one first
    (bobs,) = shop.list("auth0|bob")
    assert (first.id, first.sid) == (state["session"]["id"], state["user"]["sid"])
    assert second.id == phone.session["session"]["id"]
    assert (first.browser, second.browser) == ("Firefox, Linux", "Chrome, Android")
    assert bobs.browser == "Edge, Windows"
    for device in (first, second):  # by the clock of Redis, which nobody set
        assert device.created_at == pytest.approx(began, abs=50)
    assert first.used_at == pytest.approx(began + 10_030, abs=20)
    assert second.used_at == pytest.approx(began + 30, abs=20)
    until = began + shop.auth0.settings.session_max_seconds
    assert first.until == pytest.approx(until, abs=50)

    kept = shop.all_that_is_kept()
    assert first.id in kept
    secret = [state["id_token"], state["refresh_token"]]
    secret += [tokens["access_token"] for tokens in state["token_sets"]]
    secret += [cookie.value for cookie in (laptop.client._cookies or {}).values()]
    for each in secret:
        head, *others = each.split(".")  # the header of a token is in all of them
        parts = [part for part in others or [head] if len(part) >= 16]
        assert not any(part in kept for part in parts)
    assert not any(word in kept for word in (ALICE, "alice@", "Alice"))

    shop.end(second.id)
    assert not phone.session
    assert [device.id for device in shop.list()] == [first.id]
    shop.end("no-such-id", first.id, second.id)  # as it may be pressed twice
    assert not laptop.session
    assert shop.list() == []
    assert [device.id for device in shop.list("auth0|bob")] == [bobs.id]
    assert bob.session


def test_a_browser_is_named_in_words_of_ours() -> None:
    for user_agent, words in {
        IPHONE: "Safari, iPhone",
        "curl/8.14.1": "curl",
        "Firefox" * 2_000: "Firefox",
        "<script>": "An unknown browser",
    }.items():
        assert browser_in_words(user_agent) == words


def test_it_is_gone_when_its_time_is_over(shop: Shop, clock: Clock) -> None:
    alice, settings = shop.browser(), shop.auth0.settings
    shop.browser(username="bob")  # who does nothing more
    step = settings.session_idle_seconds / 2
    for _ in range(int(settings.session_max_seconds // step) - 1):
        clock.forward(step)
        assert alice.session
        assert len(shop.list()) == 1
    assert shop.list("auth0|bob") == []
    clock.forward(step + 1)

    assert shop.list() == []


def items(shopper: Shopper) -> list[str]:
    """Return the items of the list of devices on the profile page; this one first."""
    page = shopper.client.get("/profile").text
    found = page.partition('<ul class="devices">')[2].partition("</ul>")[0]
    return sorted(found.split("<li>")[1:], key=lambda item: "this device" not in item)


def test_after_a_fresh_login_the_profile_page_signs_out_one_or_all_others(
    shop: Shop, tenant: Tenant, clock: Clock
) -> None:
    laptop, phone, tablet = [shop.browser(each) for each in (FIREFOX, ANDROID, IPHONE)]
    clock.forward(361)  # five minutes, and one that clocks may differ by
    # the library that verifies ID tokens looks at the real time
    claims = {"iat": int(clock.time()) - 361, "auth_time": int(clock.time())}
    tenant.forge(claims=claims)
    bob = shop.browser(EDGE, "bob")

    def signed_in() -> list[bool]:
        return [bool(each.session) for each in (laptop, phone, tablet, bob)]

    asked = laptop.client.post("/devices/end", headers=SAME)
    assert "max_age=300" in asked.location
    tenant.forge(claims=claims)
    assert laptop.login(asked.location).status_code == 302

    mine, *others = items(laptop)
    assert "Firefox, Linux" in mine
    assert "this device" in mine
    assert "<button" not in mine
    (other,) = [item for item in others if "Chrome, Android" in item]
    one = {"id": other.partition('name="id" value="')[2].partition('"')[0]}
    refused = laptop.client.post("/devices/end", data=one, headers=CROSS)
    assert refused.status_code == 403
    not_his = bob.client.post("/devices/end", data=one, headers=SAME)
    assert not_his.status_code == 303
    assert signed_in() == [True, True, True, True]

    answer = laptop.client.post("/devices/end", data=one, headers=SAME)
    assert (answer.status_code, answer.location) == (303, "/profile")
    assert signed_in() == [True, False, True, True]
    assert len(items(laptop)) == 2

    assert laptop.client.post("/devices/end", headers=SAME).status_code == 303
    assert signed_in() == [True, False, False, True]
    assert len(items(laptop)) == len(items(bob)) == 1
