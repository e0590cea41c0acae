"""``flask auth0``: set the login up, check it, and end sessions."""

from __future__ import annotations

import json
import os
import re
import shlex
import socket
import ssl
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import suppress
from email.utils import parsedate_to_datetime
from pathlib import Path
from secrets import token_hex
from typing import Any

import click
import httpx
from dotenv import find_dotenv
from flask import current_app
from flask.cli import AppGroup, ScriptInfo
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError

from .client import current_client
from .errors import StoreUnavailable, error_chain
from .guards import COVERED_GUARD, covered_guards
from .redirects import ROLES, callback_prefix, dashboard_addresses, endpoints
from .settings import (
    Settings,
    SetupError,
    append_to_dotenv,
    given_settings,
    misspelled_settings,
    read_dotenv,
)
from .stores.cookies import CLOCK_TOLERANCE, OwnCookies
from .stores.shared import shared_store
from .verification import rs256_keys

OK, WARNING, WRONG, SKIPPED = "ok", "warning", "wrong", "skipped"
#: One of the four, and what there is to say.
Finding = tuple[str, str]
#: Seconds for an answer of the tenant; that clocks may differ without a warning.
_SECONDS, _CLOCK_WARNING = 5, 10
_FEW_CHARACTERS = 8
_NO_TENANT = "Is AUTH0_DOMAIN the domain of an Auth0 tenant? The dashboard shows it."
#: What is said of an exception or its causes, the first that fits; and the cure.
_REASONS: dict[type[Exception], str] = {
    ssl.SSLCertVerificationError: "its TLS certificate is not trusted here",
    socket.gaierror: "DNS does not know the host",
    UnicodeError: "DNS does not know the host",
    httpx.TimeoutException: f"no answer within {_SECONDS} seconds",
    TimeoutError: f"no answer within {_SECONDS} seconds",
    httpx.InvalidURL: "there is no https address to ask",
    httpx.UnsupportedProtocol: "there is no https address to ask",
    Exception: "the connection failed",
}
_CURES = "See AUTH0_DOMAIN, HTTPS_PROXY, SSL_CERT_FILE and the firewall (port 443)."
#: What an application at Auth0 gives.
_OF_APPLICATION = ("AUTH0_DOMAIN", "AUTH0_CLIENT_ID", "AUTH0_CLIENT_SECRET")
_PLAIN = re.compile(r"[\w.:/~+=-]+", re.ASCII)  # needs no quotes in .env
_LOG_IN = "Log in and try again:\n\n  auth0 login\n  flask auth0 setup"

auth0_commands = AppGroup("auth0")


@auth0_commands.command("setup")
@click.option("--name", help="The application's name; otherwise that of the folder.")
@click.option("--tenant", help="The one to use, if auth0 is logged in to several.")
@click.option("--dry-run", is_flag=True, help="Show what it would do, and do nothing.")
def setup(name: str | None, tenant: str | None, dry_run: bool) -> None:
    """Create an application at Auth0, add what .env lacks, and check."""
    if os.environ.get("PYTHON_DOTENV_DISABLED"):
        raise click.ClickException("PYTHON_DOTENV_DISABLED is set: .env is not read.")
    path, (dotenv, problems) = find_dotenv(usecwd=True) or ".env", read_dotenv()
    given = given_settings({**dotenv, **os.environ})
    ours = {"AUTH0_SECRET": token_hex(32), "AUTH0_REDIRECT_URI": _local_callback()}
    draft = {**dict.fromkeys(_OF_APPLICATION, "none"), **ours, **given}
    settings = Settings.from_environment(draft)
    if problems := (*problems, *settings.problems):
        raise SetupError(problems)
    name = name or Path(current_app.root_path).name
    create = ["apps", "create", "--name", name, "--type", "regular"]
    create += ["--callbacks", settings.redirect_uri, "--reveal-secrets"]
    logout_urls = dashboard_addresses(settings)["Allowed Logout URLs"]
    create += ["--logout-urls", logout_urls.replace(" ", "")]
    has_one = any(n.startswith("AUTH0_CLIENT_") for n in given)
    theirs = () if has_one else _OF_APPLICATION
    missing = [n for n in (*ours, *theirs) if n not in given]
    if dry_run:
        if theirs:
            click.echo(f"Would run: {shlex.join(['auth0', *create])}")
        click.echo(f"Would add to {path}: {', '.join(missing) or 'nothing'}")
        return
    append_to_dotenv(path, {n: ours[n] for n in missing if n in ours})
    if theirs:
        tenant = tenant or given.get("AUTH0_DOMAIN") or _tenant_logged_in_to()
        made = _create(name, [*create, "--tenant", tenant], tenant)
        append_to_dotenv(path, {n: made[n] for n in missing if n in made})
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
        wrong = wrong or status == WRONG
    if not settings.problems:
        click.echo("\nFor https://manage.auth0.com, Applications, yours, Settings:")
        for name, value in dashboard_addresses(settings).items():
            click.echo(f"  {name + ':':<25} {value}")
    if wrong:
        click.get_current_context().exit(1)


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
        raise click.ClickException(
            "AUTH0_REVOCATIONS_PATH is none, so no revocation is remembered. Name a "
            "file there, or change AUTH0_SECRET to end all sessions."
        )
    try:
        client.sessions.lifetime.end_all(sub=sub, sid=sid)
    except StoreUnavailable as error:
        raise click.ClickException(f"Nothing was ended: {error.__cause__}") from None
    whose = f"of {sub}" if sub else f"with the sid {sid}" if sid else "of everybody"
    click.echo(f"Ended: all sessions {whose} that began before now.")


def _local_callback() -> str:
    """Return the address of the app's callback under ``flask run``."""
    urls = current_app.url_map.bind("localhost:5000")
    with suppress(BuildError):
        return urls.build(endpoints().name("callback"), force_external=True)
    return "http://localhost:5000/callback"


def _tenant_logged_in_to() -> str:
    match _auth0("tenants", "list"):
        case [{"name": str(name)}] if _PLAIN.fullmatch(name):
            return name
        case [_, _, *_]:
            told = "auth0 is logged in to several tenants: name one by --tenant."
        case _:
            told = f"auth0 is not logged in. {_LOG_IN}"
    raise click.ClickException(told)


def _create(name: str, command: list[str], tenant: str) -> dict[str, str]:
    """Create an application at Auth0; return the settings that it gives."""
    known = _auth0("apps", "list", "--number", "1000", "--tenant", tenant)
    if not isinstance(known, list):
        raise click.ClickException(f"auth0 apps list printed no list. {_LOG_IN}")
    if any(isinstance(app, dict) and app.get("name") == name for app in known):
        what = f"{tenant} already has an application {name}: choose another --name,"
        cure = "or copy its client ID and client secret into .env."
        raise click.ClickException(f"{what} {cure}")
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
        told = f"auth0 {words[0]} {words[1]}: {done.stderr.decode(errors='replace')}"
        raise click.ClickException(f"{told.rstrip()}\n{_LOG_IN}")
    with suppress(ValueError):
        return json.loads(done.stdout)
    return None


def _findings(settings: Settings) -> Iterator[Finding]:
    """Yield what each check finds, or that it found nothing."""
    yield from ((WRONG, problem) for problem in settings.problems)
    for name, near in misspelled_settings().items():
        yield WARNING, f"{name} is no setting; {near} is. Correct its name."
    checks = {
        "routes: login, callback and logout are there": _routes(),
        "guards: nothing stands between them and their routes": _guards(),
    }
    if not settings.problems:
        checks |= {
            "AUTH0_SECRET: does not look guessable": _secrets(settings),
            "tenant: discovery, issuer, keys and clock": _tenant(settings),
            "callback: AUTH0_REDIRECT_URI leads to the app's": _callback(settings),
            "session cookie: its attributes, name and path": _cookie(settings),
            f"store: {shared_store().name}": _store(),
        }
    for ok, check in checks.items():
        yield from list(check) or [(OK, ok)]
    if settings.problems:
        yield SKIPPED, "tenant, callback, cookies, store: once the settings are right"
        return
    key = settings.client_assertion_signing_key is not None
    name = f"AUTH0_CLIENT_{'ASSERTION_SIGNING_KEY' if key else 'SECRET'}"
    what = f"AUTH0_CLIENT_ID and {name}: only a login tries them. Sign in once;"
    yield SKIPPED, f"{what} client_refused in the log means that they are wrong."


def _routes() -> Iterator[Finding]:
    for role in ROLES:
        if (name := endpoints().name(role)) not in current_app.view_functions:
            what = f"{role}: the app has no endpoint {name or role!r}."
            cure = f"Register auth.routes, or name it: init_app(app, {role}=...)"
            yield WRONG, f"{what} {cure}"


def _guards() -> Iterator[Finding]:
    for endpoint, name in covered_guards(current_app):
        yield WARNING, f"view {endpoint}: {COVERED_GUARD.format(name)}"


def _secrets(settings: Settings) -> Iterator[Finding]:
    if any(map(_is_weak, settings.secrets)):
        what = "AUTH0_SECRET has few different characters or repeats itself."
        yield WARNING, f"{what} {Settings.model_fields['secrets'].description}"


def _is_weak(secret: str) -> bool:
    """Tell few different characters, and a word over and over (cut off or not)."""
    periods = range(1, len(secret) // 2 + 1)
    repeats = any(secret.startswith(secret[period:]) for period in periods)
    return repeats or len(set(secret)) < _FEW_CHARACTERS


def _tenant(settings: Settings) -> Iterator[Finding]:
    """Ask the tenant what a login needs of it, without logging in."""
    url = f"https://{settings.domain}/.well-known/openid-configuration"
    try:
        answer, document = _fetch(url)
    except _NotFetched as error:
        yield WRONG, f"discovery at {url}: {error}"
        return
    issuer = str(document.get("issuer", ""))
    if issuer.lower().removeprefix("https://").rstrip("/") != settings.domain:
        cure = "set AUTH0_DOMAIN to the domain in that"
        yield WRONG, f"issuer: it is {issuer[:80]!r}; {cure}"
    names = ("authorization_endpoint", "token_endpoint")
    if missing := " and no ".join(name for name in names if not document.get(name)):
        yield WRONG, f"discovery names no {missing}. {_NO_TENANT}"
    methods = document.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        yield WRONG, f"PKCE: discovery does not name S256. {_NO_TENANT}"
    yield from _keys(document)
    yield from _clock(answer)
    name = "AUTH0_PUSHED_AUTHORIZATION_REQUESTS"
    wanted = settings.pushed_authorization_requests
    if wanted and not document.get("pushed_authorization_request_endpoint"):
        cure = "In the dashboard: Settings, Advanced; or set it to false."
        yield WRONG, f"{name}: the tenant has no address for them. {cure}"
    elif not wanted and document.get("require_pushed_authorization_requests") is True:
        yield WRONG, f"{name} must be true: the tenant requires it"


def _keys(document: dict[str, Any]) -> Iterator[Finding]:
    try:
        _, jwks = _fetch(document.get("jwks_uri"))
    except _NotFetched as error:
        yield WRONG, f"keys at the jwks_uri of discovery: {error}"
        return
    if not rs256_keys(jwks):
        what = "keys: none is for RS256, which ID tokens must be signed with."
        where = "Applications, Settings, Advanced Settings, OAuth, and Settings"
        yield WRONG, f"{what} In the dashboard: {where}, Signing Keys."


def _clock(answer: httpx.Response) -> Iterator[Finding]:
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        yield SKIPPED, "clock: the tenant's answer has no Date"
        return
    apart = abs(time.time() - answer.elapsed.total_seconds() / 2 - theirs)
    refused = ", so that logins are refused" if apart > CLOCK_TOLERANCE else ""
    told = f"clock: this machine and the tenant are {apart:.0f} seconds apart{refused}"
    if apart > _CLOCK_WARNING:
        cure = "Set this machine's clock by NTP (timedatectl set-ntp true)."
        yield WRONG if refused else WARNING, f"{told}. {cure}"


def _callback(settings: Settings) -> Iterator[Finding]:
    endpoint = endpoints().name("callback")
    if endpoint not in current_app.view_functions:
        yield SKIPPED, "callback: the app has no such endpoint"
        return
    try:
        prefix = callback_prefix(settings)
    except HTTPException:
        cure = "Add it to TRUSTED_HOSTS of the app, or correct AUTH0_REDIRECT_URI."
        what = "callback: the app refuses the host of AUTH0_REDIRECT_URI."
        yield WRONG, f"{what} {cure}"
        return
    if prefix is None:
        rules = " or ".join(r.rule for r in current_app.url_map.iter_rules(endpoint))
        what = "callback: the path of AUTH0_REDIRECT_URI is not the app's, which is"
        cure = "Correct AUTH0_REDIRECT_URI, and Allowed Callback URLs in the dashboard,"
        more = "unless a proxy in front changes paths."
        yield WARNING, f"{what} {rules}. {cure} {more}"
    elif prefix not in {"", current_app.config["APPLICATION_ROOT"].rstrip("/")}:
        what = f"callback: {prefix!r} in AUTH0_REDIRECT_URI is not of the app. If a"
        cure = "proxy takes it away, tell the app by X-Forwarded-Prefix and Werkzeug's"
        more = "ProxyFix (x_prefix=1); if the app is mounted there, all is well."
        yield WARNING, f"{what} {cure} {more}"


def _cookie(settings: Settings) -> Iterator[Finding]:
    interface, callback = current_app.session_interface, settings.callback
    samesite = (interface.get_cookie_samesite(current_app) or "").lower()
    if samesite != "lax":
        what = f"SESSION_COOKIE_SAMESITE is {samesite.title() or 'not set'}"
        cure = 'Set it: app.config["SESSION_COOKIE_SAMESITE"] = "Lax"'
        strict = samesite == "strict"
        told = (
            f"{what}: logins cannot complete. {cure}" if strict else f"{what}. {cure}"
        )
        yield WRONG if strict else WARNING, told
    if not interface.get_cookie_httponly(current_app):
        what = "SESSION_COOKIE_HTTPONLY is off: scripts can read the session."
        yield WARNING, f'{what} Set it: app.config["SESSION_COOKIE_HTTPONLY"] = True'
    secure, https = interface.get_cookie_secure(current_app), callback.scheme == "https"
    if secure != https:
        what = f"SESSION_COOKIE_SECURE is {secure}, but AUTH0_REDIRECT_URI is"
        cure = f'Set it: app.config["SESSION_COOKIE_SECURE"] = {https}'
        yield WARNING, f"{what} {callback.scheme}. {cure}"
    if samesite == "none" and not secure:
        yield WRONG, "browsers drop SameSite=None without SESSION_COOKIE_SECURE = True"
    # RFC 6265bis section 4.1.3
    name = interface.get_cookie_name(current_app).lower()
    own = OwnCookies(interface, current_app, {}).name.lower()
    if (name.startswith(("__host-", "__secure-")) and not secure) or (
        name.startswith("__host-") and not own.startswith("__host-")
    ):
        text = "browsers drop a cookie of this prefix with these attributes"
        yield WRONG, f"SESSION_COOKIE_NAME: {text}. Take another name."
    path = interface.get_cookie_path(current_app).rstrip("/")
    if not f"{callback.path}/".startswith(f"{path}/"):
        cure = "Correct APPLICATION_ROOT or SESSION_COOKIE_PATH."
        text = "AUTH0_REDIRECT_URI is not below its path, so logins cannot complete"
        yield WRONG, f"session cookie: {text}. {cure}"


def _store() -> Iterator[Finding]:
    store = shared_store()
    try:
        yield from ((WRONG, problem) for problem in store.problems())
    except StoreUnavailable as error:
        yield WRONG, f"{store.name} cannot be used: {error.__cause__}"


class _NotFetched(Exception):
    """A document could not be had; the text says why, and the cure."""


def _fetch(url: Any) -> tuple[httpx.Response, dict[str, Any]]:
    try:
        answer = httpx.get(str(url), timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        chain = tuple(error_chain(error))
        fits = (w for k, w in _REASONS.items() if any(isinstance(e, k) for e in chain))
        raise _NotFetched(f"{next(fits)}. {_CURES}") from error
    if answer.status_code != 200:
        raise _NotFetched(f"the answer is {answer.status_code}. {_NO_TENANT}")
    with suppress(ValueError):
        if isinstance(document := answer.json(), dict):
            return answer, document
    raise _NotFetched(f"the answer is no JSON object. {_NO_TENANT}")
