"""Every page, the app's and the tenant's, for everybody who may meet it."""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from typing import Any, Literal
from urllib.parse import urlsplit

import pytest
from axe_playwright_python.sync_playwright import Axe
from playwright.sync_api import Browser, ConsoleMessage, Request, Route, expect

from auth0_flask.tenant import Fault, Tenant

MOST_BYTES = 30_000  # of a page with its style and icon
RULES = ["wcag2a", "wcag2aa", "wcag21a", "wcag21aa", "wcag22aa", "best-practice"]
AXE = {"runOnly": RULES, "resultTypes": ["violations"]}
PICTURE = "https://pictures.example/zoe.svg"
SVG = '<svg xmlns="http://www.w3.org/2000/svg" width="300" height="900"/>'
PAINTED = """() => new Promise(done =>
  requestAnimationFrame(() => requestAnimationFrame(done)))"""
SHIFTS = """() => new Promise(done => {
  let sum = 0;
  new PerformanceObserver(list => list.getEntries().forEach(e => { sum += e.value; }))
    .observe({type: "layout-shift", buffered: true});
  requestAnimationFrame(() => setTimeout(() => done(sum), 50));
})"""
MOVING = """() => [...document.querySelectorAll("*")].filter(element => {
  const style = getComputedStyle(element);
  return style.animationName !== "none" || style.transitionDuration !== "0s";
}).length"""
OVERFLOW = "() => document.documentElement.scrollWidth - innerWidth"


class Visit:
    """A browser at a page, and what it asked for and complained of on its way."""

    def __init__(self, browser: Browser, site: str, tenant: Tenant) -> None:
        self.site, self.tenant = site, tenant
        context = browser.new_context(ignore_https_errors=True, locale="en-US")
        self.page = context.new_page()
        self.requests: list[Request] = []
        self.troubles: list[str] = []
        context.route(PICTURE, _send_picture)
        self.page.on("request", lambda request: self.requests.append(request))
        self.page.on("requestfailed", self._note_failure)
        self.page.on("pageerror", lambda error: self.troubles.append(str(error)))
        self.page.on("console", self._note)

    def goto(self, path: str) -> None:
        """Go to a page of the app, or whatever address."""
        self.page.goto(path if "://" in path else f"{self.site}{path}")

    def press(self, button: str) -> None:
        """Press a button, or what looks like one."""
        self.page.get_by_role("button", name=button).click()
        self.page.wait_for_load_state()

    def sign_in(self, path: str, who: str) -> None:
        """Sign in on the way to a page."""
        self.goto(f"/login?return_to={path}")
        self.press(who)
        expect(self.page).to_have_url(f"{self.site}{path}")

    def _note_failure(self, request: Request) -> None:
        if request.failure != "net::ERR_ABORTED":  # given up by whoever went on
            self.troubles.append(f"{request.url}: {request.failure}")

    def _note(self, said: ConsoleMessage) -> None:
        # Chromium says so of an error page itself, which is meant to have its status.
        is_page = said.location["url"] == self.page.url
        if not (is_page and said.text.startswith("Failed to load resource")):
            self.troubles.append(said.text)


def _send_picture(route: Route) -> None:
    route.request.frame.evaluate(PAINTED)  # as pictures do, it comes when a page stands
    route.fulfill(body=SVG, content_type="image/svg+xml")


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


def _denied(visit: Visit) -> None:
    visit.goto("/login")
    visit.press("Deny")


def _out_of_order(visit: Visit) -> None:
    visit.tenant.fail("token", Fault.status(503))
    visit.goto("/login")
    visit.press("Alice")


def _at_tenant(path: str) -> Callable[[Visit], None]:
    return lambda visit: visit.goto(visit.tenant.origin + path)


def _signed_in_at_tenant(visit: Visit) -> None:
    visit.sign_in("/", "Bob")
    visit.goto(f"https://{visit.tenant.domain}/u/session")


#: How somebody comes to each page, and its heading.
PAGES: dict[str, tuple[Callable[[Visit], None], str]] = {
    "home": (lambda visit: visit.goto("/"), "Sign in. See who you are. Sign out."),
    "Japanese": (lambda visit: visit.goto("/?lang=ja"), "サインインする。"),
    "signed in": (lambda visit: visit.sign_in("/", "Alice"), "Hello, Alice"),
    "profile": (_profile, "Zoé Feather"),
    "bare profile": (lambda visit: visit.sign_in("/profile", "nobody"), "Signed in"),
    "accounts": (lambda visit: visit.sign_in("/accounts", "Alice"), "Connected acco"),
    "denied": (_denied, "Sign-in failed"),
    "out of order": (_out_of_order, "Sign-in failed"),
    "not found": (lambda visit: visit.goto("/nowhere"), "Not Found"),
    "tenant": (lambda visit: visit.goto("/login?screen_hint=signup"), "Sign up"),
    "tenant refuses": (_at_tenant("/authorize?client_id=unknown"), "Not allowed"),
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
def test_anybody_can_read_and_use_it_and_it_is_light_still_and_without_fault(
    visit: Visit, name: str
) -> None:
    """WCAG 2.2 AA as far as axe-core can tell, in both schemes, on any width."""
    (go, heading), page = PAGES[name], visit.page
    go(visit)
    expect(page.get_by_role("heading", level=1)).to_contain_text(heading)

    schemes: dict[Literal["light", "dark"], int] = {"dark": 1280, "light": 320}
    for scheme, width in schemes.items():
        page.emulate_media(color_scheme=scheme, reduced_motion="reduce")
        page.set_viewport_size({"width": width, "height": 700})
        found = Axe().run(page, options=AXE).response["violations"]
        assert [_told(violation) for violation in found] == []
        assert page.evaluate(OVERFLOW) <= 0
    assert page.evaluate(MOVING) == 0

    for picture in (asked := [r for r in visit.requests if r.url == PICTURE]):
        assert not {"referer", "cookie"} & {*picture.all_headers()}
    assert len(asked) == 2 * (name == "profile")  # zoe signed in twice
    page.emulate_media(reduced_motion="no-preference")
    visit.requests.clear()
    page.goto(page.url, wait_until="networkidle")

    assert page.evaluate(SHIFTS) == 0
    assert visit.troubles == []
    own = [r for r in visit.requests if r.url != PICTURE]
    assert {urlsplit(r.url).netloc for r in own} == {urlsplit(page.url).netloc}
    assert len(own) >= 2  # Playwright's routing keeps the browser from caching any
    assert sum(_transferred(request) for request in own) < MOST_BYTES


def _transferred(request: Request) -> int:
    sizes = request.sizes()
    return sizes["responseHeadersSize"] + sizes["responseBodySize"]


def _told(violation: dict[str, Any]) -> str:
    where = " ".join(str(node["target"]) for node in violation["nodes"])
    return f"{violation['id']}: {violation['help']}: {where}"


def test_everything_can_be_done_without_script(
    browser: Browser, site: str, tenant: Tenant
) -> None:
    with browser.new_context(
        ignore_https_errors=True, java_script_enabled=False
    ) as context:
        page = context.new_page()
        page.goto(f"{site}/profile")
        page.get_by_role("button", name="Alice").click()
        expect(page).to_have_url(f"{site}/profile")
        page.get_by_text("As JSON").click()
        expect(page.get_by_text('"email": "alice@example.com"')).to_be_visible()
        page.get_by_role("link", name="日本語").click()
        page.get_by_text("その他のサインアウト方法").click()
        page.get_by_role("button", name="すべてのデバイスからサインアウト").click()

        expect(page).to_have_url(f"{site}/")
        expect(page.get_by_role("link", name="Sign in").first).to_be_visible()


def test_everything_can_be_done_with_the_keyboard(visit: Visit) -> None:
    page, press = visit.page, visit.page.keyboard.press

    def reach(role: Any, name: str, *, tabs: int = 1, **within: Any) -> None:
        for _ in range(tabs):
            press("Tab")
        expect(page.get_by_role(role, name=name, **within)).to_be_focused()

    visit.goto("/")
    reach("link", "Skip to the content")
    press("Enter")
    press("Tab")
    expect(page.get_by_role("main").get_by_role("link", name="Sign in")).to_be_focused()
    press("Enter")
    expect(page.get_by_role("heading", level=1)).to_have_text("Sign in")
    reach("button", "Alice")
    press("Enter")
    expect(page).to_have_url(f"{visit.site}/")
    reach("link", "Profile", tabs=3, exact=True)
    press("Enter")
    expect(page).to_have_url(f"{visit.site}/profile")
    page.get_by_text("More ways to sign out").focus()
    press("Enter")
    reach("link", "Sign out of this app only")
    reach("link", "Sign out of your identity provider")
    reach("button", "Sign out on all devices")
    ends = page.get_by_role("button", name=re.compile("End (this|all)")).count()
    reach("link", "Manage accounts", tabs=ends + 1)
    press("Tab")
    press("Enter")
    expect(page.get_by_text('"sub": "auth0|alice"')).to_be_visible()
    page.locator("pre").click()  # selects all of it, to be copied
    copied = page.evaluate("() => JSON.parse(getSelection().toString())")
    assert copied["sub"] == "auth0|alice"


def test_signing_out_of_this_app_only_asks_for_nobody_at_the_next_login(
    visit: Visit,
) -> None:
    page = visit.page
    visit.sign_in("/profile?lang=fr", "Alice")
    page.get_by_text("Autres façons de se déconnecter").click()
    page.get_by_role("link", name="Se déconnecter de cette application").click()
    expect(page).to_have_url(f"{visit.site}/?lang=fr")
    sign_in = page.get_by_role("main").get_by_role("link", name="Se connecter")
    expect(sign_in).to_be_visible()
    assert [c for c in page.context.cookies() if "session" in c.get("name", "")] == []
    sign_in.click()

    expect(page).to_have_url(f"{visit.site}/?lang=fr")
    expect(page.get_by_role("heading", level=1)).to_have_text("Bonjour, Alice")


def test_other_devices_are_signed_out_one_by_one_or_all_at_once(
    visit: Visit, browser: Browser, site: str, tenant: Tenant
) -> None:
    tenant.add_user("carol")
    others = [Visit(browser, site, tenant) for _ in range(2)]
    for each in (*others, visit):
        each.sign_in("/profile", "carol")
    page = visit.page
    devices = page.get_by_role("region", name="Your devices").get_by_role("listitem")
    expect(devices).to_have_count(3)
    mine = devices.filter(has_text="this device")
    expect(mine.get_by_role("button")).to_have_count(0)

    devices.get_by_role("button", name="End this session").first.click()
    expect(devices).to_have_count(2)
    assert [_is_signed_in(other) for other in others].count(True) == 1
    page.get_by_role("button", name="End all other sessions").click()

    expect(devices).to_have_count(1)
    expect(devices).to_contain_text("this device")
    for other in others:
        assert not _is_signed_in(other)
        other.page.context.close()


def _is_signed_in(visit: Visit) -> bool:
    visit.goto("/")
    return bool(visit.page.get_by_role("link", name="Profile", exact=True).count())
