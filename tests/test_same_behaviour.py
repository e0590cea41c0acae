"""The demo and an app made as the README says answer the same.

Each situation is a story that yields answers; whatever is in them is compared, and a
difference fails unless it is listed here with its reason.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask, request, session
from flask.testing import FlaskClient
from werkzeug.test import TestResponse

from auth0_flask.tenant import Fault, Tenant
from shop import copy_of_auth, load
from visitor import Shopper

Answers = Iterator[TestResponse]
Story = Callable[[Shopper, Tenant], Answers]

HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/json"}

#: Headers that only the demo has: its own pages need no more than these allow.
OF_THE_DEMO = "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"
#: What is different each time, whoever answers.
_RANDOM = {"state", "nonce", "code_challenge", "code"}
_COMPARED_OTHERWISE = {"Content-Length", "Set-Cookie", "Location"}
_REFERENCE = re.compile(r'"reference":"\w+"')
#: The code on a page of the demo, and on Werkzeug's own.
_CODE = re.compile(r"<code>(\w+)</code>|<p>([a-z_]+)(?:, reference \w+)?</p>")


class Browser(FlaskClient):
    """A browser that knows where the app is."""

    def open(self, *args: Any, **given: Any) -> TestResponse:
        given.setdefault("base_url", self.application.config["ORIGIN"])
        given["headers"] = {**HTML, **given.get("headers", {})}
        return super().open(*args, **given)


def add_views(app: Flask, auth: Any) -> Flask:
    """Add the same views to either."""

    async def reports() -> str:
        return f"Reports for {auth.auth_user['sub']}"

    def who() -> str:
        return str(auth.auth_user.get("sub", "nobody"))

    def cart() -> str:
        if goods := request.args.get("goods"):
            session.permanent = True
            session["cart"] = [*session.get("cart", []), goods]
        return " ".join(session.get("cart", []))

    has_role = auth.requires_claim("https://example.com/roles", "admin")
    for path, view in {
        "/reports": auth.login_required(reports),
        "/fresh": auth.login_required(max_age=300)(partial(who)),
        "/machine": auth.login_required(redirect=False)(partial(who)),
        "/admin": has_role(partial(who)),
        "/who": who,
        "/cart": cart,
    }.items():
        app.add_url_rule(path, path, view)
    return app


# The situations


def a_whole_login(alice: Shopper, tenant: Tenant) -> Answers:
    get, paths = alice.client.get, ("/who", "/fresh", "/machine", "/admin")
    for headers in (HTML, JSON, {"Accept": "*/*", "Sec-Fetch-Mode": "cors"}):
        for path in ("/reports?month=11", *paths):
            yield get(path, headers=headers)
    signed_in = alice.login("/reports?month=11")
    assert urlsplit(signed_in.location).path == "/reports"
    yield signed_in
    for path in ("/reports", *paths, "/no"):
        yield get(path)
    yield get("/logout")
    assert get("/who").text == "nobody"
    yield alice.login("/login?remember=0")
    yield get("/reports")


def two_tabs(alice: Shopper, tenant: Tenant) -> Answers:
    get = alice.client.get
    first, second = alice.start("/login?return_to=/a"), alice.start()
    yield alice.login(second)
    yield get("/cart?goods=kettle")
    alice.username = "bob"
    other = alice.login(first)
    assert other.location == "/a"
    yield other
    yield get("/who")
    cart = get("/cart")
    assert cart.text == ""  # it was Alice's
    yield cart
    twin, at_tenant = alice.twin(), alice.start()
    with_transaction = alice.twin()
    yield get("/logout")
    assert not alice.client._cookies
    yield twin.client.get("/reports")
    late = with_transaction.login(at_tenant)
    assert late.status_code == 400
    yield late


def callbacks_that_fail(alice: Shopper, tenant: Tenant) -> Answers:
    queries = "", "?state=x&code=y", "?state={}&error=access_denied", "?state={}&code=x"
    faults = Fault.status(503), Fault.reset(), Fault.broken_json()
    for headers in (HTML, JSON):
        for query in queries:
            state = parse_qs(urlsplit(alice.start()).query)["state"][0]
            callback = f"/callback{query.format(state)}"
            answer = alice.client.get(callback, headers=headers)
            assert answer.status_code in {400, 403}
            yield answer
        for fault in faults:
            callback = alice.sign_in()
            tenant.fail("token", fault)
            answer = alice.client.get(callback, headers=headers)
            assert answer.status_code == 502
            yield answer
        callback = alice.sign_in()
        tenant.forge("expired")
        yield alice.client.get(callback, headers=headers)
        assert not alice.client.get_cookie("session_auth0")


def logout_everywhere(alice: Shopper, tenant: Tenant) -> Answers:
    alice.login()
    yield alice.client.get("/reports")  # else the demo's error page looks first
    (phone := Shopper(alice.client.application)).login()
    everywhere, evil = "/logout/everywhere", {"Origin": "https://evil.example"}
    refused = alice.client.post(everywhere, headers=evil)
    assert refused.status_code == 403
    yield refused
    yield alice.client.get(everywhere)
    yield alice.client.post("/logout")
    yield alice.client.post(everywhere, headers={"Sec-Fetch-Site": "same-origin"})
    yield phone.client.get("/reports")


EVERYWHERE: list[Story] = [a_whole_login, two_tabs]
SITUATIONS: list[Story] = [*EVERYWHERE, callbacks_that_fail, logout_everywhere]
EMBEDDED = {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_PARTITIONED": True}
OF_A_DOMAIN = {"SESSION_COOKIE_DOMAIN": "shop.localhost", "SESSION_COOKIE_NAME": "sid"}


# What is compared


def seen(answer: TestResponse) -> dict[str, Any]:
    """Return all of an answer but what is different each time."""
    text, is_error = answer.text, answer.status_code >= 400
    page = is_error and not answer.is_json
    cookies = map(_cookie, answer.headers.getlist("Set-Cookie"))
    to = urlsplit(answer.location or "")
    query = {n: "" if n in _RANDOM else v for n, v in parse_qs(to.query).items()}
    return {
        "asked": f"{answer.request.method} {answer.request.path}",
        "status": answer.status_code,
        "to": (to._replace(query="").geturl(), query),
        # a page that asks who is signed in forgets how many logins there were
        "cookies": sorted(c for c in cookies if not is_error or "_rounds" not in c),
        "headers": {n: v for n, v in answer.headers if n not in _COMPARED_OTHERWISE},
        "code": next(map("".join, _CODE.findall(text)), "") if page else "",
        # each app's pages for errors are its own
        "text": "" if page or answer.location else _REFERENCE.sub("", text),
    }


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
    assert all(demo["headers"].pop(name) for name in OF_THE_DEMO)
    if "Cache-Control" not in own["headers"]:  # its pages say who is signed in
        assert demo["headers"].pop("Cache-Control") == "no-store"
    varies = [set(a["headers"].pop("Vary", "").split(", ")) - {""} for a in (own, demo)]
    assert varies[0] <= varies[1]
    if own["status"] < 400:
        assert varies[0] == varies[1]
    else:  # its pages are in the visitor's language as well
        assert varies[1] - varies[0] <= {"Accept-Language", "Cookie"}
    assert own == demo


@pytest.mark.parametrize(
    ("origin", "config", "stories"),
    [
        ("http://localhost", {"SESSION_REFRESH_EACH_REQUEST": True}, SITUATIONS),
        ("https://shop.example", {"PERMANENT_SESSION_LIFETIME": 3600}, EVERYWHERE),
        ("https://localhost", {**EMBEDDED, "SESSION_COOKIE_SECURE": True}, EVERYWHERE),
        ("http://shop.localhost", OF_A_DOMAIN, EVERYWHERE),
    ],
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
    for app in apps:
        app.config["ORIGIN"], app.test_client_class = origin, Browser

    for story in stories:
        ours, demos = (story(Shopper(app), tenant) for app in apps)
        for one, other in zip(map(seen, ours), map(seen, demos), strict=True):
            compare(one, other)
