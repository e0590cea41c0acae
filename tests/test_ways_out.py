"""Every way out of a session: no copy of it is let in afterwards, whatever goes on."""

from __future__ import annotations

import asyncio
import resource
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from contextvars import ContextVar
from functools import partial
from pathlib import Path
from threading import Barrier
from typing import Any

import pytest
from flask import Flask, session
from redis import Redis
from werkzeug.test import TestResponse

from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Tenant
from servers import until
from shop import copy_of_auth, make_shop
from test_logout import held
from visitor import Shopper

ALICE = "auth0|alice"
EVERYWHERE, SAME = "/logout/everywhere", {"Sec-Fetch-Site": "same-origin"}
JSON = {"Accept": "application/json"}


class Shop:
    """An app, as two processes have it; Alice at two browsers, and a copy of one."""

    def __init__(self, tenant: Tenant, auth: Any, redis: Redis | None) -> None:
        self.tenant, self.auth, self.redis = tenant, auth, redis
        options = {"redis": redis} if redis else {}
        self.cookie = "session" if redis else "session_auth0"
        self.app, self.worker = [make_shop(auth, **options) for _ in range(2)]
        self.tokens: dict[str, str] = {}
        self.at_the_slow_page = Barrier(2, timeout=20)
        self._add_views()
        self.alice, self.phone = Shopper(self.app), Shopper(self.app)
        self.bob = Shopper(self.app, "bob")
        for each in (self.alice, self.phone, self.bob):
            each.login()
        self.copy = self.alice.twin()
        own: Any = self.alice.session
        self.id, self.sid = own["session"]["id"], own["user"]["sid"]

    def _add_views(self) -> None:
        auth, app = self.auth, self.app

        for each in (app, self.worker):
            each.add_url_rule("/in", "in", auth.login_required(lambda: "let in"))

        @app.get("/token/<api>")
        async def token(api: str) -> str:
            """Write the session anew in several ways; the slow one late."""
            await auth.auth0.get_access_token(audience=f"https://{api}.example/")
            if api == "slow":
                self.at_the_slow_page.wait()
                self.at_the_slow_page.wait()
                session["was_here"] = True
            return api

        @app.post("/end/<session_id>")
        async def end(session_id: str) -> str:
            await auth.auth0.end_session(session_id)
            return session_id

    def listed(self) -> list[str]:
        """Return the sessions on the list of Alice's devices."""
        with self.app.app_context():
            return [e.id for e in asyncio.run(self.auth.auth0.sessions_of(ALICE))]

    def lets_in(self, shopper: Shopper, *, by: Flask | None = None) -> bool:
        """Tell whether a browser is signed in; its cookies stay what they are."""
        answer = shopper.twin(by or self.app).client.get("/in", headers=JSON)
        assert answer.status_code in {200, 401, 503}, answer.text
        return answer.status_code == 200

    def auth0_says(self, **named: Any) -> TestResponse:
        """Send a logout token, the same again where it is not taken."""
        token = self.tenant.logout_token(**named)
        form = {"logout_token": self.tokens.setdefault(str(named), token)}
        return self.app.test_client().post("/backchannel-logout", data=form)

    def operator_says(self, *whose: str) -> bool:
        """Call `flask auth0 revoke`."""
        ended = self.app.test_cli_runner().invoke(args=["auth0", "revoke", *whose])
        said = "Ended" if ended.exit_code == 0 else "Nothing was ended"
        assert said in ended.output
        return ended.exit_code == 0

    def is_refused_a_token(self) -> bool:
        """Ask for an access token with a refresh token that Auth0 has revoked."""
        self.tenant.revoke_refresh_tokens(ALICE)
        answer = self.alice.client.get("/token/another", headers=JSON)
        assert answer.status_code in {401, 503}
        return answer.status_code == 401


#: Besides Alice's session: a login under way in her browser, her other browser and a
#: login under way in another, and everybody else.
HERE, HERS = {"here"}, {"here", "phone", "elsewhere"}
#: Each with what is over as well; each login in these tests has a sid of its own.
WAYS: dict[str, tuple[Callable[[Shop], TestResponse | bool], set[str]]] = {
    "button": (lambda s: s.alice.client.get("/logout"), HERE),
    "all_devices": (lambda s: s.alice.client.post(EVERYWHERE, headers=SAME), HERS),
    "from_another_browser": (lambda s: s.phone.client.post(f"/end/{s.id}"), set()),
    "from_auth0_by_sid": (lambda s: s.auth0_says(sid=s.sid, sub=ALICE), set()),
    "from_auth0_by_sub": (lambda s: s.auth0_says(sub=ALICE), HERS),
    "operator_by_sub": (lambda s: s.operator_says("--sub", ALICE), HERS),
    "operator_by_sid": (lambda s: s.operator_says("--sid", s.sid), set()),
    "operator_all": (lambda s: s.operator_says("--all"), HERS | {"bob"}),
    "refused_refresh_token": (lambda s: s.is_refused_a_token(), set()),
    "another_login": (lambda s: s.alice.login(), set()),
}
every_way = pytest.mark.parametrize("way", WAYS)


def end(shop: Shop, way: str) -> bool:
    """End Alice's session; return whether the app says that this is done.

    A logout leads to Auth0's, and has the browser forget the session.
    """
    answer = WAYS[way][0](shop)
    if isinstance(answer, bool):
        return answer
    assert answer.status_code in {200, 302, 303, 503}
    is_done = answer.status_code != 503
    if is_done and way in {"button", "all_devices"}:
        assert "/v2/logout?" in answer.location
        assert shop.alice.client.get_cookie(shop.cookie) is None
    return is_done


@pytest.fixture
def shop(request: pytest.FixtureRequest, tenant: Tenant, tmp_path: Path) -> Shop:
    path = str(tmp_path / "revocations.sqlite3")
    redis = None
    if request.param == "redis":
        redis = connect(request.getfixturevalue("redis_server").url)
    return Shop(tenant, copy_of_auth({"AUTH0_REVOCATIONS_PATH": path}), redis)


_ahead: ContextVar[float] = ContextVar("ahead", default=0.0)


@contextmanager
def on_a_machine_whose_clock_is_ahead(seconds: float) -> Iterator[None]:
    """Let what is called here, and it alone, see another time."""
    reset, now = _ahead.set(seconds), time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + _ahead.get())
        yield
    _ahead.reset(reset)


@pytest.mark.parametrize(
    ("shop", "ahead"), [("file", 0), ("redis", 3), ("redis", -3)], indirect=["shop"]
)
@every_way
def test_it_ends_every_copy_and_what_it_should_and_nothing_else(
    shop: Shop, way: str, ahead: float
) -> None:
    late, elsewhere = shop.alice.twin(), Shopper(shop.app)
    callbacks = [each.sign_in() for each in (shop.alice, elsewhere)]
    here, hold = shop.alice.twin(), partial(held, shop.tenant, "token")
    assert shop.lets_in(shop.copy)
    assert shop.id in shop.listed()

    with ThreadPoolExecutor(1) as pool:
        slow = pool.submit(late.client.get, "/token/slow")
        shop.at_the_slow_page.wait()
        with (
            hold(lambda: here.client.get(callbacks[0])) as answer_here,
            hold(lambda: elsewhere.client.get(callbacks[1])) as answer_elsewhere,
            on_a_machine_whose_clock_is_ahead(ahead),
        ):
            assert end(shop, way)
            assert not shop.lets_in(shop.copy)
            assert not shop.lets_in(shop.copy, by=shop.worker)
        shop.at_the_slow_page.wait()
        assert slow.result(20).text == "slow"

    assert not shop.lets_in(late)
    cookies = [each.client.get_cookie(shop.cookie) for each in (late, shop.copy)]
    assert cookies[0] == cookies[1]  # a newer session may have begun meanwhile
    assert not shop.lets_in(shop.copy)
    with on_a_machine_whose_clock_is_ahead(ahead):
        assert not shop.lets_in(shop.copy)
    assert shop.lets_in(shop.alice) == (way == "another_login")

    browsers = {"here": here, "elsewhere": elsewhere, "phone": shop.phone}
    over = {name for name, each in browsers.items() if not shop.lets_in(each)}
    assert over | (set() if shop.lets_in(shop.bob) else {"bob"}) == WAYS[way][1]
    assert answer_here.result(20).status_code == (400 if "here" in over else 302)
    is_over = "elsewhere" in over
    assert answer_elsewhere.result(20).status_code == (400 if is_over else 302)

    assert shop.id not in shop.listed()
    hers = (shop.alice, *browsers.values())
    assert len(shop.listed()) == sum(map(shop.lets_in, hers))
    shop.alice.login()  # at once
    assert shop.lets_in(shop.alice)


@contextmanager
def where_nothing_can_be_written(redis: Redis | None) -> Iterator[None]:
    """Fill the disk, or make Redis a replica."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    if redis:
        redis.slaveof("127.0.0.1", 1)
    else:
        resource.setrlimit(resource.RLIMIT_FSIZE, (0, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        if redis:
            redis.slaveof()


#: These are tried on by themselves; of the others it is told that nothing is ended.
TRIED_ON = {"button", "from_another_browser"}


@pytest.mark.parametrize("shop", ["file", "redis"], indirect=True)
@every_way
def test_where_nothing_can_be_written_it_is_as_soon_as_it_can(
    shop: Shop, way: str
) -> None:
    with where_nothing_can_be_written(shop.redis):
        assert end(shop, way) is (way == "button")
        if way in TRIED_ON:
            assert not shop.lets_in(shop.copy)
        if way == "button":
            assert not shop.lets_in(shop.alice)

    if way not in TRIED_ON:
        assert end(shop, way)
    else:
        until(lambda: not shop.lets_in(shop.copy, by=shop.worker))
    for app in (shop.worker, shop.app):
        assert not shop.lets_in(shop.copy, by=app)
