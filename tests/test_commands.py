"""``flask auth0``, and the warnings at run time: each mistake, and none."""

from __future__ import annotations

import json
import logging
import re
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from email.utils import formatdate
from functools import wraps
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

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
    clean_environment,
    flask,
    free_port,
    serving,
)
from shop import copy_of_auth, make_shop

Check = Callable[..., Result]
GOOD = {"AUTH0_SECRET": "An0ther-s3cret.of/many~characters!#"}
HTTPS = {"AUTH0_REDIRECT_URI": "https://app.example.com/callback"}
PASSWORD = "hunter2-of-redis"


@pytest.fixture
def check(tenant: Tenant, monkeypatch: pytest.MonkeyPatch) -> Check:
    """Run the command in an app as the README has it.

    With other settings, another configuration, other options of `init_app` and other
    views.
    """

    def run(
        config: dict[str, Any] | None = None,
        options: dict[str, Any] | None = None,
        views: dict[str, Callable[[], Any]] | None = None,
        **more: str,
    ) -> Result:
        given = {**tenant.environ(), **GOOD, **more}
        with monkeypatch.context() as patch:
            for name, value in given.items():
                patch.setenv(name, value)
            app = make_shop(copy_of_auth({}), **(options or {}))
            app.config.update(config or {})
            for name, view in (views or {}).items():
                app.add_url_rule(f"/{name}", name, view)
            result = app.test_cli_runner().invoke(args=["auth0", "check"])
        assert not result.exception or isinstance(result.exception, SystemExit)
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
    checks = ["AUTH0_SECRET", "tenant", "callback", "session cookie", "store"]
    assert begins == ["routes", "guards", *checks]
    assert "only a login tries them" in lines(result, "skipped")[-1]


def test_the_addresses_for_the_dashboard_are_those_of_the_app(check: Check) -> None:
    result = check(
        AUTH0_REDIRECT_URI="http://localhost:5000/sub/callback",
        AUTH0_ALLOWED_ORIGINS="https://www.example.com https://m.example.com",
    )

    front_ends = "https://www.example.com, https://m.example.com"
    assert result.output.splitlines()[-3:] == [
        "  Allowed Callback URLs:    http://localhost:5000/sub/callback",
        f"  Allowed Logout URLs:      http://localhost:5000/sub/, {front_ends}",
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
        ({"issuer": None}, "issuer: it is "),
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

    assert_said(check(), "wrong", said)


@pytest.mark.parametrize("domain", ["no-such-tenant.invalid", "a..b"])
def test_a_domain_that_dns_does_not_know(check: Check, domain: str) -> None:
    assert_said(check(AUTH0_DOMAIN=domain), "wrong", "DNS does not know the host")


def test_a_certificate_that_is_not_trusted(check: Check) -> None:
    result = check(SSL_CERT_FILE=certifi.where())

    assert_said(result, "wrong", "certificate is not trusted here")


def test_a_port_that_does_not_speak_tls(check: Check, document: dict[str, Any]) -> None:
    plain = urlsplit(document["authorization_endpoint"])
    assert plain.scheme == "http"

    assert_said(check(AUTH0_DOMAIN=plain.netloc), "wrong", "failed. See AUTH0_DOMAIN")


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
        (5, "ok", "tenant: discovery, issuer, keys and clock"),
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
    result = check(options={route: f"auth.{route}"})

    cure = "Register auth.routes, or name it: "
    told = f"{route}: the app has no endpoint 'auth.{route}'. {cure}"
    assert_said(result, "wrong", f"{told}init_app(app, {route}=...)")


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
            "SESSION_COOKIE_SAMESITE is None",
        ),
        ({"HTTPONLY": False}, {}, "warning", '["SESSION_COOKIE_HTTPONLY"] = True'),
        ({"NAME": "__Host-session"}, {}, "wrong", "of this prefix with these"),
        ({"NAME": "__Secure-session"}, {}, "wrong", "of this prefix with these"),
        (
            {"NAME": "__Host-session", "SECURE": True, "DOMAIN": "example.com"},
            HTTPS,
            "wrong",
            "of this prefix with these",
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
    assert "session cookie: its attributes, name and path" in lines(result, "ok")


def test_a_file_of_revocations_that_cannot_be_written(check: Check) -> None:
    result = check(AUTH0_REVOCATIONS_PATH="/proc/nobody/revocations.sqlite3")

    assert_said(result, "wrong", "/proc/nobody/revocations.sqlite3")


def test_what_is_for_one_machine_or_none_is_told(check: Check) -> None:
    shared = lines(check(), "ok")[-1]
    assert (
        shared == f"store: the file {REVOCATIONS}, for one machine; several need Redis"
    )

    alone = lines(check(AUTH0_REVOCATIONS_PATH="none"), "ok")[-1]
    assert "of no logout" in alone


def test_redis_without_its_package_is_told_with_the_cure(
    check: Check, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "redis", None)
    monkeypatch.delitem(sys.modules, "auth0_flask.stores.redis", raising=False)

    with pytest.raises(SetupError, match="needs the package redis: pip install redis"):
        check(AUTH0_REDIS_URL="redis://localhost:6379")


def test_redis_that_answers_and_redis_that_refuses(
    check: Check, redis_server: RedisServer
) -> None:
    address = redis_server.url.removeprefix("redis://")

    good = check(AUTH0_REDIS_URL=redis_server.url)
    refused = check(AUTH0_REDIS_URL=f"redis://nobody:{PASSWORD}@{address}")

    assert lines(good, "ok")[-1] == "store: Redis, for all machines that share it"
    assert_said(refused, "wrong", "Redis")


def test_redis_that_is_not_there(check: Check, redis_server: RedisServer) -> None:
    absent = check(AUTH0_REDIS_URL=f"redis://:{PASSWORD}@localhost:{free_port()}")
    redis_server.freeze()
    try:
        began = time.monotonic()
        frozen = check(AUTH0_REDIS_URL=redis_server.url)
        took = time.monotonic() - began
    finally:
        redis_server.thaw()

    for result in (absent, frozen):
        assert_said(result, "wrong", "cannot be used")
    assert took < 15  # gives up, rather than hangs


def test_an_address_of_redis_that_is_none_is_told(check: Check) -> None:
    result = check(AUTH0_REDIS_URL=f"redis://:{PASSWORD}@localhost:port")

    assert "AUTH0_REDIS_URL is not an address" in lines(result, "wrong")[0]


@pytest.fixture
def configured(
    redis_server: RedisServer, tmp_path: Path
) -> Iterator[Callable[..., str]]:
    """Start a redis-server that is up and of no use; return its address."""
    started: list[RedisServer] = []

    def start(*options: str) -> str:
        server = RedisServer(tmp_path, *options).start()
        started.append(server)
        return server.url.replace("//", f"//limited:{PASSWORD}@")

    yield start
    for server in started:
        server.kill()


USER = f"limited on >{PASSWORD}"


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (f"--user {USER} ~* +@all", None),
        (f"--user {USER} ~auth0-flask:* +@all", None),
        (f"--user {USER} ~auth0-flask:* +@all -config", None),
        (f"--user {USER} ~app:* +@all", "permissions to access one of the keys"),
        (f"--user {USER} ~* +@read", "no permissions to run the 'set' command"),
        (f"--user {USER} ~* +@all -@scripting", "no permissions to run the 'evalsha'"),
        (f"--user {USER} ~* +@all -mget", "no permissions to run the 'mget' command"),
        (f"--user {USER} ~* +@all --replicaof 127.0.0.1 1", "read only replica"),
        (f"--user {USER} ~* +@all --cluster-enabled yes", "Hash slot not served"),
        (f"--user {USER} ~* +@all --maxmemory-policy allkeys-lru", "Set it to noevict"),
        (f"--user {USER} ~* +@all --maxmemory-policy volatile-ttl", "Set it to noevic"),
        (
            f"--user {USER} ~* +@all --maxmemory 1",
            "not allowed when used memory",
        ),
    ],
)
def test_redis_that_is_up_but_of_no_use(
    check: Check, configured: Callable[..., str], options: str, said: str | None
) -> None:
    words = [w for part in options.split("--")[1:] for w in (f"--{part}").split()]

    result = check(AUTH0_REDIS_URL=configured(*words))

    if said is None:
        assert lines(result, "ok")[-1].startswith("store: Redis"), result.output
        assert result.exit_code == 0
    else:
        assert_said(result, "wrong", said)


def test_wrong_settings_are_told_at_once_and_what_can_be_checked_is(
    check: Check,
) -> None:
    result = check(AUTH0_DOMAIN="", AUTH0_SECRET="short")

    wrong = lines(result, "wrong")
    assert [line.partition(" ")[0] for line in wrong] == [
        "AUTH0_DOMAIN",
        "AUTH0_SECRET",
    ]
    assert "routes: login, callback and logout are there" in lines(result, "ok")
    assert "tenant, callback, cookies, store" in lines(result, "skipped")[0]
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


def test_the_demo_starts_by_python_app_py_as_well(tenant: Tenant) -> None:
    port = free_port()
    command = [sys.executable, "app.py", "--port", "{port}"]
    with serving(command, tenant.environ(), port) as server:
        assert "Auth0 + Flask" in httpx.get(server.site).text

    ended = subprocess.run(
        [sys.executable, "app.py"],
        cwd=ROOT,
        env=clean_environment({}),
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert ended.returncode == 1
    assert "AUTH0_DOMAIN is missing" in ended.stderr
    assert "Traceback" not in ended.stderr


def test_a_name_that_no_setting_has_is_told_with_the_nearest(check: Check) -> None:
    result = check(AUTH0_SESION_IDLE_SECONDS="60")

    told = "AUTH0_SESION_IDLE_SECONDS is no setting; AUTH0_SESSION_IDLE_SECONDS is"
    assert_said(result, "warning", told)


def cached(view: Callable[[], Any]) -> Callable[[], Any]:
    @wraps(view)
    def from_cache() -> Any:
        return view()

    return from_cache


def test_what_stands_between_a_route_and_its_guard_is_named(check: Check) -> None:
    from auth import login_required, requires_claim

    guarded = login_required(lambda: "mine")
    good = {"good": login_required(cached(lambda: "mine")), "open": cached(lambda: "")}
    assert not lines(check(views=good), "warning")

    result = check(views={**good, "bad": requires_claim("role")(cached(guarded))})
    told = "view bad: cached.<locals>.from_cache stands above a guard"
    assert_said(result, "warning", told)


#: Stands in for Auth0's own command line: answers as told, and notes what was asked.
AUTH0 = """#!{python}
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
from dotenv import dotenv_values
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

    def __init__(self, folder: Path, tenant: Tenant) -> None:
        self.folder, self.env = folder / "shop", folder / "shop" / ".env"
        self.bin, self.environment = folder / "bin", tenant.environ(CALLBACK)
        self.folder.mkdir()
        self.bin.mkdir()
        (self.folder / "shop.py").write_text(SHOP)
        self.answers: dict[str, tuple[int, Any, str]] = {
            "tenants list": (0, [{"name": tenant.domain, "active": False}], ""),
            "apps list": (0, [7, {"name": "other", "client_id": "0"}], ""),
            "apps create": (0, {**MADE, "name": "shop"}, "=== application created"),
        }

    def setup(self, *words: str, **more: str) -> subprocess.CompletedProcess[str]:
        """Run the command as it is typed; see that it prints no secret."""
        (self.bin / "answers").write_text(json.dumps(self.answers))
        if self.answers:
            (self.bin / "auth0").write_text(AUTH0.format(python=sys.executable))
            (self.bin / "auth0").chmod(0o755)
        kept = {"SSL_CERT_FILE", "NO_PROXY", "no_proxy"}
        ended = subprocess.run(
            [FLASK_RUN[0], "--app", "shop", "auth0", "setup", *words],
            cwd=self.folder,
            env={
                **clean_environment({n: self.environment[n] for n in kept}),
                "PYTHON_DOTENV_DISABLED": "",
                "FLASK_SKIP_DOTENV": "",
                "PATH": str(self.bin),
                "PYTHONPATH": str(ROOT),
                **more,
            },
            capture_output=True,
            text=True,
            timeout=60,
        )
        assert "Traceback" not in ended.stderr
        said = ended.stdout + ended.stderr
        assert MADE["client_secret"] not in said
        assert not re.search("[0-9a-f]{64}", said)  # as AUTH0_SECRET is made
        return ended

    def settings(self) -> dict[str, str | None]:
        """Return what an app reads in `.env`."""
        return dotenv_values(self.env, interpolate=False)

    def asked(self) -> list[str]:
        """Return what `auth0` was asked."""
        path = self.bin / "asked"
        return path.read_text().splitlines() if path.exists() else []


@pytest.fixture
def project(tmp_path: Path, tenant: Tenant) -> Project:
    return Project(tmp_path, tenant)


def test_from_nothing_to_settings_that_work(project: Project, tenant: Tenant) -> None:
    ended = project.setup()

    assert ended.returncode == 0, ended.stderr
    assert "Created the application shop at" in ended.stdout
    assert "ok       tenant: discovery" in ended.stdout
    found = project.settings()
    assert len(found.pop("AUTH0_SECRET") or "") == 64
    assert found == {
        "AUTH0_DOMAIN": tenant.domain,
        "AUTH0_CLIENT_ID": MADE["client_id"],
        "AUTH0_CLIENT_SECRET": MADE["client_secret"],
        "AUTH0_REDIRECT_URI": CALLBACK,
    }
    assert project.env.stat().st_mode & 0o777 == 0o600
    assert project.asked()[-1].startswith(
        f"apps create --name shop --type regular --callbacks {CALLBACK} "
        "--reveal-secrets"
        f" --logout-urls http://localhost:5000/ --tenant {tenant.domain} --json"
    )

    written = project.env.read_bytes()
    again = project.setup()
    assert again.returncode == 0
    assert project.env.read_bytes() == written
    assert len(project.asked()) == 3


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
    ended = project.setup("--name", "The shop")

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert project.env.read_bytes().startswith(before)
    found = project.settings()
    assert found["COLOUR"] == "red"
    assert found["AUTH0_DOMAIN"] == tenant.domain
    assert found["AUTH0_CLIENT_ID"] == MADE["client_id"]
    assert "apps create --name The shop --type" in project.asked()[-1]


@pytest.mark.parametrize("place", ["file", "environment"])
def test_what_is_set_already_is_neither_made_nor_written(
    project: Project, place: str
) -> None:
    given = {n: v for n, v in project.environment.items() if n.startswith("AUTH0_")}
    del given["AUTH0_SECRET"]
    if place == "file":
        project.env.write_text("".join(f"{n}={v}\n" for n, v in given.items()))
    ended = project.setup(**(given if place == "environment" else {}))

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert "AUTH0_SECRET" in ended.stdout
    assert len(project.settings()) == 1 + (len(given) if place == "file" else 0)
    assert project.asked() == []


def test_a_dry_run_changes_nothing(project: Project) -> None:
    before = "AUTH0_ALLOWED_ORIGINS=https://www.example.com\nAUTH0_DOMAIN=eu.auth0.com"
    project.env.write_text(before)
    ended = project.setup("--dry-run", "--name", "a shop")

    urls = "http://localhost:5000/,https://www.example.com"
    names = "AUTH0_SECRET, AUTH0_REDIRECT_URI, AUTH0_CLIENT_ID, AUTH0_CLIENT_SECRET"
    assert ended.stdout.splitlines() == [
        "Would run: auth0 apps create --name 'a shop' --type regular --callbacks "
        f"{CALLBACK} --reveal-secrets --logout-urls {urls}",
        f"Would add to {project.env}: {names}",
    ]
    assert ended.returncode == 0
    assert project.env.read_text() == before
    assert project.asked() == []


EXPIRED = "auth token expired and --no-input is set"
TWO = [{"name": "a.auth0.com"}, {"name": "b.auth0.com"}]


@pytest.mark.parametrize(
    ("part", "answer", "said"),
    [
        (None, (0, "", ""), f"auth0-cli#installation\n{LOG_IN}"),
        ("tenants list", (0, [], ""), f"not logged in. {LOG_IN}"),
        ("tenants list", (1, "", "config.json is missing"), f"is missing\n{LOG_IN}"),
        ("tenants list", (0, TWO, ""), "several tenants: name one by --tenant"),
        ("tenants list", (0, [{"name": "a\nb"}], ""), "auth0 is not logged in"),
        ("tenants list", (0, "→ a.auth0.com", ""), "auth0 is not logged in"),
        ("apps list", (3, "", EXPIRED), f"auth0 apps list: {EXPIRED}\n{LOG_IN}"),
        ("apps list", (0, "none", ""), "auth0 apps list printed no list"),
        ("apps list", (0, [{"name": "shop"}], ""), "already has an application shop"),
        ("apps create", (1, "", "403 Forbidden"), "auth0 apps create: 403 Forbidden"),
        ("apps create", (0, "{", ""), "printed no client ID and client secret"),
        ("apps create", (0, [MADE], ""), "printed no client ID and client secret"),
        ("apps create", (0, {"client_id": "a"}, ""), "printed no client ID and client"),
        (
            "apps create",
            (0, {**MADE, "client_id": "a\nAUTH0_AUDIENCE=b"}, ""),
            "Look in the dashboard for shop",
        ),
    ],
)
def test_what_may_go_wrong_is_told_and_the_next_try_completes_it(
    project: Project, part: str | None, answer: tuple[int, Any, str], said: str
) -> None:
    usual = project.answers
    project.answers = {**usual, part: answer} if part else {}
    ended = project.setup()

    assert ended.returncode == 1
    assert said in ended.stderr
    assert project.settings().keys() == {"AUTH0_SECRET", "AUTH0_REDIRECT_URI"}

    project.answers = usual
    kept = project.env.read_bytes()
    if part is None:
        assert project.setup().returncode == 0
        assert project.env.read_bytes().startswith(kept)


def test_one_of_several_tenants_is_named(project: Project, tenant: Tenant) -> None:
    project.answers["tenants list"] = (0, TWO, "")

    ended = project.setup("--tenant", tenant.domain)

    assert ended.returncode == 0, ended.stdout + ended.stderr
    assert project.settings()["AUTH0_DOMAIN"] == tenant.domain


@pytest.mark.parametrize(
    ("before", "more", "said"),
    [
        (b"AUTH0_REDIRECT_URI=nowhere", {}, "AUTH0_REDIRECT_URI is not an address"),
        (b"AUTH0_SECRET=short", {}, "AUTH0_SECRET needs at least 32 bytes"),
        (b"\xff\xfeA\x00", {"FLASK_SKIP_DOTENV": "1"}, "not in UTF-8"),
        (b"", {"PYTHON_DOTENV_DISABLED": "1"}, ".env is not read"),
    ],
)
def test_nothing_is_made_before_what_is_there_is_right(
    project: Project, before: bytes, more: dict[str, str], said: str
) -> None:
    project.env.write_bytes(before)

    ended = project.setup(**more)

    assert ended.returncode == 1
    assert said in ended.stderr
    assert project.env.read_bytes() == before
    assert project.asked() == []


def test_a_file_that_cannot_be_written_is_told(project: Project) -> None:
    project.env.mkdir()

    ended = project.setup()

    assert ended.returncode == 1
    assert ".env cannot be written" in ended.stderr
    assert project.asked() == []


@pytest.fixture
def public(tenant: Tenant, request: pytest.FixtureRequest) -> Flask:
    """An app that is not under test, whose callback is as a test names it."""
    callback = getattr(request, "param", HTTPS["AUTH0_REDIRECT_URI"])
    auth, app = copy_of_auth(tenant.environ(redirect_uri=callback)), Flask("public")
    auth.init_app(app, login="in", callback="back", logout="out")
    paths = {"in": "/in", "back": "/callback", "out": "/out", "page": "/page"}
    for endpoint, path in paths.items():
        app.add_url_rule(path, endpoint, view_func=lambda: "here")
    return app


def callback_at(address: str) -> pytest.MarkDecorator:
    return pytest.mark.parametrize("public", [address], indirect=True)


def warnings(caplog: pytest.LogCaptureFixture) -> list[str]:
    found = [r for r in caplog.records if "A login came to" in r.getMessage()]
    assert all(record.levelno == logging.WARNING for record in found)
    return [record.getMessage() for record in found]


def ask(app: Flask, *addresses: str) -> None:
    for address in addresses:
        path = "/" + address.partition("://")[2].partition("/")[2]
        assert app.test_client().get(path, base_url=address.removesuffix(path))


@pytest.mark.parametrize(
    ("address", "came"),
    [
        ("http://app.example.com/in", "came to http://app.example.com/ and"),
        ("https://internal:8000/in", "came to https://internal:8000/ and"),
        ("https://127.0.0.1:8000/in", "came to https://127.0.0.1:8000/ and"),
        ("https://app.example.com:444/in", "came to https://app.example.com:444/ and"),
        ("https://www.example.com/in", "came to https://www.example.com/ and"),
        (f"https://{'long.' * 20}example/in", f"https://{'long.' * 14}lo and"),
    ],
)
def test_one_warning_where_logins_come_otherwise_than_was_said(
    public: Flask, caplog: pytest.LogCaptureFixture, address: str, came: str
) -> None:
    ask(public, address, address, "http://elsewhere.example/in")

    (warning,) = warnings(caplog)
    assert came in warning
    assert "AUTH0_REDIRECT_URI is https on 'app.example.com'" in warning
    assert "X-Forwarded-Proto" in warning
    assert "ProxyFix" in warning


def test_no_warning_where_logins_come_as_was_said(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(
        public,
        "http://10.0.0.7:8000/page",  # health checks, and others that do not sign in
        "http://scanner.example/wp-login.php",
        "https://APP.example.com:443/in",
        "https://app.example.com/in",
    )

    assert warnings(caplog) == []


@callback_at("http://localhost:5000/callback")
def test_between_loopback_names_there_is_no_warning_but_between_ports(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(public, "http://127.0.0.1:5000/in", "http://[::1]:5000/in")
    assert warnings(caplog) == []

    ask(public, "http://127.0.0.1:8000/in")
    assert "http://127.0.0.1:8000/" in warnings(caplog)[0]


def test_no_warning_in_tests(public: Flask, caplog: pytest.LogCaptureFixture) -> None:
    public.testing = True

    ask(public, "http://localhost/in", "http://elsewhere.example/in")

    assert warnings(caplog) == []


@callback_at("https://app.example.com/sub/callback")
def test_a_path_that_is_not_the_callbacks_is_told_at_the_first_login(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    ask(public, *["https://app.example.com/in"] * 2)

    (warning,) = warnings(caplog)
    assert "its callback is at '/callback', but" in warning
    assert "path '/sub/callback'" in warning


@callback_at("https://app.example.com/sub/callback")
def test_a_mounted_app_knows_its_whole_path(
    public: Flask, caplog: pytest.LogCaptureFixture
) -> None:
    public.test_client().get("/in", base_url="https://app.example.com/sub")

    assert warnings(caplog) == []
