"""Where visitors are sent: to login, and back to a page of this app."""

from __future__ import annotations

import logging
import re
from collections.abc import Callable, Mapping
from contextlib import suppress
from itertools import chain, product
from posixpath import normpath
from typing import Any, cast
from urllib.parse import quote, unquote, urlsplit, urlunsplit

from auth0_server_python.error import OrganizationTokenValidationError
from auth0_server_python.utils.helpers import validate_org_claims
from flask import (
    Flask,
    Response,
    abort,
    after_this_request,
    current_app,
    redirect,
    request,
    session,
    url_for,
)
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, Unauthorized
from werkzeug.routing import BuildError, MapAdapter

from .errors import (
    CheckFailed,
    LoginError,
    LoginRefused,
    ProblemResponse,
    StoreUnavailable,
    prefers_json,
)
from .stores import request_state
from .stores.base import RequestState
from .stores.cookies import OwnCookies

logger = logging.getLogger(__name__)

KEY = "auth0"
#: What a view's ``auth0_role`` may be, and the usual names of such endpoints.
ROLES = ("login", "callback", "logout")
#: Bytes of a ``return_to``; it travels in a cookie.
MAX_RETURN_TO = 2_048
#: What browsers drop from an address or read as a slash, and what names a host.
_UNSAFE = re.compile(r"[\x00-\x20\x7f]|^//|^[^?#]*\\")
#: Logins within so many seconds after each of which nobody was signed in.
_MAX_ROUNDS, _ROUND_SECONDS = 3, 60
_ROUNDS = "_rounds"  # ends the name of the cookie that counts them
#: Ends the name of the cookie of a silent login that was tried, and how long it lasts.
_SILENT, _SILENT_SECONDS = "_silent", 3600
_PREFETCH_HEADERS = ("Sec-Purpose", "Purpose", "X-Moz", "X-Purpose")
_ROBOTS = re.compile("bot|crawl|spider", re.IGNORECASE)


class SignedOut(ProblemResponse, Unauthorized):
    """Nobody is signed in, or not in the way that is asked for."""

    error = "signed_out"
    description = "Sign in to see this."


class NotSteppedUp(SignedOut):
    """Somebody is signed in, who has yet to prove more (RFC 9470 section 3)."""

    error = "insufficient_user_authentication"
    description = "Sign in again, or with a second factor, to see this."


class OtherOrganization(SignedOut):
    """Somebody is signed in with another organization, or with none."""

    error = "wrong_organization"
    description = "That is not the organization to sign in with."


class Endpoints:
    """The endpoints of an app for login, callback and logout, by role.

    Those that `init_app` was not given are found when they are first asked for: by
    the role that a view is marked with, or by name.
    """

    def __init__(self, app: Flask, **given: str | None) -> None:
        self._views = app.view_functions
        self._names = {role: name for role, name in given.items() if name}

    def name(self, role: str) -> str | None:
        """Return the endpoint of a role, or None if the app has none."""
        if role not in self._names:
            views = self._views
            marked = (e for e in views if getattr(views[e], "auth0_role", None) == role)
            if (found := next(marked, role)) in views:
                self._names[role] = found
        return self._names.get(role)

    def role(self, endpoint: str | None) -> str | None:
        """Return the role of an endpoint, by its name or else its mark, or None."""
        for role in ROLES:
            if endpoint and endpoint == (self._names.get(role) or self.name(role)):
                return role
        return getattr(self._views.get(endpoint or ""), "auth0_role", None)

    def require(self, role: str) -> str:
        """Return the endpoint of a role; a RuntimeError names what to do."""
        endpoint = self.name(role)
        if endpoint is None or endpoint not in self._views:
            raise RuntimeError(
                f"The app has no endpoint {endpoint or role!r}. Register auth.routes, "
                f'or name the endpoint it has: auth.init_app(app, {role}="...")'
            )
        return endpoint

    def path(self, role: str, **values: Any) -> str:
        """Return the path of a role's endpoint."""
        return url_for(self.require(role), **values)


def extension() -> Any:
    """Return what `init_app` keeps of the current app."""
    try:
        return current_app.extensions[KEY]
    except KeyError:
        raise RuntimeError("Call auth.init_app(app) where the app is made.") from None


def signed_out(**wanted: Any) -> SignedOut:
    """Return the 401 for programs, which says where to sign in, and how."""
    said = {"form-action": extension().endpoints.path("login", **wanted)}
    names = ("acr_values", "max_age")
    more = {n: str(wanted[n]) for n in names if wanted.get(n) is not None}
    kind, state = SignedOut, request_state().session
    organization = wanted.get("organization")
    if state and organization and not is_of(state["user"], organization):
        kind = OtherOrganization
    elif state and more:
        kind = NotSteppedUp
        said |= {"error": kind.error, **more}
    return kind(www_authenticate=WWWAuthenticate("cookie", said))


def is_of(user: Mapping[str, Any], organization: str) -> bool:
    """Tell whether a user has signed in with an organization, by id or name."""
    with suppress(OrganizationTokenValidationError):
        validate_org_claims(dict(user), organization)
        return True
    return False


def login_again(**wanted: object) -> HTTPException:
    """Return what leads to login and back: the one place that decides how.

    A browser is redirected. A program gets 401, and htmx a 401 whose ``HX-Redirect``
    it follows. ``wanted`` is what the login is asked for, such as ``max_age``; who is
    signed in keeps their organization, and a session that ends with the browser.
    """
    known, settings = request_state(), extension().client.settings
    if state := known.session:
        if not (wanted.get("organization") or settings.organization):
            wanted["organization"] = state["user"].get("org_id")
        if state["session"].get("persistent") is False:
            wanted["remember"] = 0
    is_htmx = request.headers.get("HX-Request") == "true"
    never = known.never_redirect or _is_of_api()
    if never or (prefers_json() and not is_htmx):
        return signed_out(**wanted)
    shown = request.headers.get("HX-Current-URL")
    page = safe_return_to(shown) if is_htmx else this_page()
    login = extension().endpoints.path("login", return_to=page, **wanted)
    if is_htmx:
        return HTTPException(response=Response("", 401, {"HX-Redirect": login}))
    return HTTPException(response=redirect(login))


def _is_of_api() -> bool:
    """Tell whether a guard with ``redirect=False`` is yet to come."""
    app = current_app
    funcs = [app.before_request_funcs.get(name, ()) for name in request.blueprints]
    view = app.view_functions.get(request.endpoint or "")
    method = getattr(getattr(view, "view_class", None), request.method.lower(), None)
    guards = (view, method, *chain(*funcs))
    return any(getattr(guard, "never_redirects", False) is guard for guard in guards)


def try_silent_login() -> None:
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
    ):
        return
    own = extension()
    with suppress(StoreUnavailable):  # not in an outage: the page may need no session
        if not own.client.sessions.load() and _checked(page := this_page()) == page:
            note_silent_login()
            login = own.endpoints.path("login", return_to=page, prompt="none", silent=1)
            abort(redirect(login))


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


def return_to(result: Mapping[str, Any] | LoginError) -> str:
    """Return the page that a login was started for.

    Args:
        result: What ``complete_interactive_login`` returned, or raised.
    """
    if isinstance(result, LoginError):
        app_state, otherwise = result.app_state, request.args.get("return_to")
    else:
        app_state, otherwise = result.get("app_state"), None
    wanted = app_state.get("return_to") if isinstance(app_state, dict) else None
    return safe_return_to(wanted if isinstance(wanted, str) else otherwise)


def login_url(error: LoginError) -> str | None:
    """Return where to try a login again, or None where that has parts of its own."""
    # else Auth0 would sign the same user in again, unasked
    is_of_user = isinstance(error, LoginRefused) or error.error == "another_user"
    wanted = {"prompt": "login" if is_of_user else None}
    if isinstance(error.app_state, dict) and not error.app_state.get("remember", True):
        wanted["remember"] = "0"
    with suppress(RuntimeError, BuildError):
        page, own = return_to(error), cast(Endpoints, extension().endpoints)
        return own.path("login", return_to=page, **wanted)
    return None


def home() -> str:
    """Return the path of the app's root."""
    return f"{request.script_root}/"


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
    endpoints, settings = extension().endpoints, extension().client.settings
    if f"{parts.scheme}://{parts.netloc}" in settings.allowed_origins:
        return value
    path = urlunsplit(("", "", *parts[2:]))
    ours = ("", ""), settings.callback[:2]
    if parts[:2] not in ours or not path.startswith("/") or path.startswith("//"):
        return None
    plain, root = normpath(unquote(parts.path)), request.script_root
    adapter = cast(MapAdapter, current_app.create_url_adapter(request))
    paths = (plain, f"{plain}/") if plain.startswith(root) else ()
    for inside, method in product(paths, ("GET", "POST")):
        with suppress(HTTPException):  # what has no view leads nowhere
            if endpoints.role(adapter.match(inside[len(root) :], method)[0]):
                return None
    return path


def check_rounds(signed_in: Callable[[], object]) -> None:
    """See that logins do not go round; who is signed in is asked if that decides."""
    if _rounds() >= _MAX_ROUNDS and not signed_in():
        raise CheckFailed("login_loop")


def count_round() -> None:
    """Count a login that was completed; the browser remembers it for a minute."""
    rounds = str(min(_rounds(), _MAX_ROUNDS) + 1)  # whatever a browser sends
    _set_cookie(_ROUNDS, rounds, max_age=_ROUND_SECONDS)


def forget_rounds(known: RequestState) -> None:
    """Forget the count: somebody is signed in, or signs out to sign in again."""
    if not known.forgot_rounds:
        known.forgot_rounds = True
        if _ROUNDS in request.headers.get("Cookie", ""):
            _set_cookie(_ROUNDS, "", max_age=0, expires=0)


def _rounds() -> int:
    return request.cookies.get(f"{_cookies().name}{_ROUNDS}", 0, type=int)


def _was_tried() -> bool:
    return f"{_cookies().name}{_SILENT}" in request.cookies


def _set_cookie(suffix: str, value: str, **until: Any) -> None:
    @after_this_request
    def add_cookie(response: Response) -> Response:
        own = _cookies()
        response.set_cookie(f"{own.name}{suffix}", value, **until, **own.attributes)
        return response


def _cookies() -> OwnCookies:
    own = getattr(session, "cookies", None)  # of our interfaces
    if isinstance(own, OwnCookies):
        return own
    return OwnCookies(current_app.session_interface, current_app, request.cookies)
