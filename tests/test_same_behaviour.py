"""The demo and an app made as the README says answer the same.

Each situation is a story that yields answers; whatever is in them is compared, and a
difference fails unless it is listed here with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from auth0_server_python.error import AccessTokenError
from flask import Flask, request, session
from werkzeug.test import Cookie, TestResponse

from auth0_flask.tenant import Fault, Tenant
from shop import copy_of_auth, load
from visitor import http_browser, sign_in

Answers = Iterator[TestResponse]
Story = Callable[["Browser"], Answers]

HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/json"}

#: Headers that only the demo has, and why.
OF_THE_DEMO = {
    "Content-Security-Policy": "its own pages need no more than it allows",
    "X-Content-Type-Options": "as above",
    "Referrer-Policy": "as above",
}
#: What is different each time, whoever answers.
_RANDOM = {"state", "nonce", "code_challenge", "code"}
_COMPARED_OTHERWISE = {"Content-Length", "Set-Cookie", "Location"}
_REFERENCE = re.compile(r'"reference":"\w+"')
#: The code on a page of the demo, and on Werkzeug's own.
_CODE = re.compile(r"<code>(\w+)</code>|<p>([a-z_]+)(?:, reference \w+)?</p>")


class Browser:
    """A browser at one of the two apps."""

    def __init__(self, app: Flask, origin: str, tenant: Tenant) -> None:
        self.app, self.origin, self.tenant = app, origin, tenant
        self.client = app.test_client()

    def another(self) -> Browser:
        """Return another browser at the same app."""
        return Browser(self.app, self.origin, self.tenant)

    def twin(self) -> Browser:
        """Return a browser with copies of the cookies."""
        twin = self.another()
        twin.client._cookies = dict(self.client._cookies or {})
        return twin

    def get(self, path: str) -> TestResponse:
        return self.open(path, {})

    def open(self, path: str, headers: dict[str, str], **more: Any) -> TestResponse:
        url = path if path.startswith("http") else self.origin + path
        return self.client.open(url, headers={**HTML, **headers}, **more)

    def start(self, path: str = "/login") -> str:
        """Begin a login; return the address at the tenant."""
        return str(self.get(path).location)

    def come_back(self, at_tenant: str = "", username: str = "alice") -> str:
        """Sign in at the tenant; return the address of the callback."""
        with http_browser() as http:
            return sign_in(http, at_tenant or self.start(), username)

    def login(self, path: str = "/login") -> TestResponse:
        return self.get(self.come_back(self.start(path)))

    def kept(self) -> list[Cookie]:
        return list((self.client._cookies or {}).values())


def add_views(app: Flask, auth: Any) -> Flask:
    """Add the same views to either."""

    async def reports() -> str:
        return f"Reports for {auth.auth_user['sub']}"

    def view() -> str:
        return str(auth.auth_user.get("sub", "nobody"))

    async def token() -> Any:
        try:
            return "token" if await auth.auth0.get_access_token() else "none"
        except AccessTokenError:
            return auth.problem(auth.signed_out())

    def cart() -> str:
        if goods := request.args.get("goods"):
            session.permanent = True
            session["cart"] = [*session.get("cart", []), goods]
        return " ".join(session.get("cart", []))

    only_admins = auth.requires_claim("https://example.com/roles", "admin")
    for path, function in {
        "/reports": auth.login_required(reports),
        "/fresh": auth.login_required(max_age=300)(lambda: view()),
        "/machine": auth.login_required(redirect=False)(lambda: view()),
        "/admin": only_admins(lambda: view()),
        "/who": view,
        "/open": lambda: "open",
        "/token": token,
        "/cart": cart,
    }.items():
        methods = ["GET", "POST"] if path == "/machine" else ["GET"]
        app.add_url_rule(path, path, function, methods=methods)
    return app


# The situations


def a_whole_login(browser: Browser) -> Answers:
    yield browser.get("/reports?month=11")
    yield browser.get("/login?return_to=/reports?month%3D11")
    callback = browser.come_back(browser.start("/login?return_to=/reports?month%3D11"))
    signed_in = browser.get(callback)
    assert urlsplit(signed_in.location).path == "/reports"
    yield signed_in
    for path in ("/reports", "/who", "/fresh", "/open", "/machine", "/admin", "/no"):
        yield browser.get(path)
    yield browser.get("/logout")
    assert browser.get("/who").text == "nobody"
    yield browser.login("/login?remember=0")
    yield browser.get("/reports")


def guards_for_people_and_programs(browser: Browser) -> Answers:
    asks: list[dict[str, str]] = [
        {},
        JSON,
        {"Accept": "*/*"},
        {"Accept": "*/*", "Sec-Fetch-Mode": "cors"},
        {"X-Requested-With": "XMLHttpRequest"},
        {"Authorization": "Bearer x"},
        {"HX-Request": "true", "HX-Current-URL": f"{browser.origin}/page?x=1"},
        {"HX-Request": "true", "HX-Current-URL": "https://evil.example/"},
    ]
    for path in ("/reports", "/fresh", "/machine", "/admin"):
        for headers in asks:
            yield browser.open(path, headers)
        yield browser.open(path, {}, method="HEAD")
        yield browser.open(path, {}, method="OPTIONS")
    yield browser.open("/machine", {"Accept": "*/*"}, method="POST", json={})


def what_nobody_clicked(browser: Browser) -> Answers:
    callback = browser.come_back()
    for path in ("/login", callback):
        yield browser.open(path, {}, method="HEAD")
        yield browser.open(path, {"Sec-Purpose": "prefetch;prerender"})
    signed_in = browser.get(callback)
    assert signed_in.status_code == 302
    yield signed_in
    yield browser.open("/logout", {}, method="HEAD")
    yield browser.open("/logout", {"Purpose": "prefetch"})
    assert browser.get("/who").text == "auth0|alice"


def callbacks_that_fail(browser: Browser) -> Answers:
    queries = (
        *("", "?", "?state=x", "?code=x", "?state=x&code=y", "?error=access_denied"),
        *("?state={}", "?state={}&error=access_denied&error_description=no%3Cb%3E"),
        *("?state={}&error=server_error", "?state={}&error=odd", "?state={}&code=x"),
    )
    for headers in (HTML, JSON):
        for query in queries:
            state = parse_qs(urlsplit(browser.start()).query)["state"][0]
            answer = browser.open(f"/callback{query.format(state)}", headers)
            assert answer.status_code in {400, 403}
            yield answer


def a_provider_that_fails(browser: Browser) -> Answers:
    tenant = browser.tenant
    refused = Fault.body({"error": "invalid_grant"}, status=429)
    faults = [Fault.status(503), refused, Fault.reset(), Fault.broken_json()]
    for headers in (HTML, JSON):
        for fault in faults:
            callback = browser.come_back()
            tenant.fail("token", fault)
            answer = browser.open(callback, headers)
            assert answer.status_code == 502
            yield answer
        for forged in ("issuer", "audience", "expired", "signature", "absent"):
            callback = browser.come_back()
            tenant.forge(forged)
            answer = browser.open(callback, headers)
            assert answer.status_code in {400, 500}
            yield answer


def a_guest_at_a_silent_login(browser: Browser) -> Answers:
    for headers in (HTML, JSON):
        asked = browser.start("/login?prompt=none")
        back = httpx.get(asked, trust_env=False, timeout=60).headers["Location"]
        answer = browser.open(back, headers)
        assert "login_required" in answer.text
        yield answer


def two_tabs(browser: Browser) -> Answers:
    first, second = browser.start("/login?return_to=/a"), browser.start()
    signed_in = browser.get(browser.come_back(second))
    yield signed_in
    yield browser.get("/cart?goods=kettle")
    other = browser.get(browser.come_back(first, "bob"))
    assert other.location == "/a"
    yield other
    yield browser.get("/who")
    cart = browser.get("/cart")
    assert cart.text == ""  # it was Alice's
    yield cart
    twin, at_tenant = browser.twin(), browser.start()
    with_transaction = browser.twin()
    yield browser.get("/logout")
    assert not browser.kept()
    yield twin.get("/reports")
    late = with_transaction.get(browser.come_back(at_tenant))
    assert late.status_code == 400
    yield late


def logout_everywhere(browser: Browser) -> Answers:
    browser.login()
    yield browser.get("/reports")  # else the demo's error pages are the first to look
    phone = browser.another()
    phone.login()
    everywhere = "/logout/everywhere"
    for headers in (
        {},
        {"Origin": "https://evil.example"},
        {"Sec-Fetch-Site": "cross-site", "Origin": browser.origin},
        {"Origin": "null", "Sec-Fetch-Site": "same-site"},
    ):
        refused = browser.open(everywhere, headers, method="POST")
        assert refused.status_code == 403
        yield refused
    yield browser.get(everywhere)
    yield browser.open("/logout", {}, method="POST")
    yield browser.open(everywhere, {"Sec-Fetch-Site": "same-origin"}, method="POST")
    yield phone.get("/reports")


def a_refresh_that_fails(browser: Browser) -> Answers:
    browser.tenant.access_token_lifetime = 0
    browser.login()
    for fault in (Fault.status(429), Fault.reset()):
        for headers in (HTML, JSON):
            browser.tenant.fail("token", fault)
            down = browser.open("/token", headers)
            assert down.status_code == 502
            yield down
    browser.tenant.revoke_refresh_tokens("auth0|alice")
    ended = browser.twin().open("/token", JSON)
    assert ended.status_code == 401
    yield ended
    yield browser.get("/token?x=1")


def a_login_that_goes_round(browser: Browser) -> Answers:
    for _ in range(3):
        yield browser.login()
        for cookie in browser.kept():
            if not cookie.key.endswith("rounds"):
                browser.client.delete_cookie(cookie.key, domain=cookie.domain)
    round_again = browser.get("/login")
    assert round_again.status_code == 400
    yield round_again
    yield browser.open("/login", JSON)


SITUATIONS: list[Story] = [
    *(a_whole_login, two_tabs, guards_for_people_and_programs, what_nobody_clicked),
    *(callbacks_that_fail, a_provider_that_fails, a_guest_at_a_silent_login),
    *(logout_everywhere, a_refresh_that_fails, a_login_that_goes_round),
]
EVERYWHERE = SITUATIONS[:2]
LOCAL, PUBLIC = "http://localhost", "https://shop.example"
CROSS_SITE = {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True}
PARTITIONED = {"SESSION_COOKIE_PATH": "/", "SESSION_COOKIE_PARTITIONED": True}
CONFIGS: list[tuple[str, dict[str, Any]]] = [
    (PUBLIC, {}),
    (LOCAL, {"SESSION_REFRESH_EACH_REQUEST": True}),
    (LOCAL, {"SESSION_COOKIE_NAME": "sid"}),
    ("https://localhost", CROSS_SITE),
    (LOCAL, PARTITIONED),
    ("http://shop.localhost", {"SESSION_COOKIE_DOMAIN": "shop.localhost"}),
    (LOCAL, {"PERMANENT_SESSION_LIFETIME": 3600}),
]


# What is compared


def seen(answer: TestResponse) -> dict[str, Any]:
    """Return all of an answer but what is different each time."""
    text = answer.text
    page = answer.status_code >= 400 and not answer.is_json
    return {
        "asked": f"{answer.request.method} {answer.request.path}",
        "status": answer.status_code,
        "to": _address(answer.location),
        "cookies": sorted(map(_cookie, answer.headers.getlist("Set-Cookie"))),
        "headers": {n: v for n, v in answer.headers if n not in _COMPARED_OTHERWISE},
        "code": next(map("".join, _CODE.findall(text)), "") if page else "",
        # each app's pages for errors are its own
        "text": "" if page or answer.location else _REFERENCE.sub("", text),
    }


def _address(url: str | None) -> Any:
    parts = urlsplit(url or "")
    query = {n: "" if n in _RANDOM else v for n, v in parse_qs(parts.query).items()}
    return parts._replace(query="").geturl(), query


def _cookie(header: str) -> str:
    """Return a cookie without its value, with its age to the nearest minute."""
    named, *attributes = header.split("; ")
    name, _, value = named.partition("=")
    kept = [a for a in attributes if not a.startswith(("Expires=", "Max-Age="))]
    age = re.findall(r"Max-Age=(\d+)", header)
    minutes = [f"{round(int(seconds) / 60)} minutes" for seconds in age]
    return " ".join([re.sub(r"_tx\d$", "_tx", name), str(bool(value)), *kept, *minutes])


def compare(own: dict[str, Any], demo: dict[str, Any]) -> None:
    """See that two answers are the same but for what the demo may add."""
    added = {n: demo["headers"].pop(n, None) for n in OF_THE_DEMO}
    assert None not in added.values()
    if "Cache-Control" not in own["headers"]:  # its pages say who is signed in
        assert demo["headers"].pop("Cache-Control") == "no-store"
    varies = [set(a["headers"].pop("Vary", "").split(", ")) - {""} for a in (own, demo)]
    if own["status"] >= 400:  # its pages are in the visitor's language as well
        assert varies[1] - varies[0] <= {"Accept-Language", "Cookie"}
        assert varies[0] <= varies[1]
        # and ask who is signed in, which forgets how many logins there were
        own_cookies, forgotten = own["cookies"], "_rounds False "
        demo["cookies"] = [
            c for c in demo["cookies"] if c in own_cookies or forgotten not in c
        ]
    else:
        assert varies[0] == varies[1]
    assert own == demo


@pytest.mark.parametrize(
    ("origin", "config", "stories"),
    [
        *((LOCAL, {}, [story]) for story in SITUATIONS),
        *((*config, EVERYWHERE) for config in CONFIGS),
    ],
    ids=[story.__name__ for story in SITUATIONS] + [f"{o} {c}" for o, c in CONFIGS],
)
def test_the_demo_and_an_app_of_ones_own_answer_the_same(
    tenant: Tenant,
    tmp_path: Path,
    origin: str,
    config: dict[str, Any],
    stories: list[Story],
) -> None:
    callback = f"{origin}/callback"
    tenant.allowed_callback_urls.add(callback)
    given = {"AUTH0_REVOCATIONS_PATH": str(tmp_path / "revocations.sqlite3")}
    auth = copy_of_auth({"AUTH0_REDIRECT_URI": callback, **given})
    own = Flask("shop")
    own.config.update(config)
    auth.init_app(own)
    own.register_blueprint(auth.routes)
    apps = [add_views(a, auth) for a in (own, load("app", auth).create_app(config))]

    for story in stories:
        ours, demos = (story(Browser(app, origin, tenant)) for app in apps)
        for one, other in zip(map(seen, ours), map(seen, demos), strict=True):
            compare(one, other)
