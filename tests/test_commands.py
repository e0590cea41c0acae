"""``flask auth0 check``, and the warnings at run time: each mistake, and none."""

from __future__ import annotations

import logging
import sys
import time
from collections.abc import Callable
from dataclasses import replace
from email.utils import formatdate
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import certifi
import httpx
import pytest
import respx
from click.testing import Result
from flask import Flask

import forgetful
from auth0_flask.tenant import Fault, Tenant
from login.extension import KEY
from login.settings import Settings
from redis_server import RedisServer
from servers import flask, free_port

Check = Callable[..., Result]
GOOD = {"AUTH0_SECRET": "An0ther-s3cret.of/many~letters!#"}
HTTPS = {"AUTH0_REDIRECT_URI": "https://app.example.com/callback"}
PASSWORD = "hunter2-of-redis"


@pytest.fixture
def check(app: Flask, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the command in the app with other settings and another configuration."""

    def run(
        config: dict[str, Any] | None = None,
        routes: dict[str, str] | None = None,
        **more: str,
    ) -> Result:
        from auth import build_client

        given = {**tenant.environ(), **GOOD, **more}
        client = build_client(Settings.from_environment(given))
        with monkeypatch.context() as patch:
            installed = replace(app.extensions[KEY], client=client, **(routes or {}))
            patch.setitem(app.extensions, KEY, installed)
            for name, value in (config or {}).items():
                patch.setitem(app.config, name, value)
            result = app.test_cli_runner().invoke(args=["auth0", "check"])
        assert_tells_no_secret(result.output, given)
        return result

    return run


@pytest.fixture
def document(tenant: Tenant) -> dict[str, Any]:
    """What the tenant says of itself."""
    answer = httpx.get(f"https://{tenant.domain}/.well-known/openid-configuration")
    found: dict[str, Any] = answer.json()
    return found


def assert_tells_no_secret(output: str, given: dict[str, str]) -> None:
    secrets = [given["AUTH0_CLIENT_SECRET"], *given["AUTH0_SECRET"].split(), PASSWORD]
    assert not any(secret in output for secret in secrets if secret)


def lines(result: Result, status: str) -> list[str]:
    """Return what was said with a status."""
    said = [line for line in result.output.splitlines() if line.startswith(status)]
    return [line.removeprefix(status).strip() for line in said]


def assert_said(result: Result, status: str, text: str) -> None:
    """Hold the one line of this status, and the exit code, to what is expected."""
    other = {"wrong", "warning"} - {status}
    assert [text in line for line in lines(result, status)] == [True], result.output
    assert not any(lines(result, name) for name in other), result.output
    assert result.exit_code == (status == "wrong")


def test_all_is_fine(check: Check) -> None:
    result = check()

    assert result.exit_code == 0
    assert not lines(result, "wrong") + lines(result, "warning")
    begins = [line.partition(":")[0] for line in lines(result, "ok")]
    assert begins == [
        *(
            "flask[async]",
            ".env",
            "await",
            "guards",
            "routes",
            "session cookie",
            "session cookie",
            "settings",
        ),
        *("AUTH0_SECRET", "discovery", "issuer", "endpoints", "PKCE", "keys", "clock"),
        *("pushed requests", "callback", *3 * ["session cookie"]),
    ]
    assert "only a login tries them" in lines(result, "skipped")[-1]


def test_the_addresses_for_the_dashboard_are_those_of_the_app(check: Check) -> None:
    result = check(AUTH0_REDIRECT_URI="http://localhost:5000/sub/callback")

    assert result.output.splitlines()[-3:] == [
        "  Allowed Callback URLs:    http://localhost:5000/sub/callback",
        "  Allowed Logout URLs:      http://localhost:5000/sub/",
        "  Back-Channel Logout URI:  http://localhost:5000/sub/backchannel-logout",
    ]


@pytest.mark.parametrize(
    "secret",
    ["a" * 40, "ab" * 16, "secret-word." * 3, "change-me!" * 3 + "chan", "abcabd" * 7],
)
def test_a_secret_that_can_be_guessed(check: Check, secret: str) -> None:
    for given in (secret, f"{GOOD['AUTH0_SECRET']} {secret}"):
        result = check(AUTH0_SECRET=given)

        assert_said(result, "warning", "secrets.token_hex(32)")


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (
            {"issuer": "https://other.example/"},
            "issuer: it is 'https://other.example/'",
        ),
        ({"issuer": "\x1b[31m" + "x" * 999}, r"issuer: it is '\x1b[31m"),
        ({"authorization_endpoint": None}, "names no authorization_endpoint"),
        ({"token_endpoint": ""}, "names no token_endpoint"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not name S256"),
        ({"code_challenge_methods_supported": 7}, "does not name S256"),
        ({"jwks_uri": None}, "keys at the jwks_uri of discovery: there is no https"),
        ({"jwks_uri": "https://["}, "keys at the jwks_uri of discovery:"),
        ({"require_pushed_authorization_requests": True}, "must be true"),
    ],
)
def test_what_discovery_lacks(
    check: Check, tenant: Tenant, document: dict[str, Any], change: Any, said: str
) -> None:
    tenant.fail("discovery", Fault.body({**document, **change}))

    assert_said(check(), "wrong", said)


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (Fault.status(404), "the answer is 404. Is AUTH0_DOMAIN"),
        (Fault.status(503), "the answer is 503"),
        (Fault.broken_json(), "no JSON object"),
        (Fault.reset(), "the connection failed"),
        (Fault.slow(7), "no answer within 5 seconds"),
    ],
    ids=["404", "503", "broken", "reset", "slow"],
)
def test_discovery_that_fails(
    check: Check, tenant: Tenant, fault: Fault, said: str
) -> None:
    tenant.fail("discovery", fault)

    result = check()

    assert_said(result, "wrong", said)
    assert "keys, clock, pushed requests: need discovery" in lines(result, "skipped")


@pytest.mark.parametrize("domain", ["no-such-tenant.invalid", "a..b"])
def test_a_domain_that_dns_does_not_know(check: Check, domain: str) -> None:
    assert_said(check(AUTH0_DOMAIN=domain), "wrong", "DNS does not know the host")


def test_a_certificate_that_is_not_trusted(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("SSL_CERT_FILE", certifi.where())

    assert_said(check(), "wrong", "certificate is not trusted here")


def test_a_port_that_does_not_speak_tls(check: Check, document: dict[str, Any]) -> None:
    plain = urlsplit(document["authorization_endpoint"])
    assert plain.scheme == "http"

    assert_said(
        check(AUTH0_DOMAIN=plain.netloc), "wrong", "TLS failed. See AUTH0_DOMAIN"
    )


def _key_with(tenant: Tenant, **change: Any) -> dict[str, Any]:
    answer = httpx.get(f"https://{tenant.domain}/.well-known/jwks.json")
    return {**answer.json()["keys"][0], **change}


@pytest.mark.parametrize(
    "change", [{"alg": "RS512"}, {"use": "enc"}, {"kty": "EC"}, {"n": None}, None]
)
def test_keys_of_which_none_is_for_rs256(
    check: Check, tenant: Tenant, change: dict[str, Any] | None
) -> None:
    keys = [] if change is None else [7, _key_with(tenant, **change)]
    tenant.fail("jwks", Fault.body({"keys": keys}))

    assert_said(check(), "wrong", "keys: none is for RS256")


def test_keys_that_are_not_there(check: Check, tenant: Tenant) -> None:
    tenant.fail("jwks", Fault.status(404))

    assert_said(
        check(), "wrong", "keys at the jwks_uri of discovery: the answer is 404"
    )


@pytest.mark.parametrize(
    ("apart", "status", "said"),
    [
        (5, "ok", "clock: that of this machine agrees"),
        (-30, "warning", "seconds apart. Set this machine's clock"),
        (30, "warning", "seconds apart. Set this machine's clock"),
        (90, "wrong", "seconds apart, so that logins are refused"),
        (-90, "wrong", "seconds apart, so that logins are refused"),
        (None, "skipped", "clock: the tenant's answer has no Date"),
    ],
)
def test_clocks_that_differ(
    check: Check,
    tenant: Tenant,
    document: dict[str, Any],
    apart: float | None,
    status: str,
    said: str,
) -> None:
    headers = {"Date": formatdate(time.time() + apart)} if apart else {"Date": "today"}
    with respx.mock as router:  # the tenant's Date cannot be set
        router.get(path="/.well-known/openid-configuration").respond(
            json=document, headers=headers
        )
        router.route().pass_through()
        result = check()

    assert any(said in line for line in lines(result, status)), result.output
    assert result.exit_code == (status == "wrong")


def test_pushed_requests_that_the_tenant_does_not_know(
    check: Check, tenant: Tenant, document: dict[str, Any]
) -> None:
    on = {"AUTH0_PUSHED_AUTHORIZATION_REQUESTS": "true"}
    assert check(**on).exit_code == 0
    del document["pushed_authorization_request_endpoint"]
    tenant.fail("discovery", Fault.body(document))

    assert_said(check(**on), "wrong", "the tenant has no address for them")


@pytest.mark.parametrize(
    ("path", "root", "said"),
    [
        ("/callback", "/", None),
        ("/sub/callback", "/sub", None),
        ("/sub/callback", "/", "'/sub' in AUTH0_REDIRECT_URI is not of the app"),
        ("/auth/calback", "/", "is not the app's, which is /callback"),
        ("/profile", "/", "is not the app's, which is /callback"),
        ("", "/", "is not the app's, which is /callback"),
    ],
)
def test_the_path_of_the_callback(
    check: Check, path: str, root: str, said: str | None
) -> None:
    result = check(
        {"APPLICATION_ROOT": root}, AUTH0_REDIRECT_URI=f"http://localhost:5000{path}"
    )

    if said:
        assert_said(result, "warning", said)
    assert result.exit_code == 0
    assert ("callback: AUTH0_REDIRECT_URI leads to the app's" in result.output) == (
        said is None
    )


@pytest.mark.parametrize("route", ["login", "callback", "logout"])
def test_a_route_under_another_name_is_asked_for(check: Check, route: str) -> None:
    result = check(routes={route: f"auth.{route}"})

    cure = f"{route}: the app has no endpoint 'auth.{route}'. Name the one it has: "
    assert_said(result, "wrong", f"{cure}init_app(app, {route}=...)")


def test_a_host_that_the_app_refuses(check: Check) -> None:
    result = check({"TRUSTED_HOSTS": ["app.example.com"]})

    assert_said(result, "wrong", "refuses the host of AUTH0_REDIRECT_URI")
    assert "Allowed Callback URLs" in result.output


@pytest.mark.parametrize(
    ("config", "more", "status", "said"),
    [
        (
            {"SECURE": False},
            HTTPS,
            "warning",
            'app.config["SESSION_COOKIE_SECURE"] = T',
        ),
        ({"SECURE": True}, {}, "warning", 'app.config["SESSION_COOKIE_SECURE"] = F'),
        ({"SAMESITE": "Strict"}, {}, "wrong", '["SESSION_COOKIE_SAMESITE"] = "Lax"'),
        ({"SAMESITE": None}, {}, "warning", '["SESSION_COOKIE_SAMESITE"] = "Lax"'),
        (
            {"SAMESITE": "None", "SECURE": True},
            HTTPS,
            "warning",
            "lets other sites use it",
        ),
        ({"HTTPONLY": False}, {}, "warning", '["SESSION_COOKIE_HTTPONLY"] = True'),
        ({"NAME": "__Host-session"}, {}, "wrong", "of this prefix without"),
        ({"NAME": "__Secure-session"}, {}, "wrong", "of this prefix without"),
        (
            {"NAME": "__Host-session", "SECURE": True, "DOMAIN": "example.com"},
            HTTPS,
            "wrong",
            "drop a __Host- cookie with a domain",
        ),
        ({"PATH": "/sub"}, {}, "wrong", "is not below its path"),
    ],
)
def test_flags_of_the_cookie(
    check: Check, config: dict[str, Any], more: Any, status: str, said: str
) -> None:
    config = {f"SESSION_COOKIE_{name}": value for name, value in config.items()}

    assert_said(check(config, **more), status, said)


def test_samesite_none_without_secure(check: Check) -> None:
    result = check({"SESSION_COOKIE_SAMESITE": "None"})

    assert "browsers drop SameSite=None" in lines(result, "wrong")[0]


def test_a_cookie_as_https_wants_it(check: Check) -> None:
    config = {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_NAME": "__Host-session"}

    result = check(config, **HTTPS)

    assert result.exit_code == 0
    assert "ok       session cookie: Secure, as https wants" in result.output


@pytest.mark.parametrize(
    ("package", "said"),
    [
        ("dotenv", ".env is not read: pip install python-dotenv"),
        ("asgiref", "pip install 'flask[async]'"),
        ("redis", "AUTH0_REDIS_URL needs the package redis: pip install redis"),
    ],
)
def test_packages_that_are_not_installed(
    check: Check,
    monkeypatch: pytest.MonkeyPatch,
    tmp_path: Path,
    package: str,
    said: str,
) -> None:
    tmp_path.joinpath(".env").touch()
    monkeypatch.chdir(tmp_path)
    monkeypatch.setitem(sys.modules, package, None)
    url = "redis://localhost:6379" if package == "redis" else ""

    assert_said(check(AUTH0_REDIS_URL=url), "wrong", said)


def test_a_file_of_settings_that_is_read(
    check: Check, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    tmp_path.joinpath(".env").touch()
    monkeypatch.chdir(tmp_path)

    assert ".env: python-dotenv is there to read it" in lines(check(), "ok")


def test_redis_that_answers_and_redis_that_refuses(
    check: Check, redis_server: RedisServer
) -> None:
    address = redis_server.url.removeprefix("redis://")

    good = check(AUTH0_REDIS_URL=redis_server.url)
    refused = check(AUTH0_REDIS_URL=f"redis://nobody:{PASSWORD}@{address}")

    assert "Redis: answers" in lines(good, "ok")
    assert_said(refused, "wrong", "Redis refuses the user or the password")


def test_redis_that_is_not_there(check: Check, redis_server: RedisServer) -> None:
    absent = check(AUTH0_REDIS_URL=f"redis://:{PASSWORD}@localhost:{free_port()}")
    nonsense = check(AUTH0_REDIS_URL=f"redis://:{PASSWORD}@localhost:port")
    redis_server.freeze()
    try:
        began = time.monotonic()
        frozen = check(AUTH0_REDIS_URL=redis_server.url)
        took = time.monotonic() - began
    finally:
        redis_server.thaw()

    for result in (absent, nonsense, frozen):
        assert_said(result, "wrong", "Redis does not answer at AUTH0_REDIS_URL")
    assert took < 15  # gives up, rather than hangs


def test_wrong_settings_are_told_at_once_and_what_can_be_checked_is(
    check: Check,
) -> None:
    result = check(AUTH0_DOMAIN="", AUTH0_SECRET="short")

    wrong = lines(result, "wrong")
    assert [line.partition(" ")[0] for line in wrong] == [
        "AUTH0_DOMAIN",
        "AUTH0_SECRET",
    ]
    assert "flask[async]: installed" in lines(result, "ok")
    assert "tenant: once the settings are right" in lines(result, "skipped")
    assert "Allowed Callback URLs:" not in result.output
    assert result.exit_code == 1


@pytest.mark.parametrize("with_settings", [True, False])
def test_the_command_as_it_is_typed(tenant: Tenant, with_settings: bool) -> None:
    environment = tenant.environ() if with_settings else {}

    ended = flask(["--app", "app", "auth0", "check"], environment)

    findings = ended.stdout.partition("\n\n")[0].splitlines()
    assert {line[:9].rstrip() for line in findings} <= {"ok", "wrong", "skipped"}
    assert ended.returncode == (0 if with_settings else 1)
    assert "Traceback" not in ended.stderr
    assert ended.stdout.count("wrong    AUTH0_") == (0 if with_settings else 5)
    assert ("Allowed Logout URLs:" in ended.stdout) == with_settings


@pytest.fixture
def public(tenant: Tenant, request: pytest.FixtureRequest) -> Flask:
    """Another app with the login, whose callback is the address that a test names."""
    import auth

    callback = getattr(request, "param", HTTPS["AUTH0_REDIRECT_URI"])
    settings = Settings.from_environment(tenant.environ(redirect_uri=callback))
    app, revocations = Flask("public"), auth.auth0.sessions.lifetime.revocations
    auth.init_app(app, login="in", callback="back", logout="out")
    auth.auth0.sessions.lifetime.revocations = revocations
    client = auth.build_client(settings)
    app.extensions[KEY] = replace(app.extensions[KEY], client=client)
    paths = {"in": "/in", "back": "/callback", "out": "/out", "page": "/page"}
    for endpoint, path in paths.items():
        app.add_url_rule(path, endpoint, view_func=lambda: "here")
    return app


LOCAL = pytest.mark.parametrize(
    "public", ["http://localhost:5000/callback"], indirect=True
)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [r for r in caplog.records if r.name == "login.mismatch"]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.getMessage() for record in found]


def ask(app: Flask, *addresses: str) -> None:
    for address in addresses:
        path = "/" + address.partition("://")[2].partition("/")[2]
        assert app.test_client().get(path, base_url=address.removesuffix(path))


@pytest.mark.parametrize(
    ("address", "came"),
    [
        ("http://app.example.com/page", "http on the host 'app.example.com'"),
        ("https://internal:8000/page", "https on the host 'internal:8000'"),
        ("https://127.0.0.1:8000/in", "https on the host '127.0.0.1:8000'"),
        ("https://app.example.com:444/page", "'app.example.com:444'"),
        (f"https://{'long.' * 20}example/page", f"'{'long.' * 16}',"),
    ],
)
def test_one_warning_where_requests_come_otherwise_than_was_said(
    public: Flask, caplog: pytest.LogCaptureFixture, address: str, came: str
) -> None:
    ask(public, address, address, "http://elsewhere.example/page")

    (warning,) = warnings(caplog)
    assert came in warning
    assert "says https on 'app.example.com'" in warning
    assert "TRUSTED_PROXIES" in warning
    assert "ProxyFix" in warning


def test_no_warning_where_requests_come_as_was_said(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(
        public,
        "http://10.0.0.7:8000/page",  # health checks
        "http://[::1]:8000/page",
        "http://localhost:8000/page",
        "http://scanner.example/wp-login.php",  # leads nowhere
        "https://APP.example.com:443/page",
        "https://app.example.com/in",
        "http://scanner.example/page",  # after one that fitted
    )

    assert warnings(caplog) == []


def test_a_login_elsewhere_is_told_though_other_requests_fitted(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(public, "https://app.example.com/page", "https://www.example.com/in")

    assert "'www.example.com'" in warnings(caplog)[0]


@LOCAL
def test_between_loopback_names_there_is_no_warning_but_between_ports(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(public, "http://127.0.0.1:5000/in", "http://[::1]:5000/in")
    assert warnings(caplog) == []

    ask(public, "http://127.0.0.1:8000/in")
    assert "'127.0.0.1:8000'" in warnings(caplog)[0]


def test_no_warning_in_tests(public: Flask, caplog: pytest.LogCaptureFixture) -> None:
    public.testing = True

    ask(public, "http://localhost/in", "http://elsewhere.example/page")

    assert warnings(caplog) == []


@pytest.mark.parametrize(
    "public", ["https://app.example.com/sub/callback"], indirect=True
)
def test_a_path_that_is_not_the_callbacks_is_told_at_the_first_login(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(public, "https://app.example.com/page")
    assert warnings(caplog) == []

    ask(public, *["https://app.example.com/in"] * 2)
    (warning,) = warnings(caplog)
    assert "path '/sub/callback', but the callback is at '/callback'" in warning


@pytest.mark.parametrize(
    "public", ["https://app.example.com/sub/callback"], indirect=True
)
def test_a_mounted_app_knows_its_whole_path(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    public.test_client().get("/in", base_url="https://app.example.com/sub")

    assert warnings(caplog) == []


class OfAuthlib:
    """What Authlib's quickstart, too, calls ``auth0``; its methods are sync."""

    def get_user(self) -> dict[str, str]:
        return {}


def test_another_librarys_auth0_is_not_reported(
    app: Flask, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(globals(), "auth0", OfAuthlib())

    def theirs() -> str:
        return "in" if auth0.get_user() else "out"  # type: ignore[name-defined]  # noqa: F821  # set above

    views = {**app.view_functions, "theirs": theirs}
    monkeypatch.setattr(app, "view_functions", views)

    assert (
        "view theirs"
        not in app.test_cli_runner().invoke(args=["auth0", "check"]).output
    )


@pytest.mark.parametrize(
    ("view", "method"),
    [
        (forgetful.in_a_condition, "get_user"),
        (forgetful.in_a_variable, "get_user"),
        (forgetful.in_a_walrus, "get_session"),
        (forgetful.in_a_redirect, "start_interactive_login"),
        (forgetful.in_what_is_asked_of_it, "get_user"),
        (forgetful.in_text, "get_access_token"),
        (forgetful.as_it_should_be, None),
    ],
)
def test_a_view_that_forgets_to_await_is_found(
    app: Flask,
    monkeypatch: pytest.MonkeyPatch,
    view: Callable[[], Any],
    method: str | None,
) -> None:
    monkeypatch.setattr(app, "view_functions", {**app.view_functions, "it": view})

    ended = app.test_cli_runner().invoke(args=["auth0", "check"])

    told = f"wrong    view it: {method}() without await"
    assert (told in ended.output) == (method is not None)
    assert ("view it" in ended.output) == (method is not None)


@pytest.mark.parametrize(("name", "is_open"), [("above", True), ("below", False)])
def test_a_guard_above_the_route_is_found(
    app: Flask, monkeypatch: pytest.MonkeyPatch, name: str, is_open: bool
) -> None:
    views = {**app.view_functions, name: forgetful.registered[name]}
    monkeypatch.setattr(app, "view_functions", views)

    ended = app.test_cli_runner().invoke(args=["auth0", "check"])

    told = f"wrong    view {name}: its guard stands above the route, so it is open"
    assert (told in ended.output) == is_open
