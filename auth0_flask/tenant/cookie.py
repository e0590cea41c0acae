"""The cookie that keeps a browser signed in at the tenant."""

from __future__ import annotations

from flask import request
from werkzeug.wrappers import Response

from auth0_flask.tenant.grant import Session
from auth0_flask.tenant.provider import Provider

_NAME = "auth0_local"


def current(provider: Provider) -> Session | None:
    """Return the session of the browser that asks, or None."""
    return provider.directory.sessions.get(request.cookies.get(_NAME, ""))


def remember(provider: Provider, answer: Response, session: Session) -> None:
    """Sign the browser in, in place of whom it was signed in as."""
    _take(provider)
    key = provider.directory.sessions.put(session)
    answer.set_cookie(_NAME, key, httponly=True, samesite="Lax")


def forget(provider: Provider, answer: Response) -> Session | None:
    """Sign the browser out; return the session that ended, or None."""
    answer.delete_cookie(_NAME, httponly=True, samesite="Lax")
    return _take(provider)


def _take(provider: Provider) -> Session | None:
    return provider.directory.sessions.take(request.cookies.get(_NAME, ""))
