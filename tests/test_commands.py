"""``flask auth0``, and the warnings at run time: each mistake, and none."""

from __future__ import annotations

import json
import logging
import os
import re
import subprocess
import sys
import time
from collections.abc import Callable
from email.utils import formatdate
from pathlib import Path
from typing import Any

import certifi
import httpx
import pytest
import respx
from click.testing import Result
from dotenv import dotenv_values
from flask import Flask

from auth0_flask import SetupError
from auth0_flask.tenant import Fault, Tenant
from redis_server import RedisServer
from servers import (
    FLASK_RUN,
    REVOCATIONS,
    ROOT,
    WITH_DOTENV,
    clean_environment,
    free_port,
    serving,
)
from shop import copy_of_auth, make_shop
from test_guards import cached

Check = Callable[..., Result]
GOOD = {"AUTH0_SECRET": "An0ther-s3cret.of/many~characters!#"}
HTTPS = {"AUTH0_REDIRECT_URI": "https://app.example.com/callback"}
PASSWORD = "hunter2-of-redis"


@pytest.fixture
def check(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the command in an app as the README has it.

    With other settings, another configuration (as further settings that are none of
    ours), other options of `init_app` and other views.
    """

    def run(
        options: dict[str, Any] | None = None,
        views: dict[str, Callable[[], Any]] | None = None,
        **more: Any,
    ) -> Result:
        names = [n for n in more if not n.startswith(("AUTH0_", "SSL_"))]
        config = {name: more.pop(name) for name in names}
        given = {**tenant.environ(), **GOOD, **more}
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            app = make_shop(copy_of_auth({}), **(options or {}))
            app.config.update(config)
            for name, view in (views or {}).items():
                app.add_url_rule(f"/{name}", name, view)
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
    result = check(
        APPLICATION_ROOT="/sub",
        AUTH0_REDIRECT_URI="http://localhost:5000/sub/callback",
        AUTH0_ALLOWED_ORIGINS="https://www.example.com https://m.example.com",
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
    secure = {"SESSION_COOKIE_SECURE": True, "SESSION_COOKIE_NAME": "__Host-session"}
    assert check(**secure, **HTTPS).exit_code == 0
    insecure = check(SESSION_COOKIE_SAMESITE="None")
    assert "browsers drop SameSite=None" in lines(insecure, "wrong")[0]
    assert "Allowed Callback URLs" in insecure.output


OTHER = "is not the app's, which is /callback"
NEAREST = (
    "AUTH0_SESION_IDLE_SECONDS is not a setting. "
    "Did you mean AUTH0_SESSION_IDLE_SECONDS?"
)
NO_FILE = "/proc/nobody/revocations.sqlite3"
REDIS = f"redis://:{PASSWORD}@localhost"
WEAK = "secrets.token_hex(32)"
HOST, PREFIX = "__Host-session", "NAME: browsers drop __"
SECURE = {"SESSION_COOKIE_SECURE": True, **HTTPS}
WITH_DOMAIN = {"SESSION_COOKIE_DOMAIN": "a.example", "SESSION_COOKIE_NAME": HOST}
NONE = {"SESSION_COOKIE_SAMESITE": "None"}


@pytest.mark.parametrize(
    ("given", "status", "said"),
    [
        ({"AUTH0_SECRET": "a" * 40}, "warning", WEAK),
        ({"AUTH0_SECRET": "ab" * 16}, "warning", WEAK),
        ({"AUTH0_SECRET": "secret-word." * 3}, "warning", WEAK),
        ({"AUTH0_SECRET": "change-me!" * 3 + "chan"}, "warning", WEAK),
        ({"AUTH0_SECRET": "correct-horse-battery-staple" * 2}, "warning", WEAK),
        ({"AUTH0_SECRET": f"{GOOD['AUTH0_SECRET']} {'abcabd' * 7}"}, "warning", WEAK),
        ({"AUTH0_DOMAIN": "no-such-tenant.invalid"}, "wrong", "See AUTH0_DOMAIN"),
        ({"AUTH0_DOMAIN": "a..b"}, "wrong", "See AUTH0_DOMAIN"),
        ({"AUTH0_REDIRECT_URI": "http://localhost/auth/calback"}, "warning", OTHER),
        ({"AUTH0_REDIRECT_URI": "http://localhost/profile"}, "warning", OTHER),
        ({"AUTH0_REDIRECT_URI": "http://localhost"}, "warning", OTHER),
        ({"AUTH0_REDIRECT_URI": "http://localhost/a/callback"}, "warning", "'/a' in"),
        ({"AUTH0_REVOCATIONS_PATH": NO_FILE}, "wrong", NO_FILE),
        ({"AUTH0_REDIS_URL": f"{REDIS}:port"}, "wrong", "REDIS_URL is not an address"),
        ({"AUTH0_REDIS_URL": f"{REDIS}:1"}, "wrong", "cannot be used"),
        ({"AUTH0_SESION_IDLE_SECONDS": "60"}, "warning", NEAREST),
        ({**SECURE, "SESSION_COOKIE_SECURE": False}, "warning", "SECURE is False, but"),
        ({"SESSION_COOKIE_SECURE": True}, "warning", "SECURE is True, but"),
        ({"SESSION_COOKIE_SAMESITE": "Strict"}, "wrong", "SAMESITE is Strict: logins"),
        ({"SESSION_COOKIE_SAMESITE": None}, "warning", "SAMESITE is Not Set. Set"),
        ({**NONE, **SECURE}, "warning", "SESSION_COOKIE_SAMESITE is None"),
        ({"SESSION_COOKIE_HTTPONLY": False}, "warning", "is off: scripts can read"),
        ({"SESSION_COOKIE_NAME": HOST}, "wrong", PREFIX),
        ({"SESSION_COOKIE_NAME": "__Secure-session"}, "wrong", PREFIX),
        ({**WITH_DOMAIN, **SECURE}, "wrong", PREFIX),
        ({"SESSION_COOKIE_PATH": "/sub"}, "wrong", "is not below SESSION_COOKIE_PATH"),
        ({"TRUSTED_HOSTS": ["app.example.com"]}, "wrong", "refuses the host of AUTH0_"),
    ],
)
def test_a_setting_that_does_not_fit_is_told(
    check: Check, given: dict[str, Any], status: str, said: str
) -> None:
    assert_said(check(**given), status, said)


NO_ADDRESS = "keys at the jwks_uri of discovery: Request URL is missing"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        ({"issuer": "https://other.example/"}, "it is 'https://other.example/'"),
        ({"issuer": "\x1b[31m" + "x" * 999}, r"issuer: it is '\x1b[31m"),
        ({"issuer": None}, "issuer: it is "),
        ({"authorization_endpoint": None}, "names no authorization_endpoint"),
        ({"token_endpoint": ""}, "names no token_endpoint"),
        ({"code_challenge_methods_supported": ["plain"]}, "does not name S256"),
        ({"code_challenge_methods_supported": 7}, "does not name S256"),
        ({"jwks_uri": None}, NO_ADDRESS),
        ({"jwks_uri": "https://["}, "keys at the jwks_uri of discovery:"),
        ({"require_pushed_authorization_requests": True}, "must be true"),
        (Fault.status(404), "the response is 404. Is AUTH0_DOMAIN"),
        (Fault.status(503), "the response is 503"),
        (Fault.broken_json(), "not a JSON object"),
        (Fault.reset(), "See AUTH0_DOMAIN"),
        (Fault.slow(7), "timed out. See AUTH0_DOMAIN"),
    ],
)
def test_what_discovery_lacks(
    check: Check, tenant: Tenant, document: dict[str, Any], change: Any, said: str
) -> None:
    whole = isinstance(change, Fault)
    tenant.fail("discovery", change if whole else Fault.body({**document, **change}))
    assert_said(check(), "wrong", said)


def test_keys_of_which_none_is_for_rs256(check: Check, tenant: Tenant) -> None:
    [key] = httpx.get(f"https://{tenant.domain}/.well-known/jwks.json").json()["keys"]
    for change in ({"alg": "RS512"}, {"use": "enc"}, {"kty": "EC"}, {"n": None}, None):
        keys = [7, {**key, **change}] if change else []
        tenant.fail("jwks", Fault.body({"keys": keys}))
        assert_said(check(), "wrong", "keys: none is for RS256")
    tenant.fail("jwks", Fault.status(404))
    assert_said(check(), "wrong", "the jwks_uri of discovery: the response is 404")


def test_a_certificate_that_is_not_trusted_and_a_port_that_does_not_speak_tls(
    check: Check, tenant: Tenant
) -> None:
    result = check(SSL_CERT_FILE=certifi.where())
    assert_said(result, "wrong", "CERTIFICATE_VERIFY_FAILED")
    plain = tenant.origin.removeprefix("http://")
    assert_said(check(AUTH0_DOMAIN=plain), "wrong", "SSL")


@pytest.mark.parametrize(
    ("apart", "status", "said"),
    [
        (5, "ok", "tenant: discovery, issuer, keys and clock"),
        (-30, "warning", "seconds apart. Set this machine's by NTP"),
        (30, "warning", "seconds apart. Set this machine's by NTP"),
        (90, "wrong", "seconds apart, so that logins are refused"),
        (-90, "wrong", "seconds apart, so that logins are refused"),
        (None, "skipped", "clock: the tenant's answer has no Date"),
    ],
)
def test_clocks_that_differ(
    check: Check, document: dict[str, Any], apart: float | None, status: str, said: str
) -> None:
    date = formatdate(time.time() + apart) if apart else "today"
    with respx.mock as router:  # the tenant's Date cannot be set
        found = router.get(path="/.well-known/openid-configuration")
        found.respond(json=document, headers={"Date": date})
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


@pytest.mark.parametrize("route", ["login", "callback", "logout"])
def test_a_route_under_another_name_is_asked_for(check: Check, route: str) -> None:
    cure = "Register auth.routes, or name the endpoint it has: auth.init_app(app, "
    told = f"{route}: The app has no endpoint 'auth.{route}'. {cure}{route}="
    assert_said(check(options={route: f"auth.{route}"}), "wrong", told)


def test_what_the_store_is_for_is_told_and_one_that_hangs_given_up(
    check: Check, own_redis: RedisServer, monkeypatch: pytest.MonkeyPatch
) -> None:
    one = f"store: the file {REVOCATIONS}, for one machine; several need Redis"
    assert lines(check(), "ok")[-1] == one
    none = lines(check(AUTH0_REVOCATIONS_PATH="none"), "ok")[-1]
    assert "share neither logouts" in none
    shared = lines(check(AUTH0_REDIS_URL=own_redis.url), "ok")[-1]
    assert shared == "store: Redis, for all machines that share it"
    own_redis.freeze()
    began = time.monotonic()
    assert_said(check(AUTH0_REDIS_URL=own_redis.url), "wrong", "cannot be used")
    assert time.monotonic() - began < 15

    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "auth0_flask.stores.redis", raising=False)
    with pytest.raises(SetupError, match="needs the package redis: pip install redis"):
        check(AUTH0_REDIS_URL="redis://localhost:6379")


def limited(options: str) -> tuple[str, ...]:
    return ("--user", "limited", "on", f">{PASSWORD}", *options.split())


NO_EVICTION = "Set it to noevict"


@pytest.mark.parametrize(
    ("own_redis", "said"),
    [
        (limited("~* +@all"), None),
        (limited("~auth0-flask:* +@all"), None),
        (limited("~auth0-flask:* +@all -config"), None),
        (limited("~app:* +@all"), "permissions to access one of the keys"),
        (limited("~* +@read"), "no permissions to run the 'set' command"),
        (limited("~* +@all -@scripting"), "no permissions to run the 'eval"),
        (limited("~* +@all -mget"), "no permissions to run the 'mget' command"),
        (limited("~* +@all --replicaof 127.0.0.1 1"), "read only replica"),
        (limited("~* +@all --cluster-enabled yes"), "Hash slot not served"),
        (limited("~* +@all --maxmemory-policy allkeys-lru"), NO_EVICTION),
        (limited("~* +@all --maxmemory-policy volatile-ttl"), NO_EVICTION),
        (limited("~* +@all --maxmemory 1"), "not allowed when used memory"),
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
        nobody = url.replace("limited", "nobody")
        assert_said(check(AUTH0_REDIS_URL=nobody), "wrong", "Redis")
    else:
        assert lines(result, "ok")[-1].startswith("store: Redis"), result.output
        assert result.exit_code == 0


def test_wrong_settings_are_told_at_once_and_the_rest_is_checked(check: Check) -> None:
    result = check(AUTH0_DOMAIN="", AUTH0_CLIENT_ID="", AUTH0_SECRET="short")
    wrong = [line.partition(" ")[0] for line in lines(result, "wrong")]
    assert wrong == ["AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_SECRET"]
    assert "routes: login, callback and logout are registered" in lines(result, "ok")
    assert "tenant, callback, cookies, store" in lines(result, "skipped")[0]
    assert "Allowed Callback URLs:" not in result.output
    assert result.exit_code == 1


def test_the_demo_starts_by_python_app_py_as_well(tenant: Tenant) -> None:
    port, command = free_port(), [sys.executable, "app.py"]
    with serving([*command, "--port", "{port}"], tenant.environ(), port) as server:
        assert "Auth0 + Flask" in httpx.get(server.site).text
    env = clean_environment({})
    ended = subprocess.run(command, cwd=ROOT, env=env, capture_output=True, timeout=60)
    assert ended.returncode == 1
    assert b"AUTH0_DOMAIN is missing" in ended.stderr
    assert b"Traceback" not in ended.stderr


def test_what_stands_between_a_route_and_its_guard_is_named(check: Check) -> None:
    from auth import login_required, requires_claim

    guarded = login_required(lambda: "mine")
    views = {"good": login_required(cached(lambda: "mine")), "open": cached(lambda: "")}
    assert not lines(check(views=views), "warning")
    views["bad"] = requires_claim("role")(cached(guarded))
    told = "View bad: cached.<locals>.from_cache stands above a guard"
    assert_said(check(views=views), "warning", told)


#: Stands in for Auth0's own command line: answers as told, and notes what was asked.
AUTH0 = """#!{python} -IS
import json, sys
from pathlib import Path
here = Path(__file__).parent
with (here / "asked").open("a") as file:
    file.write(" ".join(sys.argv[1:]) + chr(10))
code, out, err = json.loads((here / "answers").read_text())[" ".join(sys.argv[1:3])]
print(out if isinstance(out, str) else json.dumps(out))
print(err, file=sys.stderr)
sys.exit(code)
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
        self.folder, self.env = folder / "shop", folder / "shop" / ".env"
        self.bin, self.patch = folder / "bin", patch
        self.given = tenant.environ(CALLBACK)
        self.folder.mkdir()
        self.bin.mkdir()
        (self.bin / "asked").touch()
        (self.folder / "shop.py").write_text(SHOP)
        self.answers: dict[str, tuple[int, Any, str]] = {
            "tenants list": (0, [{"name": tenant.domain, "active": False}], ""),
            "apps list": (0, [7, {"name": "other", "client_id": "0"}], ""),
            "apps create": (0, {**MADE, "name": "shop"}, "=== application created"),
        }

    def environment(self, **more: str) -> dict[str, str]:
        """Put `auth0` there, or not; return the environment of the command."""
        (self.bin / "answers").write_text(json.dumps(self.answers))
        if self.answers:
            (self.bin / "auth0").write_text(AUTH0.format(python=sys.executable))
            (self.bin / "auth0").chmod(0o755)
        kept = {"SSL_CERT_FILE", "NO_PROXY", "no_proxy"}
        own = {"PATH": str(self.bin), "PYTHONPATH": str(ROOT), **WITH_DOTENV, **more}
        return clean_environment({name: self.given[name] for name in kept} | own)

    def setup(self, *words: str, **more: str) -> tuple[int, str]:
        """Run the command, without the check at its end; see that it prints no secret.

        Returns:
            The exit status, and what was printed.
        """
        with self.patch.context() as patch:
            for name in [name for name in os.environ if name.startswith("AUTH0_")]:
                patch.delenv(name)
            for name, value in self.environment(**more).items():
                patch.setenv(name, value)
            patch.chdir(self.folder)
            patch.setattr(sys, "executable", "/bin/true")  # what the check is run by
            app, auth = Flask("shop", root_path=str(self.folder)), copy_of_auth({})
            auth.init_app(app)
            app.register_blueprint(auth.routes, url_prefix="/account")
            ended = app.test_cli_runner().invoke(args=["auth0", "setup", *words])
        assert isinstance(ended.exception, SystemExit) or not ended.exception
        self.assert_tells_no_secret(ended.output)
        return ended.exit_code, ended.output

    def assert_tells_no_secret(self, said: str) -> None:
        assert MADE["client_secret"] not in said
        assert not re.search("[0-9a-f]{64}", said)  # as AUTH0_SECRET is made

    @property
    def settings(self) -> dict[str, str | None]:
        """What an app reads in `.env`."""
        return dotenv_values(self.env, interpolate=False)

    @property
    def asked(self) -> list[str]:
        """What `auth0` was asked."""
        return (self.bin / "asked").read_text().splitlines()


@pytest.fixture
def project(tmp_path: Path, tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Project:
    return Project(tmp_path, tenant, monkeypatch)


def test_from_nothing_to_settings_that_work(project: Project, tenant: Tenant) -> None:
    command = [FLASK_RUN[0], "--app", "shop", "auth0", "setup"]
    place: dict[str, Any] = {"cwd": project.folder, "env": project.environment()}
    ended = subprocess.run(command, **place, capture_output=True, text=True, timeout=60)
    assert ended.returncode == 0, ended.stderr
    project.assert_tells_no_secret(ended.stdout + ended.stderr)
    assert "Created the application shop at" in ended.stdout
    assert "ok       tenant: discovery" in ended.stdout
    assert "Allowed Logout URLs:" in ended.stdout
    assert project.env.stat().st_mode & 0o777 == 0o600
    assert project.asked[-1].startswith(
        f"apps create --name shop --type regular --callbacks {CALLBACK} "
        "--reveal-secrets --logout-urls http://localhost:5000/ "
        f"--tenant {tenant.domain} --json"
    )
    written = project.env.read_bytes()
    assert project.setup()[0] == 0
    assert project.env.read_bytes() == written
    assert len(project.asked) == 3
    found = project.settings
    assert len(found.pop("AUTH0_SECRET") or "") == 64
    assert found == {
        "AUTH0_DOMAIN": tenant.domain,
        "AUTH0_CLIENT_ID": MADE["client_id"],
        "AUTH0_CLIENT_SECRET": MADE["client_secret"],
        "AUTH0_REDIRECT_URI": CALLBACK,
    }


@pytest.mark.parametrize(
    "before",
    [
        b"COLOUR=red # mine",
        b"COLOUR='red'\r\nAUTH0_CLIENT_ID=\r\n",
        b"AUTH0_DOMAIN=your-tenant.eu.auth0.com\nAUTH0_SCOPE='openid'\nCOLOUR=red",
    ],
)
def test_lines_that_are_there_stay_as_they_are(
    project: Project, tenant: Tenant, before: bytes
) -> None:
    project.env.write_bytes(before)
    project.answers["tenants list"] = (0, TWO, "")
    status, said = project.setup("--name", "The shop", "--tenant", tenant.domain)
    assert status == 0, said
    assert project.env.read_bytes().startswith(before)
    assert project.settings["COLOUR"] == "red"
    assert project.settings["AUTH0_DOMAIN"] == tenant.domain
    assert project.settings["AUTH0_CLIENT_ID"] == MADE["client_id"]
    assert "apps create --name The shop --type" in project.asked[-1]


@pytest.mark.parametrize("place", ["file", "environment"])
def test_what_is_set_already_is_neither_made_nor_written(
    project: Project, place: str
) -> None:
    given = {n: v for n, v in project.given.items() if n.startswith("AUTH0_")}
    del given["AUTH0_SECRET"]
    if place == "file":
        project.env.write_text("".join(f"{n}={v}\n" for n, v in given.items()))
    status, said = project.setup(**(given if place == "environment" else {}))
    assert status == 0, said
    assert len(project.settings) == 1 + (len(given) if place == "file" else 0)
    assert project.asked == []


def test_a_dry_run_changes_nothing(project: Project) -> None:
    before = "AUTH0_ALLOWED_ORIGINS=https://www.example.com\nAUTH0_DOMAIN=eu.auth0.com"
    project.env.write_text(before)
    status, said = project.setup("--dry-run", "--name", "a shop")

    urls = "http://localhost:5000/,https://www.example.com"
    names = "AUTH0_SECRET, AUTH0_REDIRECT_URI, AUTH0_CLIENT_ID, AUTH0_CLIENT_SECRET"
    assert said.splitlines() == [
        "Would run: auth0 apps create --name 'a shop' --type regular --callbacks "
        f"{CALLBACK} --reveal-secrets --logout-urls {urls}",
        f"Would add to {project.env}: {names}",
    ]
    assert status == 0
    assert project.env.read_text() == before
    assert project.asked == []


EXPIRED = "auth token expired and --no-input is set"
TWO = [{"name": "a.auth0.com"}, {"name": "b.auth0.com"}]
NO_ID = "printed no client ID and client secret"
INJECTED = {**MADE, "client_id": "a\nAUTH0_AUDIENCE=b"}


@pytest.mark.parametrize(
    ("part", "answer", "said"),
    [
        (None, (0, "", ""), f"auth0-cli#installation\n{LOG_IN}"),
        ("tenants list", (0, [], ""), f"not logged in. {LOG_IN}"),
        ("tenants list", (1, "", "config.json is missing"), f"is missing\n{LOG_IN}"),
        ("tenants list", (0, TWO, ""), "several tenants: choose one with --tenant"),
        ("tenants list", (0, [{"name": "a\nb"}], ""), "auth0 is not logged in"),
        ("tenants list", (0, "→ a.auth0.com", ""), "auth0 is not logged in"),
        ("apps list", (3, "", EXPIRED), f"auth0 apps list: {EXPIRED}\n{LOG_IN}"),
        ("apps list", (0, "none", ""), "auth0 apps list printed no list"),
        ("apps list", (0, [{"name": "shop"}], ""), "already has an application shop"),
        ("apps create", (1, "", "403 Forbidden"), "auth0 apps create: 403 Forbidden"),
        ("apps create", (0, "{", ""), NO_ID),
        ("apps create", (0, [MADE], ""), NO_ID),
        ("apps create", (0, {"client_id": "a"}, ""), NO_ID),
        ("apps create", (0, INJECTED, ""), "Look in the dashboard for shop"),
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


@pytest.mark.parametrize(
    ("before", "more", "said"),
    [
        (b"AUTH0_REDIRECT_URI=nowhere", {}, "AUTH0_REDIRECT_URI is not an address"),
        (b"AUTH0_SECRET=short", {}, "AUTH0_SECRET needs at least 32 bytes"),
        (b"\xff\xfeA\x00", {}, "not in UTF-8"),
        (b"", {"PYTHON_DOTENV_DISABLED": "1"}, ".env is not read"),
        (None, {}, ".env cannot be written"),
    ],
)
def test_nothing_is_made_before_what_is_there_is_right(
    project: Project, before: bytes | None, more: dict[str, str], said: str
) -> None:
    if before is None:
        project.env.mkdir()
    else:
        project.env.write_bytes(before)
    status, told = project.setup(**more)
    assert status == 1
    assert said in told
    assert before is None or project.env.read_bytes() == before
    assert project.asked == []


PUBLIC, LOCAL = "https://app.example.com", "http://localhost:5000"
LONG, OTHER_PATH = f"https://{'long.' * 20}example", f"{PUBLIC}/sub"


@pytest.mark.parametrize(
    ("base", "addresses", "said"),
    [
        (PUBLIC, ["http://app.example.com/in"], "came to http://app.example.com/, but"),
        (PUBLIC, ["https://intern:8000/in"], "came to https://intern:8000/, but"),
        (PUBLIC, ["https://127.0.0.1:8000/in"], "came to https://127.0.0.1:8000/, but"),
        (PUBLIC, [f"{PUBLIC}:444/in"], f"came to {PUBLIC}:444/, but"),
        (PUBLIC, ["https://www.example.com/in"], "to https://www.example.com/, but"),
        (PUBLIC, [f"{LONG}/in"], f"https://{'long.' * 14}lo, but"),
        (PUBLIC, ["https://APP.example.com:443/in", f"{PUBLIC}/in"], None),
        # health checks, and others that do not sign in
        (PUBLIC, ["http://10.0.0.7:8000/page", "http://x.example/wp-login.php"], None),
        (LOCAL, ["http://127.0.0.1:5000/in", "http://[::1]:5000/in"], None),
        (
            LOCAL,
            ["http://127.0.0.1:8000/in"],
            "Set it to http://127.0.0.1:8000/callback;",
        ),
        (OTHER_PATH, [f"{PUBLIC}/in"], "Set it to https://app.example.com/callback;"),
        (OTHER_PATH, [f"{OTHER_PATH}/in"], None),  # it is mounted there
    ],
)
def test_one_warning_where_logins_come_otherwise_than_was_said(
    tenant: Tenant,
    caplog: pytest.LogCaptureFixture,
    base: str,
    addresses: list[str],
    said: str | None,
) -> None:
    for is_testing in (True, False):  # in tests of an app there is none
        auth, app = copy_of_auth(tenant.environ(f"{base}/callback")), Flask("public")
        auth.init_app(app, login="in", callback="callback", logout="out")
        for name in ("in", "callback", "out", "page"):
            app.add_url_rule(f"/{name}", name, view_func=lambda: "here")
        app.testing = is_testing
        for address in [*addresses * 2, *["http://else.example/in"] * bool(said)]:
            path = "/" + address.rpartition("/")[2]
            app.test_client().get(path, base_url=address.removesuffix(path))
    found = [r for r in caplog.records if "A login came to" in r.getMessage()]
    assert [r.levelno for r in found] == [logging.WARNING] * bool(said)
    for told in [record.getMessage() for record in found]:
        assert str(said) in told
        cures = ("X-Forwarded-Proto", "ProxyFix", "AUTH0_REDIRECT_URI is ")
        assert base == OTHER_PATH or all(cure in told for cure in cures)
