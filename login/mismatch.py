"""One warning each where requests do not come the way that the settings say."""

from __future__ import annotations

import logging
from ipaddress import ip_address
from urllib.parse import SplitResult, unquote, urlsplit

from flask import current_app, request, url_for
from werkzeug.routing import BuildError

from .extension import KEY, Installed
from .settings import LOOPBACK_NAMES

logger = logging.getLogger(__name__)

_MOST_LETTERS = 80
_DEFAULT_PORTS = {"http": 80, "https": 443}
# In app.extensions, so that every app in a process has its own: the endpoint of
# login, once a request was held against the settings; that a warning was given.
_LOOKED = f"{KEY}.looked"
_WARNED_OF_ADDRESS = f"{KEY}.warned_of_address"
_WARNED_OF_PATH = f"{KEY}.warned_of_path"


def warn_of_mismatch(endpoints: Installed, endpoint: str | None) -> None:
    """Warn once where the host or scheme of a request is not the callback's.

    Runs before every view. One request is held against the settings, and logins
    until one does not fit; every other passes after a look-up. The first login
    has the path of ``AUTH0_REDIRECT_URI`` held against the callback's, too.
    """
    login = current_app.extensions.get(_LOOKED)
    if login is not None and endpoint != login:
        return
    settings, is_login = endpoints.client.settings, endpoint == endpoints.login
    if current_app.testing or settings.problems or endpoint is None:
        return
    if is_login:
        _compare_path(settings.callback.path, endpoints.callback)
    fits = _fits(settings.callback)
    if not fits and not is_login and _is_of_the_house(_split(request.host)):
        return  # a health check, most likely
    current_app.extensions[_LOOKED] = endpoints.login
    if not fits and _is_first(_WARNED_OF_ADDRESS):
        _warn_of_address(settings.callback)


def _compare_path(expected: str, endpoint: str) -> None:
    if not _is_first(_WARNED_OF_PATH):
        return
    try:
        path = urlsplit(url_for(endpoint)).path
    except BuildError:
        return  # the app fills in parts of it that are not known here
    if unquote(path) != unquote(expected):
        logger.warning(
            "AUTH0_REDIRECT_URI has the path %r, but the callback is at %r: logins "
            "will not come back to it. Correct AUTH0_REDIRECT_URI (and Allowed "
            "Callback URLs in the dashboard), or, if a proxy takes a prefix away, "
            "have it send X-Forwarded-Prefix and trust that by Werkzeug's ProxyFix "
            "(x_prefix=1). `flask auth0 check` tells more.",
            expected[:_MOST_LETTERS],
            path[:_MOST_LETTERS],
        )


def _warn_of_address(callback: SplitResult) -> None:
    logger.warning(
        "A request came to %s on the host %r, but AUTH0_REDIRECT_URI says %s on %r: "
        "cookies and redirects of logins may go wrong. Behind a proxy, have it send "
        "X-Forwarded-Proto and X-Forwarded-Host, and trust them: TRUSTED_PROXIES in "
        "the environment is the number of proxies, where the app reads that; an app "
        "that wraps itself in Werkzeug's ProxyFix says x_proto=1, x_host=1 there. "
        "Without a proxy, correct AUTH0_REDIRECT_URI, or browse to its host.",
        request.scheme,
        request.host[:_MOST_LETTERS],
        callback.scheme,
        callback.netloc[:_MOST_LETTERS],
    )


def _fits(callback: SplitResult) -> bool:
    came = _split(request.host)
    if came is None or request.scheme != callback.scheme:
        return False
    names = {came.hostname or "", callback.hostname or ""}
    # between loopback names a login finds its own way
    same_name = len(names) == 1 or names <= LOOPBACK_NAMES
    default = _DEFAULT_PORTS[callback.scheme]
    return same_name and (came.port or default) == (callback.port or default)


def _is_of_the_house(came: SplitResult | None) -> bool:
    """Tell an IP address or a loopback name from what visitors browse to."""
    if came is None or not came.hostname:
        return False
    try:
        ip_address(came.hostname)
    except ValueError:
        return came.hostname in LOOPBACK_NAMES
    return True


def _split(host: str) -> SplitResult | None:
    try:
        parts = urlsplit(f"//{host}")
        _ = parts.port  # reading it is what checks it
    except ValueError:
        return None
    return parts


def _is_first(what: str) -> bool:
    """Tell the first caller from all others, in whichever threads they are."""
    mark = object()
    return current_app.extensions.setdefault(what, mark) is mark
