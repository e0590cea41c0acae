"""Apps that cache, or serve a front end elsewhere, get the login by its docs."""

from __future__ import annotations

import re
import shutil
import sys
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, ExitStack
from pathlib import Path
from typing import Any

import pytest
from playwright.sync_api import Browser, Page, expect

from auth0_flask.tenant import Tenant
from redis_server import RedisServer
from servers import ROOT, free_port, serving
from test_drop_in import running

Start = Callable[..., AbstractContextManager[str]]
Somebody = Callable[[], Page]


@pytest.fixture
def start(tmp_path: Path, tenant: Tenant) -> Start:
    """Start an app in a folder of its own, with a copy of `auth.py` by some name."""

    def start(app: str, module: str, copy: str, **more: str) -> Any:
        folder = shutil.copytree(ROOT / "tests" / "apps" / app, tmp_path / app)
        shutil.copy(ROOT / "auth.py", folder / copy)
        return running(folder, tenant, FLASK_APP=module, **more)

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


def test_what_is_cached_is_each_users_own_and_behind_the_guard(
    start: Start, somebody: Somebody, redis_server: RedisServer
) -> None:
    alice, bob, copied = somebody(), somebody(), somebody()
    url = redis_server.url
    with start("in_redis", "main", "login.py", REDIS_URL=url) as site:
        for page, who in ((alice, "Alice"), (bob, "Bob")):
            sign_in(page, f"{site}/reports?month=11", who)
            for _ in range(2):
                page.reload()
                expect(page.get_by_text(f"auth0|{who.lower()}")).to_be_visible()
        assert bob.request.get(f"{site}/made").text() == "1"
        kept = alice.context.cookies(site)
        names = {cookie["name"] for cookie in kept}
        assert names == {"session", "auth0_local"}  # the tenant's; the rest is in Redis
        copied.context.add_cookies(kept)  # type: ignore[arg-type]  # a type of its own
        assert not is_signed_out(copied, site)

        alice.get_by_role("link", name="Sign out").click()
        expect(alice).to_have_url(f"{site}/")
        expect(alice.get_by_text("Welcome Guest")).to_be_visible()
        assert {cookie["name"] for cookie in alice.context.cookies(site)} == {"session"}
        assert is_signed_out(alice, site)
        assert is_signed_out(copied, site)
        assert "auth0|bob" in bob.request.get(f"{site}/reports").text()
        sign_in(alice, f"{site}/made")


FRONT_END = """
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
    start: Start, somebody: Somebody, tmp_path: Path
) -> None:
    page, api = somebody(), ("api", "service", "identity.py")
    (tmp_path / "index.html").write_text(FRONT_END)
    files = [
        sys.executable,
        "-m",
        "http.server",
        "{port}",
        "--directory",
        str(tmp_path),
    ]
    with ExitStack() as both:
        front = both.enter_context(serving(files, {}, free_port())).site
        site = both.enter_context(start(*api, AUTH0_ALLOWED_ORIGINS=front))
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
        page.context.new_page().goto(f"{site}/logout")
        page.get_by_role("button", name="Load").click()
        page.get_by_role("button", name="Bob").click()
        expect(page).to_have_url(inbox)
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Bob")).to_be_visible()
