"""The demo and an app made as the README says answer the same.

Each situation is a story that yields answers; whatever is in them is compared, and a
difference fails unless it is named here with its reason.
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
from werkzeug.test import TestResponse

from auth0_flask.stores.encryption import Json
from auth0_flask.tenant import Tenant
from shop import copy_of_auth, load
from visitor import Shopper

Answers = Iterator[TestResponse]
Story = Callable[[Shopper], Answers]

HTML = {"Accept": "text/html"}
JSON = {"Accept": "application/json"}

#: Headers that only the demo has: its own pages need no more than these allow.
OF_THE_DEMO = "Content-Security-Policy", "X-Content-Type-Options", "Referrer-Policy"
#: What is different each time, whoever answers.
_RANDOM = re.compile(
    r"(state|nonce|code_challenge|code)=[^&]+|(?<=_tx)\d|Expires=.+?;|(?<=Max-Age=)\d+"
    r'|"reference":"\w+"'
)


def add_views(app: Flask, auth: Any) -> Flask:
    """Add the same views to either."""

    async def reports() -> str:
        return f"Reports for {auth.auth_user['sub']}"

    def who() -> str:
        return str(auth.auth_user.get("sub", "nobody"))

    def cart() -> str:
        if goods := request.args.get("goods"):
            session.permanent, session["cart"] = True, goods
        return str(session.get("cart"))

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


def a_whole_login(alice: Shopper) -> Answers:
    get, paths = alice.client.get, ("/who", "/fresh", "/machine", "/admin")
    for headers in (HTML, JSON, {"Accept": "*/*", "Sec-Fetch-Mode": "cors"}):
        for path in ("/reports?month=11", *paths):
            yield get(path, headers=headers)
    signed_in = alice.login("/reports?month=11")
    assert urlsplit(signed_in.location).path == "/reports"
    yield signed_in
    for path in ("/reports", *paths, "/no"):
        yield get(path, headers=HTML)
    yield get("/logout")
    assert get("/who").text == "nobody"
    yield alice.login("/login?remember=0")
    yield get("/reports")
    for query in ("", "state=x", "state={}&error=access_denied", "state={}&code=x"):
        state = parse_qs(urlsplit(alice.start()).query)["state"][0]
        yield get(f"/callback?{query.format(state)}", headers=JSON)


def two_tabs(alice: Shopper) -> Answers:
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
    assert cart.text == "None"  # it was Alice's
    yield cart
    twin, at_tenant = alice.twin(), alice.start()
    with_transaction = alice.twin()
    yield get("/logout")
    assert not alice.client._cookies
    yield twin.client.get("/reports")
    late = with_transaction.login(at_tenant)
    assert late.status_code == 400
    yield late


def seen(answer: TestResponse) -> Json:
    """Return all of an answer but what is different each time."""
    is_error = answer.status_code >= 400
    is_own = is_error and not answer.is_json  # each app's pages for errors are its own
    headers = {n: _RANDOM.sub("", v) for n, v in answer.headers}
    headers.pop("Content-Length", None)
    headers.pop("Set-Cookie", None)
    varies = headers.pop("Vary", "").split(", ")
    cookies = (_RANDOM.sub("", c) for c in answer.headers.getlist("Set-Cookie"))
    named = (re.sub("=[^;]+", "=x", cookie, count=1) for cookie in cookies)
    return {
        "asked": f"{answer.request.method} {answer.request.path}",
        "status": answer.status_code,
        # a page that asks who is signed in forgets how many logins there were
        "cookies": sorted(c for c in named if not is_error or "_rounds" not in c),
        "varies": set(varies) - {""},
        "headers": headers,
        "text": "" if is_own or answer.location else _RANDOM.sub("", answer.text),
    }


def compare(own: Json, demo: Json) -> None:
    """See that two answers are the same but for what the demo may add."""
    assert all(demo["headers"].pop(name) for name in OF_THE_DEMO)
    if "Cache-Control" not in own["headers"]:  # its pages say who is signed in
        assert demo["headers"].pop("Cache-Control") == "no-store"
    more = demo["varies"] - own["varies"]
    if own["status"] >= 400:  # its pages are in the visitor's language as well
        assert more <= {"Accept-Language", "Cookie"}
        demo["varies"] -= more
    assert own == demo


@pytest.mark.parametrize("story", [a_whole_login, two_tabs])
@pytest.mark.parametrize("origin", ["http://localhost", "https://shop.example"])
def test_the_demo_and_an_app_of_ones_own_answer_the_same(
    tenant: Tenant, tmp_path: Path, origin: str, story: Story
) -> None:
    callback, (scheme, host, *_) = f"{origin}/callback", urlsplit(origin)
    config = {"SERVER_NAME": host, "PREFERRED_URL_SCHEME": scheme}
    config["SESSION_COOKIE_NAME"] = "sid" if scheme == "https" else "session"
    tenant.allowed_callback_urls.add(callback)
    given = {"AUTH0_REVOCATIONS_PATH": str(tmp_path / "revocations.sqlite3")}
    auth = copy_of_auth({"AUTH0_REDIRECT_URI": callback, **given})
    own = Flask("shop")
    own.config.update(config)
    auth.init_app(own).register_blueprint(auth.routes)
    apps = [add_views(a, auth) for a in (own, load("app", auth).create_app(config))]

    ours, demos = (story(Shopper(app)) for app in apps)
    for one, other in zip(map(seen, ours), map(seen, demos), strict=True):
        compare(one, other)
