"""Where visitors are sent: to login, and back to a page of this app."""

from __future__ import annotations

import asyncio
import logging
import re
import time
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass, field
from posixpath import normpath
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from flask import Response, after_this_request, current_app, redirect, request, url_for
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.routing import BuildError, MapAdapter

from .errors import CheckFailed, ProblemResponse, prefers_json
from .settings import Settings, is_loopback
from .stores import request_state
from .stores.cookies import OwnCookies
from .verification import Verifier

logger = logging.getLogger(__name__)

KEY = "auth0"
#: What a view's ``auth0_role`` may be, and the usual names of such endpoints.
ROLES = ("login", "callback", "logout")
#: Bytes of a ``return_to``; it travels in a cookie.
MAX_RETURN_TO = 2_048
#: What browsers drop from an address or read as a slash, and what names a host.
_UNSAFE = re.compile(r"[\\\x00-\x20\x7f]|^//")
#: Logins within so many seconds after each of which nobody was signed in.
_MAX_ROUNDS, _ROUND_SECONDS = 3, 60
_ROUNDS = "_rounds"  # ends the name of the cookie that counts them
#: Ends the name of the cookie of a silent login that was tried, and how long it lasts.
_SILENT, _SILENT_SECONDS = "_silent", 3600
_PREFETCH_HEADERS = ("Sec-Purpose", "Purpose", "X-Moz", "X-Purpose")
_ROBOTS = re.compile("bot|crawl|spider", re.IGNORECASE)
#: Seconds that a logout waits to learn where the local tenant serves browsers.
_DISCOVERY_SECONDS = 2.0


class SignedOut(ProblemResponse, Unauthorized):
    """Nobody is signed in, or not in the way that is asked for."""

    error = "signed_out"
    description = "Sign in to see this."


class NotSteppedUp(SignedOut):
    """Somebody is signed in, who has yet to prove more (RFC 9470 section 3)."""

    error = "insufficient_user_authentication"
    description = "Prove again who you are to see this."


@dataclass(frozen=True, kw_only=True)
class Endpoints:
    """The endpoints of an app for login, callback and logout, by role.

    Those that `init_app` was not given are found when they are first asked for: by
    the role that a view is marked with, or by name.
    """

    settings: Settings
    names: dict[str, str] = field(default_factory=dict)

    def name(self, role: str) -> str | None:
        """Return the endpoint of a role, or None if the app has none."""
        if found := self.names.get(role):
            return found
        views = current_app.view_functions
        marked = [e for e, v in views.items() if getattr(v, "auth0_role", "") == role]
        if found := next(iter(marked), role if role in views else None):
            self.names[role] = found
        return found

    def role(self, endpoint: str | None) -> str | None:
        """Return the role of an endpoint, or None; before every view, so be quick."""
        for role in ROLES:
            if endpoint and endpoint == (self.names.get(role) or self.name(role)):
                return role
        return None

    def path(self, role: str, **values: object) -> str:
        """Return the path of a role's endpoint; a RuntimeError names what to do."""
        endpoint = self.name(role)
        if endpoint is None or endpoint not in current_app.view_functions:
            raise RuntimeError(
                f"The app has no endpoint {endpoint or role!r}. Register auth.routes, "
                f'or name the endpoint it has: auth.init_app(app, {role}="...")'
            )
        return url_for(endpoint, **values)  # type: ignore[arg-type]  # of a query


def extension() -> Any:
    """Return what `init_app` keeps of the current app."""
    try:
        return current_app.extensions[KEY]
    except KeyError:
        raise RuntimeError("Call auth.init_app(app) where the app is made.") from None


def endpoints() -> Endpoints:
    """Return the endpoints of the current app."""
    found: Endpoints = extension().endpoints
    return found


def signed_out(**wanted: object) -> SignedOut:
    """Return the 401 for programs, which says where to sign in, and how."""
    said: dict[str, str | None] = {"form-action": endpoints().path("login", **wanted)}
    names = ("acr_values", "max_age")
    more = {n: str(wanted[n]) for n in names if wanted.get(n) is not None}
    if not more or request_state().session is None:
        return SignedOut(www_authenticate=WWWAuthenticate("cookie", said))
    said |= {"error": NotSteppedUp.error, **more}
    return NotSteppedUp(www_authenticate=WWWAuthenticate("cookie", said))


def login_again(**wanted: object) -> HTTPException:
    """Return what leads to login and back: the one place that decides how.

    A browser is redirected. A program gets 401, and htmx a 401 whose ``HX-Redirect``
    it follows. ``wanted`` is what the login is asked for, such as ``max_age``.
    """
    if request_state().never_redirect:
        return signed_out(**wanted)
    if request.headers.get("HX-Request") == "true":
        page = safe_return_to(request.headers.get("HX-Current-URL"))
        login = endpoints().path("login", return_to=page, **wanted)
        answer = Response(status=401, headers={"HX-Redirect": login})
        return HTTPException(response=answer)
    if prefers_json():
        return signed_out(**wanted)
    login = endpoints().path("login", return_to=this_page(), **wanted)
    return HTTPException(response=redirect(login))


def try_silent_login(signed_in: Callable[[], object]) -> None:
    """Raise what leads a guest to a login that asks nothing, and back; once an hour.

    Nothing for all but a browser that shows a page: others could not go there.
    """
    headers = request.headers
    if (
        headers.get("Sec-Fetch-Dest") != "document"
        or request.method != "GET"
        or prefers_json()
        or is_prefetch()
        or _was_tried()
        or _ROBOTS.search(headers.get("User-Agent", ""))
        or signed_in()
        or _checked(page := this_page()) != page
    ):
        return
    note_silent_login()
    login = endpoints().path("login", return_to=page, prompt="none", silent=1)
    raise HTTPException(response=redirect(login))


def note_silent_login() -> None:
    """Have the browser remember that it was tried."""
    _set_cookie(_SILENT, "1", max_age=_SILENT_SECONDS)


def after_silent_login(app_state: object) -> HTTPException | None:
    """Return what leads to the page of a silent login that failed; None of another.

    None as well in a browser that does not remember it: that page would try again.
    """
    if isinstance(app_state, dict) and app_state.get("silent") and _was_tried():
        page = safe_return_to(app_state.get("return_to"))
        return HTTPException(response=redirect(page))
    return None


def is_prefetch() -> bool:
    """Tell a browser, proxy or mail scanner that fetches what nobody has clicked."""
    said = " ".join(request.headers.get(name, "") for name in _PREFETCH_HEADERS).lower()
    return request.method == "HEAD" or "prefetch" in said or "preview" in said


def safe_return_to(value: str | None) -> str:
    """Return where to go after login: a page of this app, or of an allowed origin.

    That is the path with query and fragment, or an address where its origin is one
    of ``AUTH0_ALLOWED_ORIGINS``; but the app's root for what is foreign, too long, or
    leads back to login, callback or logout.
    """
    found = _checked(value) if value else home()
    if found is None:
        logger.info("return_to dropped: it is %.80r.", value)
        return home()
    return found


def home() -> str:
    """Return the path of the app's root."""
    return f"{request.script_root}/"


def to_home() -> HTTPException:
    """Return what leads to the app's root."""
    return HTTPException(response=redirect(home()))


def this_page() -> str:
    """Return the path and query of this request; of a form, the page it was on."""
    if request.method not in {"GET", "HEAD"}:
        return safe_return_to(request.referrer)
    path = quote(request.script_root + request.path, safe="/:@!$&'()*+,;=~")
    query = request.query_string.decode("latin-1")
    return f"{path}?{query}" if query else path


def _checked(value: str) -> str | None:
    if len(value.encode("utf-8", "replace")) > MAX_RETURN_TO or _UNSAFE.search(value):
        return None
    try:
        parts = urlsplit(value)
    except ValueError:
        return None
    own = endpoints()
    if f"{parts.scheme}://{parts.netloc}" in own.settings.allowed_origins:
        return value
    path = urlunsplit(("", "", *parts[2:]))
    ours = ("", ""), own.settings.callback[:2]
    if parts[:2] not in ours or not path.startswith("/") or path.startswith("//"):
        return None
    plain = normpath(unquote(parts.path))
    for role in ROLES:
        with suppress(BuildError, RuntimeError):  # not built here, it leads nowhere
            if plain == normpath(own.path(role)):
                return None
    return path


def dashboard_addresses(settings: Settings) -> dict[str, str]:
    """Return what the application's settings at Auth0 need, by their names there."""
    base, adapter = settings.origin, None
    with suppress(HTTPException):  # the app refuses the host
        base += callback_prefix(settings) or ""
        adapter = _callback_adapter(settings)
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


def callback_prefix(settings: Settings) -> str | None:
    """Return what stands before the app's own part of the callback's path."""
    adapter, path = _callback_adapter(settings), unquote(settings.callback.path)
    for start in [i for i, character in enumerate(path) if character == "/"]:
        with suppress(HTTPException):
            if adapter.match(path[start:], "GET")[0] == endpoints().name("callback"):
                return path[:start]
    return None


def _callback_adapter(settings: Settings) -> MapAdapter:
    """Return what knows the app's addresses under the callback's host.

    A SecurityError says that the app's ``TRUSTED_HOSTS`` are without that.
    """
    from werkzeug.test import create_environ  # not for every app that starts

    request = current_app.request_class(create_environ(base_url=settings.origin))
    return cast(MapAdapter, current_app.create_url_adapter(request))


async def at_browser_origin(url: str, verifier: Verifier) -> str:
    """Return a tenant's address; of the local tenant, that of its plain http port.

    Browsers do not trust the certificate of the port that AUTH0_DOMAIN names.
    """
    address = urlsplit(url)
    if is_loopback(address.hostname):
        with suppress(Exception):  # it is not running: nothing to sign out of
            async with asyncio.timeout(_DISCOVERY_SECONDS):
                found = await verifier.metadata()
            port = urlsplit(str(found["authorization_endpoint"]))
            if is_loopback(port.hostname):
                return address._replace(scheme=port.scheme, netloc=port.netloc).geturl()
    return url


def check_rounds(signed_in: Callable[[], object]) -> None:
    """See that logins do not go round; who is signed in is asked if that decides."""
    if _rounds() >= _MAX_ROUNDS and not signed_in():
        raise CheckFailed("login_loop")


def count_round() -> None:
    """Count a login that was completed; a cookie remembers it for a minute."""
    _set_cookie(_ROUNDS, f"{_rounds() + 1}.{int(time.time())}", max_age=_ROUND_SECONDS)


def forget_rounds() -> None:
    """Forget the count: somebody who signs out may sign in again at once."""
    if _ROUNDS in request.headers.get("Cookie", ""):
        _set_cookie(_ROUNDS, "", max_age=0, expires=0)


def end_rounds(response: Response) -> Response:
    """Forget the count where somebody is signed in: logins lead somewhere."""
    if _ROUNDS in request.headers.get("Cookie", ""):
        known = request_state()
        if known.session and known.began is None and not known.passive:
            cookies = _cookies()
            response.delete_cookie(f"{cookies.name}{_ROUNDS}", **cookies.attributes)
    return response


def _rounds() -> int:
    value = request.cookies.get(f"{_cookies().name}{_ROUNDS}", "")
    number, _, at = value.partition(".")
    if not (number.isdecimal() and at.isdecimal()):
        return 0
    return int(number[:3]) if time.time() - int(at[:12]) < _ROUND_SECONDS else 0


def _cookies() -> OwnCookies:
    return OwnCookies(current_app.session_interface, current_app, request.cookies)


def _was_tried() -> bool:
    return f"{_cookies().name}{_SILENT}" in request.cookies


def _set_cookie(suffix: str, value: str, **until: Any) -> None:
    @after_this_request
    def add_cookie(response: Response) -> Response:
        own = _cookies()
        response.set_cookie(f"{own.name}{suffix}", value, **until, **own.attributes)
        return response
