"""Auth0 login for Flask: one client, one `init_app`, one line to protect a view."""

from __future__ import annotations

import logging
import os
from typing import TYPE_CHECKING, TypeVar

import click
from flask import Flask

from login import (
    KEY,
    Auth0Client,
    Installed,
    LoginError,
    LoginRefused,
    Settings,
    SetupError,
    answer_early,
    auth0_commands,
    auth_user,
    check_certificates,
    explain,
    failed_callback,
    kept_loops,
    login_as,
    login_failed,
    login_options,
    login_required,
    logout_options,
    prefers_json,
    problem,
    public,
    receive_logout_token,
    refuse_cross_site,
    remember,
    requires_claim,
    return_to,
    session_revoked,
    signed_out,
    tokens_refreshed,
    user_logged_in,
    user_logged_out,
)
from stores import (
    FlaskSessionStateStore,
    FlaskSessionTransactionStore,
    Lifetime,
    NoRevocations,
    Refreshes,
    RefreshesInProcess,
    RefreshesInSqlite,
    Revocations,
    RevocationsUnavailable,
    SpanningSessionInterface,
    SqliteRevocations,
    connect_redis,
    derive,
    keep_in_redis,
    keep_refreshes_in_redis,
)

if TYPE_CHECKING:
    from redis import Redis

__all__ = [
    "LoginError",
    "LoginRefused",
    "Settings",
    "SetupError",
    "auth0",
    "auth_user",
    "build_client",
    "explain",
    "failed_callback",
    "init_app",
    "kept_loops",
    "login_as",
    "login_failed",
    "login_options",
    "login_required",
    "logout_options",
    "prefers_json",
    "problem",
    "public",
    "receive_logout_token",
    "refuse_cross_site",
    "remember",
    "requires_claim",
    "return_to",
    "session_revoked",
    "signed_out",
    "tokens_refreshed",
    "user_logged_in",
    "user_logged_out",
]

logger = logging.getLogger(__name__)
App = TypeVar("App", bound=Flask)


def build_client(settings: Settings) -> Auth0Client:
    """Build the SDK's client, wired to stores that seal into ``flask.session``."""
    check_certificates()
    authorization_params = {"scope": settings.scope}
    if settings.audience:
        authorization_params["audience"] = settings.audience
    return Auth0Client(
        settings,
        domain=settings.domain,
        client_id=settings.client_id,
        client_secret=settings.client_secret,
        client_assertion_signing_key=settings.client_assertion_signing_key,
        redirect_uri=settings.redirect_uri,
        secret=settings.secrets[0],
        state_store=FlaskSessionStateStore(
            secrets=settings.secrets,
            scope=settings.scope,
            lifetime=Lifetime(
                domain=settings.domain,
                idle_seconds=settings.session_idle_seconds,
                max_seconds=settings.session_max_seconds,
            ),
        ),
        transaction_store=FlaskSessionTransactionStore(secrets=settings.secrets),
        refreshes=RefreshesInProcess(),
        authorization_params=authorization_params,
        organization=settings.organization,
        pushed_authorization_requests=settings.pushed_authorization_requests,
    )


def init_app(
    app: App,
    *,
    login: str = "login",
    callback: str = "callback",
    logout: str = "logout",
    several_cookies: bool = False,
    redis: Redis | None = None,
) -> App:
    """Make the login known to an app.

    What the app has set stays as it is; a missing ``SECRET_KEY`` is derived from
    ``AUTH0_SECRET``, with fallbacks where that has several. Where it says nothing of
    SameSite, session cookies are Lax, and Secure if the callback is https.

    Args:
        app: The app.
        login: Endpoint that starts a login.
        callback: Endpoint that Auth0 sends browsers back to.
        logout: Endpoint that ends the session.
        several_cookies: Let a long session span several cookies.
        redis: A client of redis-py to keep sessions in, as ``AUTH0_REDIS_URL`` does.

    Returns:
        The same app.

    Raises:
        SetupError: The settings are wrong, and this is neither a test nor another
            ``flask`` command than ``run``.
    """
    app.extensions[KEY] = Installed(
        client=auth0, login=login, callback=callback, logout=logout
    )
    problems = auth0.settings.problems + _problems(app)
    if problems and not app.testing:
        _refuse(problems)
    if not app.secret_key:
        keys = [derive(s, "flask signing key") for s in auth0.settings.secrets]
        app.secret_key, app.config["SECRET_KEY_FALLBACKS"] = keys[0], keys[1:]
    _make_cookies_safe(app)
    if several_cookies:
        app.session_interface = SpanningSessionInterface()
    redis = redis or _redis_of_the_settings()
    auth0.sessions.lifetime.revocations = _revocations(app, redis)
    auth0.share_refreshes(_refreshes(app, redis))
    app.before_request(answer_early)
    app.after_request(auth0.keep_newest_token)
    app.cli.add_command(auth0_commands)
    app.context_processor(lambda: {"auth_user": auth_user})
    return app


def _make_cookies_safe(app: Flask) -> None:
    """Set SameSite and Secure where the app has left them as Flask does."""
    if app.config["SESSION_COOKIE_SAMESITE"] is None:
        app.config["SESSION_COOKIE_SAMESITE"] = "Lax"
        if auth0.settings.callback.scheme == "https":
            app.config["SESSION_COOKIE_SECURE"] = True


def _revocations(app: Flask, redis: Redis | None) -> Revocations:
    """Choose where it is written down who signed out; with Redis, sessions go there."""
    settings = auth0.settings
    if redis:
        return keep_in_redis(
            app, redis, secrets=settings.secrets, seconds=settings.session_max_seconds
        )
    if settings.revocations_path == "none":
        if not settings.problems:
            logger.warning(
                "AUTH0_REVOCATIONS_PATH is none: logout ends the browser's copy of a "
                "session; whoever copied its cookie before stays signed in."
            )
        return NoRevocations()
    return _file_of_revocations(app)


def _redis_of_the_settings() -> Redis | None:
    if not auth0.settings.redis_url:
        return None
    try:
        return connect_redis(auth0.settings.redis_url)
    except ImportError:
        needs = "AUTH0_REDIS_URL needs the package redis: pip install redis"
        raise SetupError((needs,)) from None


def _file_of_revocations(app: Flask) -> SqliteRevocations:
    path = _path_of_revocations(app)
    revocations = SqliteRevocations(path)
    try:
        if _is_serving():
            revocations.open()
    except RevocationsUnavailable:
        cannot = f"AUTH0_REVOCATIONS_PATH: {path} cannot be written. Name another file."
        raise SetupError((cannot,)) from None
    return revocations


def _refreshes(app: Flask, redis: Redis | None) -> Refreshes:
    """Choose where it is written down who refreshes a token: beside who signed out."""
    if redis:
        return keep_refreshes_in_redis(redis)
    if auth0.settings.revocations_path == "none":
        return RefreshesInProcess()
    name, ending = os.path.splitext(_path_of_revocations(app))
    return RefreshesInSqlite(f"{name}-refreshes{ending}")


def _path_of_revocations(app: Flask) -> str:
    name = "auth0-revocations.sqlite3"
    return auth0.settings.revocations_path or os.path.join(app.instance_path, name)


def _problems(app: Flask) -> tuple[str, ...]:
    if str(app.config["SESSION_COOKIE_SAMESITE"]).lower() == "strict":
        return (
            "SESSION_COOKIE_SAMESITE is Strict: browsers would keep the cookie back "
            "when Auth0 sends somebody back, and login would go round in circles. "
            "Set it to Lax.",
        )
    return ()


def _refuse(problems: tuple[str, ...]) -> None:
    """Stop a server; let ``flask routes`` and the like go on, with a warning."""
    if _is_serving():
        raise SetupError(problems)
    logger.warning(SetupError(problems).message)


def _is_serving() -> bool:
    """Tell a server, or ``flask run``, from other ``flask`` commands and pytest.

    Many a suite sets TESTING only when the app is made, so pytest is asked for.
    """
    if "PYTEST_VERSION" in os.environ:
        return False
    context = click.get_current_context(silent=True)
    return context is None or context.info_name == "run"


auth0 = build_client(Settings.from_environment())
