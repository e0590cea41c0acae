"""``flask auth0 check``: tells what is wrong with a setup before a visitor does."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path
from typing import cast
from urllib.parse import unquote, urlsplit

import click
from flask import current_app
from flask.cli import AppGroup
from werkzeug.exceptions import HTTPException
from werkzeug.routing import BuildError, MapAdapter
from werkzeug.test import create_environ

from .extension import installed
from .settings import Settings
from .tenant_check import OK, SKIPPED, WARNING, WRONG, Finding, ask_tenant
from .unawaited import unawaited
from .unguarded import unguarded

_FEW_LETTERS = 8
_REDIS_PATIENCE = 0.9  # seconds for connecting, and for the answer: 2 together
_NEED_SETTINGS = ("secrets", "tenant", "callback", "Secure cookies", "Redis")

auth0_commands = AppGroup("auth0", help="Look after the Auth0 login.")


@auth0_commands.command("check")
def check() -> None:
    """Check settings, tenant and app; exit with 1 if anything is wrong."""
    settings, wrong = installed().client.settings, False
    for status, text in _findings(settings):
        click.echo(f"{status:<9}{text}")
        wrong = wrong or status == WRONG
    if not settings.problems:
        click.echo(_addresses(settings))
    if wrong:
        click.get_current_context().exit(1)


def _findings(settings: Settings) -> Iterator[Finding]:
    for problem in settings.problems:
        yield WRONG, problem
    yield from _packages()
    yield from _awaits()
    yield from _guards()
    yield from _routes()
    yield from _cookie_flags()
    if settings.problems:
        for name in _NEED_SETTINGS:
            yield SKIPPED, f"{name}: once the settings are right"
        return
    yield OK, "settings: all that are needed are there"
    yield _secrets(settings)
    yield from ask_tenant(settings)
    yield _callback(settings)
    yield from _secure_cookies(settings)
    yield _redis(settings)
    yield _credentials(settings)


def _packages() -> Iterator[Finding]:
    if find_spec("asgiref"):
        yield OK, "flask[async]: installed"
    else:
        yield WRONG, "flask[async]: asgiref is missing: pip install 'flask[async]'"
    if not Path(".env").exists():
        yield OK, ".env: there is none here, so the environment has to have it all"
    elif find_spec("dotenv"):
        yield OK, ".env: python-dotenv is there to read it"
    else:
        yield WRONG, ".env is not read: pip install python-dotenv"


def _awaits() -> Iterator[Finding]:
    found = list(unawaited(current_app))
    for endpoint, method in found:
        text = f"view {endpoint}: {method}() without await is true for everybody"
        yield WRONG, f"{text}. Write: await auth0.{method}(...)"
    if not found:
        yield OK, "await: no view forgets it"


def _guards() -> Iterator[Finding]:
    found = list(unguarded(current_app))
    for endpoint in found:
        text = f"view {endpoint}: its guard stands above the route, so it is open"
        yield WRONG, f"{text} to everybody. Put the guard below the route."
    if not found:
        yield OK, "guards: all stand below their routes"


def _routes() -> Iterator[Finding]:
    names = ("login", "callback", "logout")
    named = {name: getattr(installed(), name) for name in names}
    missing = {n: e for n, e in named.items() if e not in current_app.view_functions}
    for name, endpoint in missing.items():
        text = f"{name}: the app has no endpoint {endpoint!r}. Name the one it has"
        yield WRONG, f"{text}: init_app(app, {name}=...)"
    if not missing:
        yield OK, "routes: login, callback and logout are there"


def _secrets(settings: Settings) -> Finding:
    if not any(map(_is_weak, settings.secrets)):
        return OK, "AUTH0_SECRET: does not look guessable"
    cure = Settings.model_fields["secrets"].description
    return WARNING, f"AUTH0_SECRET has few letters or repeats itself. {cure}"


def _is_weak(secret: str) -> bool:
    """Tell few different letters, and a word over and over (cut off or not)."""
    periods = range(1, len(secret) // 2 + 1)
    repeats = any(secret.startswith(secret[period:]) for period in periods)
    return repeats or len(set(secret)) < _FEW_LETTERS


def _adapter(settings: Settings) -> MapAdapter:
    """Return what knows the app's addresses under the callback's host.

    Raises:
        SecurityError: The app's ``TRUSTED_HOSTS`` are without that.
    """
    request = current_app.request_class(create_environ(base_url=settings.origin))
    return cast(MapAdapter, current_app.create_url_adapter(request))


def _prefix(settings: Settings) -> str | None:
    """Return what stands before the app's own part of the callback's path.

    Raises:
        SecurityError: See `_adapter`.
    """
    adapter, path = _adapter(settings), unquote(settings.callback.path)
    for start in [i for i, letter in enumerate(path) if letter == "/"]:
        try:
            endpoint, _ = adapter.match(path[start:], "GET")
        except HTTPException:
            continue
        if endpoint == installed().callback:
            return path[:start]
    return None


def _callback(settings: Settings) -> Finding:
    endpoint = installed().callback
    if endpoint not in current_app.view_functions:
        return SKIPPED, "callback: once there is such an endpoint"
    try:
        prefix = _prefix(settings)
    except HTTPException:
        return WRONG, (
            "callback: the app refuses the host of AUTH0_REDIRECT_URI. Add it to "
            "TRUSTED_HOSTS of the app, or correct AUTH0_REDIRECT_URI."
        )
    return _judge(prefix, endpoint)


def _judge(prefix: str | None, endpoint: str) -> Finding:
    rules = current_app.url_map.iter_rules(endpoint)
    if prefix is None:
        return WARNING, (
            "callback: the path of AUTH0_REDIRECT_URI is not the app's, which is "
            f"{' or '.join(rule.rule for rule in rules)}. Correct AUTH0_REDIRECT_URI, "
            "and Allowed Callback URLs in the dashboard, unless a proxy in front "
            "changes paths."
        )
    if prefix in {"", current_app.config["APPLICATION_ROOT"].rstrip("/")}:
        return OK, "callback: AUTH0_REDIRECT_URI leads to the app's"
    return WARNING, (
        f"callback: {prefix!r} in AUTH0_REDIRECT_URI is not of the app. If a proxy "
        "takes it away, the app has to be told by SCRIPT_NAME, or by "
        "X-Forwarded-Prefix and Werkzeug's ProxyFix with x_prefix=1; if the app is "
        "mounted there, all is well; else correct AUTH0_REDIRECT_URI."
    )


def _cookie_flags() -> Iterator[Finding]:
    interface = current_app.session_interface
    samesite = interface.get_cookie_samesite(current_app)
    lax = 'Set it: app.config["SESSION_COOKIE_SAMESITE"] = "Lax"'
    if str(samesite).lower() == "lax":
        yield OK, "session cookie: SameSite=Lax"
    elif str(samesite).lower() == "strict":
        yield WRONG, f"SESSION_COOKIE_SAMESITE is Strict: logins never end. {lax}"
    elif samesite is None:
        yield WARNING, f"SESSION_COOKIE_SAMESITE is not set: browsers differ. {lax}"
    else:
        yield WARNING, f"SESSION_COOKIE_SAMESITE lets other sites use it. {lax}"
    if interface.get_cookie_httponly(current_app):
        yield OK, "session cookie: HttpOnly"
    else:
        yield (
            WARNING,
            (
                "SESSION_COOKIE_HTTPONLY is off: scripts can read the session. Set it: "
                'app.config["SESSION_COOKIE_HTTPONLY"] = True'
            ),
        )


def _secure_cookies(settings: Settings) -> Iterator[Finding]:
    interface = current_app.session_interface
    https = settings.callback.scheme == "https"
    secure = interface.get_cookie_secure(current_app)
    if https == secure:
        fits = "Secure, as https wants" if https else "not Secure, as http wants"
        yield OK, f"session cookie: {fits}"
    else:
        yield (
            WARNING,
            (
                f"SESSION_COOKIE_SECURE is {'on' if secure else 'off'}, but "
                f"AUTH0_REDIRECT_URI is {settings.callback.scheme}. Set it: "
                f'app.config["SESSION_COOKIE_SECURE"] = {https}'
            ),
        )
    samesite = interface.get_cookie_samesite(current_app) or ""
    if samesite.lower() == "none" and not secure:
        yield WRONG, "browsers drop SameSite=None without SESSION_COOKIE_SECURE = True"
    yield _name_of_cookie(secure)
    yield _path_of_cookie(settings)


def _name_of_cookie(secure: bool) -> Finding:
    """Hold the name to what browsers demand of it (RFC 6265bis section 4.1.3)."""
    interface = current_app.session_interface
    name = interface.get_cookie_name(current_app).lower()
    if name.startswith(("__host-", "__secure-")) and not secure:
        return WRONG, (
            "SESSION_COOKIE_NAME: browsers drop a cookie of this prefix without "
            "SESSION_COOKIE_SECURE = True. Set that, or take another name."
        )
    path = interface.get_cookie_path(current_app)
    domain = interface.get_cookie_domain(current_app)
    if name.startswith("__host-") and (path != "/" or domain):
        return WRONG, (
            "SESSION_COOKIE_NAME: browsers drop a __Host- cookie with a domain or a "
            "path other than /. Begin it with __Secure-, or set neither."
        )
    return OK, "session cookie: its name suits its attributes"


def _path_of_cookie(settings: Settings) -> Finding:
    path = current_app.session_interface.get_cookie_path(current_app).rstrip("/")
    if f"{settings.callback.path}/".startswith(f"{path}/"):
        return OK, "session cookie: its path has the callback"
    return WRONG, (
        "session cookie: AUTH0_REDIRECT_URI is not below its path, so the callback "
        "never sees it. Correct APPLICATION_ROOT or SESSION_COOKIE_PATH."
    )


def _redis(settings: Settings) -> Finding:
    if not settings.redis_url:
        return SKIPPED, "Redis: AUTH0_REDIS_URL is not set"
    try:
        from redis import AuthenticationError, Redis, RedisError
        from redis.backoff import NoBackoff
        from redis.retry import Retry
    except ImportError:
        return WRONG, "AUTH0_REDIS_URL needs the package redis: pip install redis"
    patience = {"socket_timeout": _REDIS_PATIENCE}
    patience["socket_connect_timeout"] = _REDIS_PATIENCE
    once = Retry(NoBackoff(), 0)
    try:
        with Redis.from_url(settings.redis_url, retry=once, **patience) as client:
            client.ping()
    except AuthenticationError:
        return WRONG, "Redis refuses the user or the password in AUTH0_REDIS_URL"
    except (RedisError, OSError, ValueError):
        return WRONG, "Redis does not answer at AUTH0_REDIS_URL. Is it running there?"
    return OK, "Redis: answers"


def _credentials(settings: Settings) -> Finding:
    by_key = settings.client_assertion_signing_key is not None
    name = f"AUTH0_CLIENT_{'ASSERTION_SIGNING_KEY' if by_key else 'SECRET'}"
    return SKIPPED, (
        f"AUTH0_CLIENT_ID and {name}: only a login tries them. Start the app and "
        "sign in once; client_refused in its log means that Auth0 knows others."
    )


def _addresses(settings: Settings) -> str:
    try:
        prefix, path = _prefix(settings) or "", _backchannel_path(_adapter(settings))
    except HTTPException:
        prefix, path = "", None
    base = f"{settings.origin}{prefix}"
    lines = [
        "",
        "For https://manage.auth0.com, Applications, your application, Settings:",
        f"  Allowed Callback URLs:    {settings.redirect_uri}",
        f"  Allowed Logout URLs:      {base}/",
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
