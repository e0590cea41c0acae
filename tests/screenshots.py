"""Takes the README's pictures: ``python -m tests.screenshots``.

Of the app against its local tenant, in Chromium, into ``docs/``.
"""

from __future__ import annotations

import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

from servers import FLASK_RUN, ROOT, free_port, serving
from services import path_of

TENANT = [sys.executable, "-m", "auth0_flask.tenant"]
_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium, as the machine has it."""
    path = path_of("chromium", "chromium-browser", "google-chrome")
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


def take(browser: Browser, site: str, folder: Path) -> None:
    """Take the pictures of a site, into a folder."""
    page = browser.new_page(
        color_scheme="light", locale="en-US", viewport={"width": 1120, "height": 700}
    )
    page.goto(site)
    page.screenshot(path=folder / "home.png")
    page.goto(f"{site}/profile")
    page.get_by_role("button", name="Alice").click()
    page.wait_for_url(f"{site}/profile")
    page.screenshot(path=folder / "profile.png")
    page.close()


if __name__ == "__main__":
    port = free_port()
    own = {"AUTH0_REDIRECT_URI": f"http://localhost:{port}/callback"}
    with chromium() as browser, serving([*TENANT, *FLASK_RUN], own, port) as server:
        take(browser, server.site, ROOT / "docs")
