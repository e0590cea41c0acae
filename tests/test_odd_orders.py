"""Login, callback and logout in whatever order: who is signed in is who should be."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from http.cookies import SimpleCookie
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from flask import Flask
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import auth
from auth0_flask.tenant import Tenant
from wsgi import KEPT, Answer, Sent, send, shipped, sign_in

MOST_UNDER_WAY = 3  # so that none has to make room for another


@dataclass
class Session:
    """What a login began, as we expect it to go on."""

    sub: str
    is_over: bool = False


@dataclass
class Browser:
    """Cookies, and what they should be worth."""

    cookies: dict[str, str] = field(default_factory=dict)
    under_way: list[str] = field(default_factory=list)
    used: list[str] = field(default_factory=list)
    session: Session | None = None

    @property
    def sub(self) -> str | None:
        alive = self.session and not self.session.is_over
        return self.session.sub if self.session and alive else None


class World:
    """Two browsers, the app, and a tenant that knows neither browser."""

    def __init__(self, app: Flask, http: httpx.Client) -> None:
        self.app, self.http = app, http
        self.browsers = Browser(), Browser()
        self.sessions: list[Session] = []
        self.ended: set[str] = set()  # logins under way at a logout

    def login(self, browser: Browser, username: str) -> None:
        if len(browser.under_way) < MOST_UNDER_WAY:
            answer = self.send(browser, "/login?return_to=/profile")
            browser.under_way.append(answer.all("location")[0])

    def back(self, browser: Browser, username: str) -> None:
        login = self.oldest(browser)
        callback = sign_in(self.http, login, username)
        answer = self.send(browser, callback)
        if login in self.ended:
            assert "logged_out_meanwhile" in answer.text
            return
        assert answer.all("location") == ["/profile"]
        self.begin(browser, username)
        browser.used.append(callback)

    def refused(self, browser: Browser, username: str) -> None:
        state = parse_qs(urlsplit(self.oldest(browser)).query)["state"][0]
        answer = self.send(browser, f"/callback?error=access_denied&state={state}")
        assert answer.code == 403

    def replay(self, browser: Browser, username: str) -> None:
        if browser.used:
            answer = self.send(browser, browser.used[-1])
            assert answer.code == (302 if browser.sub else 400)
            assert answer.all("location") in ([], ["/"])

    def foreign_callback(self, browser: Browser, username: str) -> None:
        other = self.other(browser)
        if browser.under_way and not set(browser.under_way) & set(other.under_way):
            callback = sign_in(self.http, browser.under_way[0], username)
            answer = self.send(other, callback)
            assert answer.code == (302 if other.sub else 400)
            assert answer.all("location") in ([], ["/"])

    def oldest(self, browser: Browser) -> str:
        """Take the login that was begun first, or begin one."""
        if not browser.under_way:
            self.login(browser, "")
        return browser.under_way.pop(0)

    def logout(self, browser: Browser, username: str) -> None:
        assert "/v2/logout?" in self.send(browser, "/logout").all("location")[0]
        self.end(browser)

    def logout_everywhere(self, browser: Browser, username: str) -> None:
        sub = browser.sub
        self.send(browser, "/logout/everywhere", "POST")
        for session in self.sessions:
            session.is_over |= session.sub == sub
        self.end(browser)

    def copy(self, browser: Browser, username: str) -> None:
        other = self.other(browser)
        other.cookies, other.session = dict(browser.cookies), browser.session
        other.under_way, other.used = list(browser.under_way), list(browser.used)

    def other(self, browser: Browser) -> Browser:
        one, two = self.browsers
        return two if browser is one else one

    def begin(self, browser: Browser, username: str) -> None:
        if browser.session:
            browser.session.is_over = True
        browser.session = Session(f"auth0|{username}")
        self.sessions.append(browser.session)

    def end(self, browser: Browser) -> None:
        self.ended |= set(browser.under_way)
        if browser.session:
            browser.session.is_over = True
        browser.session, browser.under_way = None, []

    def send(self, browser: Browser, url: str, method: str = "GET") -> Answer:
        parts, ours = urlsplit(url), auth.auth0.settings
        pairs = "; ".join(f"{name}={value}" for name, value in browser.cookies.items())
        origin = ours.origin.encode()
        headers = (("HTTP_COOKIE", pairs.encode()), ("HTTP_ORIGIN", origin))
        sent = Sent(parts.path.encode(), method, parts.query.encode(), headers)
        answer = send(self.app, sent, ours.callback.netloc)
        for written in answer.all("set-cookie"):
            for name, cookie in SimpleCookie(written).items():
                browser.cookies[name] = cookie.value
                if not cookie.value:
                    del browser.cookies[name]
        return answer

    def check(self) -> None:
        for browser in self.browsers:
            answer = self.send(browser, "/api/me")
            assert answer.code == (200 if browser.sub else 401)
            assert not browser.sub or f'"{browser.sub}"' in answer.text


actions = st.sampled_from(
    [
        *(World.login, World.back, World.back, World.copy),
        *(World.refused, World.replay, World.foreign_callback),
        *(World.logout, World.logout_everywhere),
    ]
)
steps = st.tuples(actions, st.integers(0, 1), st.sampled_from(["alice", "bob"]))


@pytest.fixture(params=KEPT)
def any_app(request: pytest.FixtureRequest) -> Iterator[Flask]:
    """The app as it ships."""
    with shipped(request) as app:
        yield app


@pytest.fixture
def http(tenant: Tenant) -> Iterator[httpx.Client]:
    """What goes to the tenant."""
    with httpx.Client(trust_env=False, verify=False) as client:  # noqa: S501 - plain http
        yield client


def test_in_whatever_order(any_app: Flask, http: httpx.Client) -> None:
    @settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(steps, min_size=5, max_size=20))
    def whatever_the_order(done: list[tuple[object, int, str]]) -> None:
        world = World(any_app, http)
        for action, index, username in done:
            action(world, world.browsers[index], username)  # type: ignore[operator]
            world.check()

    whatever_the_order()


def test_two_who_finish_one_login_are_not_taken_for_each_other(
    any_app: Flask, http: httpx.Client
) -> None:
    """Only the very same callback, requested twice, has one result."""
    world = World(any_app, http)
    one, two = world.browsers
    world.login(one, "")
    world.copy(one, "")

    world.back(one, "alice")
    world.back(two, "bob")

    world.check()
