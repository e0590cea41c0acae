"""Takes the README's pictures: ``python -m tests.screenshots``.

Of the app against its local tenant, in Chromium, into ``docs/``.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from playwright.sync_api import Browser, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

from servers import ROOT, clean_environment
from services import path_of

_FLAGS = ["--no-sandbox", "--disable-gpu", "--disable-background-networking"]


def path_of_chromium() -> str:
    """Return where Chromium is, or skip the test."""
    return path_of("chromium", "chromium-browser", "google-chrome")


@contextmanager
def chromium() -> Iterator[Browser]:
    """Run Chromium, as the machine has it."""
    path = path_of_chromium()
    with sync_playwright() as playwright:
        browser = playwright.chromium.launch(executable_path=path, args=_FLAGS)
        yield browser
        browser.close()


@contextmanager
def stand_in() -> Iterator[str]:
    """Run ``python -m auth0_flask.tenant`` as in the README; the address it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "auth0_flask.tenant"],
        cwd=ROOT,
        env=clean_environment({"PYTHONUNBUFFERED": "1"}),
        stdout=subprocess.PIPE,
        text=True,
    )
    assert process.stdout
    with process.stdout:
        line = process.stdout.readline()
        found = re.search(r"http://localhost:\d+", line)
        assert found, line
        yield found[0]
        process.send_signal(signal.SIGINT)
        assert process.wait(timeout=5) == 0  # a hang, not a speed


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
    with chromium() as browser, stand_in() as site:
        take(browser, site, ROOT / "docs")
