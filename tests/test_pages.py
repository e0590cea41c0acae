"""Every page, the app's and the tenant's, for everybody who may meet it."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Literal
from urllib.parse import urlsplit

import httpx
import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Request, expect

from auth0_flask.tenant import Fault, Tenant
from test_tokens import MFA

MOST_BYTES = 30_000  # of a page with its style and icon
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = {"runOnly": RULES, "resultTypes": ["violations"]}
PICTURE = "https://pictures.example/zoe.svg"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="900"/>'
OVERFLOW = "() => document.documentElement.scrollWidth - innerWidth"


class Visit:
    """A browser at a page, and what it asked for and complained of on its way."""

    def __init__(self, browser: Browser, site: str, tenant: Tenant) -> None:
        self.site, self.tenant = site, tenant
        context = browser.new_context(ignore_https_errors=True, locale="en-US")
        self.page = context.new_page()
        self.requests: list[Request] = []
        self.troubles: list[str] = []
        picture = {"body": SVG, "content_type": "image/svg+xml"}
        context.route(PICTURE, lambda route: route.fulfill(**picture))
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", self._note)

    def goto(self, path: str) -> None:
        """Go to a page of the app, or to another address."""
        self.page.goto(path if "://" in path else f"{self.site}{path}")

    def press(self, button: str, path: str = "/") -> None:
        """Press a button of the tenant's login page, on the way to a page."""
        self.page.goto(f"{self.site}/login?return_to={path}")
        self.page.get_by_role("button", name=button).click()

    def sign_in(self, path: str, who: str) -> None:
        """Sign in on the way to a page."""
        self.press(who, path)
        expect(self.page).to_have_url(f"{self.site}{path}")

    def _note(self, said: ConsoleMessage) -> None:
        # Chromium says so of an error page itself, which is meant to have its status
        is_page = said.location["url"] == self.page.url
        is_status = is_page and said.text.startswith("Failed to load resource")
        # and so where a test fills in a field before the page has put the cursor there
        is_too_fast = said.text.startswith("Autofocus processing was blocked")
        if not (is_status or is_too_fast):
            self.troubles.append(said.text)


def _profile(visit: Visit) -> None:
    visit.tenant.add_user(
        "zoe",
        name="Zoé " + "Featherstonehaugh" * 8,
        email="zoe" * 20 + "@example.com",
        email_verified=False,
        picture=PICTURE,
        **{"https://an.example/" + "roles" * 12: ["admin"] * 30, "nothing": []},
        address={"country": "Côte d’Ivoire", "street": "x" * 200},
    )
    visit.sign_in("/profile", "zoe")
    visit.page.context.clear_cookies()  # as on another device
    visit.sign_in("/profile", "zoe")
    visit.page.get_by_text("As JSON").click()
    visit.page.get_by_text("More ways").click()


def _out_of_order(visit: Visit) -> None:
    visit.tenant.fail("token", Fault.status(503))
    visit.press("Alice")


def _signed_in_at_tenant(visit: Visit) -> None:
    visit.sign_in("/", "Bob")
    visit.goto(f"https://{visit.tenant.domain}/u/session")


def _wrong_code(visit: Visit) -> None:
    visit.page.goto(f"{visit.site}/login?acr_values={MFA}")
    visit.page.get_by_role("button", name="Alice").click()
    visit.page.get_by_label("Code").fill("000")
    visit.page.get_by_role("button", name="Continue").click()
    alert = visit.page.get_by_role("alert")
    expect(alert).to_have_text("This code is wrong: try again.")


def _inbox(visit: Visit) -> None:
    tenant = visit.tenant
    tenant.enroll("alice")
    app = {"client_id": tenant.client_id, "client_secret": tenant.client_secret}
    mail = {**app, "connection": "email", "email": "zoe@example.com"}
    httpx.post(f"{tenant.origin}/passwordless/start", json=mail).raise_for_status()
    login = {**app, "login_hint": '{"sub": "auth0|bob"}', "binding_message": "Desk 4"}
    httpx.post(f"{tenant.origin}/bc-authorize", data=login).raise_for_status()
    visit.goto(f"{tenant.origin}/u/inbox")
    for shown in (tenant.passwordless_code("zoe@example.com"), "Desk 4", "Alice"):
        expect(visit.page.get_by_text(shown)).to_be_visible()


def _at_tenant(path: str) -> Callable[[Visit], None]:
    return lambda visit: visit.goto(visit.tenant.origin + path)


#: How somebody comes to each page, and its heading.
PAGES: dict[str, tuple[Callable[[Visit], None], str]] = {
    "home": (lambda visit: visit.goto("/"), "Sign in. See who you are. Sign out."),
    "Japanese": (lambda visit: visit.goto("/?lang=ja"), "サインインする。"),
    "signed in": (lambda visit: visit.sign_in("/", "Alice"), "Hello, Alice"),
    "profile": (_profile, "Zoé Feather"),
    "bare profile": (lambda visit: visit.sign_in("/profile", "nobody"), "Signed in"),
    "accounts": (lambda visit: visit.sign_in("/accounts", "Alice"), "Connected acco"),
    "denied": (lambda visit: visit.press("Deny"), "Sign-in failed"),
    "out of order": (_out_of_order, "Sign-in failed"),
    "not found": (lambda visit: visit.goto("/nowhere"), "Not Found"),
    "tenant": (lambda visit: visit.goto("/login?screen_hint=signup"), "Sign up"),
    "tenant refuses": (_at_tenant("/authorize?client_id=unknown"), "Not allowed"),
    "tenant, wrong code": (_wrong_code, "One more step"),
    "tenant, inbox": (_inbox, "Inbox"),
    "tenant, signed out": (_at_tenant("/u/session"), "Not signed in"),
    "tenant, signed in": (_signed_in_at_tenant, "Signed in"),
    "tenant, signing out": (_at_tenant("/v2/logout"), "Signed out"),
}


@pytest.fixture
def visit(browser: Browser, site: str, tenant: Tenant) -> Iterator[Visit]:
    """Somebody at a browser of their own."""
    visit = Visit(browser, site, tenant)
    yield visit
    visit.page.context.close()


@pytest.mark.parametrize("name", PAGES)
def test_anybody_can_read_and_use_it_and_it_is_light_and_without_fault(
    visit: Visit, name: str
) -> None:
    """WCAG 2.2 AA as far as axe-core can tell, in both schemes, on any width."""
    (go, heading), page = PAGES[name], visit.page
    go(visit)
    expect(page.get_by_role("heading", level=1)).to_contain_text(heading)

    schemes: dict[Literal["light", "dark"], int] = {"dark": 1280, "light": 320}
    for scheme, width in schemes.items():
        page.emulate_media(color_scheme=scheme)
        page.set_viewport_size({"width": width, "height": 700})
        assert Axe().run(page, options=AXE).response["violations"] == []
        assert page.evaluate(OVERFLOW) <= 0

    for picture in (asked := [r for r in visit.requests if r.url == PICTURE]):
        assert not {"referer", "cookie"} & {*picture.all_headers()}
    assert len(asked) == 2 * (name == "profile")  # zoe signed in twice
    visit.requests.clear()
    page.goto(page.url, wait_until="networkidle")

    assert visit.troubles == []
    own = [r for r in visit.requests if r.url != PICTURE]
    assert {urlsplit(r.url).netloc for r in own} == {urlsplit(page.url).netloc}
    assert len(own) >= 2  # Playwright's routing keeps the browser from caching any
    sizes = [request.sizes() for request in own]
    bodies = sum(size["responseBodySize"] for size in sizes)
    assert bodies + sum(size["responseHeadersSize"] for size in sizes) < MOST_BYTES
