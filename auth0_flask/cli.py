"""``flask auth0``: set the login up, check it, and end sessions."""

from __future__ import annotations

import json
import os
import re
import shlex
import subprocess
import sys
import time
import zlib
from collections.abc import Iterator, Mapping
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from secrets import token_hex
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import click
import httpx
from dotenv import find_dotenv
from flask import current_app
from flask.cli import AppGroup, ScriptInfo
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, MapAdapter
from werkzeug.test import create_environ

from .client import current_client
from .errors import StoreUnavailable
from .guards import covered_guards
from .redirects import ROLES, extension
from .settings import (
    Settings,
    SetupError,
    given_settings,
    is_dotenv_disabled,
    misspelled_settings,
    read_dotenv,
)
from .stores.cookies import CLOCK_TOLERANCE, OwnCookies
from .stores.shared import shared_store
from .verification import rs256_keys

OK, WARNING, WRONG, SKIPPED = "ok", "warning", "wrong", "skipped"
#: One of the four, and what there is to say.
Finding = tuple[str, str]
_NO_TENANT = "Is AUTH0_DOMAIN the domain of an Auth0 tenant? The dashboard shows it."
_CURES = "See AUTH0_DOMAIN, HTTPS_PROXY, SSL_CERT_FILE and the firewall (port 443)."
#: What an application at Auth0 gives.
_OF_APPLICATION = ("AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET")
_PLAIN = re.compile(r"[\w.:/~+=-]+", re.ASCII)  # needs no quotes in .env
_SAMESITE, _SECURE = "SESSION_COOKIE_SAMESITE", "SESSION_COOKIE_SECURE"
_LOG_IN = "Log in and try again:\n\n  auth0 login\n  flask auth0 setup"

auth0_commands = AppGroup("auth0", help="Set up and check the login, and end sessions.")


@auth0_commands.command("setup")
@click.option("--name", help="The application's name; otherwise that of the folder.")
@click.option("--tenant", help="The one to use, if auth0 is logged in to several.")
@click.option("--dry-run", is_flag=True, help="Show what it would do, and do nothing.")
def setup(name: str | None, tenant: str | None, dry_run: bool) -> None:
    """Create an application at Auth0, add what .env lacks, and check."""
    if is_dotenv_disabled():
        raise click.ClickException("PYTHON_DOTENV_DISABLED is set: .env is not read.")
    path, (dotenv, problems) = find_dotenv(usecwd=True) or ".env", read_dotenv()
    given = given_settings({**dotenv, **os.environ})
    ours = {"AUTH0_SECRET": token_hex(32), "AUTH0_REDIRECT_URI": _local_callback()}
    draft = {**dict.fromkeys(_OF_APPLICATION, "none"), **ours, **given}
    settings = Settings.from_environment(draft)
    if problems := (*problems, *settings.problems):
        raise SetupError(problems)
    name = name or Path(current_app.root_path).name
    logout_urls = _dashboard_addresses(settings)["Allowed Logout URLs"]
    create = [
        *("apps", "create", "--name", name, "--type", "regular"),
        *("--callbacks", settings.redirect_uri, "--reveal-secrets"),
        *("--logout-urls", logout_urls.replace(" ", "")),
    ]
    has_one = any(n.startswith("AUTH0_CLIENT_") for n in given)
    theirs = () if has_one else _OF_APPLICATION
    missing = [n for n in (*ours, *theirs) if n not in given]
    if dry_run:
        if theirs:
            click.echo(f"Would run: {shlex.join(['auth0', *create])}")
        click.echo(f"Would add to {path}: {', '.join(missing) or 'nothing'}")
        return
    _append(path, {n: ours[n] for n in missing if n in ours})
    if theirs:
        tenant = tenant or given.get("AUTH0_DOMAIN") or _tenant_logged_in_to()
        made = _create(name, [*create, "--tenant", tenant], tenant)
        _append(path, {n: made[n] for n in missing if n in made})
    # in a process of its own, which reads the settings anew
    app = click.get_current_context().ensure_object(ScriptInfo).app_import_path
    flask = [sys.executable, "-m", "flask", *(["--app", app] if app else [])]
    kept = {n: v for n, v in os.environ.items() if dotenv.get(n) != v}
    sys.exit(subprocess.call([*flask, "auth0", "check"], env=kept))  # noqa: S603  # ourselves


@auth0_commands.command("check")
def check() -> None:
    """Check settings, tenant and app; exit with 1 if anything is wrong."""
    settings, wrong = current_client().settings, False
    for status, text in _findings(settings):
        click.echo(f"{status:<9}{text}")
        wrong |= status == WRONG
    if not settings.problems:
        click.echo("\nFor https://manage.auth0.com, Applications, yours, Settings:")
        for name, value in _dashboard_addresses(settings).items():
            click.echo(f"  {name + ':':<25} {value}")
    if wrong:
        sys.exit(1)


@auth0_commands.command("revoke")
@click.option("--sub", help="End all sessions of this user, such as auth0|123.")
@click.option("--sid", help="End the one session that Auth0 knows by this id.")
@click.option("--all", "everybody", is_flag=True, help="End everybody's sessions.")
def revoke(sub: str | None, sid: str | None, everybody: bool) -> None:
    """End sessions at once, wherever their cookies are."""
    if [bool(sub), bool(sid), everybody].count(True) != 1:
        raise click.UsageError("Give one of --sub SUB, --sid SID and --all.")
    client = current_client()
    client.settings.require()
    if not shared_store().remembers:
        cure = "Name a file there, or change AUTH0_SECRET to end all sessions."
        raise click.ClickException(f"AUTH0_REVOCATIONS_PATH is none. {cure}")
    lifetime, known = client.sessions.lifetime, "not known how many"
    with suppress(StoreUnavailable):  # the list of devices decides nothing
        known = f"{len(lifetime.devices(sub))} known" if sub else known
    try:
        lifetime.end_all(sub=sub, sid=sid)
    except StoreUnavailable as error:
        raise click.ClickException(f"Nothing was ended: {error.__cause__}") from None
    whose = f"of {sub}" if sub else f"with the sid {sid}" if sid else "of everybody"
    click.echo(f"Ended: all sessions {whose} that began before now ({known}).")


def _local_callback() -> str:
    """Return the address of the app's callback under ``flask run``."""
    urls = current_app.url_map.bind("localhost:5000")
    with suppress(BuildError):
        return urls.build(extension().endpoints.name("callback"), force_external=True)
    return "http://localhost:5000/callback"


def _append(path: str, lines: Mapping[str, str]) -> None:
    """Add lines to a `.env` and leave the rest as it is; say which."""
    if not lines:
        return
    text = "".join(f"{name}={value}\n" for name, value in lines.items())
    try:
        # if it is made here, for its owner alone
        with open(os.open(path, os.O_RDWR | os.O_CREAT, 0o600), "rb+") as file:
            before = file.read()
            begin = "\n" if before and not before.endswith(b"\n") else ""
            file.write(f"{begin}{text}".encode())
    except OSError as error:
        raise click.ClickException(f"{path} cannot be written: {error}") from None
    click.echo(f"Added to {path}: {', '.join(lines)}")


def _tenant_logged_in_to() -> str:
    match _auth0("tenants", "list"):
        case [{"name": str(name)}] if _PLAIN.fullmatch(name):
            return name
        case [_, _, *_]:
            told = "auth0 is logged in to several tenants: choose one with --tenant."
        case _:
            told = f"auth0 is not logged in. {_LOG_IN}"
    raise click.ClickException(told)


def _create(name: str, command: list[str], tenant: str) -> dict[str, str]:
    """Create an application at Auth0; return the settings that it gives."""
    known = _auth0("apps", "list", "--number", "1000", "--tenant", tenant)
    if not isinstance(known, list):
        raise click.ClickException(f"auth0 apps list printed no list. {_LOG_IN}")
    if any(isinstance(app, dict) and app.get("name") == name for app in known):
        what = f"{tenant} already has an application {name}"
        raise click.ClickException(f"{what}: choose another --name.")
    match _auth0(*command):
        case {"client_id": str(client_id), "client_secret": str(secret)} if (
            _PLAIN.fullmatch(client_id) and _PLAIN.fullmatch(secret)
        ):
            click.echo(f"Created the application {name} at {tenant}.")
            return dict(zip(_OF_APPLICATION, (tenant, client_id, secret), strict=True))
    what = "auth0 apps create printed no client ID and client secret."
    raise click.ClickException(f"{what} Look in the dashboard for {name}.")


def _auth0(*words: str) -> Any:
    """Run Auth0's command line; return the JSON that it prints, None for other text."""
    command = ["auth0", *words, "--json", "--no-color", "--no-input"]
    try:
        done = subprocess.run(command, capture_output=True, timeout=60)  # noqa: S603  # as asked
    except (OSError, subprocess.TimeoutExpired):
        where = "https://github.com/auth0/auth0-cli#installation"
        told = f"The program auth0 is missing or does not answer. See {where}"
        raise click.ClickException(f"{told}\n{_LOG_IN}") from None
    if done.returncode:
        told = done.stderr.decode(errors="replace").rstrip()
        raise click.ClickException(f"auth0 {words[0]} {words[1]}: {told}\n{_LOG_IN}")
    with suppress(ValueError):
        return json.loads(done.stdout)
    return None


def _findings(settings: Settings) -> Iterator[Finding]:
    """Yield what each check finds, or that it found nothing."""
    yield from ((WRONG, problem) for problem in settings.problems)
    for name, near in misspelled_settings().items():
        yield WARNING, f"{name} is not a setting. Did you mean {near}?"
    checks = {
        "routes: login, callback and logout are registered": _routes(),
        "guards: no decorator stands between a guard and its route": (
            (WARNING, f"View {name}: {text}")
            for name, text in covered_guards(current_app)
        ),
    }
    left = "tenant, callback, cookies, store: need correct settings first"
    if not settings.problems:
        left = "client ID and secret: only a login tries them; see client_refused"
        checks |= {
            "AUTH0_SECRET: does not look guessable": _secrets(settings),
            "tenant: discovery, issuer, keys and clock": _tenant(settings),
            "callback: AUTH0_REDIRECT_URI leads to the app": _callback(settings),
            "session cookie: its attributes, name and path": _cookie(settings),
            f"store: {shared_store().name}": _store(),
        }
    for ok, check in checks.items():
        yield from list(check) or [(OK, ok)]
    yield SKIPPED, left


def _routes() -> Iterator[Finding]:
    for role in ROLES:
        try:
            extension().endpoints.require(role)
        except RuntimeError as error:
            yield WRONG, f"{role}: {error}"


def _secrets(settings: Settings) -> Iterator[Finding]:
    given = settings.secrets
    if any(s in (s + s)[1:-1] or len(zlib.compress(s.encode())) < 32 for s in given):
        what = "AUTH0_SECRET has few different characters or repeats itself."
        yield WARNING, f"{what} {Settings.model_fields['secrets'].description}"


def _tenant(settings: Settings) -> Iterator[Finding]:
    """Ask the tenant what a login needs of it, without logging in."""
    url = f"https://{settings.domain}/.well-known/openid-configuration"
    try:
        answer, found = _fetch(f"discovery at {url}", url)
        yield from _discovery(settings, found)
        yield from _clock(answer)
        _, jwks = _fetch("keys at the jwks_uri of discovery", found.get("jwks_uri"))
        if not rs256_keys(jwks):
            where = "the dashboard: Applications, Settings, Advanced Settings, OAuth"
            yield WRONG, f"keys: none is for RS256. Choose it in {where}."
    except ValueError as error:
        yield WRONG, str(error)


def _discovery(settings: Settings, found: Mapping[str, Any]) -> Iterator[Finding]:
    issuer = str(found.get("issuer", ""))
    if issuer.lower().removeprefix("https://").rstrip("/") != settings.domain:
        yield WRONG, f"issuer: it is {issuer[:80]!r}. Set AUTH0_DOMAIN to its domain."
    for name in ("authorization_endpoint", "token_endpoint"):
        if not found.get(name):
            yield WRONG, f"discovery names no {name}. {_NO_TENANT}"
    methods = found.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        yield WRONG, f"PKCE: discovery does not name S256. {_NO_TENANT}"
    name, pushed = "AUTH0_PUSHED_AUTHORIZATION_REQUESTS", "pushed_authorization_request"
    if not settings.pushed_authorization_requests:
        if found.get(f"require_{pushed}s") is True:
            yield WRONG, f"{name} must be true: the tenant requires it."
    elif not found.get(f"{pushed}_endpoint"):
        yield WRONG, f"{name} must be false: the tenant has no address for them."


def _clock(answer: httpx.Response) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        yield SKIPPED, "clock: the tenant's answer has no Date"
        return
    apart = abs(time.time() - answer.elapsed.total_seconds() / 2 - theirs)
    told = f"clock: this machine and the tenant are {apart:.0f} seconds apart"
    if apart > CLOCK_TOLERANCE:
        yield WRONG, f"{told}, so that logins are refused. Set this machine's by NTP."
    elif apart > 10:
        yield WARNING, f"{told}. Set this machine's by NTP."


def _fetch(what: str, url: Any) -> tuple[httpx.Response, dict[str, Any]]:
    """Fetch a JSON object; a ValueError says why it cannot be had, and the cure."""
    try:
        answer = httpx.get(str(url), timeout=5)
    except (httpx.HTTPError, httpx.InvalidURL, ValueError) as error:
        raise ValueError(f"{what}: {error or type(error).__name__}. {_CURES}") from None
    if answer.status_code != 200:
        raise ValueError(f"{what}: the response is {answer.status_code}. {_NO_TENANT}")
    with suppress(ValueError):
        if isinstance(document := answer.json(), dict):
            return answer, document
    raise ValueError(f"{what}: the response is not a JSON object. {_NO_TENANT}")


def _callback(settings: Settings) -> Iterator[Finding]:
    try:
        endpoint = extension().endpoints.require("callback")
        _, prefix = _mounted(settings)
    except RuntimeError:
        yield SKIPPED, "callback: the app has no such endpoint"
        return
    except HTTPException:
        yield WRONG, "TRUSTED_HOSTS of the app refuses the host of AUTH0_REDIRECT_URI."
        return
    if prefix is None:
        rules = " or ".join(r.rule for r in current_app.url_map.iter_rules(endpoint))
        told = f"AUTH0_REDIRECT_URI is not the app's, which is {rules}. Correct it"
        yield WARNING, f"callback: the path of {told}, unless a proxy changes paths."
    elif prefix and not getattr(current_app.wsgi_app, "x_prefix", 0):
        told = f"{prefix!r} in AUTH0_REDIRECT_URI is the app's only if its server sets"
        ways = "SCRIPT_NAME, or a proxy X-Forwarded-Prefix, for ProxyFix (x_prefix=1)."
        is_known = prefix == current_app.config["APPLICATION_ROOT"].rstrip("/")
        yield SKIPPED if is_known else WARNING, f"callback: {told} {ways}"


def _mounted(settings: Settings) -> tuple[MapAdapter, str | None]:
    """Return the app's addresses under the callback's host, and what precedes them.

    None where the callback's path is not the app's. An HTTPException says that the
    app's ``TRUSTED_HOSTS`` are without that host.
    """
    request = current_app.request_class(create_environ(base_url=settings.origin))
    adapter = cast(MapAdapter, current_app.create_url_adapter(request))
    path = unquote(settings.callback.path)
    for start in [i for i, character in enumerate(path) if character == "/"]:
        with suppress(HTTPException):
            endpoint = adapter.match(path[start:], "GET")[0]
            if extension().endpoints.role(endpoint) == "callback":
                return adapter, path[:start]
    return adapter, None


def _dashboard_addresses(settings: Settings) -> dict[str, str]:
    """Return what the application's settings at Auth0 need, by their names there."""
    base, adapter = settings.origin, None
    with suppress(HTTPException):
        adapter, prefix = _mounted(settings)
        base += prefix or ""
    found = {
        "Allowed Callback URLs": settings.redirect_uri,
        "Allowed Logout URLs": ", ".join([f"{base}/", *settings.allowed_origins]),
    }
    for endpoint in current_app.view_functions:
        if adapter and endpoint.rpartition(".")[2] == "backchannel_logout":
            with suppress(BuildError):  # parts of its path are for the app to fill in
                path = urlsplit(adapter.build(endpoint, method="POST")).path
                found["Back-Channel Logout URI"] = f"{base}{path}"
    return found


def _cookie(settings: Settings) -> Iterator[Finding]:
    interface, app = current_app.session_interface, current_app
    samesite = (interface.get_cookie_samesite(app) or "not set").title()
    secure, scheme = interface.get_cookie_secure(app), settings.callback.scheme
    name = interface.get_cookie_name(app).lower()
    if samesite == "Strict":
        yield WRONG, f"{_SAMESITE} is Strict: logins cannot complete. Set it to 'Lax'."
    elif samesite != "Lax":
        yield WARNING, f"{_SAMESITE} is {samesite}. Set it to 'Lax'."
    if samesite == "None" and not secure:
        yield WRONG, f"browsers drop SameSite=None without {_SECURE} = True"
    if not interface.get_cookie_httponly(app):
        yield WARNING, "SESSION_COOKIE_HTTPONLY is off: scripts can read the session."
    if secure != (scheme == "https"):
        yield WARNING, f"{_SECURE} is {secure}, but AUTH0_REDIRECT_URI is {scheme}."
    # RFC 6265bis section 4.1.3
    is_host = OwnCookies(interface, app, {}).name.startswith("__Host-")
    for prefix, is_met in {"__host-": is_host, "__secure-": secure}.items():
        if name.startswith(prefix) and not is_met:
            yield WRONG, f"SESSION_COOKIE_NAME: browsers drop {prefix} as it is set up."
    path = interface.get_cookie_path(app).rstrip("/")
    if not f"{settings.callback.path}/".startswith(f"{path}/"):
        yield WRONG, f"AUTH0_REDIRECT_URI is not below SESSION_COOKIE_PATH, {path}."


def _store() -> Iterator[Finding]:
    store = shared_store()
    try:
        yield from ((WRONG, problem) for problem in store.problems())
    except StoreUnavailable as error:
        yield WRONG, f"store: {store.name}: it cannot be used: {error.__cause__}"
