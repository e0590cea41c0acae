"""Guards: decorators that let some visitors see a view."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from functools import partial, wraps
from inspect import iscoroutinefunction, ismethod
from typing import Any, TypeVar, overload
from weakref import WeakKeyDictionary

from auth0_server_python import error as sdk
from flask import (
    Flask,
    Response,
    after_this_request,
    current_app,
    has_request_context,
    request,
)
from werkzeug.exceptions import Forbidden

from .client import current_client
from .errors import ProblemResponse, ProviderRefused
from .redirects import Endpoints, extension, is_of, login_again, try_silent_login
from .routes import answer_early
from .session_door import answer_uncaught
from .stores import request_state
from .verification import MFA, unproved

logger = logging.getLogger(__name__)
V = TypeVar("V", bound=Callable[..., Any])
Check = Callable[[], object]

_COVERED = "{} stands above a guard, and may answer before it. Put the guard on top."
#: Seconds in which a second login for a second factor would go round.
_ROUND_SECONDS = 60
#: What a guard's wrapper calls; and the checks of guards by what they were given. Where
#: that is the registered view, a guard stood above the route. By identity: what
#: `functools.wraps` copies from a wrapper to another would be no sign of that.
_guarded: WeakKeyDictionary[Any, Any] = WeakKeyDictionary()
_checks: WeakKeyDictionary[Any, tuple[Check, ...]] = WeakKeyDictionary()


class NotAllowed(ProblemResponse, Forbidden):
    """Somebody is signed in who may not see this."""

    error = "not_allowed"
    title = "Access denied"
    description = "You are signed in, but your account has no access to this page."
    hint = "If you should have access, please tell the operator of this site."


@overload
def login_required(view: V) -> V: ...
@overload
def login_required(
    view: None = None,
    *,
    mfa: bool = False,
    acr: str | None = None,
    max_age: int | None = None,
    organization: str | None = None,
    redirect: bool = True,
) -> Callable[..., Any]: ...
def login_required(
    view: Callable[..., Any] | None = None,
    *,
    mfa: bool = False,
    acr: str | None = None,
    max_age: int | None = None,
    organization: str | None = None,
    redirect: bool = True,
) -> Any:
    """Let only users who are signed in see a view.

    It is for async and sync views, classes of views (``decorators =
    [login_required]``) and their methods, and for whole apps and blueprints:
    ``app.before_request(login_required)`` protects everything but the routes of the
    login, ``static``, and what is marked `public`.
    A browser is redirected to login and back; a program gets 401.

    Args:
        view: The view; left out for ``before_request``.
        mfa: Require a second factor: ``amr`` has ``mfa``.
        acr: Require this ``acr``, for tenants with levels of their own.
        max_age: Require a login within so many seconds; older ones are repeated
            (OpenID Connect Core section 3.1.2.1).
        organization: Require a login with this organization, by id or name.
        redirect: False answers 401 to browsers, too, as an API does.

    Raises:
        TypeError: Both ``mfa`` and ``acr`` are given, an empty string, or a
            ``max_age`` that is no number of seconds.
    """
    if mfa and acr:
        raise TypeError("login_required takes either mfa=True or acr=..., not both.")
    if "" in (acr, organization):  # such as a setting: it would let everybody in
        raise TypeError("login_required: acr and organization must not be empty.")
    if max_age is not None and not (isinstance(max_age, int) and max_age >= 0):
        raise TypeError("login_required: max_age must be a number of seconds.")
    wanted = {
        "max_age": max_age,
        "acr_values": MFA if mfa else acr,
        "organization": organization,
    }
    guard = _guard(partial(_require, redirect, **wanted), redirect)
    is_plain = redirect and not any(v is not None for v in wanted.values())
    return guard(view) if view is not None or is_plain else guard


def requires_claim(name: str, *values: str | int | float | bool) -> Callable[..., Any]:
    """Let only users with a claim see a view, such as a role that an Action adds.

    Args:
        name: The claim, often a URL: ``https://example.com/roles``.
        values: The claim has to equal one of these or, if it is a list, contain one.
            Without values, any claim that is not empty will do.

    Raises:
        TypeError: An argument can match no claim.
    """
    if not isinstance(name, str):
        raise TypeError("requires_claim: the name of a claim is a string.")
    if not all(isinstance(v, str | int | float | bool) and v != "" for v in values):
        raise TypeError(
            "requires_claim: give the values one by one, not as a list, none empty: "
            'requires_claim("https://example.com/roles", "admin", "editor")'
        )

    def check() -> None:
        user = _require()
        claim = user.get(name)
        found = claim if isinstance(claim, list) else [claim]
        if any(value in found for value in values) if values else claim:
            return
        state = "had another value" if name in user else "was absent"
        logger.info("Refused %r: the claim %s %s.", request.path, name, state)
        raise NotAllowed

    return _guard(check)


def login_silently(view: Any = None) -> Any:
    """Sign in a user who is signed in at Auth0 already, without asking anything.

    For ``app.before_request(login_silently)``, `public` views too, and for views. It is
    tried once an hour, for pages in browsers; if it fails, the user sees the page that
    they wanted, signed out.
    """
    guard = _guard(try_silent_login)
    return guard(view) if view else _unless_public(try_silent_login, also_public=True)


def public(view: V) -> V:
    """Let everybody see a view, below ``before_request(login_required)``."""
    view.is_public = True  # type: ignore[attr-defined]  # what _unless_public looks for
    return view


def passive(view: V) -> V:
    """Do not count requests of a view as use of a session, such as polling.

    They neither extend its idle time nor set its cookie.
    """
    view.is_passive = True  # type: ignore[attr-defined]  # what before_view looks for
    return view


def answer_sdk_error(error: sdk.Auth0Error) -> Any:
    """Answer what the SDK raised and no view caught: with a login where that helps.

    That is where Auth0 wants a second factor, and where no token is left and there is
    no refresh token; not where such a login has just been made, nor where there is a
    token for another API.
    """
    needs_factor = isinstance(error, sdk.MfaRequiredError)
    code = getattr(error, "code", None)
    has_no_refresh_token = code == sdk.AccessTokenErrorCode.MISSING_REFRESH_TOKEN
    is_of_login = extension().endpoints.role(request.endpoint)
    if is_of_login or not (needs_factor or has_no_refresh_token):
        return answer_uncaught(error)
    wanted = {"acr_values": MFA} if needs_factor else {}
    if state := current_client().load_session():
        now, began = time.time(), state["session"].get("created_at", 0)
        helps = now >= began + _ROUND_SECONDS or unproved(state["user"], wanted)
        if has_no_refresh_token:
            logger.warning("No refresh token: add offline_access to AUTH0_SCOPE.")
            helps = helps and all(t["expires_at"] <= now for t in state["token_sets"])
        if not helps and needs_factor:
            return answer_uncaught(error)
        if not helps:
            refused = ProviderRefused("no_refresh_token")
            refused.title, refused.__cause__ = "That did not work just now", error
            return answer_uncaught(refused)
    return current_app.handle_user_exception(login_again(**wanted))


def before_view(app: Flask, endpoints: Endpoints) -> Any:
    """Answer early, or enforce guards that stand above the route; before every view."""
    known, endpoint = request_state(), request.endpoint
    view = app.view_functions.get(endpoint or "")
    if view is None:
        return None
    role = endpoints.role(endpoint)
    if role and (answer := answer_early(role)):
        return answer
    if getattr(view, "is_passive", False):
        known.passive = True
    if (checks := _of(view, _checks)) and not _is_answered_by_flask():
        for check in checks:
            check()
    return None


def covered_guards(app: Flask) -> Iterator[tuple[str, str]]:
    """Yield endpoints, and what stands between a route and a guard, such as a cache."""
    for endpoint, view in _views(app):
        above: list[Any] = []
        while view is not None:
            above.append(view)
            if _of(view, _guarded):
                for other in above[:-1]:
                    code = getattr(other, "__code__", None)
                    name = getattr(code, "co_qualname", type(other).__name__)
                    yield endpoint, _COVERED.format(name)
                above = []
            view = getattr(view, "__wrapped__", None)


def _views(app: Flask) -> Iterator[tuple[str, Any]]:
    """Yield endpoints with their view, and each method of a class of views."""
    for endpoint, view in app.view_functions.items():
        yield endpoint, view
        view_class = getattr(view, "view_class", None)
        for name in getattr(view_class, "methods", None) or ():
            yield endpoint, getattr(view_class, name.lower(), None)


def _guard(check: Check, redirect: bool = True) -> Callable[..., Any]:
    """Make of a check what decorates a view, and serves ``before_request`` as well."""

    def guard(view: Any = None) -> Any:
        if view is None:  # `before_request` calls it so, or it had empty parentheses
            return _unless_public(check) if has_request_context() else guard
        if not callable(view):
            told = "A guard is given a view. To ask for a role, use requires_claim."
            raise TypeError(told)
        if iscoroutinefunction(view):

            @wraps(view)
            async def wrapper(*args: Any, **kwargs: Any) -> Any:
                check()
                return await view(*args, **kwargs)

        else:

            @wraps(view)
            def wrapper(*args: Any, **kwargs: Any) -> Any:
                check()
                return view(*args, **kwargs)

        _guarded[wrapper] = view
        if not redirect or getattr(view, "never_redirects", None) is view:
            vars(wrapper)["never_redirects"] = wrapper  # by identity as well
        # a guard that a request makes closes nothing for later ones; methods are equal
        # without being the same, and no route has registered the one given here
        inner = None if has_request_context() or ismethod(view) else view
        with suppress(TypeError):  # see _of
            while inner is not None:
                _checks[inner] = (check, *_checks.get(inner, ()))
                inner = _guarded.get(inner)
        return wrapper

    if not redirect:
        vars(guard)["never_redirects"] = guard  # what login_again looks for
    return guard


def _of(view: Any, known: WeakKeyDictionary[Any, Any]) -> Any:
    """Return what is known of a view; nothing of an object that cannot be a key."""
    try:
        return known.get(view)
    except TypeError:  # it has no hash, or no weak references
        return None


def _unless_public(check: Check, also_public: bool = False) -> None:
    endpoint = request.endpoint
    if endpoint is None or _is_answered_by_flask():
        return
    blueprint, _, name = endpoint.rpartition(".")
    own = current_app.blueprints.get(blueprint) if blueprint else current_app
    if own and own.has_static_folder and name == "static":
        return
    view = current_app.view_functions[endpoint]
    is_open = getattr(view, "is_public", False) and not also_public
    if not (is_open or extension().endpoints.role(endpoint)):
        check()


def _is_answered_by_flask() -> bool:
    """Tell an OPTIONS that tells methods from one that a view answers itself."""
    by_flask = getattr(request.url_rule, "provide_automatic_options", False)
    return request.method == "OPTIONS" and by_flask


def _require(redirect: bool = True, **wanted: Any) -> Mapping[str, Any]:
    """Return the claims of the user who is signed in; otherwise lead to login."""
    known = request_state()
    known.never_redirect |= not redirect
    user: Mapping[str, Any] = (current_client().load_session() or {}).get("user") or {}
    if user:
        after_this_request(_not_stored)  # before the app's own hooks
        organization = wanted.get("organization")
        is_other = organization and not is_of(user, organization)
        if not (is_other or unproved(user, wanted)):
            return user
    raise login_again(**wanted)


def _not_stored(response: Response) -> Response:
    if "Cache-Control" not in response.headers:
        response.headers["Cache-Control"] = "private, no-store"
    elif not response.cache_control.no_store:  # `send_file` says public by itself
        response.cache_control.public = False
        response.cache_control.private = True
    return response
