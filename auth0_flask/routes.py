"""The routes of the login, and what they are made of."""

from __future__ import annotations

import logging
from contextlib import suppress
from typing import Any
from urllib.parse import SplitResult, parse_qs, unquote, urlsplit

import httpx
import jwt
from auth0_server_python.auth_types import LogoutOptions, StartInteractiveLoginOptions
from auth0_server_python.error import Auth0Error, BackchannelLogoutError
from flask import Blueprint, Response, current_app, redirect, request
from werkzeug.exceptions import Forbidden
from werkzeug.routing import BuildError
from werkzeug.wrappers import Response as WerkzeugResponse

from .client import current_client
from .errors import CheckFailed, ProblemResponse, login_error
from .redirects import (
    extension,
    home,
    is_prefetch,
    note_silent_login,
    return_to,
    safe_return_to,
)
from .settings import is_loopback

logger = logging.getLogger(__name__)

_PASSED_ON = (
    *("screen_hint", "connection", "login_hint", "prompt"),
    *("ui_locales", "max_age", "acr_values", "session_transfer_token"),
)
_MAX_BYTES = 512
_LONGEST_TAG = 35  # RFC 5646 section 4.4.1
#: Bytes of a logout token's request at most.
_MAX_LOGOUT_TOKEN = 8_192
_NOT_STORED = {"Cache-Control": "no-store"}


class CrossSite(ProblemResponse, Forbidden):
    """A form was sent from another site."""

    error = "cross_site"
    title = "Request refused"
    description = "The request came from another site, so nothing was done."


def create_blueprint() -> Blueprint:
    """Return the routes of the login, to register with an app.

    ``/login``, ``/callback``, ``/logout``, ``POST /logout/everywhere`` and
    ``POST /backchannel-logout``; a prefix is the app's to choose.
    """
    routes = Blueprint("auth0", __name__)

    @routes.get("/login")
    async def login() -> WerkzeugResponse:
        return redirect(await current_client().start_interactive_login(login_options()))

    @routes.get("/callback")
    async def callback() -> WerkzeugResponse:
        result = await current_client().complete_interactive_login(request.url)
        return redirect(return_to(result))

    @routes.get("/logout")
    async def logout() -> WerkzeugResponse:
        return redirect(await current_client().logout(logout_options()))

    @routes.post("/logout/everywhere")
    async def logout_everywhere() -> WerkzeugResponse:
        refuse_cross_site()
        auth0 = current_client()
        await auth0.logout_everywhere()
        return redirect(await auth0.logout(logout_options()), 303)

    @routes.post("/backchannel-logout")
    async def backchannel_logout() -> Response:
        return await receive_logout_token()

    views: list[Any] = [login, callback, logout, logout_everywhere, backchannel_logout]
    for view in views:
        view.auth0_role = view.__name__  # what Endpoints and the guards look for

    @routes.url_value_preprocessor  # before all hooks, whoever was registered first
    def exempt(*_: object) -> None:
        # Flask-WTF's protection: these see by themselves where a request comes from
        if exempt := getattr(current_app.extensions.get("csrf"), "exempt", None):
            for view in views:
                exempt(view)

    return routes


def login_options() -> StartInteractiveLoginOptions:
    """Return the options of a login from the query of this request.

    The login keeps ``return_to`` (checked), ``remember`` (``0`` ends the session when
    the browser closes), ``max_age`` and ``acr_values``, which it has to prove, and
    ``silent``, with which a failure leads to ``return_to``, too.
    With ``session_transfer_token`` it replaces no session of another user.
    It sends Auth0 ``organization``, ``invitation``, ``screen_hint``, ``connection``,
    ``login_hint``, ``prompt``, ``max_age``, ``acr_values``, ``session_transfer_token``
    and ``ui_locales`` (by default from Accept-Language); nothing else.

    Raises:
        CheckFailed: Another organization than ``AUTH0_ORGANIZATION`` is asked for.
    """
    asked = {
        name: value.strip()
        for name, value in request.args.items()
        if 0 < len(value.strip().encode("utf-8", "replace")) <= _MAX_BYTES
    }
    organization = asked.get("organization")
    own = current_client().settings.organization
    if own and organization not in {None, own}:
        raise login_error(refused := CheckFailed("wrong_organization")) or refused
    if not asked.get("max_age", "").isdecimal():
        asked.pop("max_age", None)
    if silent := asked.get("silent") == "1":
        note_silent_login()
    passed_on = {"ui_locales": _languages(), **asked}
    kept = {
        "return_to": safe_return_to(request.args.get("return_to")),
        "remember": False if request.args.get("remember") == "0" else None,
        "max_age": int(asked["max_age"]) if "max_age" in asked else None,
        "acr_values": asked.get("acr_values"),
        "silent": silent or None,
        "transferred": "session_transfer_token" in asked or None,
    }
    return StartInteractiveLoginOptions(
        # in a cookie, where bytes are few
        app_state={name: value for name, value in kept.items() if value is not None},
        authorization_params={n: v for n in _PASSED_ON if (v := passed_on.get(n))},
        organization=organization,
        invitation=asked.get("invitation"),
    )


def logout_options() -> LogoutOptions:
    """Return the options of a logout: home afterwards; ``?federated`` is passed on.

    The address is that of ``AUTH0_REDIRECT_URI``, whatever host the request names,
    or ``?return_to`` where its origin is one of ``AUTH0_ALLOWED_ORIGINS``.
    """
    wanted = safe_return_to(request.args.get("return_to"))
    if wanted.startswith("/"):
        wanted = f"{current_client().settings.origin}{home()}"
    return LogoutOptions(return_to=wanted, federated="federated" in request.args)


def refuse_cross_site() -> None:
    """Refuse a POST that another site made the browser send.

    By ``Sec-Fetch-Site`` and ``Origin``, which no page can forge.

    Raises:
        CrossSite: It came from elsewhere, or does not say where from.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    ours = {current_client().settings.origin, request.host_url.rstrip("/")}
    if not (origin in ours if site is None else site == "same-origin"):
        raise CrossSite


async def receive_logout_token() -> Response:
    """Answer Auth0's ``POST`` of a logout token, and end the sessions it names.

    OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8: 200, or 400 with
    ``error``. It touches no session of this request and needs no CSRF token.

    Raises:
        StoreUnavailable: It could not be stored; Auth0 may send it again.
    """
    words = "The logout token could not be verified."
    try:
        await current_client().handle_backchannel_logout(_given_token())
        return Response(status=200, headers=_NOT_STORED)
    except BackchannelLogoutError as error:
        words = str(error) or words
    except jwt.PyJWTError:
        pass
    except (Auth0Error, httpx.HTTPError, OSError, ValueError) as error:
        found = login_error(error, doing="Back-channel logout")
        if found is None or (found.code or 500) >= 500:
            raise (found or error) from error
    refusal = {"error": "invalid_request", "error_description": words}
    return current_app.make_response((refusal, 400, _NOT_STORED))


def answer_early(role: str) -> WerkzeugResponse | None:
    """Answer what must not start or end anything; runs before the login's own views.

    Browsers and mail scanners fetch links that nobody has clicked: a prefetch or a
    HEAD must neither start a login, nor use one up, nor sign anybody out.
    A login on another loopback name than the callback's goes there first, since the
    callback would not see its cookie.
    """
    if is_prefetch():
        return Response(status=204, headers=_NOT_STORED)
    if role != "login":
        return None
    with suppress(ValueError):  # the request names no host
        here, settings = urlsplit(request.host_url), current_client().settings
        there = settings.callback
        is_local = is_loopback(here.hostname) and is_loopback(there.hostname)
        if is_local and here.port == there.port and here.netloc != there.netloc:
            return redirect(settings.origin + request.script_root + request.full_path)
        if not (current_app.testing or settings.problems):
            _warn_of_mismatch(here, there)
    return None


def _warn_of_mismatch(here: SplitResult, there: SplitResult) -> None:
    """Warn once where logins do not come the way that AUTH0_REDIRECT_URI says."""
    own, path = extension(), there.path
    with suppress(BuildError, RuntimeError):  # the app fills in what is not known here
        path = own.endpoints.path("callback")
    came = here.scheme, here.hostname, here.port, unquote(path)
    said = there.scheme, there.hostname, there.port, unquote(there.path)
    if came != said and not own.warned_of_mismatch:
        own.warned_of_mismatch = True
        logger.warning(
            "A login came to %.80s, but AUTH0_REDIRECT_URI is %.160s. Set it to "
            "%.80s%s; or, behind a proxy, have that send X-Forwarded-Proto, -Host and "
            "-Prefix, and use ProxyFix.",
            *(request.host_url, there.geturl(), request.host_url.rstrip("/"), path),
        )


def _given_token() -> str:
    if "form" in vars(request):  # a hook of the app has read it
        token = request.form.get("logout_token", "")
    else:  # Flask would keep a body of any length on disk
        body = request.stream.read(_MAX_LOGOUT_TOKEN + 1)
        if len(body) > _MAX_LOGOUT_TOKEN:
            raise BackchannelLogoutError("The request is too long.")
        fields = parse_qs(body.decode("utf-8", "replace"))
        token = fields.get("logout_token", [""])[0]
    if not token:
        raise BackchannelLogoutError("There is no logout_token in the form.")
    return token


def _languages() -> str:
    """Return what the visitor reads (OpenID Connect Core section 3.1.2.1)."""
    wanted = [tag for tag in request.accept_languages.values() if tag != "*"]
    return " ".join(tag for tag in wanted[:5] if len(tag) <= _LONGEST_TAG)
