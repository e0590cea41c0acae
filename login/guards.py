"""What a view wears to be for some visitors only."""

from __future__ import annotations

import logging
from collections.abc import Callable, Mapping
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, TypeVar, overload

from auth0_server_python.error import OrganizationTokenValidationError
from auth0_server_python.utils.helpers import validate_org_claims
from flask import Response, after_this_request, current_app, redirect, request
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import Forbidden, HTTPException, Unauthorized

from .errors import ForBoth, prefers_json
from .extension import installed
from .returning import here
from .verification import is_fresh

logger = logging.getLogger(__name__)
V = TypeVar("V", bound=Callable[..., Any])


class SignedOut(ForBoth, Unauthorized):
    """Nobody is signed in, or not in the way that is asked for."""

    error = "signed_out"
    description = "Sign in to see this."


class NotAllowed(ForBoth, Forbidden):
    """Somebody is signed in who may not see this."""

    error = "not_allowed"
    title = "Not for your account"
    description = "You are signed in, but this is not for your account."
    hint = "If you should be allowed to see it, please tell whoever runs this site."


@overload
def login_required(view: V) -> V: ...
@overload
def login_required(
    view: None = None, *, max_age: int | None = None, organization: str | None = None
) -> Callable[..., Any]: ...
def login_required(
    view: Callable[..., Any] | None = None,
    *,
    max_age: int | None = None,
    organization: str | None = None,
) -> Any:
    """Let a view be for whoever is signed in.

    It serves async and sync views, class-based ones (``decorators =
    [login_required]``), and whole apps and blueprints:
    ``app.before_request(login_required)`` protects everything but the three
    endpoints of the login, ``static``, and what is marked `public`.
    A browser goes to login and comes back; a program gets 401.

    Args:
        view: The view; left out for ``before_request``.
        max_age: Seconds since the visitor last proved who they are; whoever did so
            earlier is asked again (OpenID Connect Core section 3.1.2.1).
        organization: Id or name of the one organization to be signed in with.
    """

    def check() -> None:
        _require(max_age, organization)

    if view is None and max_age is None and organization is None:
        return _unless_public(check)
    return _guard(check) if view is None else _worn_by(view, check)


def requires_claim(name: str, *values: object) -> Callable[..., Any]:
    """Let a view be for those with a claim, such as a role an Auth0 Action adds.

    Args:
        name: The claim, often an address: ``https://example.com/roles``.
        values: One of these it equals or, if it is a list, contains. With none
            given, any value does that is not empty.
    """

    def check() -> None:
        claim = _require().get(name)
        found = claim if isinstance(claim, list) else [claim]
        if claim and (not values or any(value in found for value in values)):
            return
        state = "had another value" if name in _require() else "was absent"
        logger.info("Refused %r: the claim %s %s.", request.path, name, state)
        raise NotAllowed

    return _guard(check)


def public(view: V) -> V:
    """Let a view be for everybody, below ``before_request(login_required)``."""
    view.is_public = True  # type: ignore[attr-defined]  # what _unless_public looks for
    return view


def signed_out() -> SignedOut:
    """Return the 401 for programs, which says where to sign in."""
    login = installed().path("login")
    return SignedOut(www_authenticate=WWWAuthenticate("cookie", {"form-action": login}))


def turned_away(**wanted: Any) -> HTTPException:
    """Return what sends a visitor to login, or refuses a program."""
    if prefers_json():
        return signed_out()
    login = installed().path("login", return_to=here(), **wanted)
    return HTTPException(response=redirect(login))


def _guard(check: Callable[[], None]) -> Callable[..., Any]:
    """Make of a check what decorates a view, and serves ``before_request`` as well."""

    def guard(view: Callable[..., Any] | None = None) -> Any:
        return _unless_public(check) if view is None else _worn_by(view, check)

    return guard


def _worn_by(view: Callable[..., Any], check: Callable[[], None]) -> Callable[..., Any]:
    if iscoroutinefunction(view):

        @wraps(view)
        async def guarded_coroutine(*args: Any, **kwargs: Any) -> Any:
            check()
            return await view(*args, **kwargs)

        return guarded_coroutine

    @wraps(view)
    def guarded(*args: Any, **kwargs: Any) -> Any:
        check()
        return view(*args, **kwargs)

    return guarded


def _unless_public(check: Callable[[], None]) -> None:
    endpoint = request.endpoint
    own = installed()
    if endpoint is None or _is_answered_by_flask():
        return
    if endpoint in {own.login, own.callback, own.logout}:
        return
    if endpoint.rpartition(".")[2] == "static":
        return
    if not getattr(current_app.view_functions[endpoint], "is_public", False):
        check()


def _is_answered_by_flask() -> bool:
    """Tell an OPTIONS that tells methods from one that a view answers itself."""
    by_flask = getattr(request.url_rule, "provide_automatic_options", False)
    return request.method == "OPTIONS" and by_flask


def _require(
    max_age: int | None = None, organization: str | None = None
) -> Mapping[str, Any]:
    """Return the claims of whoever is signed in, or turn the visitor away."""
    state = installed().client.read_session()
    if not (state and state.get("user")):
        raise turned_away(max_age=max_age, organization=organization)
    after_this_request(_not_stored)
    user: Mapping[str, Any] = state["user"]
    if max_age is not None and not is_fresh(user, max_age):
        raise turned_away(max_age=max_age, organization=organization)
    if organization and not _is_of(user, organization):
        raise turned_away(max_age=max_age, organization=organization)
    return user


def _is_of(user: Mapping[str, Any], organization: str) -> bool:
    try:
        validate_org_claims(dict(user), organization)
    except OrganizationTokenValidationError:
        return False
    return True


def _not_stored(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response
