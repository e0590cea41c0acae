"""Guards, in somebody else's app: who asks for what, and where they end up."""

from __future__ import annotations

import asyncio
import copy
import json
import logging
import pickle
import re
import threading
import time
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import wraps
from typing import Any
from urllib.parse import parse_qs, urlsplit

import httpx
import pytest
from auth0_server_python.auth_types import StartInteractiveLoginOptions
from flask import Blueprint, Flask, render_template_string, request, session
from flask.testing import FlaskClient
from flask.views import MethodView

import auth
from auth0_flask.tenant import Tenant
from conftest import SITE, Clock
from shop import copy_of_auth, make_shop
from visitor import Shopper

ROLES = "https://example.com/roles"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON_BODY = {"Content-Type": "application/json"}
JSON = {"Accept": "application/json"}
PROBLEM = "application/problem+json"


class Orders(MethodView):
    @auth.login_required(redirect=False)
    def get(self) -> str:
        return "of the method"


class Comments(MethodView):
    def get(self) -> str:
        return "comments"

    @auth.login_required
    async def post(self) -> str:
        return "posted"

    @auth.requires_claim(ROLES, "admin")
    def delete(self) -> str:
        return "deleted"


@dataclass
class Page:
    """A view that is no function, and has no hash."""

    text: str

    def __call__(self) -> str:
        return self.text


def shows(text: str) -> Callable[[], Awaitable[str]]:
    """Make an async view; the others here are sync."""

    async def view() -> str:
        return text

    return view


async def who() -> str:
    user = await auth.auth0.get_user()
    return f"async {(user or {})['sub']}"


def template() -> str:
    return render_template_string(
        "{% if auth_user %}{{ auth_user.name }}{% else %}nobody{% endif %}"
    )


@pytest.fixture
def app() -> Flask:
    """Somebody else's app; in its last lines are guards above their routes."""
    app = Flask(__name__)
    app.config.update(TESTING=True)
    auth.init_app(app)
    admins, cached = auth.requires_claim(ROLES, "admin", "owner"), "public, max-age=60"
    fresh = auth.login_required(max_age=300)
    stale = auth.login_required(redirect=False, max_age=300)
    views: dict[str, Callable[[], Any]] = {
        **{path: lambda: "here" for path in ("/login", "/callback", "/logout")},
        "/sync": auth.login_required(lambda: f"sync {auth.auth_user['sub']}"),
        "/async": auth.login_required(who),
        "/fresh": fresh(lambda: "fresh"),
        "/acme": auth.login_required(organization="acme")(shows("acme")),
        "/admin": admins(shows("admin")),
        "/verified": auth.requires_claim("email_verified", True)(lambda: "verified"),
        "/unlocked": auth.requires_claim("locked", False)(lambda: "unlocked"),
        "/template": template,
        "/own-caching": auth.login_required(lambda: ("", {"Cache-Control": cached})),
        "/stale": stale(shows("of the view")),
        "/within": lambda: stale(lambda: "of the guard within")(),
        "/object": Page("an object"),
        "/own-object": auth.login_required(Page("my own")),
        "/empty": auth.login_required()(shows("seen")),
        "/comments": Comments.as_view("comments"),
        "/class": (of_class := Comments.as_view("class")),
    }
    api = auth.login_required(redirect=False)
    views["/methods"] = Orders.as_view("methods")
    for path, view in views.items():
        app.add_url_rule(path, path[1:], view)
    for name, guard in (("inside", auth.login_required), ("api", api)):
        blueprint = Blueprint(name, __name__, url_prefix=f"/{name}")
        blueprint.before_request(guard)
        blueprint.add_url_rule("/", "index", shows(f"of the {name}"))
        blueprint.add_url_rule("/open", "open", auth.public(lambda: "open to all"))
        app.register_blueprint(blueprint)
    auth.login_required(of_class)
    auth.login_required(app.get("/users", endpoint="users")(shows("seen")))
    fresh(admins(app.get("/fresh-admins", endpoint="fresh-admins")(lambda: "seen")))
    return app


@pytest.fixture
def client(app: Flask) -> FlaskClient:
    """A visitor of it."""
    return app.test_client()


def enter(client: FlaskClient, who: dict[str, Any]) -> FlaskClient:
    if who:
        auth.login_as(client, auth_time=int(time.time()) - who.get("ago", 0), **who)
    return client


PAGE = "text/html; charset=utf-8"
TO_ACME = "/acme&organization=acme"
NOBODY: dict[str, Any] = {}
ALICE: dict[str, Any] = {"sub": "auth0|alice", "name": "Alice"}
ADMIN = {**ALICE, "roles": ["reader", "admin"]}
READER = {**ALICE, "roles": ["reader"]}
CODES = {"/acme": "wrong_organization", "/fresh": "insufficient_user_authentication"}
STALE: dict[str, Any] = {**ALICE, "ago": 365}
THIRD_PARTY = {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True}


@pytest.mark.parametrize(
    ("who", "asked", "headers", "status", "where"),
    [
        (NOBODY, "/sync?a=1&b=%C3%A4", HTML, 302, "/sync?a%3D1%26b%3D%25C3%25A4"),
        (NOBODY, "/sync", {}, 302, "/sync"),
        (NOBODY, "/sync", JSON, 401, PROBLEM),
        (NOBODY, "/async", {"Sec-Fetch-Mode": "cors"}, 401, PROBLEM),
        (NOBODY, "/sync", {"X-Requested-With": "XMLHttpRequest"}, 401, PROBLEM),
        (NOBODY, "/sync", {"Accept": "*/*", **JSON_BODY}, 401, PROBLEM),
        (NOBODY, "/sync", {**HTML, "Authorization": "Bearer x"}, 401, PROBLEM),
        (ALICE, "/sync", HTML, 200, "sync auth0|alice"),
        (ALICE, "/async", JSON, 200, "async auth0|alice"),
        (STALE, "/fresh", HTML, 302, "/fresh&max_age=300"),
        ({**ALICE, "ago": 350}, "/fresh", HTML, 200, "fresh"),  # as clocks may differ
        (STALE, "/fresh", JSON, 401, PROBLEM),
        (ALICE, "/acme", HTML, 302, TO_ACME),
        (ALICE, "/acme", JSON, 401, PROBLEM),
        ({**ALICE, "organization": "ACME"}, "/acme", HTML, 200, "acme"),
        ({**ALICE, "organization": "evil"}, "/acme", HTML, 302, TO_ACME),
        (ALICE, "/admin", HTML, 403, PAGE),
        (READER, "/admin", JSON, 403, PROBLEM),
        (ADMIN, "/admin", HTML, 200, "admin"),
        ({**ALICE, "roles": "owner"}, "/admin", HTML, 200, "admin"),
        ({**ALICE, "roles": "landowner"}, "/admin", HTML, 403, PAGE),
        (NOBODY, "/inside/", HTML, 302, "/inside/"),
        (ALICE, "/inside/", HTML, 200, "of the inside"),
        (NOBODY, "/comments", HTML, 200, "comments"),
        (NOBODY, "POST /comments", HTML, 302, "/"),
        (READER, "POST /comments", HTML, 200, "posted"),
        (READER, "DELETE /comments", HTML, 403, PAGE),
        (ADMIN, "DELETE /comments", HTML, 200, "deleted"),
        (ALICE, "/verified", JSON, 403, PROBLEM),
        ({**ALICE, "email": "a@example.com"}, "/verified", HTML, 200, "verified"),
        ({**ALICE, "locked": False}, "/unlocked", HTML, 200, "unlocked"),
        (ALICE, "/unlocked", HTML, 403, PAGE),
        (NOBODY, "/template", HTML, 200, "nobody"),
        (NOBODY, "/object", HTML, 200, "an object"),
        (NOBODY, "/own-object", HTML, 302, "/own-object"),
        (ALICE, "/own-object", HTML, 200, "my own"),
        (NOBODY, "/empty", HTML, 302, "/empty"),
        (ALICE, "/empty", HTML, 200, "seen"),
        (NOBODY, "/users", HTML, 302, "/users"),
        (ALICE, "/users", HTML, 200, "seen"),
        ({**ADMIN, **STALE}, "/fresh-admins", HTML, 302, "/fresh-admins&max_age=300"),
        (READER, "/fresh-admins", HTML, 403, PAGE),
        (ADMIN, "/fresh-admins", HTML, 200, "seen"),
        (NOBODY, "/class", HTML, 302, "/class"),
        (READER, "/class", HTML, 200, "comments"),
    ],
)
def test_who_asks_for_what_and_where_they_end_up(
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    who: dict[str, Any],
    asked: str,
    headers: dict[str, str],
    status: int,
    where: str,
) -> None:
    caplog.set_level(logging.INFO)
    method, _, path = asked.rpartition(" ")
    sent: Any = {"method": method or "GET", "headers": headers}
    answer = enter(client, who).open(path, **sent)

    assert answer.status_code == status
    shown = {200: answer.text, 302: answer.location}.get(status, answer.content_type)
    assert shown == (f"/login?return_to={where}" if status == 302 else where)
    if status == 401:
        assert "login" in answer.headers["WWW-Authenticate"]
        assert (answer.json or {})["code"] == CODES.get(path, "signed_out")
    if status == 403:
        state = "had another value" if "roles" in who else "was absent"
        assert re.search(f"the claim [^ ]+ {state}", caplog.text)
        assert "reader" not in caplog.text
    if where == "seen":
        assert client.options(path).status_code == 200  # Flask tells the methods


def test_a_form_and_htmx_come_back_to_the_page_they_are_on(client: FlaskClient) -> None:
    for page, back in (
        (f"{SITE}/new?x=1", "/new?x%3D1"),
        (f"{SITE}/new?x=C:\\1", "/new?x%3DC:%5C1"),
        ("https://evil.example.com/", "/"),
    ):
        answer = client.post("/comments", headers={**HTML, "Referer": page})
        assert answer.status_code == 302
        assert answer.location == f"/login?return_to={back}"
        # and htmx does so by a header, to the page that it is in
        htmx = {"HX-Request": "true", "HX-Current-URL": page, "Accept": "*/*"}
        answer = client.get("/fresh", headers={**htmx, "Sec-Fetch-Mode": "cors"})
        assert answer.status_code == 401
        assert answer.headers["HX-Redirect"] == f"/login?return_to={back}&max_age=300"
    auth.login_as(client)
    assert client.get("/fresh", headers=htmx).text == "fresh"


@pytest.mark.parametrize("is_guarded", [False, True])
def test_an_api_answers_401_to_whoever_asks_and_never_redirects(
    app: Flask, is_guarded: bool
) -> None:
    if is_guarded:  # by a guard that is asked first, and redirects other views
        app.before_request(auth.login_required)
    stale = *(("/stale", who) for who in (NOBODY, STALE)), ("/within", STALE)
    for path, who in (("/api/", NOBODY), ("/methods", NOBODY), *stale):
        client = enter(app.test_client(), who)
        for headers in (HTML, {"HX-Request": "true"}):
            answer = client.get(path, headers=headers)
            assert answer.status_code == 401, headers
            assert not {"Location", "HX-Redirect"} & {*answer.headers.keys()}, headers
            assert "login" in answer.headers["WWW-Authenticate"], headers
        assert enter(client, ALICE).get(path).text.startswith("of the ")


def key_or_login(view: Any, guard: Callable[..., Any]) -> Callable[[], Any]:
    @wraps(view)
    def either() -> Any:
        has_key = request.headers.get("X-API-Key") == "the key"
        return view() if has_key else guard(view)()

    return either


def test_a_decorator_for_an_api_key_or_a_login_takes_either() -> None:
    app, one, other = make_shop(auth), lambda: "data", lambda: "data"
    guarded = auth.login_required(one)
    app.add_url_rule("/once", "once", key_or_login(one, lambda _: guarded))
    app.add_url_rule("/each", "each", key_or_login(other, auth.login_required))
    app.add_url_rule("/open", "open", other)
    client = app.test_client()

    for path in ("/once", "/each") * 2:
        assert client.get(path).status_code == 302
        assert client.get(path, headers={"X-API-Key": "the key"}).text == "data"
        assert client.get("/open").text == "data"  # the same view as /each
    enter(client, ALICE)
    assert client.get("/once").text == client.get("/each").text == "data"


def cached(view: Callable[[], str]) -> Callable[[], str]:
    kept: list[str] = []

    @wraps(view)
    def from_cache() -> str:
        if not kept:
            kept.append(view())
        return kept[0]

    return from_cache


@pytest.mark.parametrize("debug", [1, 0])
def test_a_cache_above_a_guard_is_named_once_at_start_in_debug_mode(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture, debug: int
) -> None:
    monkeypatch.setenv("FLASK_DEBUG", str(debug))
    app = make_shop(auth)
    app.add_url_rule("/bad", "bad", cached(auth.login_required(lambda: "mine")))
    app.add_url_rule("/good", "good", auth.login_required(cached(lambda: "mine")))
    app.add_url_rule("/key", "key", key_or_login(lambda: "", auth.login_required))
    app.add_url_rule("/object", "object", Page("an object"))

    class Covered(MethodView):
        get = staticmethod(cached(auth.login_required(lambda: "mine")))

    app.add_url_rule("/methods", view_func=Covered.as_view("methods"))

    assert enter(app.test_client(), ALICE).get("/good").text == "mine"
    assert app.test_client().get("/good").status_code == 302
    told = ": cached.<locals>.from_cache stands above"
    for view in ("bad", "methods"):
        assert caplog.text.count(f"View {view}{told}") == debug
    assert caplog.text.count("View ") == 2 * debug


def test_a_login_that_failed_has_its_code_on_the_page_of_an_app_without_pages(
    shop: Flask, tenant: Tenant
) -> None:
    odd = StartInteractiveLoginOptions(app_state={"return_to": {"endpoint": "me"}})

    @shop.get("/own")
    async def start() -> Any:
        return "", 302, {"Location": await auth.auth0.start_interactive_login(odd)}

    shopper = Shopper(shop)
    (state,) = parse_qs(urlsplit(shopper.start("/own")).query)["state"]
    said = {"error": "access_denied", "error_description": "<b>No</b>", "state": state}
    page = shopper.client.get("/callback", query_string=said, headers=HTML)

    assert page.status_code == 403
    assert "<p>Auth0 said: &lt;b&gt;No&lt;/b&gt;</p>" in page.text
    assert re.search("<p>access_denied, reference [0-9a-f]{8}</p>", page.text)
    assert '<a href="/login?return_to=/' in page.text
    assert "Auth0 did not let you in" in page.text


def test_routes_that_are_missing_are_told_with_a_cure() -> None:
    app = auth.init_app(Flask("shop"), logout="out")
    app.testing = True
    app.add_url_rule("/mine", view_func=auth.login_required(lambda: "mine"))
    cure = r"no endpoint 'login'\. Register auth\.routes, or name .*\(app, login="
    with pytest.raises(RuntimeError, match=cure):
        app.test_client().get("/mine")


def test_a_claim_that_can_never_be_met_is_refused_where_the_view_is_made() -> None:
    values: Any  # the parentheses were forgotten for the first
    for values in ((who,), (ROLES, ["admin"]), (ROLES, "admin", None), (ROLES, "")):
        with pytest.raises(TypeError, match="requires_claim: "):
            auth.requires_claim(*values)
    with pytest.raises(TypeError, match="To ask for a role, use requires_claim"):
        auth.login_required("admin")  # type: ignore[call-overload]  # the point
    for empty in ("organization", "acr"):  # such as a setting that is missing
        values = {empty: ""}
        with pytest.raises(TypeError, match="must not be empty"):
            auth.login_required(**values)
    for values in ("300", -1, 0.5):
        with pytest.raises(TypeError, match="max_age must be a number of seconds"):
            auth.login_required(max_age=values)


def test_polling_by_a_passive_view_keeps_no_session_alive(clock: Clock) -> None:
    app, idle = make_shop(auth), auth.settings.session_idle_seconds
    mine = auth.passive(lambda: template())
    app.add_url_rule("/open", "open", auth.passive(who))
    app.add_url_rule("/mine", "mine", auth.login_required(mine))
    app.add_url_rule("/page", "page", auth.login_required(lambda: "page"))
    client = enter(app.test_client(), ALICE)

    for path in ("/open", "/mine", "/open"):
        clock.forward(idle * 0.3)
        polled = client.get(path)
        assert polled.text in {"async auth0|alice", "Alice"}
        assert "Set-Cookie" not in polled.headers
    assert "Set-Cookie" in client.get("/page").headers  # which is use
    assert "Set-Cookie" not in client.get("/page").headers  # so soon again
    clock.forward(idle * 0.9)
    assert client.get("/open").text == "async auth0|alice"
    assert client.get("/mine").text == "Alice"
    clock.forward(idle * 0.2)
    assert client.get("/page").status_code == 302


FRONT = "https://www.example.com"


def test_login_and_logout_lead_to_a_front_end_of_an_allowed_origin_only(
    tenant: Tenant,
) -> None:
    given = {"AUTH0_ALLOWED_ORIGINS": f"{FRONT} {FRONT}:8443"}
    own = copy_of_auth({**tenant.environ(f"{SITE}/callback"), **given})
    shopper = Shopper(make_shop(own))
    allowed = f"{FRONT}/app?tab=1%262", f"{FRONT}:8443/app"
    others = f"{FRONT}:444/", f"{FRONT}.evil.example/", f"{FRONT}@evil.example/"
    for wanted in (*allowed, *others, "http://www.example.com/", "//www.example.com/"):
        ends = (wanted, wanted) if wanted in allowed else ("/", f"{SITE}/")
        query = httpx.QueryParams(return_to=wanted)
        here = shopper.login(f"/login?{query}").location
        away = shopper.client.get(f"/logout?{query}").location
        assert (here, *parse_qs(urlsplit(away).query)["returnTo"]) == ends


def test_everything_can_be_protected_and_login_still_be_reached(app: Flask) -> None:
    app.add_url_rule("/ecstatic", "ecstatic", lambda: "no file")
    methods = ["GET", "OPTIONS"]
    app.add_url_rule("/own-options", "own", lambda: "secret", methods=methods)
    reports = Blueprint("reports", __name__)  # which has no folder of files
    reports.add_url_rule("/reports/static", "static", lambda: "yearly figures")
    app.register_blueprint(reports)
    app.before_request(auth.login_required)
    client = app.test_client()

    for path in ("/login", "/callback", "/logout", "/inside/open", "/nowhere"):
        assert client.get(path).status_code in {200, 404}, path
    assert client.get("/static/nothing.css").status_code == 404
    for page in ("/template", "/ecstatic", "/reports/static"):
        assert client.get(page).headers["Location"] == f"/login?return_to={page}"
    assert client.options("/template").status_code == 200
    for method in methods:  # which the view answers itself
        answer = client.open("/own-options", method=method)
        assert answer.headers["Location"].startswith("/login"), method
    assert enter(client, ALICE).get("/template").status_code == 200


def test_what_is_guarded_is_not_stored_unless_the_view_says_so(
    app: Flask, client: FlaskClient
) -> None:
    auth.login_as(client)

    @app.after_request
    def stored_by_default(response: Any) -> Any:
        response.headers.setdefault("Cache-Control", "public, max-age=300")
        return response

    assert "public" in client.get("/template").headers["Cache-Control"]
    assert client.get("/sync").headers["Cache-Control"] == "private, no-store"
    cached = client.get("/own-caching").headers["Cache-Control"]
    assert cached == "max-age=60, private"  # which it said was public


def test_two_threads_that_ask_at_once_who_is_there_both_learn_it(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    is_asking, may_go_on, now = threading.Event(), threading.Event(), time.time

    def slowly() -> float:  # while the first one looks whether the session is over
        if threading.current_thread().name.startswith("asyncio"):
            is_asking.set()
            may_go_on.wait(10)
        return now()

    @app.get("/both")
    async def both() -> list[Any]:
        first = asyncio.create_task(asyncio.to_thread(auth.auth_user.get, "sub"))
        assert await asyncio.to_thread(is_asking.wait, 10)
        second = auth.auth_user.get("sub")
        may_go_on.set()
        return [await first, second]

    enter(client, ALICE)
    monkeypatch.setattr(time, "time", slowly)
    assert client.get("/both").json == ["auth0|alice"] * 2


def test_a_page_opens_no_session_unasked_and_a_sync_one_no_event_loop(
    app: Flask, client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.add_url_rule("/plain", "plain", lambda: render_template_string("plain"))
    monkeypatch.setattr(asyncio, "new_event_loop", None)
    monkeypatch.setattr(asyncio, "get_running_loop", None)
    assert enter(client, ALICE).get("/sync").headers["Vary"] == "Cookie"

    monkeypatch.setattr(auth.auth0.sessions.lifetime, "check", None)
    assert "Vary" not in client.get("/plain").headers


def test_auth_user_cannot_be_changed_and_is_else_what_a_dict_is(
    app: Flask,
) -> None:
    async def kept() -> list[Any]:
        user: Any = auth.auth_user
        pickled = pickle.loads(pickle.dumps(user))  # noqa: S301 - our own
        copies = user.copy(), copy.copy(user), copy.deepcopy(user), pickled
        assert all(type(c) is dict and c == user for c in copies)
        assert user | {"sub": "x", "a": 1} == {**user, "sub": "x", "a": 1}
        assert {"sub": "x", "a": 1} | user == {"a": 1, **user}
        in_page = render_template_string("{{ auth_user|tojson }}")
        assert json.loads(in_page) == json.loads(app.json.dumps(auth.auth_user)) == user
        for given in (user, *copies, user | {}, {} | user):
            given[ROLES].append("admin")
        return [repr(user), user[ROLES]]

    app.add_url_rule("/kept", view_func=kept)
    client = enter(app.test_client(), {**ALICE, "roles": ["guest"]})
    shown, roles = client.get("/kept").json or []
    assert "auth0|alice" in shown
    assert roles == ["guest"]  # whatever became of its copies

    with app.test_request_context():
        assert dict(auth.auth_user) == {}
        with pytest.raises(TypeError):
            auth.auth_user["sub"] = "auth0|admin"  # type: ignore[index]  # the point
        with pytest.raises(AttributeError):  # everybody would have it
            auth.auth_user.sub = "auth0|admin"  # type: ignore[attr-defined]  # likewise
    with app.app_context():  # as in a mail that a job renders, and in a debugger
        assert template() == "nobody"
        assert "no request" in f"{auth.auth_user}"
    with pytest.raises(RuntimeError, match="context"):
        auth.auth_user.get("sub")


def test_login_as_signs_any_client_in_and_keeps_the_apps_session(app: Flask) -> None:
    app.config.update(THIRD_PARTY, SESSION_COOKIE_PARTITIONED=True)

    @app.get("/cart")
    def cart() -> str:
        kept = session.setdefault("cart", request.args.get("goods"))
        return f"{kept} of {auth.auth_user.get('sub')}"

    client, secure = app.test_client(), "https://localhost"
    client.get("/cart?goods=apple", base_url=secure)
    for sub in ("auth0|dora", "auth0|emil"):
        auth.login_as(client, sub=sub)
        assert client.get("/cart", base_url=secure).text == f"apple of {sub}"
    with pytest.raises(TypeError, match="WSGITransport"):
        auth.login_as(httpx.Client())


def test_cookies_and_the_secret_key_are_safe_where_an_app_says_nothing_of_them(
    tenant: Tenant,
) -> None:
    public, local = "https://shop.example.com/cb", "http://localhost:5000/cb"
    secrets = "n" * 32, "o" * 32
    cases: list[tuple[dict[str, Any], str, str, bool]] = [
        ({}, public, "Lax", True),
        ({}, local, "Lax", False),
        (THIRD_PARTY, local, "None", True),
    ]
    for config, callback, samesite, secure in cases:
        given = {**tenant.environ(callback), "AUTH0_SECRET": " ".join(secrets)}
        own, app = copy_of_auth(given), Flask("shop")
        app.config.update(config)
        own.init_app(app)

        assert app.config["SESSION_COOKIE_SAMESITE"] == samesite
        assert app.config["SESSION_COOKIE_SECURE"] == secure
        keys = {app.secret_key, *app.config["SECRET_KEY_FALLBACKS"]}
        assert len(keys | {*secrets}) == 4
        assert own.init_app(Flask("shop")).secret_key == app.secret_key
