"""Takes the README's pictures: ``python -m tests.screenshots``.

Of the app against its local tenant, in Chromium, into ``docs/``. With the name of a
folder, it takes all pages there instead, to look at: in every language, light and dark,
wide and narrow.
"""

from __future__ import annotations

import re
import signal
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from itertools import product
from pathlib import Path
from typing import Literal

from playwright.sync_api import Browser, Page, sync_playwright

sys.path.insert(0, str(Path(__file__).parent))  # as pytest does

from servers import ROOT, clean_environment
from services import path_of

LANGUAGES = ("en", "fr", "ja", "zh-Hans")

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
def stand_in(**more: str) -> Iterator[str]:
    """Run ``python -m auth0_flask.tenant`` as in the README; the address it prints."""
    process = subprocess.Popen(
        [sys.executable, "-m", "auth0_flask.tenant"],
        cwd=ROOT,
        env=clean_environment({"PYTHONUNBUFFERED": "1", **more}),
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
    """Take the README's of a site, into a folder."""
    page = browser.new_page(
        color_scheme="light", locale="en-US", viewport={"width": 1120, "height": 700}
    )
    for name in walk(page, site, "en"):
        if name in {"home", "profile"}:
            page.screenshot(path=folder / f"{name}.png")
    page.close()


def take_all(browser: Browser, site: str, folder: Path) -> None:
    """Take all pages of a site, into a folder."""
    folder.mkdir(parents=True, exist_ok=True)
    schemes: tuple[Literal["light", "dark"], ...] = ("light", "dark")
    for tag in LANGUAGES:
        page = browser.new_page()
        for name in walk(page, site, tag):
            for scheme, width in product(schemes, (360, 1280)):
                page.emulate_media(color_scheme=scheme)
                page.set_viewport_size({"width": width, "height": 700})
                path = folder / f"{name}-{tag}-{scheme}-{width}.png"
                page.screenshot(path=path, full_page=True)
        page.close()


def walk(page: Page, site: str, tag: str) -> Iterator[str]:
    """Visit one page after another in a language; yield what to call each."""
    for name, path in (
        ("home", "/"),
        ("not-found", "/nowhere"),
        ("failed", "/callback"),
    ):
        page.goto(f"{site}{path}?lang={tag}")
        yield name
    page.goto(f"{site}/profile?lang={tag}")
    yield "tenant"
    page.get_by_role("button", name="Alice").click()
    page.wait_for_url(f"{site}/profile?lang={tag}")
    yield "profile"
    page.locator("summary").first.click()
    yield "more"
    for path, name in {"": "signed-in", "accounts": "accounts"}.items():
        page.goto(f"{site}/{path}?lang={tag}")
        yield name


if __name__ == "__main__":
    all_pages = {"AUTH0_SCOPE": "openid profile email offline_access"}
    with chromium() as browser, stand_in(**all_pages if sys.argv[1:] else {}) as site:
        if sys.argv[1:]:
            take_all(browser, site, Path(sys.argv[1]))
        else:
            take(browser, site, ROOT / "docs")
