"""A front end on another origin than its API, and htmx: in a browser."""

from __future__ import annotations

import re
import shutil
import sys
from pathlib import Path

from playwright.sync_api import Browser, expect

from auth0_flask.tenant import Tenant
from servers import ROOT, free_port, serving
from test_drop_in import running

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
    tmp_path: Path, tenant: Tenant, browser: Browser
) -> None:
    app = shutil.copytree(ROOT / "tests" / "apps" / "api", tmp_path / "app")
    shutil.copy(ROOT / "auth.py", app / "identity.py")
    (tmp_path / "index.html").write_text(PAGE)
    files = [sys.executable, "-m", "http.server", "{port}", "-d", str(tmp_path)]
    port = free_port()
    front = f"http://localhost:{port}"
    more = {"FLASK_APP": "service", "AUTH0_ALLOWED_ORIGINS": front}
    with (
        serving(files, {}, port),
        running(app, tenant, **more) as site,
        browser.new_context() as context,
    ):
        page = context.new_page()
        page.goto(f"{front}/?site={site}")  # asks the API, is told 401, goes to login
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(re.compile(re.escape(f"{front}/?site=")))
        expect(page.get_by_text('"sub":"auth0|alice"')).to_be_visible()
        expect(page.get_by_text('"goods":"tea"')).to_be_visible()
        page.goto(f"{site}/logout?return_to={front}/")
        assert context.cookies(site) == []

        inbox = f"{site}/inbox?folder=1&x=%26"
        page.goto(inbox)
        page.get_by_role("button", name="Alice").click()
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Alice")).to_be_visible()
        context.new_page().goto(f"{site}/logout")
        page.get_by_role("button", name="Load").click()
        page.get_by_role("button", name="Bob").click()
        expect(page).to_have_url(inbox)
        page.get_by_role("button", name="Load").click()
        expect(page.get_by_text("A letter to Bob")).to_be_visible()
