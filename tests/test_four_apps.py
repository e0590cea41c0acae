"""Four apps of different shape get the login by the README's words alone."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from pathlib import Path
from typing import NamedTuple

import pytest
from playwright.sync_api import Page, expect
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

import screenshots
from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from servers import ROOT
from test_drop_in import post, running
from visitor import Visitor

Visitors = Callable[..., Visitor]
Start = Callable[..., AbstractContextManager[str]]


class App(NamedTuple):
    """Where an app is, what ``auth.py`` is called there, and where its routes are."""

    name: str
    copy: str
    prefix: str = ""


QUICKSTART = App("quickstart/server", "auth.py")
FACTORY = App("factory/shop", "shop/sso.py", "/account")
IN_REDIS = App("in_redis/main", "login.py")
API = App("api/service", "identity.py")
APPS = [QUICKSTART, FACTORY, IN_REDIS, API]


@pytest.fixture
def start(tmp_path: Path, tenant: Tenant, request: pytest.FixtureRequest) -> Start:
    """Start an app in a folder of its own, with a copy of `auth.py`."""

    @contextmanager
    def start(app: App, **more: str) -> Iterator[str]:
        folder, module = tmp_path / "app", Path(app.name)
        shutil.copytree(ROOT / "tests" / "apps" / module.parent, folder)
        shutil.copy(ROOT / "auth.py", folder / app.copy)
        more.setdefault("AUTH0_ALLOWED_ORIGINS", "http://localhost:1")
        if app is IN_REDIS:
            server: RedisServer = request.getfixturevalue("redis_server")
            more["REDIS_URL"] = server.url
        more["FLASK_APP"] = module.name
        more["AUTH0_REDIRECT_URI"] = f"{{site}}{app.prefix}/callback"
        with running(folder, tenant, **more) as site:
            yield site

    return start


@pytest.fixture
def page() -> Iterator[Page]:
    """A page in Chromium; no certificate is forgiven."""
    with screenshots.chromium() as browser, browser.new_context() as context:
        yield context.new_page()


@pytest.mark.parametrize("app", APPS, ids=lambda app: app.name)
def test_a_whole_login_in_a_browser_and_no_warning_on_the_way_out(
    app: App, start: Start, page: Page
) -> None:
    with start(app) as site:
        page.goto(site)
        expect(page.get_by_text("Welcome Guest")).to_be_visible()
        program = page.request.get(
            f"{site}/reports", headers={"Accept": "application/json"}
        )
        assert (program.status, program.json()["code"]) == (401, "signed_out")

        page.goto(f"{site}/reports?month=11")
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(f"{site}/reports?month=11")
        expect(page.get_by_text("Reports for auth0|alice")).to_be_visible()
        page.goto(site)
        expect(page.get_by_text("Welcome Guest")).not_to_be_visible()
        page.go_back()
        page.get_by_role("link", name="Sign out").click()

        expect(page).to_have_url(f"{site}/")
        expect(page.get_by_text("Welcome Guest")).to_be_visible()
        left = {cookie["name"] for cookie in page.context.cookies(site)}
        own = app in {FACTORY, IN_REDIS}  # they keep something in the session, too
        assert left == ({"session"} if own else set())
        page.goto(f"{site}/reports")
        expect(page.get_by_role("button", name="Alice")).to_be_visible()


async def test_a_shop_with_forms_rows_and_flask_login(
    start: Start, tenant: Tenant, visitors: Visitors
) -> None:
    with start(FACTORY) as site:
        alice, phone = visitors("alice", at=site), visitors("alice", at=site)
        assert (await alice.http.post(f"{site}/orders")).status_code == 400  # no token
        await alice.login("/reports")
        await post(alice, "/orders", page="/reports", goods="kettle")
        assert "<li>kettle</li>" in (await phone.login("/reports")).text
        assert "kettle" not in (await visitors("bob", at=site).login("/reports")).text

        token = {"logout_token": tenant.logout_token(sub="auth0|alice")}
        told = await alice.http.post(f"{site}/account/backchannel-logout", data=token)
        assert told.status_code == 200
        for visitor in (alice, phone):
            assert (await visitor.get("/reports")).status_code == 302
            assert "<li>kettle</li>" in (await visitor.login("/reports")).text

        gone = await alice.http.post(
            f"{site}/account/logout/everywhere", headers={"Origin": site}
        )
        assert (await alice.follow(gone)).text == "Welcome Guest"
        assert (await phone.get("/")).text == "Welcome Guest"


async def test_what_is_cached_is_each_users_own_and_behind_the_guard(
    start: Start, visitors: Visitors
) -> None:
    with start(IN_REDIS) as site:
        alice, bob = visitors("alice", at=site), visitors("bob", at=site)
        for visitor in (alice, bob):
            for _ in range(3):
                page = await visitor.login("/reports")
                assert f"auth0|{visitor.username}" in page.text
            assert (await visitor.get("/made")).text == "1"
        assert set(alice.cookies) == {"session"}  # the rest is in Redis

        copied = visitors("alice", at=site)
        copied.http.cookies.update(alice.http.cookies)
        await alice.logout()

        for visitor in (alice, copied):
            assert (await visitor.get("/reports")).status_code == 302
        assert "auth0|bob" in (await bob.get("/reports")).text
        assert (await alice.login("/made")).text == "1"  # what is the app's stays


@contextmanager
def front_end() -> Iterator[str]:
    """Serve a front end from an origin of its own; yield that."""
    page = """
    <p id="said"></p>
    <script>
    const site = new URLSearchParams(location.search).get("site");
    async function ask() {
      const answer = await fetch(site + "/api/orders", {
        method: "POST", credentials: "include", body: JSON.stringify({goods: "tea"}),
        headers: {"Content-Type": "application/json"}});
      if (answer.status === 401)
        location.href = site + "/login?return_to=" + encodeURIComponent(location.href);
      else document.getElementById("said").textContent = await answer.text();
    }
    ask();
    </script>
    """
    server = make_server("127.0.0.1", 0, Response(page, mimetype="text/html"))
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    yield f"http://localhost:{server.port}"
    server.shutdown()
    thread.join()
    server.server_close()


def test_a_front_end_on_another_origin_signs_in_and_out(
    start: Start, page: Page
) -> None:
    with (
        front_end() as front,
        start(API, AUTH0_ALLOWED_ORIGINS=front) as site,
    ):
        page.goto(f"{front}/?site={site}")  # asks the API, is told 401, goes to login
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(re.compile(re.escape(f"{front}/?site=")))
        expect(page.get_by_text('"sub":"auth0|alice"')).to_be_visible()
        expect(page.get_by_text('"goods":"tea"')).to_be_visible()

        page.goto(f"{site}/logout?return_to={front}/")
        assert page.context.cookies(site) == []
        elsewhere = "http://evil.example/"
        page.goto(f"{site}/logout?return_to={elsewhere}")
        expect(page).to_have_url(f"{site}/")


def test_htmx_is_led_to_login_and_back_to_its_page(start: Start, page: Page) -> None:
    with start(API) as site:
        page.goto(f"{site}/inbox?folder=1&x=%26")
        page.get_by_role("button", name="Alice").click()
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Alice")).to_be_visible()

        page.reload()
        other = page.context.new_page()
        other.goto(f"{site}/logout")
        page.get_by_role("button", name="Load").click()
        page.get_by_role("button", name="Bob").click()

        expect(page).to_have_url(f"{site}/inbox?folder=1&x=%26")
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Bob")).to_be_visible()
