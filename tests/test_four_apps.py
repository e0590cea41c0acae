"""Four apps of different shape get the login by the README's words, in a browser."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from pathlib import Path

import pytest
from playwright.sync_api import Browser, Page, expect

from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from servers import ROOT, free_port, serving
from test_drop_in import copy_example, running

Somebody = Callable[[], Page]


@pytest.fixture
def somebody(browser: Browser) -> Iterator[Somebody]:
    """Open a page in a browser of somebody's own; no certificate is forgiven."""
    with ExitStack() as contexts:
        yield lambda: contexts.enter_context(browser.new_context()).new_page()


def copy_app(name: str, folder: Path, copy: str) -> Path:
    shutil.copytree(ROOT / "tests" / "apps" / name, folder)
    shutil.copy(ROOT / "auth.py", folder / copy)
    return folder


def sign_in(page: Page, url: str, who: str = "Alice") -> None:
    page.goto(url)
    page.get_by_role("button", name=who).click()
    expect(page).to_have_url(url)


def sign_in_and_out(page: Page, site: str, path: str, *left: str) -> None:
    """Do what works in each app, where these cookies are left at the end."""
    sign_in(page, f"{site}{path}")
    expect(page.locator("body")).to_contain_text(re.compile("alice", re.IGNORECASE))
    page.goto(f"{site}/logout")

    expect(page).to_have_url(f"{site}/")
    assert {cookie["name"] for cookie in page.context.cookies(site)} == {*left}
    page.goto(f"{site}{path}")
    expect(page.get_by_role("button", name="Alice")).to_be_visible()


@pytest.mark.parametrize(
    ("example", "path", "left"),
    [
        ("quickstart_shape", "/profile", []),
        ("existing_app", "/orders/", ["session"]),  # with the token of its forms
    ],
)
def test_the_quickstart_and_a_shop_with_blueprints_forms_and_rows(
    tmp_path: Path,
    tenant: Tenant,
    somebody: Somebody,
    example: str,
    path: str,
    left: list[str],
) -> None:
    app = copy_example(f"{example}/after", tmp_path / "app")
    with running(app, tenant) as site:
        sign_in_and_out(somebody(), site, path, *left)


def test_what_is_cached_is_each_users_own_and_behind_the_guard(
    tmp_path: Path, tenant: Tenant, somebody: Somebody, redis_server: RedisServer
) -> None:
    alice, bob = somebody(), somebody()
    app = copy_app("in_redis", tmp_path / "app", "login.py")
    more = {"FLASK_APP": "main", "REDIS_URL": redis_server.url}
    with running(app, tenant, **more) as site:
        sign_in_and_out(alice, site, "/reports?month=11", "session")
        alice.context.clear_cookies()
        for page, who in ((alice, "Alice"), (bob, "Bob")):
            sign_in(page, f"{site}/reports", who)
            for _ in range(2):
                page.reload()
                expect(page.get_by_text(f"auth0|{who.lower()}")).to_be_visible()
        assert bob.request.get(f"{site}/made").text() == "1"
        names = {cookie["name"] for cookie in alice.context.cookies(site)}
        assert names == {"session", "auth0_local"}  # the tenant's; the rest is in Redis

        reports = f"{site}/reports"
        alice.goto(f"{site}/logout")

        assert alice.request.get(reports, max_redirects=0).status == 302
        assert "auth0|bob" in bob.request.get(reports).text()


PAGE = """
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


def test_a_front_end_on_another_origin_and_htmx_are_led_to_login_and_back(
    tmp_path: Path, tenant: Tenant, somebody: Somebody
) -> None:
    page, app = somebody(), copy_app("api", tmp_path / "app", "identity.py")
    (tmp_path / "index.html").write_text(PAGE)
    files = [sys.executable, "-m", "http.server", "{port}", "-d", str(tmp_path)]
    port = free_port()
    front = f"http://localhost:{port}"
    more = {"FLASK_APP": "service", "AUTH0_ALLOWED_ORIGINS": front}
    with serving(files, {}, port), running(app, tenant, **more) as site:
        sign_in_and_out(page, site, "/reports")
        page.goto(f"{front}/?site={site}")  # asks the API, is told 401, goes to login
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(re.compile(re.escape(f"{front}/?site=")))
        expect(page.get_by_text('"sub":"auth0|alice"')).to_be_visible()
        expect(page.get_by_text('"goods":"tea"')).to_be_visible()
        page.goto(f"{site}/logout?return_to={front}/")
        assert page.context.cookies(site) == []

        inbox = f"{site}/inbox?folder=1&x=%26"
        sign_in(page, inbox)
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Alice")).to_be_visible()
        page.context.new_page().goto(f"{site}/logout")
        page.get_by_role("button", name="Load").click()
        page.get_by_role("button", name="Bob").click()
        expect(page).to_have_url(inbox)
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Bob")).to_be_visible()
