"""Login, callback and logout in whatever order: who is signed in is who should be."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from flask import Flask
from flask.testing import FlaskClient
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from werkzeug.test import TestResponse

import auth
from auth0_flask.tenant import Tenant
from visitor import http_browser, sign_in
from wsgi import KEPT, shipped


@dataclass
class Browser:
    """Cookies, and what they should be worth."""

    client: FlaskClient
    under_way: list[str] = field(default_factory=list)
    session: list[str] = field(default_factory=list)  # its user; nobody when it is over

    def get(self, url: str) -> TestResponse:
        return self.client.get(url, base_url=auth.auth0.settings.origin)


class World:
    """Two browsers, the app, and a tenant that knows neither browser."""

    def __init__(self, app: Flask, http: httpx.Client) -> None:
        self.browsers = Browser(app.test_client()), Browser(app.test_client())
        self.http = http
        self.sessions: list[list[str]] = []
        self.ended: set[str] = set()  # logins under way at a logout

    def login(self, browser: Browser, username: str) -> None:
        if len(browser.under_way) < 3:  # so that none has to make room for another
            answer = browser.get("/login?return_to=/profile")
            browser.under_way.append(answer.location or "")

    def back(self, browser: Browser, username: str) -> None:
        login = self.oldest(browser)
        callback = sign_in(self.http, login, username)
        answer = browser.get(callback)
        if login in self.ended:
            assert "logged_out_meanwhile" in answer.text
            return
        assert answer.location == "/profile"
        browser.session.clear()
        browser.session = [f"auth0|{username}"]
        self.sessions.append(browser.session)

    def refused(self, browser: Browser, username: str) -> None:
        state = parse_qs(urlsplit(self.oldest(browser)).query)["state"][0]
        answer = browser.get(f"/callback?error=access_denied&state={state}")
        assert answer.status_code == 403

    def oldest(self, browser: Browser) -> str:
        """Take the login that was begun first, or begin one."""
        if not browser.under_way:
            self.login(browser, "")
        return browser.under_way.pop(0)

    def logout(self, browser: Browser, username: str) -> None:
        assert "/v2/logout?" in (browser.get("/logout").location or "")
        self.end(browser)

    def logout_everywhere(self, browser: Browser, username: str) -> None:
        users, origin = list(browser.session), auth.auth0.settings.origin
        headers = {"Origin": origin}
        browser.client.post("/logout/everywhere", base_url=origin, headers=headers)
        for session in self.sessions:
            if session == users:
                session.clear()
        self.end(browser)

    def copy(self, browser: Browser, username: str) -> None:
        other = self.other(browser)
        other.client._cookies = dict(browser.client._cookies or {})
        other.under_way = list(browser.under_way)
        other.session = browser.session

    def other(self, browser: Browser) -> Browser:
        one, two = self.browsers
        return two if browser is one else one

    def end(self, browser: Browser) -> None:
        self.ended |= set(browser.under_way)
        browser.session.clear()
        browser.session, browser.under_way = [], []

    def check(self) -> None:
        for browser in self.browsers:
            answer = browser.get("/api/me")
            assert answer.status_code == (200 if browser.session else 401)
            assert all(f'"{sub}"' in answer.text for sub in browser.session)


actions = st.sampled_from(
    [
        *(World.login, World.back, World.back, World.copy),
        *(World.refused, World.logout, World.logout_everywhere),
    ]
)
steps = st.tuples(actions, st.integers(0, 1), st.sampled_from(["alice", "bob"]))


@pytest.fixture(params=KEPT)
def make_world(
    request: pytest.FixtureRequest, tenant: Tenant
) -> Iterator[Callable[[], World]]:
    """Make worlds around the app as it ships."""
    with shipped(request) as app, http_browser() as http:
        yield lambda: World(app, http)


def test_in_whatever_order(make_world: Callable[[], World]) -> None:
    @settings(max_examples=50, suppress_health_check=[HealthCheck.too_slow])
    @given(st.lists(steps, min_size=5, max_size=20))
    def whatever_the_order(done: list[tuple[object, int, str]]) -> None:
        world = make_world()
        for action, index, username in done:
            action(world, world.browsers[index], username)  # type: ignore[operator]
            world.check()

    whatever_the_order()


def test_two_who_finish_one_login_are_not_taken_for_each_other(
    make_world: Callable[[], World],
) -> None:
    """Only the very same callback, requested twice, has one result."""
    world = make_world()
    one, two = world.browsers
    world.login(one, "")
    world.copy(one, "")

    world.back(one, "alice")
    world.back(two, "bob")

    world.check()
