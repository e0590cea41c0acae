"""What an app gets by `init_app`: everything that makes the login right for it."""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache, partial
from tempfile import TemporaryDirectory
from typing import TYPE_CHECKING, Any, TypeVar, cast
from weakref import WeakKeyDictionary

import click
from auth0_server_python.error import Auth0Error, MfaRequiredError
from flask import Flask, has_request_context
from flask.json.provider import DefaultJSONProvider
from flask.sessions import SecureCookieSessionInterface

from .cli import auth0_commands
from .client import Auth0Client, current_client
from .errors import StoreUnavailable
from .guards import answer_sdk_error, before_view, covered_guards
from .redirects import KEY, Endpoints
from .settings import Settings, SetupError, misspelled_settings
from .stores import (
    SharedStore,
    SplitSessionInterface,
    SqliteStore,
    derive_key,
)
from .stores.base import copy_json, is_answering, restore_claims
from .stores.cookies import STATE_KEY
from .stores.encryption import DecryptionError
from .stores.shared import SessionRejected

if TYPE_CHECKING:
    from redis import Redis

logger = logging.getLogger(__name__)
App = TypeVar("App", bound=Flask)
#: Of the files of logouts, by client: the first app's.
_paths: WeakKeyDictionary[Auth0Client, str] = WeakKeyDictionary()

_STRICT = (
    "SESSION_COOKIE_SAMESITE is Strict: browsers would not send the cookie when Auth0 "
    "redirects back, and logins would loop. Set it to Lax."
)


@dataclass
class Auth0Extension:
    """What belongs to one app; in its ``extensions["auth0"]``."""

    client: Auth0Client  # several apps may share it
    endpoints: Endpoints
    shared_store: SharedStore
    warned_of_mismatch: bool = False


def _claims() -> Mapping[str, Any]:
    handled = sys.exc_info()[2]
    try:
        return (current_client().load_session() or {}).get("user") or {}
    except StoreUnavailable:
        if is_answering(handled):
            return {}
        raise


class _AuthUser(Mapping[str, Any]):
    __slots__ = ()

    def __getitem__(self, name: str) -> Any:
        return copy_json(_claims()[name])

    def __iter__(self) -> Iterator[str]:
        return iter(_claims())

    def __len__(self) -> int:
        return len(_claims())

    def __bool__(self) -> bool:
        return has_request_context() and bool(_claims())

    def __repr__(self) -> str:
        return repr(_claims()) if has_request_context() else "<auth_user: no request>"

    def __or__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**self.copy(), **other}

    def __ror__(self, other: Mapping[str, Any]) -> dict[str, Any]:
        return {**other, **self.copy()}

    def __reduce__(self) -> tuple[Any, ...]:
        return dict, (self.copy(),)  # what is kept is not the next visitor

    def copy(self) -> dict[str, Any]:
        return cast(dict[str, Any], copy_json(_claims()))


#: The claims of the user who is signed in, a mapping that is empty (so falsy) when
#: nobody is. The session is read when it is first asked for, once a request.
auth_user = cast(Mapping[str, Any], _AuthUser())


def init_app(
    app: App,
    client: Auth0Client,
    *,
    login: str | None = None,
    callback: str | None = None,
    logout: str | None = None,
    redis: Redis | None = None,
) -> App:
    """Add the login to an app.

    The app's own configuration stays. These are the defaults: ``SECRET_KEY`` is
    derived from ``AUTH0_SECRET``; cookies are SameSite=Lax, and always Secure if the
    callback is https; the session interface, if it is Flask's, stores the login in
    cookies of its own or in Redis; a permanent session lasts as long as the login may,
    and its cookie is not sent again with every response.

    Args:
        app: The app.
        client: The client of ``auth.py``.
        login: Endpoint that starts a login, if it is neither that of
            ``auth.routes`` nor called ``login``; the same for the other two.
        callback: Endpoint that Auth0 sends browsers back to.
        logout: Endpoint that ends the session.
        redis: A client of redis-py to keep sessions in, as ``AUTH0_REDIS_URL`` does.

    Returns:
        The same app.

    Raises:
        SetupError: The settings are wrong; not raised in tests, and of all ``flask``
            commands only in ``run``.
        TypeError: ``redis`` is no client of redis-py for sync code.
    """
    if before := app.extensions.get(KEY):
        if before.client is client:
            raise RuntimeError("auth.init_app(app) was called twice for one app.")
        raise RuntimeError("Another auth.py has called init_app for this app.")
    _warn_at_start(app)
    problems = client.settings.problems
    if str(app.config["SESSION_COOKIE_SAMESITE"]).lower() == "strict":
        problems += (_STRICT,)
    if problems and not app.testing:
        if _is_serving():
            raise SetupError(problems)
        told = "The command flask auth0 check says what is missing or wrong."
        logger.warning(SetupError((told,)).message)
    endpoints = Endpoints(app, login=login, callback=callback, logout=logout)
    shared_store = _choose_stores(app, client, redis)
    app.extensions[KEY] = Auth0Extension(client, endpoints, shared_store)
    _set_defaults(app, client)
    if app.debug:
        app.before_request(cache(partial(_warn_of_covered_guards, app)))  # once
    # one hook each: Flask asks of every hook of every request whether it is async
    app.before_request(partial(before_view, app, endpoints))
    app.after_request(client.refresher.after_view)
    # the second is of a kind that an app may have a handler for, such as its pages for
    # an API's refusals; Flask prefers the closer one
    for kind in (Auth0Error, MfaRequiredError):
        app.error_handler_spec[None][None].setdefault(kind, answer_sdk_error)
    app.context_processor(lambda: {"auth_user": auth_user})
    if isinstance(app.json, DefaultJSONProvider):  # jsonify(auth_user), and |tojson
        default = app.json.default  # Flask documents that it can be replaced
        app.json.default = lambda v: _claims() if v is auth_user else default(v)
    app.cli.add_command(auth0_commands)
    return app


def _set_defaults(app: Flask, client: Auth0Client) -> None:
    """Choose what the app has left as Flask does."""
    settings, config = client.settings, app.config
    if not app.secret_key:
        keys = [derive_key(s, "flask signing key") for s in settings.secrets]
        app.secret_key, config["SECRET_KEY_FALLBACKS"] = keys[0], keys[1:]
    if config["SESSION_COOKIE_SAMESITE"] is None:
        config["SESSION_COOKIE_SAMESITE"] = "Lax"
    if settings.callback.scheme == "https":
        config["SESSION_COOKIE_SECURE"] = True
    default = Flask.default_config["PERMANENT_SESSION_LIFETIME"]
    is_flasks = type(app.session_interface) is SecureCookieSessionInterface
    if config["PERMANENT_SESSION_LIFETIME"] == default or not is_flasks:
        # a slow response would bring back what another one has changed meanwhile
        config["SESSION_REFRESH_EACH_REQUEST"] = False
    if config["PERMANENT_SESSION_LIFETIME"] == default:
        config["PERMANENT_SESSION_LIFETIME"] = settings.session_max_seconds
    if is_flasks:
        app.session_interface = SplitSessionInterface(partial(_is_valid, client))


def _is_valid(client: Auth0Client, encrypted: str) -> bool:
    """Tell whether a value is a session that is not over, as far as can be told."""
    try:
        state = client.sessions.decrypt(STATE_KEY, encrypted)
        client.sessions.lifetime.check(restore_claims(state))
    except (DecryptionError, SessionRejected):
        return False
    except StoreUnavailable:
        pass
    return True


def _choose_stores(app: Flask, client: Auth0Client, redis: Redis | None) -> SharedStore:
    """Choose what the app's workers share; with Redis, sessions go there, too."""
    settings = client.settings
    if redis is not None or settings.redis_url:
        return _redis_store(app, settings, redis)
    if settings.revocations_path == "none":
        if not settings.problems:
            logger.warning(
                "AUTH0_REVOCATIONS_PATH is none: logout ends the browser's copy of a "
                "session; whoever copied its cookie before stays signed in."
            )
        return SharedStore()
    folder = _folder_of_tests().name if "pytest" in sys.modules else app.instance_path
    default = os.path.join(folder, "auth0-revocations.sqlite3")
    store = SqliteStore(path := settings.revocations_path or default)
    if _paths.setdefault(client, path) != path:
        logger.warning(
            "Two apps share a client, but not its file of logouts: a logout at one "
            "leaves copies of its cookie valid at the other. Set "
            "AUTH0_REVOCATIONS_PATH."
        )
    try:
        if _is_serving():
            store.check()
    except StoreUnavailable:
        cannot = f"AUTH0_REVOCATIONS_PATH: {path} cannot be written. Name another file."
        raise SetupError((cannot,)) from None
    return store


def _redis_store(app: Flask, settings: Settings, redis: Redis | None) -> SharedStore:
    try:
        from redis import Redis as SyncRedis

        from .stores.redis import RedisSessionInterface, RedisStore, connect
    except ImportError:
        needs = "AUTH0_REDIS_URL needs the package redis: pip install redis"
        raise SetupError((needs,)) from None
    if redis is None:
        redis = connect(settings.redis_url or "")
    elif not isinstance(redis, SyncRedis):
        raise TypeError(
            "init_app(redis=...) takes a redis.Redis, not a redis.asyncio.Redis, a "
            "cluster or an address. For an address, set AUTH0_REDIS_URL."
        )
    if type(app.session_interface) is SecureCookieSessionInterface:
        app.session_interface = RedisSessionInterface(
            redis, secrets=settings.secrets, seconds=settings.session_max_seconds
        )
    return RedisStore(redis)


@cache
def _folder_of_tests() -> TemporaryDirectory[str]:
    """Return a folder for what one process of pytest has to remember."""
    return TemporaryDirectory(prefix="auth0-flask-")


def _is_serving() -> bool:
    """Tell a server, or ``flask run``, from other ``flask`` commands and pytest.

    Many a suite sets TESTING only when the app is made, so pytest is asked for.
    """
    if "PYTEST_VERSION" in os.environ:
        return False
    command = click.get_current_context(silent=True)
    return command is None or command.info_name == "run"


def _warn_at_start(app: Flask) -> None:
    """Warn of names that no setting has, and of what is left of version 1.0."""
    for name, near in misspelled_settings().items():
        logger.warning("%s is not a setting. Did you mean %s?", name, near)
    if os.path.exists(os.path.join(app.root_path, "login", "one_loop.py")):
        logger.warning(
            "The folders login/ and stores/ of version 1.0 are still in this app: "
            "delete them, the package auth0_flask has replaced them."
        )


def _warn_of_covered_guards(app: Flask) -> None:
    """Say which guards are asked too late."""
    for endpoint, text in covered_guards(app):
        logger.warning("View %s: %s", endpoint, text)
