"""What the routes for login, callback and logout are made of."""

from __future__ import annotations

from typing import Any

from auth0_server_python.auth_types import LogoutOptions, StartInteractiveLoginOptions
from auth0_server_python.error import MissingTransactionError
from flask import redirect, request
from werkzeug.wrappers import Response

from .errors import CheckFailed, explain
from .extension import installed
from .mismatch import warn_of_mismatch
from .returning import home, safe_return_to
from .settings import LOOPBACK_NAMES

_PASSED_ON = (
    "screen_hint",
    "connection",
    "login_hint",
    "prompt",
    "ui_locales",
    "max_age",
)
_MOST_BYTES = 512
_LONGEST_TAG = 35  # RFC 5646 section 4.4.1
_LOOPBACK_HOSTS = ("localhost", "127.0.0.1", "[::1]")


def answer_early() -> Response | None:
    """Answer what must not start or end anything; runs before every view.

    Browsers and mail scanners fetch links that nobody has clicked: a prefetch or a
    HEAD must neither begin a login, nor use one up, nor sign anybody out.
    A login on another loopback name than the callback's goes there first, since the
    callback would not see its cookie.
    """
    endpoints, endpoint = installed(), request.endpoint
    warn_of_mismatch(endpoints, endpoint)
    if endpoint not in {endpoints.login, endpoints.callback, endpoints.logout}:
        return None
    if request.method == "HEAD" or _is_prefetch():
        return Response(status=204, headers={"Cache-Control": "no-store"})
    if endpoint == endpoints.login and _on_another_loopback_name():
        origin = endpoints.client.settings.origin
        return redirect(origin + request.script_root + request.full_path)
    return None


def login_options() -> StartInteractiveLoginOptions:
    """Return the options of a login from the query of this request.

    Kept until it is completed are ``return_to`` (checked) and ``remember`` (see
    `remember`).
    Passed on are ``organization``, ``invitation``,
    ``screen_hint``, ``connection``, ``login_hint``, ``prompt``, ``max_age`` and
    ``ui_locales`` (from Accept-Language where the query has none), and nothing else.

    Raises:
        CheckFailed: Another organization than ``AUTH0_ORGANIZATION`` is asked for.
    """
    organization = _argument("organization")
    own = installed().client.settings.organization
    if own and organization not in {None, own}:
        raise CheckFailed("wrong_organization")
    passed_on = {name: _argument(name) for name in _PASSED_ON}
    if not (passed_on["max_age"] or "0").isdecimal():
        passed_on["max_age"] = None
    max_age = int(passed_on["max_age"]) if passed_on["max_age"] else None
    passed_on["ui_locales"] = passed_on["ui_locales"] or _languages()
    return StartInteractiveLoginOptions(
        app_state={
            "return_to": safe_return_to(request.args.get("return_to")),
            "remember": request.args.get("remember") != "0",
            "max_age": max_age,
        },
        authorization_params={name: v for name, v in passed_on.items() if v},
        organization=organization,
        invitation=_argument("invitation"),
    )


def return_to(app_state: Any) -> str:
    """Return the path that a login was started for.

    Args:
        app_state: What came back from the login; ``result.get("app_state")``.
    """
    wanted = app_state.get("return_to") if isinstance(app_state, dict) else None
    return safe_return_to(wanted)


def remember(app_state: Any) -> bool:
    """Tell whether the browser is to keep the session when it is closed.

    It is, unless the login was started with ``?remember=0``: for
    ``flask.session.permanent``.

    Args:
        app_state: What came back from the login; ``result.get("app_state")``.
    """
    return not isinstance(app_state, dict) or bool(app_state.get("remember", True))


def failed_callback(error: Exception) -> Response:
    """Answer a callback that failed: a stale one of somebody signed in goes home.

    Args:
        error: What ``complete_interactive_login`` raised.

    Raises:
        HTTPException: Anything else, explained.
        Exception: What a receiver of `user_logged_in` raised, as it is.
    """
    stale = isinstance(error, MissingTransactionError)
    if stale and installed().client.read_session() is not None:
        return redirect(home())
    if getattr(error, "is_the_apps_own", False):
        raise error
    raise explain(error) from error


def logout_options() -> LogoutOptions:
    """Return the options of a logout: home afterwards; ``?federated`` is passed on.

    The address is that of ``AUTH0_REDIRECT_URI``, whatever host the request names.
    """
    settings = installed().client.settings
    return LogoutOptions(
        return_to=f"{settings.origin}{home()}",
        federated="federated" in request.args,
    )


def _argument(name: str) -> str | None:
    value = request.args.get(name, "").strip()
    return value if 0 < len(value.encode("utf-8", "replace")) <= _MOST_BYTES else None


def _languages() -> str:
    """Return what the visitor reads (OpenID Connect Core section 3.1.2.1)."""
    wanted = [tag for tag in request.accept_languages.values() if tag != "*"]
    return " ".join(tag for tag in wanted[:5] if len(tag) <= _LONGEST_TAG)


def _is_prefetch() -> bool:
    names = ("Sec-Purpose", "Purpose", "X-Moz", "X-Purpose")
    said = [request.headers.get(name, "").lower() for name in names]
    return any("prefetch" in word or "preview" in word for word in said)


def _on_another_loopback_name() -> bool:
    callback = installed().client.settings.callback
    if callback.hostname not in LOOPBACK_NAMES or request.host == callback.netloc:
        return False
    port = f":{callback.port}" if callback.port else ""
    return request.host in [f"{name}{port}" for name in _LOOPBACK_HOSTS]
