"""Every way out of a session: no copy of it is let in afterwards, whatever goes on."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import AbstractContextManager, contextmanager
from contextvars import ContextVar
from dataclasses import dataclass
from pathlib import Path
from threading import Event
from typing import Any, cast

import pytest
from flask import Flask, session
from werkzeug.test import TestResponse

from auth0_flask.stores.redis import connect
from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from shop import copy_of_auth, make_shop
from test_logout import held
from test_revocations import full_disk
from visitor import Shopper

ALICE = "auth0|alice"
SAME = {"Sec-Fetch-Site": "same-origin"}
JSON = {"Accept": "application/json"}


class Shop:
    """An app, Alice at her browser, and a copy of its cookies.

    Attributes:
        worker: The app as another process has it.
        cookie: The name of the cookie that the login is in.
        session_id: That of Alice's session.
        sid: That of her session at Auth0.
    """

    def __init__(self, tenant: Tenant, auth: Any, cookie: str, **options: Any) -> None:
        self.tenant, self.auth, self.cookie = tenant, auth, cookie
        self.app, self.worker = [make_shop(auth, **options) for _ in range(2)]
        self.begun, self.may_end = Event(), Event()
        self._add_views()
        self.alice, self.phone = Shopper(self.app), Shopper(self.app)
        for each in (self.alice, self.phone):
            each.login()
        self.copy = self.alice.twin()
        own: Any = self.alice.client.get("/session").json
        self.session_id, self.sid = own["session"]["id"], own["user"]["sid"]

    def _add_views(self) -> None:
        auth, app = self.auth, self.app

        for each in (app, self.worker):
            each.add_url_rule("/me", "me", auth.login_required(lambda: "let in"))

        @app.get("/session")
        async def state() -> Any:
            return await auth.auth0.get_session()

        @app.get("/devices")
        async def devices() -> list[str]:
            return [each.id for each in await auth.auth0.sessions_of("auth0|alice")]

        @app.get("/token/<api>")
        async def token(api: str) -> str:
            await auth.auth0.get_access_token(audience=f"https://{api}.example/")
            return api

        @app.post("/end/<session_id>")
        async def end(session_id: str) -> str:
            await auth.auth0.end_session(session_id)
            return session_id

        @app.get("/slow")
        async def slow() -> str:
            """Take long, with a session that is written anew in several ways."""
            await auth.auth0.get_access_token(audience="https://slow.example/")
            self.begun.set()
            self.may_end.wait(20)
            session["was_here"] = True
            return "slow"

    def listed(self) -> list[str]:
        """Return the sessions on the list of Alice's devices."""
        return [*(self.app.test_client().get("/devices").json or [])]

    def lets_in(self, shopper: Shopper, *, by: Flask | None = None) -> bool:
        """Tell whether a browser is signed in; its cookies stay what they are."""
        client = (by or self.app).test_client()
        client._cookies = dict(shopper.client._cookies or {})
        answer = client.get("/me", headers=JSON)
        assert answer.status_code in {200, 401, 503}, answer.text
        return answer.status_code == 200


# Each returns whether it says that it is done.


def button(shop: Shop) -> bool:
    at_auth0(shop, shop.alice.client.get("/logout"))
    return True


def all_devices(shop: Shop) -> bool:
    answer = shop.alice.client.post("/logout/everywhere", headers=SAME)
    if answer.status_code == 503:
        return False
    at_auth0(shop, answer)
    return True


def from_another_browser(shop: Shop) -> bool:
    answer = shop.phone.client.post(f"/end/{shop.session_id}")
    assert answer.status_code in {200, 503}
    return answer.status_code == 200


def from_auth0(shop: Shop, **named: Any) -> bool:
    form = {"logout_token": shop.tenant.logout_token(**named)}
    answer = shop.app.test_client().post("/backchannel-logout", data=form)
    assert answer.status_code in {200, 503}
    return answer.status_code == 200


def operator(shop: Shop, *whose: str) -> bool:
    ended = shop.app.test_cli_runner().invoke(args=["auth0", "revoke", *whose])
    assert ("Ended" if ended.exit_code == 0 else "Nothing was ended") in ended.output
    return ended.exit_code == 0


def refused_refresh_token(shop: Shop) -> bool:
    shop.tenant.revoke_refresh_tokens("auth0|alice")
    answer = shop.alice.client.get("/token/another", headers=JSON)
    assert answer.status_code in {401, 503}
    return answer.status_code == 401


def another_login(shop: Shop) -> bool:
    answer = shop.alice.login()
    assert answer.status_code in {302, 503}
    return answer.status_code == 302


#: With the logins under way that it ends as well: of this browser, of others.
ALL = {"here", "elsewhere"}
WAYS: dict[str, tuple[Callable[[Shop], bool], set[str]]] = {
    "button": (button, {"here"}),
    "all_devices": (all_devices, ALL),
    "from_another_browser": (from_another_browser, set()),
    # each login in these tests has a sid of its own
    "from_auth0_by_sid": (lambda shop: from_auth0(shop, sid=shop.sid), set()),
    "from_auth0_by_sub": (lambda shop: from_auth0(shop, sub=ALICE), ALL),
    "operator_by_sub": (lambda shop: operator(shop, "--sub", ALICE), ALL),
    "operator_by_sid": (lambda shop: operator(shop, "--sid", shop.sid), set()),
    "operator_all": (lambda shop: operator(shop, "--all"), ALL),
    "refused_refresh_token": (refused_refresh_token, set()),
    "another_login": (another_login, set()),
}
every_way = pytest.mark.parametrize("way", WAYS)


def at_auth0(shop: Shop, answer: TestResponse) -> None:
    """See that a logout leads to Auth0's, and that the browser forgets the session."""
    assert answer.status_code in {302, 303}
    assert "/v2/logout?" in answer.location
    assert shop.alice.client.get_cookie(shop.cookie) is None


@pytest.fixture
def make(
    request: pytest.FixtureRequest, tenant: Tenant, tmp_path: Path
) -> Callable[[str], Shop]:
    def make(where: str) -> Shop:
        path = tmp_path / "revocations.sqlite3"
        auth = copy_of_auth({"AUTH0_REVOCATIONS_PATH": str(path)})
        if where == "file":
            return Shop(tenant, auth, "session_auth0")
        server: RedisServer = request.getfixturevalue("redis_server")
        return Shop(tenant, auth, "session", redis=connect(server.url))

    return make


_ahead: ContextVar[float] = ContextVar("ahead", default=0.0)


@contextmanager
def on_a_machine_whose_clock_is_ahead(seconds: float) -> Iterator[None]:
    """Let what is called here, and it alone, see another time."""
    reset, now = _ahead.set(seconds), time.time
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(time, "time", lambda: now() + _ahead.get())
        yield
    _ahead.reset(reset)


@dataclass
class Meanwhile:
    """What was going on; both are the browser after that.

    Attributes:
        late: A browser that got an answer after the way out.
        login: One whose callback was answered after it, with that answer.
    """

    late: Shopper | None = None
    login: tuple[Shopper, TestResponse] | None = None


@contextmanager
def nothing(shop: Shop) -> Iterator[Meanwhile]:
    yield Meanwhile()


@contextmanager
def a_slow_response(shop: Shop) -> Iterator[Meanwhile]:
    late = shop.alice.twin()
    with ThreadPoolExecutor(1) as pool:
        answer = pool.submit(late.client.get, "/slow")
        assert shop.begun.wait(10)
        yield Meanwhile(late=late)
        shop.may_end.set()
        assert answer.result(20).text == "slow"
    cookies = [each.client.get_cookie(shop.cookie) for each in (late, shop.copy)]
    assert cookies[0] == cookies[1]  # a newer session may have begun meanwhile


@contextmanager
def a_callback(shop: Shop, browser: Shopper) -> Iterator[Meanwhile]:
    callback, late = browser.sign_in(), browser.twin()
    seen = Meanwhile()
    with held(shop.tenant, "token", lambda: late.client.get(callback)) as answer:
        yield seen
    seen.login = late, answer.result(20)


@contextmanager
def a_callback_here(shop: Shop) -> Iterator[Meanwhile]:
    with a_callback(shop, shop.alice) as seen:
        yield seen


@contextmanager
def a_callback_elsewhere(shop: Shop) -> Iterator[Meanwhile]:
    with a_callback(shop, Shopper(shop.app)) as seen:
        yield seen


MEANWHILE = (nothing, a_slow_response, a_callback_here, a_callback_elsewhere)
#: What goes on where; it is the same wherever the clocks of machines differ.
SCENES = [
    *((scene, where, 0) for scene in MEANWHILE for where in ("file", "redis")),
    *((nothing, "redis", seconds) for seconds in (3, -3)),
]


@pytest.mark.parametrize(
    ("meanwhile", "where", "ahead"),
    SCENES,
    ids=[f"{scene.__name__}-{where}-{ahead}" for scene, where, ahead in SCENES],
)
@every_way
def test_a_copied_cookie_is_signed_out(
    make: Callable[[str], Shop],
    way: str,
    meanwhile: Callable[[Shop], AbstractContextManager[Meanwhile]],
    where: str,
    ahead: float,
) -> None:
    shop, (end, ends) = make(where), WAYS[way]
    assert shop.lets_in(shop.copy)
    assert shop.session_id in shop.listed()

    with meanwhile(shop) as seen, on_a_machine_whose_clock_is_ahead(ahead):
        assert end(shop)
        assert not shop.lets_in(shop.copy)
        assert not shop.lets_in(shop.copy, by=shop.worker)

    assert not shop.lets_in(shop.copy)
    with on_a_machine_whose_clock_is_ahead(ahead):
        assert not shop.lets_in(shop.copy)
    assert shop.lets_in(shop.alice) == (way == "another_login")
    assert shop.session_id not in shop.listed()
    assert seen.late is None or not shop.lets_in(seen.late)
    if seen.login:
        which = "here" if meanwhile is a_callback_here else "elsewhere"
        browser, answer = seen.login
        is_over = which in ends
        assert answer.status_code == (400 if is_over else 302)
        assert shop.lets_in(browser) is not is_over
        browsers = (shop.alice, shop.phone, browser)
        assert len(shop.listed()) == sum(map(shop.lets_in, browsers))


@contextmanager
def that_says(server: RedisServer, spoil: str, mend: str) -> Iterator[None]:
    assert server.say(spoil).startswith(b"+OK")
    try:
        yield
    finally:
        assert server.say(mend).startswith(b"+OK")


#: A Redis that can be read, and not written to; and how to mend it.
READ_ONLY = {
    "a replica": ("REPLICAOF 127.0.0.1 1", "REPLICAOF NO ONE"),
    "an ACL": ("ACL SETUSER default -@write", "ACL SETUSER default +@all"),
}
#: These are tried on by themselves; of the others it is told that nothing is ended.
TRIED_ON = {"button", "from_another_browser"}


@pytest.mark.parametrize("what", ["a full disk", *READ_ONLY])
@every_way
def test_where_nothing_can_be_written_it_is_as_soon_as_it_can(
    request: pytest.FixtureRequest,
    make: Callable[[str], Shop],
    way: str,
    what: str,
) -> None:
    shop, (end, _) = make("file" if what == "a full disk" else "redis"), WAYS[way]
    assert shop.lets_in(shop.copy)
    if what in READ_ONLY:
        server = cast(RedisServer, request.getfixturevalue("redis_server"))
        trouble = that_says(server, *READ_ONLY[what])
    else:
        trouble = full_disk()

    with trouble:
        done = end(shop)
        if way in TRIED_ON:
            assert not shop.lets_in(shop.copy)
        else:
            assert not done
        if way == "button":
            assert not shop.lets_in(shop.alice)

    if way not in TRIED_ON:
        assert end(shop)
    give_up = time.monotonic() + 10
    while shop.lets_in(shop.copy, by=shop.worker) and time.monotonic() < give_up:
        assert way in TRIED_ON
        time.sleep(0.05)
    for app in (shop.worker, shop.app):
        assert not shop.lets_in(shop.copy, by=app)
