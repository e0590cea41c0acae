"""Logout from all devices at once, and when Auth0 says so (back-channel)."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

import jwt
from auth0_server_python.error import BackchannelLogoutError
from flask import Response, jsonify, request
from werkzeug.exceptions import Forbidden

from .errors import ForBoth, explain
from .extension import installed
from .signals import session_revoked, tell

_EVENT = "http://schemas.openid.net/event/backchannel-logout"
#: Seconds that a logout token may be on its way.
_OLDEST = 120
_MOST_BYTES = 8_192


class CrossSite(ForBoth, Forbidden):
    """A form was sent from another site."""

    error = "cross_site"
    title = "Not from here"
    description = "That button was pressed on another site, so nothing was done."


def refuse_cross_site() -> None:
    """Refuse a POST that another site made the browser send.

    By ``Sec-Fetch-Site`` and ``Origin``, which no page can forge.

    Raises:
        CrossSite: It came from elsewhere, or does not say where from.
    """
    site, origin = request.headers.get("Sec-Fetch-Site"), request.headers.get("Origin")
    ours = {installed().client.settings.origin, request.host_url.rstrip("/")}
    if site not in {None, "same-origin"} or (origin is not None and origin not in ours):
        raise CrossSite
    if site is None and origin is None:
        raise CrossSite


async def receive_logout_token() -> Response:
    """Answer Auth0's ``POST`` of a logout token, and end what it names.

    OpenID Connect Back-Channel Logout 1.0, sections 2.5 to 2.8: 200, or 400 with
    ``error``. It touches no session of this request and needs no CSRF token.

    Raises:
        RevocationsUnavailable: It could not be written down; Auth0 may repeat it.
    """
    client = installed().client
    try:
        claims = await client.verify_logout_token(_given_token())
        check_logout_claims(claims)
        await client.sessions.delete_by_logout_token(claims)
    except (BackchannelLogoutError, jwt.PyJWTError) as error:
        return _refusal(error)
    except Exception as error:
        if ((explained := explain(error)).code or 500) >= 500:
            raise explained from error
        return _refusal(error)
    await tell(session_revoked, sub=claims.get("sub"), sid=claims.get("sid"))
    return _not_stored(Response(status=200))


def check_logout_claims(claims: Mapping[str, Any]) -> None:
    """Check what makes a verified token a logout token.

    Section 2.6 by its own numbers; the signature, ``iss``, ``aud`` and ``exp`` are
    checked where ID tokens are (steps 2 to 4), encryption (1) is not in use.

    Raises:
        BackchannelLogoutError: It is none.
    """
    if time.time() - claims["iat"] > _OLDEST:  # 4
        raise BackchannelLogoutError("The token is older than two minutes.")
    named = claims.get("sub"), claims.get("sid")
    if not any(named) or not all(isinstance(n, str | None) for n in named):  # 5
        raise BackchannelLogoutError("The token names neither a sub nor a sid.")
    events = claims.get("events")
    if not isinstance(events, dict) or not isinstance(events.get(_EVENT), dict):  # 6
        raise BackchannelLogoutError("The token is not of a logout.")
    if "nonce" in claims:  # 7
        raise BackchannelLogoutError("The token has a nonce, so it is an ID token.")
    jti = claims.get("jti")
    if not isinstance(jti, str) or not jti:  # 8; whether it was seen is for the store
        raise BackchannelLogoutError("The token has no jti.")


def _given_token() -> str:
    if (request.content_length or 0) > _MOST_BYTES:
        raise BackchannelLogoutError("The request is too long.")
    token = request.form.get("logout_token", "")
    if not token:
        raise BackchannelLogoutError("There is no logout_token in the form.")
    return token


def _refusal(error: Exception) -> Response:
    words = str(error) if isinstance(error, BackchannelLogoutError) else ""
    described = words or "The logout token does not hold up to our checks."
    response = jsonify(error="invalid_request", error_description=described)
    response.status_code = 400
    return _not_stored(response)


def _not_stored(response: Response) -> Response:
    response.headers["Cache-Control"] = "no-store"
    return response
