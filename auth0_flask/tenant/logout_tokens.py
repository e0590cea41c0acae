"""Logout tokens (OpenID Connect Back-Channel Logout 1.0, section 2.4)."""

from __future__ import annotations

import secrets
import threading
from collections.abc import Mapping
from typing import Any

from auth0_flask.tenant.forgery import Forgery
from auth0_flask.tenant.grant import Session
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.tokens import draft, sign

_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LIFETIME = 120


def make(
    provider: Provider,
    *,
    sub: str | None,
    sid: str | None,
    forgery: Forgery | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Return a logout token.

    Args:
        provider: Whose it is.
        sub: The user's identifier, if it is to be in the token.
        sid: The session's, likewise.
        forgery: What is to be wrong with it.
        header: Header parameters to set; None removes one.
    """
    unsigned = draft(provider, _claims(provider, sub, sid))
    (forgery or Forgery()).apply(unsigned)
    unsigned.header = {"typ": "logout+jwt", **(header or {})}
    return sign(unsigned)


def announce(provider: Provider, session: Session, due: threading.Event) -> None:
    """Tell the app that a session has ended, where it wants to be told.

    Args:
        provider: Whose session it was.
        session: The session.
        due: Set when it is time to.
    """
    url = provider.backchannel_logout_uri
    if url is not None:
        token = make(provider, sub=session.user.sub, sid=session.sid)
        provider.notices.send(url, token, provider.backchannel_answers, due)


def _claims(provider: Provider, sub: str | None, sid: str | None) -> dict[str, Any]:
    now = int(provider.now())
    claims: dict[str, Any] = {
        "iss": provider.issuer,
        "aud": provider.client_id,
        "sub": sub,
        "sid": sid,
        "iat": now,
        "exp": now + _LIFETIME,
        "jti": secrets.token_urlsafe(16),
        "events": {_EVENT: {}},
    }
    return {name: value for name, value in claims.items() if value is not None}
