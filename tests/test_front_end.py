"""A front end on another origin, in a real browser."""

from __future__ import annotations

import re
import shutil
import sys
from contextlib import ExitStack
from pathlib import Path

from playwright.sync_api import Browser, expect

from auth0_flask.tenant import Tenant
from servers import ROOT, free_port, serving
from test_drop_in import running

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


def test_a_front_end_on_another_origin_is_led_to_login_and_back(
    tenant: Tenant, browser: Browser, tmp_path: Path
) -> None:
    (tmp_path / "index.html").write_text(FRONT_END)
    files = [
        sys.executable,
        "-m",
        "http.server",
        "{port}",
        "--directory",
        str(tmp_path),
    ]
    api = shutil.copytree(ROOT / "tests" / "apps" / "api", tmp_path / "api")
    shutil.copy(ROOT / "auth.py", api / "identity.py")
    with ExitStack() as all_of_it:
        front = all_of_it.enter_context(serving(files, {}, free_port())).site
        own = {"FLASK_APP": "service", "AUTH0_ALLOWED_ORIGINS": front}
        site = all_of_it.enter_context(running(api, tenant, **own))
        page = all_of_it.enter_context(browser.new_context()).new_page()

        page.goto(f"{front}/?site={site}")  # asks the API, is told 401, goes to login
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(re.compile(re.escape(f"{front}/?site=")))
        expect(page.get_by_text('"sub":"auth0|alice"')).to_be_visible()
        expect(page.get_by_text('"goods":"tea"')).to_be_visible()
        page.goto(f"{site}/logout?return_to={front}/")
        assert page.context.cookies(site) == []
        page.goto(f"{site}/logout?return_to=http://evil.example/")
        expect(page).to_have_url(f"{site}/")
