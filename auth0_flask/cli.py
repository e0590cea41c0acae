"""``flask auth0``: what is wrong with a setup, and ending sessions by command."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any, cast
from urllib.parse import unquote, urlsplit

import click
import httpx
from flask import current_app
from flask.cli import AppGroup
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, MapAdapter
from werkzeug.test import create_environ

from .client import current_client
from .errors import StoreUnavailable, error_chain
from .guards import COVERED_GUARD, covered_guards
from .redirects import ROLES, endpoints
from .settings import Settings, misspelled_settings
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
_UNTRUSTED = (
    "its TLS certificate is not trusted here. If a proxy inspects TLS, set "
    "SSL_CERT_FILE to a file with its certificate; else AUTH0_DOMAIN is mistaken."
)
_NO_HOST = "DNS does not know the host. Correct AUTH0_DOMAIN, HTTPS_PROXY, or DNS here."
_NO_ANSWER = (
    f"no answer within {_SECONDS} seconds. Does a firewall let this machine out to "
    "port 443? Is HTTPS_PROXY right?"
)
_NO_ADDRESS = "there is no https address to ask. See AUTH0_DOMAIN and HTTPS_PROXY."
_FAILED = "the connection failed. See AUTH0_DOMAIN, HTTPS_PROXY, the firewall."
#: What is said of an exception or its causes; the first that fits.
_SENTENCES: list[tuple[tuple[type[Exception], ...], str]] = [
    ((ssl.SSLCertVerificationError,), _UNTRUSTED),
    ((socket.gaierror, UnicodeError), _NO_HOST),
    ((httpx.TimeoutException, TimeoutError), _NO_ANSWER),
    ((httpx.InvalidURL, httpx.UnsupportedProtocol), _NO_ADDRESS),
    ((Exception,), _FAILED),
]

auth0_commands = AppGroup("auth0")


@auth0_commands.command("check")
def check() -> None:
    """Check settings, tenant and app; exit with 1 if anything is wrong."""
    settings, wrong = current_client().settings, False
    for status, text in _findings(settings):
        click.echo(f"{status:<9}{text}")
        wrong = wrong or status == WRONG
    if not settings.problems:
        click.echo(_addresses(settings))
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


def _findings(settings: Settings) -> Iterator[Finding]:
    yield from ((WRONG, problem) for problem in settings.problems)
    for name, near in misspelled_settings().items():
        yield WARNING, f"{name} is no setting; {near} is. Correct its name."
    yield from _app()
    if settings.problems:
        rest = "secrets, tenant, callback, Secure cookies, store"
        yield SKIPPED, f"{rest}: once the settings are right"
        return
    yield OK, "settings: all that are needed are there"
    what = "AUTH0_SECRET has few different characters or repeats itself."
    bad = f"{what} {Settings.model_fields['secrets'].description}"
    is_weak = any(map(_is_weak, settings.secrets))
    good = "AUTH0_SECRET: does not look guessable"
    yield (WARNING, bad) if is_weak else (OK, good)
    yield from _tenant(settings)
    yield _callback(settings)
    yield from _secure_cookies(settings)
    yield _store()
    key = settings.client_assertion_signing_key is not None
    name = f"AUTH0_CLIENT_{'ASSERTION_SIGNING_KEY' if key else 'SECRET'}"
    what = f"AUTH0_CLIENT_ID and {name}: only a login tries them. Sign in once;"
    yield SKIPPED, f"{what} client_refused in the log means that Auth0 knows others."


def _app() -> Iterator[Finding]:
    names = {role: endpoints().name(role) for role in ROLES}
    missing = [r for r in ROLES if names[r] not in current_app.view_functions]
    for role in missing:
        what = f"{role}: the app has no endpoint {names[role] or role!r}."
        cure = f"Register auth.routes, or name it: init_app(app, {role}=...)"
        yield WRONG, f"{what} {cure}"
    if not missing:
        yield OK, "routes: login, callback and logout are there"
    covered = list(covered_guards(current_app))
    for endpoint, name in covered:
        yield WARNING, f"view {endpoint}: {COVERED_GUARD.format(name)}"
    if not covered:
        yield OK, "guards: nothing stands between them and their routes"
    interface = current_app.session_interface
    samesite = str(interface.get_cookie_samesite(current_app))
    lax = 'Set it: app.config["SESSION_COOKIE_SAMESITE"] = "Lax"'
    if samesite.lower() == "lax":
        yield OK, "session cookie: SameSite=Lax"
    elif samesite.lower() == "strict":
        yield WRONG, f"SESSION_COOKIE_SAMESITE is Strict: logins never end. {lax}"
    else:
        yield WARNING, f"SESSION_COOKIE_SAMESITE is {samesite}. {lax}"
    is_safe = interface.get_cookie_httponly(current_app)
    cure = 'Set it: app.config["SESSION_COOKIE_HTTPONLY"] = True'
    bad = f"SESSION_COOKIE_HTTPONLY is off: scripts can read the session. {cure}"
    yield (OK, "session cookie: HttpOnly") if is_safe else (WARNING, bad)


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
        yield SKIPPED, "keys, clock, pushed requests: need discovery"
        return
    yield OK, f"discovery: {url} answers"
    issuer = str(document.get("issuer", ""))
    is_ours = issuer.lower().removeprefix("https://").rstrip("/") == settings.domain
    bad = f"issuer: it is {issuer[:80]!r}; set AUTH0_DOMAIN to the domain in that"
    yield (OK, "issuer: that of AUTH0_DOMAIN") if is_ours else (WRONG, bad)
    names = ("authorization_endpoint", "token_endpoint")
    if missing := " and no ".join(name for name in names if not document.get(name)):
        yield WRONG, f"discovery names no {missing}. {_NO_TENANT}"
    methods = document.get("code_challenge_methods_supported")
    if not isinstance(methods, list) or "S256" not in methods:
        yield WRONG, f"PKCE: discovery does not name S256. {_NO_TENANT}"
    yield _keys(document)
    yield _clock(answer)
    name = "AUTH0_PUSHED_AUTHORIZATION_REQUESTS"
    wanted = settings.pushed_authorization_requests
    if wanted and not document.get("pushed_authorization_request_endpoint"):
        cure = "In the dashboard: Settings, Advanced; or set it to false."
        yield WRONG, f"{name}: the tenant has no address for them. {cure}"
    elif not wanted and document.get("require_pushed_authorization_requests") is True:
        yield WRONG, f"{name} must be true: the tenant takes no other logins"
    else:
        state = "on" if wanted else "off"
        yield OK, f"pushed requests: {state}, as the tenant allows"


def _keys(document: dict[str, Any]) -> Finding:
    try:
        _, jwks = _fetch(document.get("jwks_uri"))
    except _NotFetched as error:
        return WRONG, f"keys at the jwks_uri of discovery: {error}"
    if rs256_keys(jwks):
        return OK, "keys: there is one for RS256"
    what = "keys: none is for RS256, which ID tokens must be signed with."
    where = "Applications, Settings, Advanced Settings, OAuth, and Settings"
    return WRONG, f"{what} In the dashboard: {where}, Signing Keys."


def _clock(answer: httpx.Response) -> Finding:
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return SKIPPED, "clock: the tenant's answer has no Date"
    apart = abs(time.time() - answer.elapsed.total_seconds() / 2 - theirs)
    if apart <= _CLOCK_WARNING:
        return OK, "clock: that of this machine agrees with the tenant's"
    told = f"clock: this machine and the tenant are {apart:.0f} seconds apart"
    cure = "Set this machine's clock by NTP (timedatectl set-ntp true)."
    if apart <= CLOCK_TOLERANCE:
        return WARNING, f"{told}. {cure}"
    return WRONG, f"{told}, so that logins are refused. {cure}"


def _callback(settings: Settings) -> Finding:
    endpoint = endpoints().name("callback")
    if endpoint not in current_app.view_functions:
        return SKIPPED, "callback: once there is such an endpoint"
    try:
        prefix = _prefix(settings)
    except HTTPException:
        cure = "Add it to TRUSTED_HOSTS of the app, or correct AUTH0_REDIRECT_URI."
        what = "callback: the app refuses the host of AUTH0_REDIRECT_URI."
        return WRONG, f"{what} {cure}"
    if prefix is None:
        rules = " or ".join(r.rule for r in current_app.url_map.iter_rules(endpoint))
        what = "callback: the path of AUTH0_REDIRECT_URI is not the app's, which is"
        cure = "Correct AUTH0_REDIRECT_URI, and Allowed Callback URLs in the dashboard,"
        return WARNING, f"{what} {rules}. {cure} unless a proxy in front changes paths."
    if prefix in {"", current_app.config["APPLICATION_ROOT"].rstrip("/")}:
        return OK, "callback: AUTH0_REDIRECT_URI leads to the app's"
    return (
        WARNING,
        f"callback: {prefix!r} in AUTH0_REDIRECT_URI is not of the app. If a proxy "
        "takes it away, tell the app by X-Forwarded-Prefix and Werkzeug's ProxyFix "
        "(x_prefix=1); if the app is mounted there, all is well; else correct it.",
    )


def _adapter(settings: Settings) -> MapAdapter:
    """Return what knows the app's addresses under the callback's host.

    A SecurityError says that the app's ``TRUSTED_HOSTS`` are without that.
    """
    request = current_app.request_class(create_environ(base_url=settings.origin))
    return cast(MapAdapter, current_app.create_url_adapter(request))


def _prefix(settings: Settings) -> str | None:
    """Return what stands before the app's own part of the callback's path."""
    adapter, path = _adapter(settings), unquote(settings.callback.path)
    for start in [i for i, character in enumerate(path) if character == "/"]:
        try:
            endpoint, _ = adapter.match(path[start:], "GET")
        except HTTPException:
            continue
        if endpoint == endpoints().name("callback"):
            return path[:start]
    return None


def _secure_cookies(settings: Settings) -> Iterator[Finding]:
    interface, callback = current_app.session_interface, settings.callback
    https = callback.scheme == "https"
    secure = interface.get_cookie_secure(current_app)
    good = (
        f"session cookie: {'' if https else 'not '}Secure, as {callback.scheme} wants"
    )
    what = f"SESSION_COOKIE_SECURE is {secure}, but AUTH0_REDIRECT_URI is"
    cure = f'Set it: app.config["SESSION_COOKIE_SECURE"] = {https}'
    bad = f"{what} {callback.scheme}. {cure}"
    yield (OK, good) if https == secure else (WARNING, bad)
    samesite = interface.get_cookie_samesite(current_app) or ""
    if samesite.lower() == "none" and not secure:
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
        text = "AUTH0_REDIRECT_URI is not below its path, so logins never end"
        yield WRONG, f"session cookie: {text}. {cure}"


def _store() -> Finding:
    store = shared_store()
    try:
        for problem in store.problems():
            return WRONG, problem
    except StoreUnavailable as error:
        return WRONG, f"{store.name} cannot be used: {error.__cause__}"
    return OK, f"store: {store.name}"


def _addresses(settings: Settings) -> str:
    try:
        prefix, path = _prefix(settings) or "", _backchannel_path(_adapter(settings))
    except HTTPException:
        prefix, path = "", None
    base = f"{settings.origin}{prefix}"
    logout = [f"{base}/", *settings.allowed_origins]
    lines = [
        "\nFor https://manage.auth0.com, Applications, your application, Settings:",
        f"  Allowed Callback URLs:    {settings.redirect_uri}",
        f"  Allowed Logout URLs:      {', '.join(logout)}",
    ]
    if path:
        lines.append(f"  Back-Channel Logout URI:  {base}{path}")
    return "\n".join(lines)


def _backchannel_path(adapter: MapAdapter) -> str | None:
    for endpoint in current_app.view_functions:
        if endpoint.rpartition(".")[2] == "backchannel_logout":
            try:
                return urlsplit(adapter.build(endpoint, method="POST")).path
            except BuildError:
                return None  # parts of its path are for the app to fill in
    return None


class _NotFetched(Exception):
    """A document could not be had; the text says why, and the cure."""


def _fetch(url: Any) -> tuple[httpx.Response, dict[str, Any]]:
    try:
        answer = httpx.get(str(url), timeout=_SECONDS)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        links = list(error_chain(error))
        fits = (
            s for kinds, s in _SENTENCES if any(isinstance(e, kinds) for e in links)
        )
        raise _NotFetched(next(fits)) from error
    if answer.status_code != 200:
        raise _NotFetched(f"the answer is {answer.status_code}. {_NO_TENANT}")
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _NotFetched(f"the answer is no JSON object. {_NO_TENANT}")
    return answer, document
