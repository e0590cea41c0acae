"""``flask auth0``, and the warnings at run time: each mistake, and none."""

from __future__ import annotations

import json
import logging
import os
import re
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from shlex import quote
from typing import Any
from unittest import mock

import certifi
import httpx
import pytest
import respx
from click.testing import Result
from dotenv import dotenv_values
from flask import Flask
from werkzeug.middleware.proxy_fix import ProxyFix

from auth0_flask import SetupError
from auth0_flask.redirects import ROLES
from auth0_flask.tenant import Fault, Tenant
from redis_server import RedisServer
from servers import (
    FLASK_RUN,
    REVOCATIONS,
    ROOT,
    WITH_DOTENV,
    clean_environment,
    run,
)
from shop import copy_of_auth, make_shop
from test_guards import cached

Check = Callable[..., Result]
GOOD = {"AUTH0_SECRET": "An0ther-s3cret.of/many~characters!#"}
PASSWORD = "hunter2-of-redis"


@pytest.fixture
def check(tenant: Tenant) -> Check:
    """Run the command in an app as the README has it, or made otherwise."""

    def run(make: Callable[[Any], Flask] = make_shop, **more: Any) -> Result:
        given = {**tenant.environ(), **GOOD}
        given |= {n: v for n, v in more.items() if n.startswith(("AUTH0_", "SSL_"))}
        with mock.patch.dict(os.environ, given):
            app = make(copy_of_auth({}))
            app.config.update({n: v for n, v in more.items() if n not in given})
            result = app.test_cli_runner().invoke(args=["auth0", "check"])
        assert not result.exception or isinstance(result.exception, SystemExit)
        secrets = [given["AUTH0_CLIENT_SECRET"], *given["AUTH0_SECRET"].split()]
        assert not any(secret in result.output for secret in [*secrets, PASSWORD])
        return result

    return run


@pytest.fixture
def document(tenant: Tenant) -> dict[str, Any]:
    """What the tenant says of itself."""
    url = f"https://{tenant.domain}/.well-known/openid-configuration"
    return dict(httpx.get(url).json())


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


def test_all_is_fine_and_the_addresses_for_the_dashboard_are_those_of_the_app(
    check: Check,
) -> None:
    def behind_a_proxy(auth: Any) -> Flask:
        shop = make_shop(auth)
        vars(shop)["wsgi_app"] = ProxyFix(shop.wsgi_app, x_prefix=1)
        return shop

    sub = {"AUTH0_REDIRECT_URI": "http://localhost:5000/sub/callback"}
    result = check(
        behind_a_proxy,
        **sub,
        AUTH0_ALLOWED_ORIGINS="https://www.example.com https://m.example.com",
        AUTH0_PUSHED_AUTHORIZATION_REQUESTS="true",
    )
    assert result.exit_code == 0
    assert not lines(result, "wrong") + lines(result, "warning")
    begins = [line.partition(":")[0] for line in lines(result, "ok")]
    checks = ["AUTH0_SECRET", "tenant", "callback", "session cookie", "store"]
    assert begins == ["routes", "guards", *checks]
    assert "only a login tries them" in lines(result, "skipped")[-1]
    front_ends = "https://www.example.com, https://m.example.com"
    assert result.output.splitlines()[-3:] == [
        "  Allowed Callback URLs:    http://localhost:5000/sub/callback",
        f"  Allowed Logout URLs:      http://localhost:5000/sub/, {front_ends}",
        "  Back-Channel Logout URI:  http://localhost:5000/sub/backchannel-logout",
    ]
    unknown = lines(check(APPLICATION_ROOT="/sub", **sub), "skipped")[0]
    assert "'/sub' in AUTH0_REDIRECT_URI is the app's only if its server" in unknown
    insecure = check(SESSION_COOKIE_SAMESITE="None")
    assert "browsers drop SameSite=None" in lines(insecure, "wrong")[0]
    assert "Allowed Callback URLs" in insecure.output


HTTPS = {"AUTH0_REDIRECT_URI": "https://app.example.com/callback"}
WEAK = "secrets.token_hex(32)"


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"AUTH0_SECRET": "change-me!" * 3 + "chan"}, "warning", WEAK),
        ({"AUTH0_SECRET": "correct-horse-battery-staple" * 2}, "warning", WEAK),
        ({"AUTH0_SECRET": f"{GOOD['AUTH0_SECRET']} {'abcabd' * 7}"}, "warning", WEAK),
        ({"AUTH0_DOMAIN": "no-such-tenant.invalid"}, "wrong", "See AUTH0_DOMAIN"),
        ({"AUTH0_DOMAIN": "a..b"}, "wrong", "See AUTH0_DOMAIN"),
        ({"SSL_CERT_FILE": certifi.where()}, "wrong", "CERTIFICATE_VERIFY_FAILED"),
        ({"AUTH0_REDIRECT_URI": "http://localhost/x"}, "warning", "which is /callback"),
        ({"AUTH0_REDIRECT_URI": "http://localhost/a/callback"}, "warning", "'/a' in"),
        ({"AUTH0_REVOCATIONS_PATH": "/proc/no/file"}, "wrong", "/proc/no/file"),
        ({"AUTH0_REDIS_URL": f"redis://:{PASSWORD}@[::1]:1"}, "wrong", "cannot be use"),
        ({"AUTH0_SCOPES": "x"}, "warning", "a setting. Did you mean AUTH0_SCOPE?"),
        ({**HTTPS, "SESSION_COOKIE_SECURE": False}, "warning", "SECURE is False, but"),
        ({"SESSION_COOKIE_SECURE": True}, "warning", "SECURE is True, but"),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, "wrong", "SAMESITE is Strict: logins"),
        ({"SESSION_COOKIE_SAMESITE": None}, "warning", "SAMESITE is Not Set. Set"),
        ({"SESSION_COOKIE_HTTPONLY": False}, "warning", "is off: scripts can read"),
        ({"SESSION_COOKIE_NAME": "__Host-x"}, "wrong", "NAME: browsers drop __host-"),
        ({"SESSION_COOKIE_PATH": "/sub"}, "wrong", "is not below SESSION_COOKIE_PATH"),
        ({"TRUSTED_HOSTS": ["app.example.com"]}, "wrong", "refuses the host of AUTH0_"),
    ],
)
def test_a_setting_that_does_not_fit_is_told(
    check: Check, given: dict[str, Any], status: str, said: str
) -> None:
    assert_said(check(**given), status, said)


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"issuer": "https://other.example/"}, "it is 'https://other.example/'"),
        ({"issuer": "\x1b[31m" + "x" * 999}, r"issuer: it is '\x1b[31m"),
        ({"authorization_endpoint": None}, "names no authorization_endpoint"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not name S256"),
        ({"code_challenge_methods_supported": 7}, "does not name S256"),
        ({"jwks_uri": None}, "keys at the jwks_uri of discovery: Request URL"),
        ({"require_pushed_authorization_requests": True}, "must be true"),
        ({"pushed_authorization_request_endpoint": None}, "must be false: the tenant"),
        (Fault.status(404), "the response is 404. Is AUTH0_DOMAIN"),
        (Fault.broken_json(), "not a JSON object"),
        (Fault.slow(7), "timed out. See AUTH0_DOMAIN"),
    ],
)
def test_what_discovery_lacks(
    check: Check, tenant: Tenant, document: dict[str, Any], change: Any, said: str
) -> None:
    whole = isinstance(change, Fault)
    tenant.fail("discovery", change if whole else Fault.body({**document, **change}))
    pushed = "true" if "must be false" in said else "false"
    assert_said(check(AUTH0_PUSHED_AUTHORIZATION_REQUESTS=pushed), "wrong", said)


def test_keys_of_which_none_is_for_rs256(check: Check, tenant: Tenant) -> None:
    [key] = httpx.get(f"https://{tenant.domain}/.well-known/jwks.json").json()["keys"]
    for change in ({"alg": "RS512"}, {"use": "enc"}, {"n": None}):
        tenant.fail("jwks", Fault.body({"keys": [7, {**key, **change}]}))
        assert_said(check(), "wrong", "keys: none is for RS256")


def test_clocks_that_differ(check: Check, document: dict[str, Any]) -> None:
    for apart, status, said in (
        (5, "ok", "tenant: discovery, issuer, keys and clock"),
        (-30, "warning", "seconds apart. Set this machine's by NTP"),
        (90, "wrong", "seconds apart, so that logins are refused"),
        (None, "skipped", "clock: the tenant's answer has no Date"),
    ):
        date = formatdate(time.time() + apart) if apart else "today"
        with respx.mock as router:  # the tenant's Date cannot be set
            found = router.get(path="/.well-known/openid-configuration")
            found.respond(json=document, headers={"Date": date})
            router.route().pass_through()
            result = check()
        assert any(said in line for line in lines(result, status)), result.output
        assert result.exit_code == (status == "wrong")


def test_routes_that_are_not_there_and_what_covers_a_guard_are_named(
    check: Check,
) -> None:
    found = check(lambda auth: auth.init_app(Flask("shop"), login="sign_in"))
    cure = "Register auth.routes, or name the endpoint it has: auth.init_app(app, "
    ends = [f"'sign_in'. {cure}login=", f"'callback'. {cure}callback=", "logout="]
    for role, end in zip(ROLES, ends, strict=True):
        [told] = [line for line in lines(found, "wrong") if line.startswith(role)]
        assert end in told

    def covered(auth: Any) -> Flask:
        shop, view = make_shop(auth), cached(auth.login_required(lambda: "mine"))
        shop.add_url_rule("/bad", "bad", view)
        return shop

    told = "View bad: cached.<locals>.from_cache stands above a guard"
    assert_said(check(covered), "warning", told)


def test_what_the_store_is_for_is_told_and_one_that_hangs_given_up(
    check: Check, own_redis: RedisServer
) -> None:
    one = f"store: the file {REVOCATIONS}, for one machine; several need Redis"
    assert lines(check(), "ok")[-1] == one
    own_redis.freeze()
    began = time.monotonic()
    assert_said(check(AUTH0_REDIS_URL=own_redis.url), "wrong", "cannot be used")
    assert time.monotonic() - began < 15


def test_redis_without_its_package_is_told_with_the_cure(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "auth0_flask.stores.redis", raising=False)
    with pytest.raises(SetupError, match="needs the package redis: pip install redis"):
        check(AUTH0_REDIS_URL="redis://localhost:6379")


LIMITED, ALL = ("--user", "limited", "on", f">{PASSWORD}"), ("~*", "+@all")


@pytest.mark.parametrize(
    ("own_redis", "said"),
    [
        ((*LIMITED, "~auth0-flask:*", "+@all", "-config"), None),
        ((*LIMITED, *ALL, "-mget"), "no permissions to run the 'mget' command"),
        ((*LIMITED, *ALL, "--replicaof", "127.0.0.1", "1"), "read only replica"),
        ((*LIMITED, *ALL, "--maxmemory-policy", "allkeys-lru"), "Set it to noevict"),
        ((*LIMITED, *ALL, "--maxmemory", "1"), "not allowed when used memory"),
    ],
    indirect=["own_redis"],
)
def test_redis_that_is_up_but_of_no_use(
    check: Check, own_redis: RedisServer, said: str | None
) -> None:
    url = own_redis.url.replace("//", f"//limited:{PASSWORD}@")
    result = check(AUTH0_REDIS_URL=url)
    if said:
        assert_said(result, "wrong", said)
    else:
        assert lines(result, "ok")[-1].startswith("store: Redis"), result.output
        nobody = check(AUTH0_REDIS_URL=url.replace("limited", "nobody"))
        assert_said(nobody, "wrong", "Redis")


def test_wrong_settings_are_told_once_and_the_rest_is_checked(
    check: Check, caplog: pytest.LogCaptureFixture
) -> None:
    result = check(AUTH0_DOMAIN="", AUTH0_CLIENT_ID="", AUTH0_SECRET="short")
    wrong = [line.partition(" ")[0] for line in lines(result, "wrong")]
    assert wrong == ["AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_SECRET"]
    assert "flask auth0 check says what" in caplog.text
    assert wrong[0] not in caplog.text
    assert "routes: login, callback and logout are registered" in lines(result, "ok")
    assert "tenant, callback, cookies, store" in lines(result, "skipped")[0]
    assert "Allowed Callback URLs:" not in result.output
    assert result.exit_code == 1


#: Stands in for Auth0's own command line: notes what was asked, answers as told.
AUTH0 = """#!/bin/sh
echo "$*" >>"$0.asked"
. "$0.$1-$2"
"""
SHOP = """
from flask import Flask
import auth

app = auth.init_app(Flask("shop"))
app.register_blueprint(auth.routes, url_prefix="/account")
"""
CALLBACK = "http://localhost:5000/account/callback"
MADE = {"client_id": "c1ient", "client_secret": "s3cret-of-Auth0"}
LOG_IN = "Log in and try again:\n\n  auth0 login\n  flask auth0 setup\n"


class Project:
    """A folder with an app and nothing else, on a machine that may have `auth0`."""

    def __init__(self, folder: Path, tenant: Tenant, patch: pytest.MonkeyPatch) -> None:
        self.folder, self.auth0 = folder / "shop", folder / "bin" / "auth0"
        self.env, self.patch = self.folder / ".env", patch
        self.kept = {n: v for n, v in tenant.environ().items() if n[:5] != "AUTH0"}
        self.folder.mkdir()
        self.auth0.parent.mkdir()
        (self.folder / "shop.py").write_text(SHOP)
        self.auth0.with_suffix(".asked").touch()
        self.answers: dict[str, tuple[int, Any, str]] = {
            "tenants-list": (0, [{"name": tenant.domain, "active": False}], ""),
            "apps-list": (0, [7, {"name": "other", "client_id": "0"}], ""),
            "apps-create": (0, {**MADE, "name": "shop"}, "=== application created"),
        }

    def environment(self, **more: str) -> dict[str, str]:
        """Put `auth0` there, or not; return the environment of the command."""
        for part, (code, out, err) in self.answers.items():
            printed = quote(out if isinstance(out, str) else json.dumps(out))
            answer = f"printf %s {printed}\nprintf %s {quote(err)} >&2\nexit {code}\n"
            self.auth0.with_suffix(f".{part}").write_text(answer)
            self.auth0.write_text(AUTH0)
            self.auth0.chmod(0o755)
        own = {"PATH": str(self.auth0.parent), "PYTHONPATH": str(ROOT), **WITH_DOTENV}
        return clean_environment({**self.kept, **own, **more})

    def setup(self, *words: str, **more: str) -> tuple[int, str]:
        """Run the command, without the check at its end; return status and output."""
        own = {"PYTEST_VERSION": "", **self.environment(**more)}
        changed = mock.patch.dict(os.environ, own, clear=True)
        with self.patch.context() as patch, changed:
            patch.chdir(self.folder)
            patch.setattr(sys, "executable", "/bin/true")  # what the check is run by
            auth = copy_of_auth({})
            app = auth.init_app(Flask("shop", root_path=str(self.folder)))
            app.register_blueprint(auth.routes, url_prefix="/account")
            ended = app.test_cli_runner().invoke(args=["auth0", "setup", *words])
        assert isinstance(ended.exception, SystemExit) or not ended.exception
        assert_tells_no_secret(ended.output)
        return ended.exit_code, ended.output

    @property
    def settings(self) -> dict[str, str | None]:
        """What an app reads in `.env`."""
        return dotenv_values(self.env, interpolate=False)

    @property
    def asked(self) -> list[str]:
        """What `auth0` was asked."""
        return self.auth0.with_suffix(".asked").read_text().splitlines()


def assert_tells_no_secret(said: str) -> None:
    assert MADE["client_secret"] not in said
    assert not re.search("[0-9a-f]{64}", said)  # as AUTH0_SECRET is made


@pytest.fixture
def project(tmp_path: Path, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, tenant, monkeypatch)


def test_from_nothing_to_settings_that_work(project: Project, tenant: Tenant) -> None:
    command = FLASK_RUN[0], "--app", "shop", "auth0", "setup"
    said = run(*command, cwd=project.folder, env=project.environment())
    assert_tells_no_secret(said)
    assert "Created the application shop at" in said
    assert "ok       tenant: discovery" in said
    assert "Allowed Logout URLs:" in said
    assert project.env.stat().st_mode & 0o777 == 0o600
    assert project.asked[-1].startswith(
        f"apps create --name shop --type regular --callbacks {CALLBACK} "
        "--reveal-secrets --logout-urls http://localhost:5000/ "
        f"--tenant {tenant.domain} --json"
    )
    written = project.env.read_bytes()
    assert project.setup()[0] == 0
    assert project.env.read_bytes() == written
    found = project.settings
    assert len(found.pop("AUTH0_SECRET") or "") == 64
    assert found == {
        "AUTH0_DOMAIN": tenant.domain,
        "AUTH0_CLIENT_ID": MADE["client_id"],
        "AUTH0_CLIENT_SECRET": MADE["client_secret"],
        "AUTH0_REDIRECT_URI": CALLBACK,
    }
    project.env.write_text("")  # and where the environment has them
    assert project.setup(**{name: str(value) for name, value in found.items()})[0] == 0
    assert project.settings.keys() == {"AUTH0_SECRET"}
    assert len(project.asked) == 3

    project.env.unlink()
    project.env.mkdir()
    assert ".env cannot be written" in project.setup()[1]


TWO = [{"name": "a.auth0.com"}, {"name": "b.auth0.com"}]


@pytest.mark.parametrize(
    "before",
    [
        "COLOUR='red'\r\nAUTH0_CLIENT_ID=\r\n",
        "AUTH0_DOMAIN=your-tenant.eu.auth0.com\nAUTH0_SCOPE='openid'\nCOLOUR=red",
    ],
)
def test_lines_that_are_there_stay_and_a_dry_run_changes_nothing(
    project: Project, tenant: Tenant, before: str
) -> None:
    project.env.write_bytes(before.encode())
    project.answers["tenants-list"] = (0, TWO, "")
    words = ["--name", "The shop", "--tenant", tenant.domain]
    origins = {"AUTH0_ALLOWED_ORIGINS": "https://www.example.com"}
    status, said = project.setup(*words, "--dry-run", **origins)
    assert said.startswith("Would run: auth0 apps create --name 'The shop' --type reg")
    assert "--logout-urls http://localhost:5000/,https://www.example.com\n" in said
    names = "AUTH0_SECRET, AUTH0_REDIRECT_URI, AUTH0_DOMAIN, AUTH0_CLIENT_ID, AUTH0_CLI"
    assert f"Would add to {project.env}: {names}" in said
    assert status == 0
    assert project.env.read_bytes() == before.encode()
    assert project.asked == []

    assert project.setup(*words)[0] == 0
    assert project.env.read_bytes().startswith(before.encode())
    assert project.settings["COLOUR"] == "red"
    assert project.settings["AUTH0_DOMAIN"] == tenant.domain
    assert project.settings["AUTH0_CLIENT_ID"] == MADE["client_id"]
    assert "apps create --name The shop --type" in project.asked[-1]


INJECTED = {**MADE, "client_id": "a\nAUTH0_AUDIENCE=b"}


@pytest.mark.parametrize(
    ("part", "answer", "said"),
    [
        (None, (0, "", ""), f"auth0-cli#installation\n{LOG_IN}"),
        ("tenants-list", (0, [], ""), f"not logged in. {LOG_IN}"),
        ("tenants-list", (1, "", "config.json is missing"), f"is missing\n{LOG_IN}"),
        ("tenants-list", (0, TWO, ""), "several tenants: choose one with --tenant"),
        ("tenants-list", (0, [{"name": "a\nb"}], ""), "auth0 is not logged in"),
        ("apps-list", (0, "none", ""), "auth0 apps list printed no list"),
        ("apps-list", (0, [{"name": "shop"}], ""), "already has an application shop"),
        ("apps-create", (1, "", "403 Forbidden"), "auth0 apps create: 403 Forbidden"),
        ("apps-create", (0, INJECTED, ""), "Look in the dashboard for shop"),
    ],
)
def test_what_may_go_wrong_is_told_and_the_next_try_completes_it(
    project: Project, part: str | None, answer: tuple[int, Any, str], said: str
) -> None:
    usual = project.answers
    project.answers = {**usual, part: answer} if part else {}
    status, told = project.setup()
    assert status == 1
    assert said in told
    assert project.settings.keys() == {"AUTH0_SECRET", "AUTH0_REDIRECT_URI"}

    project.answers, kept = usual, project.env.read_bytes()
    assert project.setup()[0] == 0
    assert project.env.read_bytes().startswith(kept)
    assert project.settings["AUTH0_CLIENT_ID"] == MADE["client_id"]


def test_nothing_is_made_before_what_is_there_is_right(project: Project) -> None:
    is_read = {"PYTHON_DOTENV_DISABLED": "0"}
    for before, more, said in (
        (
            b"AUTH0_REDIRECT_URI=nowhere",
            is_read,
            "AUTH0_REDIRECT_URI is not an address",
        ),
        (b"\xff\xfeA\x00", {}, "not in UTF-8"),
        (b"", {"PYTHON_DOTENV_DISABLED": "1"}, ".env is not read"),
    ):
        project.env.write_bytes(before)
        status, told = project.setup(**more)
        assert status == 1
        assert said in told
        assert project.env.read_bytes() == before
    assert project.asked == []


PUBLIC, SUB = "https://app.example.com", "https://app.example.com/sub"
LONG = f"https://{'long.' * 20}example"


@pytest.mark.parametrize(
    ("base", "addresses", "said"),
    [
        (PUBLIC, ["http://app.example.com/in"], "came to http://app.example.com/, but"),
        (PUBLIC, [f"{LONG}/in"], f"https://{'long.' * 14}lo, but"),
        (PUBLIC, ["https://APP.example.com:443/in", f"{PUBLIC}/in"], None),
        # health checks, and others that do not sign in
        (PUBLIC, ["http://10.0.0.7:8000/page", "http://x.example/wp-login.php"], None),
        ("http://localhost", ["http://127.0.0.1/in", "http://[::1]/in"], None),
        (SUB, [f"{PUBLIC}/in"], f"Set it to {PUBLIC}/callback; or, behind a proxy, ha"),
        (SUB, [f"{SUB}/in"], None),  # it is mounted there
    ],
)
def test_one_warning_where_logins_come_otherwise_than_was_said(
    caplog: pytest.LogCaptureFixture, base: str, addresses: list[str], said: str | None
) -> None:
    auth = copy_of_auth({"AUTH0_REDIRECT_URI": f"{base}/callback"})
    app = Flask("public")
    auth.init_app(app, login="in", callback="callback", logout="out")
    for name in ("in", "callback", "out", "page"):
        app.add_url_rule(f"/{name}", name, view_func=lambda: "here")
    for app.testing in (True, False):  # in tests of an app there is none
        assert "A login came to" not in caplog.text
        for address in [*addresses * 2, *["http://else.example/in"] * bool(said)]:
            path = "/" + address.rpartition("/")[2]
            app.test_client().get(path, base_url=address.removesuffix(path))
    found = [r for r in caplog.records if "A login came to" in r.getMessage()]
    assert [r.levelno for r in found] == [logging.WARNING] * bool(said)
    assert [str(said) in r.getMessage() for r in found] == [True] * bool(said)
