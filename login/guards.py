"""What a view wears to be for signed-in visitors only."""

from __future__ import annotations

from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any, ParamSpec, TypeVar, cast

from flask import Response, after_this_request, redirect, url_for
from werkzeug.datastructures import WWWAuthenticate
from werkzeug.exceptions import HTTPException, Unauthorized

from .errors import prefers_json
from .extension import installed
from .returning import here

P = ParamSpec("P")
R = TypeVar("R")


def login_required(view: Callable[P, R]) -> Callable[P, R]:
    """Let a view be for whoever is signed in.

    Anybody else goes to login and comes back, with the query; a program that asks
    for JSON gets 401.
    It serves async and sync views, and takes no event loop for itself.
    """
    if iscoroutinefunction(view):

        @wraps(view)
        async def guarded_coroutine(*args: P.args, **kwargs: P.kwargs) -> Any:
            require_login()
            return await view(*args, **kwargs)

        return cast(Callable[P, R], guarded_coroutine)

    @wraps(view)
    def guarded(*args: P.args, **kwargs: P.kwargs) -> R:
        require_login()
        return view(*args, **kwargs)

    return guarded


def require_login() -> dict[str, Any]:
    """Return the session, or turn the visitor away.

    Raises:
        HTTPException: A redirect to login, or 401 for a program.
    """
    state = installed().client.read_session()
    if state is None:
        raise turned_away()
    after_this_request(_not_stored)
    return state


def turned_away() -> HTTPException:
    """Return what a visitor who is not signed in gets."""
    login = url_for(installed().login, return_to=here())
    if prefers_json():
        return signed_out()
    return HTTPException(response=redirect(login))


def signed_out() -> Unauthorized:
    """Return the 401 for programs, which says where to sign in."""
    challenge = WWWAuthenticate("cookie", {"form-action": url_for(installed().login)})
    error = Unauthorized("Nobody is signed in.", www_authenticate=challenge)
    error.error = "signed_out"  # type: ignore[attr-defined]  # for problem()
    return error


def _not_stored(response: Response) -> Response:
    response.headers.setdefault("Cache-Control", "private, no-store")
    return response
