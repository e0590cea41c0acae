"""What SECURITY.md promises beyond the other tests; security/ is held to them."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable
from functools import cache, partial
from itertools import product
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

import pytest
from flask import Flask
from flask.testing import FlaskClient
from werkzeug.wrappers import Response

import auth
from app import create_app
from auth import auth0
from auth0_flask import Settings, StoreUnavailable
from auth0_flask.stores import SqliteStore
from auth0_flask.tenant import Fault, Tenant
from auth0_flask.tenant.backchannel import describe
from mutants import ROOT, misplaced, mutants
from sdk_calls import Caller, Work
from test_conformance import BACK_CHANNEL, BASIC, BEYOND, CONFIG

SECRET = "hunter2-of-the-database"
POLICY = {
    "default-src 'none'",  # object-src and script-src fall back to it
    *("base-uri 'none'", "frame-ancestors 'none'", "style-src 'self'"),
}
#: The levels of ASVS 5.0.0, section by section, from each one's first requirement on.
LEVELS = [
    *("3.3 12223", "3.4 11222233", "7.1 222", "7.2 1111", "7.3 22", "7.4 11222"),
    *("7.5 223", "7.6 22", "10.1 22", "10.2 223", "10.5 22222", "16.2 22222"),
    "16.5 2223",
]


@cache
def there_are() -> set[str]:
    """Name every test, as ``file::function``."""
    test = re.compile(r"^(?:async )?def (test_\w+)", re.M)
    files = (ROOT / "tests").glob("test_*.py")
    return {f"{f.name}::{name}" for f in files for name in test.findall(f.read_text())}


def test_its_table_has_every_requirement_once_and_tests_that_are_there() -> None:
    table = (ROOT / "security/asvs.md").read_text()
    rows = re.findall(r"^\| (\d+\.\d+\.\d+) \| (\d) \| (.*?) \|(.*)\|$", table, re.M)
    needs_no_test = re.compile("(By you|Not met|Not applicable): .{11}")

    assert [row[:2] for row in rows] == [
        (f"{section}.{number}", level)
        for section, levels in map(str.split, LEVELS)
        for number, level in enumerate(levels, 1)
    ]
    for number, _, how, tests in rows:
        named = {*re.findall(r"`([^`]+)`", tests)}
        assert named or needs_no_test.match(how), number
        assert named - there_are() == set()


def test_what_it_says_is_what_those_tests_and_the_settings_show() -> None:
    table = (ROOT / "security/conformance.md").read_text()
    plans = {"basic": BASIC, "config": CONFIG}
    plans |= {"back-channel": BACK_CHANNEL, "beyond": BEYOND}
    known = Settings.for_tests()
    hours, days = known.session_idle_seconds / 3600, known.session_max_seconds / 86_400

    module = re.compile(r"^\| `(oidcc-[^`]+)` \| (.+) \| (.+) \| (.+) \|$", re.M)
    assert module.findall(table) == [
        (row.module, plan, row.plan, row.ours)
        for plan, rows in plans.items()
        for row in rows
    ]
    stated = f"{hours:g} hours without a request, {days:g} days in any case"
    assert stated in (ROOT / "SECURITY.md").read_text()


def test_every_change_that_tests_have_to_notice_can_be_made() -> None:
    """``python -m tests.mutants`` tries them, which takes long."""
    table = mutants()

    assert misplaced(table) == []
    assert len({(m.file, m.old, m.new) for m in table if m.old != m.new}) == len(table)
    assert all(m.tests for m in table)
    named = {test.partition("[")[0] for m in table for test in m.tests}
    assert named - {f"tests/{name}" for name in there_are()} == set()
    assert sum(not m.reason for m in table) >= 120
    assert sum(bool(m.reason) for m in table) <= 3


@pytest.fixture
def client() -> FlaskClient:
    """A client of the app, which has a view with a bug besides."""
    app = create_app()

    @app.get("/broken")
    async def broken() -> str:
        raise RuntimeError(SECRET)

    return app.test_client()


@pytest.mark.parametrize("signed_in", [False, True])
def test_every_answer_carries_the_headers_and_no_other_origin_may_read_it(
    client: FlaskClient, signed_in: bool
) -> None:
    if signed_in:
        auth.login_as(client)

    rules, seen = client.application.url_map.iter_rules(), set()
    paths = {rule.rule for rule in rules if not rule.arguments}
    paths |= {"/static/style.css", "/static/no.css", "/nowhere"}
    last = sorted(path for path in paths if "logout" in path)
    methods = ("GET", "HEAD", "POST", "OPTIONS")
    evil = {"Origin": "https://evil.example", "Access-Control-Request-Method": "POST"}
    for path, method in product([*sorted(paths - {*last}), *last], methods):
        with client.open(path, method=method, headers=evil) as answer:
            asked = f"{method} {path}"
            seen.add(answer.status_code)
            policy = answer.headers["Content-Security-Policy"]
            assert {part.strip() for part in policy.split(";")} >= POLICY, asked
            assert not re.search("script|object|unsafe", policy), asked
            assert answer.headers["X-Content-Type-Options"] == "nosniff", asked
            assert answer.headers["Referrer-Policy"] == "same-origin", asked
            assert "css" in path or answer.cache_control.no_store, asked
            assert "Access-Control" not in str(answer.headers), asked
    assert {200, 204, 302, 400, 403, 404, 405, 500} <= seen


def test_a_session_travels_in_cookies_only(client: FlaskClient) -> None:
    auth.login_as(client)
    cookie = client.get_cookie("session_auth0")
    assert cookie
    for path in ("/", "/profile", "/api/me", "/nowhere", "/login"):
        answer = client.get(path)
        headers = [value for name, value in answer.headers if name != "Set-Cookie"]
        assert cookie.value not in answer.text + str(headers), path

    stranger = client.application.test_client()
    for value in (cookie.value, auth0.settings.client_secret, "test"):
        sent = {"Authorization": f"Bearer {value}", "X-Session": str(value)}
        answer = stranger.get(f"/api/me?session={value}", headers=sent)
        assert answer.status_code == 401
    stranger.set_cookie("session_auth0", cookie.value)
    assert stranger.get("/api/me").status_code == 200


def test_every_login_has_secrets_of_its_own(shop: Flask) -> None:
    clients = [shop.test_client(), shop.test_client()]
    began = [client.get("/login").location for client in (*clients, clients[0])]
    sent = [parse_qs(urlsplit(location).query) for location in began]

    # 128 bits at least
    for name, least in {"state": 32, "code_challenge": 43, "nonce": 22}.items():
        values = {query[name][0] for query in sent}
        assert len(values) == 3
        assert all(re.fullmatch(r"[\w-]+", v) and len(v) >= least for v in values)
    assert {query["code_challenge_method"][0] for query in sent} == {"S256"}


def test_metadata_of_another_issuer_gets_no_code_and_no_refresh_token(
    caller: Caller, tenant: Tenant
) -> None:
    tenant.access_token_lifetime = 0
    metadata = describe("https://evil.example.com/", tenant.origin)
    metadata["token_endpoint"] = f"{tenant.issuer}oauth/token"

    def see_that_it_is_kept_back(ask: Callable[[], Response]) -> None:
        """Ask as a worker does that has just been started."""
        auth0.verifier.forget()
        tenant.fail("discovery", Fault.body(metadata))
        asked = tenant.count("/oauth/token")
        assert ask().status_code == 502
        assert tenant.count("/oauth/token") == asked

    callback = caller.sign_in()
    see_that_it_is_kept_back(lambda: caller.client.get(callback))
    assert caller.user == {}
    caller.login()
    github = partial(auth0.get_access_token_for_connection, {"connection": "github"})
    works: list[Work] = [auth0.get_access_token, github]
    for work in works:
        see_that_it_is_kept_back(partial(caller.call, work))
        assert caller.ask(work)


@pytest.mark.parametrize("accept", ["text/html", "application/json"])
def test_an_unexpected_error_is_logged_by_the_app_alone_and_shows_nothing(
    client: FlaskClient, accept: str, caplog: pytest.LogCaptureFixture
) -> None:
    auth.login_as(client)

    answer = client.get("/broken", headers={"Accept": accept})

    assert answer.status_code == 500
    for shown in (SECRET, "RuntimeError", "Traceback", "test_security"):
        assert shown not in answer.text
    assert answer.mimetype in {accept, "application/problem+json"}
    assert "no-store" in answer.headers["Cache-Control"]
    logged = [record.exc_info for record in caplog.records if record.exc_info]
    assert SECRET in str(logged[0][1])
    known = logging.root.manager.loggerDict
    ours = [logging.getLogger(n) for n in known if n.split(".")[0] == "auth0_flask"]
    assert len(ours) > 5
    assert all(logger.propagate and not logger.handlers for logger in ours)
    assert client.get("/api/me").status_code == 200


def test_who_cannot_look_up_who_signed_out_lets_nobody_in(
    client: FlaskClient, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    auth.login_as(client)
    in_the_way = tmp_path / "file"
    in_the_way.write_text("no folder")
    lost, app = SqliteStore(in_the_way / "revocations.sqlite3"), client.application
    with monkeypatch.context() as patch:
        patch.setattr(app.extensions["auth0"], "shared_store", lost)
        for path in ("/", "/profile", "/api/me", "/api/userinfo"):
            answer = client.get(path)
            assert answer.status_code == 503, path
            assert answer.headers["Retry-After"]
            assert "alice@example.com" not in answer.text
            assert "Set-Cookie" not in answer.headers
        assert client.get("/healthz").status_code == 200
        with client:
            client.get("/")
            with pytest.raises(StoreUnavailable):  # nor does a second look find nobody
                auth0.read_session()

    assert client.get("/api/me").status_code == 200
