"""Guards, in somebody else's app: who asks for what, and where they end up."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Iterator
from typing import Any

import httpx
import pytest
from asgiref.wsgi import WsgiToAsgi
from flask import (
    Blueprint,
    Flask,
    Response,
    jsonify,
    render_template_string,
    session,
)
from flask.testing import FlaskClient
from flask.views import MethodView, View

import auth

ROLES = "https://example.com/roles"
HTML = {"Accept": "text/html,application/xhtml+xml,*/*;q=0.8"}
JSON = {"Accept": "application/json"}
PROBLEM = "application/problem+json"


class Reports(MethodView):
    decorators = [auth.login_required]  # noqa: RUF012 - as Flask shows it

    async def get(self) -> str:
        return "reports"

    def post(self) -> str:
        return "posted"


class Summary(View):
    decorators = [auth.requires_claim(ROLES, "admin")]  # noqa: RUF012 - as Flask shows it

    def dispatch_request(self) -> str:
        return "summary"


def make_app() -> Flask:
    app = Flask(__name__)
    app.config.update(TESTING=True)
    auth.init_app(app)
    for name in ("login", "callback", "logout"):
        app.add_url_rule(f"/{name}", name, lambda: "one of the three")

    @app.get("/sync")
    @auth.login_required
    def sync() -> str:
        return f"sync {auth.auth_user['sub']}"

    @app.get("/async")
    @auth.login_required
    async def asynchronous() -> str:
        user = await auth.auth0.get_user()
        return f"async {(user or {})['sub']}"

    @app.get("/fresh")
    @auth.login_required(max_age=300)
    def fresh() -> str:
        return "fresh"

    @app.get("/acme")
    @auth.login_required(organization="acme")
    async def acme() -> str:
        return "acme"

    @app.get("/admin")
    @auth.requires_claim(ROLES, "admin", "owner")
    async def admin() -> str:
        return "admin"

    @app.get("/plan")
    @auth.requires_claim("https://example.com/plan", "gold")
    def plan() -> str:
        return "gold"

    @app.get("/template")
    def template() -> str:
        return render_template_string(
            "{% if auth_user %}{{ auth_user.name }}{% else %}nobody{% endif %}"
        )

    @app.get("/own-caching")
    @auth.login_required
    def own_caching() -> Response:
        response = jsonify(1)
        response.headers["Cache-Control"] = "private, max-age=60"
        return response

    inside = Blueprint("inside", __name__, url_prefix="/inside")
    inside.before_request(auth.login_required)
    inside.add_url_rule("/", "index", lambda: "inside")
    inside.add_url_rule("/open", "open", auth.public(lambda: "open to all"))
    strict = Blueprint("strict", __name__, url_prefix="/strict")
    strict.before_request(auth.requires_claim(ROLES, "admin"))
    strict.add_url_rule("/", "index", lambda: "strict")
    app.register_blueprint(inside)
    app.register_blueprint(strict)
    app.add_url_rule("/reports", view_func=Reports.as_view("reports"))
    app.add_url_rule("/summary", view_func=Summary.as_view("summary"))
    return app


@pytest.fixture
def app() -> Flask:
    """Somebody else's app."""
    return make_app()


@pytest.fixture
def client(app: Flask) -> Iterator[FlaskClient]:
    """A visitor of it."""
    with app.test_client() as client:
        yield client


TO_ACME = "/login?return_to=/acme&organization=acme"
NOBODY: dict[str, Any] = {}
ALICE = {"sub": "auth0|alice", "name": "Alice"}
ADMIN = {**ALICE, "roles": ["reader", "admin"]}
READER = {**ALICE, "roles": ["reader"]}
STALE = {**ALICE, "auth_time": 1_000_000_000}


@pytest.mark.parametrize(
    ("who", "path", "headers", "status", "where"),
    [
        (
            NOBODY,
            "/sync?a=1&b=%C3%A4",
            HTML,
            302,
            "/login?return_to=/sync?a%3D1%26b%3D%C3%A4",
        ),
        (NOBODY, "/sync", {}, 302, "/login?return_to=/sync"),
        (NOBODY, "/async", HTML, 302, "/login?return_to=/async"),
        (NOBODY, "/sync", JSON, 401, PROBLEM),
        (NOBODY, "/async", {"Sec-Fetch-Mode": "cors"}, 401, PROBLEM),
        (NOBODY, "/sync", {"X-Requested-With": "XMLHttpRequest"}, 401, PROBLEM),
        (NOBODY, "/sync", {**HTML, "Authorization": "Bearer x"}, 401, PROBLEM),
        (ALICE, "/sync", HTML, 200, "sync auth0|alice"),
        (ALICE, "/async", JSON, 200, "async auth0|alice"),
        (NOBODY, "/fresh", HTML, 302, "/login?return_to=/fresh&max_age=300"),
        (ALICE, "/fresh", HTML, 200, "fresh"),
        (STALE, "/fresh", HTML, 302, "/login?return_to=/fresh&max_age=300"),
        (STALE, "/fresh", JSON, 401, PROBLEM),
        (ALICE, "/acme", HTML, 302, TO_ACME),
        ({**ALICE, "organization": "ACME"}, "/acme", HTML, 200, "acme"),
        (
            {**ALICE, "organization": "evil"},
            "/acme",
            HTML,
            302,
            TO_ACME,
        ),
        (NOBODY, "/admin", HTML, 302, "/login?return_to=/admin"),
        (ALICE, "/admin", HTML, 403, "text/html; charset=utf-8"),
        (READER, "/admin", JSON, 403, PROBLEM),
        (ADMIN, "/admin", HTML, 200, "admin"),
        ({**ALICE, "roles": "adm"}, "/admin", HTML, 403, "text/html; charset=utf-8"),
        ({**ALICE, "https://example.com/plan": "gold"}, "/plan", HTML, 200, "gold"),
        ({**ALICE, "https://example.com/plan": "golden"}, "/plan", JSON, 403, PROBLEM),
        (NOBODY, "/inside/", HTML, 302, "/login?return_to=/inside/"),
        (ALICE, "/inside/", HTML, 200, "inside"),
        (NOBODY, "/inside/open", HTML, 200, "open to all"),
        (READER, "/strict/", HTML, 403, "text/html; charset=utf-8"),
        (ADMIN, "/strict/", HTML, 200, "strict"),
        (NOBODY, "/reports", HTML, 302, "/login?return_to=/reports"),
        (ALICE, "/reports", HTML, 200, "reports"),
        (READER, "/summary", HTML, 403, "text/html; charset=utf-8"),
        (ADMIN, "/summary", HTML, 200, "summary"),
        (NOBODY, "/template", HTML, 200, "nobody"),
        (ALICE, "/template", HTML, 200, "Alice"),
    ],
)
def test_who_asks_for_what_and_where_they_end_up(
    client: FlaskClient,
    who: dict[str, Any],
    path: str,
    headers: dict[str, str],
    status: int,
    where: str,
) -> None:
    if who:
        auth.login_as(client, **who)

    answer = client.get(path, headers=headers)

    assert answer.status_code == status
    if status == 200:
        assert answer.text == where
    elif status == 302:
        assert answer.headers["Location"] == where
    else:
        assert answer.content_type == where
    if status == 401:
        assert "login" in answer.headers["WWW-Authenticate"]


def test_a_form_comes_back_to_the_page_it_was_sent_from(client: FlaskClient) -> None:
    answer = client.post(
        "/reports", headers={**HTML, "Referer": "http://localhost/reports/new?x=1"}
    )
    foreign = client.post(
        "/reports", headers={**HTML, "Referer": "https://evil.example.com/"}
    )

    assert answer.status_code == 302
    assert foreign.headers["Location"] == "/login?return_to=/"
    assert answer.headers["Location"].startswith("/login?return_to=/")


def test_everything_can_be_protected_and_login_still_be_reached() -> None:
    app = make_app()
    app.before_request(auth.login_required)
    client = app.test_client()

    for path in ("/login", "/callback", "/logout", "/inside/open", "/nowhere"):
        assert client.get(path).status_code in {200, 404}, path
    assert client.get("/static/nothing.css").status_code == 404
    assert client.get("/template").headers["Location"] == "/login?return_to=/template"
    assert client.options("/template").status_code == 200
    auth.login_as(client)
    assert client.get("/template").status_code == 200


def test_a_view_that_answers_options_itself_is_guarded_then_too(app: Flask) -> None:
    @app.route("/own-options", methods=["GET", "OPTIONS"])
    def own_options() -> str:
        return "what only its users know"

    app.before_request(auth.login_required)
    client = app.test_client()

    for method in ("GET", "OPTIONS"):
        answer = client.open("/own-options", method=method)
        assert "only its users" not in answer.text, method
        assert answer.headers["Location"].startswith("/login"), method


def test_what_is_guarded_is_not_stored_unless_the_view_says_so(
    client: FlaskClient,
) -> None:
    auth.login_as(client)

    assert client.get("/sync").headers["Cache-Control"] == "private, no-store"
    assert client.get("/own-caching").headers["Cache-Control"] == "private, max-age=60"


@pytest.mark.parametrize(
    ("roles", "said"), [(None, "was absent"), (["reader"], "had another value")]
)
def test_a_refusal_says_in_the_log_what_was_wrong_with_the_claim(
    client: FlaskClient,
    caplog: pytest.LogCaptureFixture,
    roles: list[str] | None,
    said: str,
) -> None:
    auth.login_as(client, roles=roles)
    with caplog.at_level(logging.INFO):
        client.get("/admin")

    assert f"the claim {ROLES} {said}" in caplog.text
    assert "reader" not in caplog.text


def test_a_sync_view_is_guarded_without_an_event_loop(
    client: FlaskClient, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth.login_as(client)

    def refuse() -> asyncio.AbstractEventLoop:
        raise AssertionError("a loop was made")

    monkeypatch.setattr(asyncio, "new_event_loop", refuse)
    monkeypatch.setattr(asyncio, "get_running_loop", refuse)

    assert client.get("/sync").status_code == 200


def test_a_page_that_does_not_ask_who_is_there_opens_no_session(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    app.add_url_rule("/plain", "plain", lambda: render_template_string("plain"))
    client = app.test_client()
    auth.login_as(client)
    opened: list[str] = []
    read = auth.auth0.sessions.read

    def note_and_read() -> Any:
        opened.append("opened")
        return read()

    monkeypatch.setattr(auth.auth0.sessions, "read", note_and_read)

    client.get("/plain")
    assert opened == []
    client.get("/template")
    assert opened


def test_auth_user_cannot_be_changed(app: Flask) -> None:
    with app.test_request_context():
        assert not auth.auth_user
        assert dict(auth.auth_user) == {}
        with pytest.raises(TypeError):
            auth.auth_user["sub"] = "auth0|admin"  # type: ignore[index]  # the point


def test_login_as_knows_cookies_with_every_attribute_there_is(app: Flask) -> None:
    app.config.update(
        SESSION_COOKIE_PARTITIONED=True,
        SESSION_COOKIE_SECURE=True,
        SESSION_COOKIE_SAMESITE="None",
    )
    client = app.test_client()

    auth.login_as(client)

    assert client.get("/sync").text.startswith("sync ")


def test_login_as_keeps_what_the_app_has_in_its_session(app: Flask) -> None:
    @app.post("/cart")
    def cart() -> str:
        session["cart"] = ["apple"]
        return "kept"

    @app.get("/cart")
    @auth.login_required
    def look() -> str:
        return f"{session['cart']} of {auth.auth_user['sub']}"

    client = app.test_client()
    client.post("/cart")

    for sub in ("auth0|dora", "auth0|emil"):
        auth.login_as(client, sub=sub)
        assert client.get("/cart").text == f"['apple'] of {sub}"


def test_what_is_not_set_up_is_told_with_its_cure() -> None:
    app = Flask(__name__)
    app.testing = True
    with pytest.raises(RuntimeError, match=r"Call auth.init_app\(app\)"):
        auth.login_as(app.test_client())

    auth.init_app(app, logout="out")

    @app.get("/mine")
    @auth.login_required
    def mine() -> str:
        return "mine"

    cure = r"no endpoint 'login'\. Name the one it has: auth\.init_app\(app, login="
    with pytest.raises(RuntimeError, match=cure):
        app.test_client().get("/mine")


def test_a_login_that_failed_has_its_code_on_the_page_of_an_app_without_pages() -> None:
    app = Flask(__name__)
    app.testing = True
    auth.init_app(app)

    @app.get("/callback")
    def callback() -> str:
        raise auth.LoginError("login_refused", detail="<b>No</b>")

    page = app.test_client().get("/callback", headers=HTML).text

    assert "<p>Auth0 said: &lt;b&gt;No&lt;/b&gt;</p>" in page
    assert re.search("<p>login_refused, reference [0-9a-f]{8}</p>", page)
    assert "try again" in page.lower()


@pytest.mark.parametrize(
    ("config", "callback", "samesite", "secure"),
    [
        ({}, "https://shop.example.com/callback", "Lax", True),
        ({}, "http://localhost:5000/callback", "Lax", False),
        (
            {"SESSION_COOKIE_SAMESITE": "Lax"},
            "https://shop.example.com/callback",
            "Lax",
            False,
        ),
        (
            {"SESSION_COOKIE_SAMESITE": "None", "SESSION_COOKIE_SECURE": True},
            "http://localhost:5000/callback",
            "None",
            True,
        ),
    ],
)
def test_cookies_are_safe_where_an_app_says_nothing_of_them(
    monkeypatch: pytest.MonkeyPatch,
    config: dict[str, Any],
    callback: str,
    samesite: str,
    secure: bool,
) -> None:
    settings = auth.auth0.settings.model_copy(update={"redirect_uri": callback})
    monkeypatch.setattr(auth.auth0, "settings", settings)
    app = Flask(__name__)
    app.config.update(TESTING=True, **config)

    auth.init_app(app)

    assert app.config["SESSION_COOKIE_SAMESITE"] == samesite
    assert app.config["SESSION_COOKIE_SECURE"] == secure


async def test_httpx_clients_are_signed_in_as_well(app: Flask) -> None:
    transport = httpx.ASGITransport(WsgiToAsgi(app))  # type: ignore[no-untyped-call]  # asgiref has no types
    async with httpx.AsyncClient(transport=transport, base_url="http://test") as client:
        auth.login_as(client, sub="auth0|dora", email="dora@example.com")
        answer = await client.get("/async")

    assert answer.text == "async auth0|dora"


def test_a_sync_httpx_client_is_signed_in_as_well(app: Flask) -> None:
    transport = httpx.WSGITransport(app)
    with httpx.Client(transport=transport, base_url="http://test") as client:
        auth.login_as(client, roles=["admin"])
        assert client.get("/admin").text == "admin"


def test_another_kind_of_client_is_told_what_to_use() -> None:
    with httpx.Client() as client, pytest.raises(TypeError, match="WSGITransport"):
        auth.login_as(client)


def test_a_fresh_login_is_asked_for_again_when_its_time_is_over(
    client: FlaskClient,
) -> None:
    auth.login_as(client, auth_time=int(time.time()) - 350)
    assert client.get("/fresh").status_code == 200  # clocks may differ by a minute
    auth.login_as(client, auth_time=int(time.time()) - 365)

    assert client.get("/fresh").status_code == 302
