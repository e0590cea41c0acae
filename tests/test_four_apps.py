"""Four apps of different shape get the login by the README's words alone."""

from __future__ import annotations

import re
import shutil
import threading
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack, contextmanager
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect
from werkzeug.serving import make_server
from werkzeug.wrappers import Response

from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from servers import ROOT
from test_drop_in import running

Start = Callable[..., AbstractContextManager[str]]
Somebody = Callable[[], Page]


@pytest.fixture
def start(tmp_path: Path, tenant: Tenant, request: pytest.FixtureRequest) -> Start:
    """Start an app in a folder of its own, with a copy of `auth.py` by some name."""

    @contextmanager
    def start(app: str, copy: str, prefix: str = "", **more: str) -> Iterator[str]:
        folder, module = tmp_path / "app", Path(app)
        shutil.copytree(ROOT / "tests" / "apps" / module.parent, folder)
        shutil.copy(ROOT / "auth.py", folder / copy)
        more.setdefault("AUTH0_ALLOWED_ORIGINS", "http://localhost:1")
        if module.parent.name == "in_redis":
            server: RedisServer = request.getfixturevalue("redis_server")
            more["REDIS_URL"] = server.url
        more["FLASK_APP"] = module.name
        more["AUTH0_REDIRECT_URI"] = f"{{site}}{prefix}/callback"
        with running(folder, tenant, **more) as site:
            yield site

    return start


@pytest.fixture
def somebody(browser: Browser) -> Iterator[Somebody]:
    """Open a page in a browser of somebody's own; no certificate is forgiven."""
    with ExitStack() as contexts:
        yield lambda: contexts.enter_context(browser.new_context()).new_page()


def sign_in(page: Page, url: str, who: str = "Alice") -> None:
    """Ask for a page, sign in at the tenant and be there."""
    page.goto(url)
    page.get_by_role("button", name=who).click()
    expect(page).to_have_url(url)


def is_signed_out(page: Page, site: str) -> bool:
    """Tell whether a page that is guarded leads to login."""
    return page.request.get(f"{site}/reports", max_redirects=0).status == 302


def sign_in_and_out(page: Page, site: str, *left: str) -> None:
    """Do what works in each app, where these cookies are left at the end."""
    page.goto(site)
    expect(page.get_by_text("Welcome Guest")).to_be_visible()
    as_program = {"Accept": "application/json"}
    program = page.request.get(f"{site}/reports", headers=as_program)
    assert (program.status, program.json()["code"]) == (401, "signed_out")

    sign_in(page, f"{site}/reports?month=11")
    expect(page.get_by_text("Reports for auth0|alice")).to_be_visible()
    page.goto(site)
    expect(page.get_by_text("Welcome Guest")).not_to_be_visible()
    page.go_back()
    page.get_by_role("link", name="Sign out").click()

    expect(page).to_have_url(f"{site}/")
    expect(page.get_by_text("Welcome Guest")).to_be_visible()
    assert {cookie["name"] for cookie in page.context.cookies(site)} == {*left}
    page.goto(f"{site}/reports")
    expect(page.get_by_role("button", name="Alice")).to_be_visible()


def test_the_quickstart(start: Start, somebody: Somebody) -> None:
    with start("quickstart/server", "auth.py") as site:
        sign_in_and_out(somebody(), site)


def test_a_shop_with_forms_rows_and_flask_login(
    start: Start, tenant: Tenant, somebody: Somebody
) -> None:
    alice, phone, bob = somebody(), somebody(), somebody()
    with start("factory/shop", "shop/sso.py", "/account") as site:
        sign_in_and_out(alice, site, "session")  # its own, for the forms
        assert alice.request.post(f"{site}/orders").status == 400  # no token
        sign_in(alice, f"{site}/reports")
        alice.locator("[name=goods]").fill("kettle")
        alice.get_by_role("button", name="Order").click()
        sign_in(phone, f"{site}/reports")
        expect(phone.get_by_role("listitem")).to_have_text("kettle")
        sign_in(bob, f"{site}/reports", "Bob")
        expect(bob.get_by_text("kettle")).to_have_count(0)

        told = bob.request.post(
            f"{site}/account/backchannel-logout",
            form={"logout_token": tenant.logout_token(sub="auth0|alice")},
        )
        assert told.status == 200
        for page in (alice, phone):
            assert is_signed_out(page, site)
            page.goto(f"{site}/reports")
            expect(page.get_by_role("listitem")).to_have_text("kettle")

        alice.get_by_role("button", name="Sign out on all devices").click()
        expect(alice.get_by_text("Welcome Guest")).to_be_visible()
        phone.goto(site)
        expect(phone.get_by_text("Welcome Guest")).to_be_visible()


def test_what_is_cached_is_each_users_own_and_behind_the_guard(
    start: Start, somebody: Somebody
) -> None:
    alice, bob, copied = somebody(), somebody(), somebody()
    with start("in_redis/main", "login.py") as site:
        sign_in_and_out(alice, site, "session")
        alice.context.clear_cookies()
        for page, who in ((alice, "Alice"), (bob, "Bob")):
            sign_in(page, f"{site}/reports", who)
            for _ in range(2):
                page.reload()
                expect(page.get_by_text(f"auth0|{who.lower()}")).to_be_visible()
        assert bob.request.get(f"{site}/made").text() == "1"
        kept = alice.context.cookies(site)
        names = {cookie["name"] for cookie in kept}
        assert names == {"session", "auth0_local"}  # the tenant's; the rest is in Redis

        copied.context.add_cookies(kept)  # type: ignore[arg-type]  # a type of its own
        assert not is_signed_out(copied, site)
        alice.goto(f"{site}/logout")

        assert is_signed_out(alice, site)
        assert is_signed_out(copied, site)
        assert "auth0|bob" in bob.request.get(f"{site}/reports").text()
        sign_in(alice, f"{site}/made")


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


def test_a_front_end_on_another_origin_and_htmx_are_led_to_login_and_back(
    start: Start, somebody: Somebody
) -> None:
    page, api = somebody(), ("api/service", "identity.py")
    with front_end() as front, start(*api, AUTH0_ALLOWED_ORIGINS=front) as site:
        sign_in_and_out(page, site)
        page.goto(f"{front}/?site={site}")  # asks the API, is told 401, goes to login
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(re.compile(re.escape(f"{front}/?site=")))
        expect(page.get_by_text('"sub":"auth0|alice"')).to_be_visible()
        expect(page.get_by_text('"goods":"tea"')).to_be_visible()
        page.goto(f"{site}/logout?return_to={front}/")
        assert page.context.cookies(site) == []
        page.goto(f"{site}/logout?return_to=http://evil.example/")
        expect(page).to_have_url(f"{site}/")

        inbox = f"{site}/inbox?folder=1&x=%26"
        sign_in(page, inbox)
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Alice")).to_be_visible()
        page.reload()
        page.context.new_page().goto(f"{site}/logout")
        page.get_by_role("button", name="Load").click()
        page.get_by_role("button", name="Bob").click()
        expect(page).to_have_url(inbox)
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Bob")).to_be_visible()
