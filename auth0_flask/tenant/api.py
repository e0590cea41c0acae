"""An API that takes the tenant's access tokens, to try them on."""

from __future__ import annotations

from typing import Any

import jwt
from flask import Blueprint, request
from werkzeug.wrappers import Response

from auth0_flask.tenant.messages import private
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.verification import Expected, verify


class Api:
    """One protected resource (RFC 6750) that says whose token it was shown."""

    def __init__(self, provider: Provider) -> None:
        """Take the tokens of this provider."""
        self._provider = provider

    def blueprint(self) -> Blueprint:
        """Return the route."""
        routes = Blueprint("api", __name__)
        routes.add_url_rule("/api/things", view_func=self.things)
        return routes

    def things(self) -> Response:
        """Tell whose token it is and what it is good for."""
        header = request.authorization
        if header is None or header.type != "bearer":
            return _unauthorized("Bearer")
        try:
            claims = self._claims(header.token or "")
        except jwt.PyJWTError:
            return _unauthorized('Bearer error="invalid_token"')
        return private({"sub": claims["sub"], "scope": claims.get("scope", "")})

    def _claims(self, token: str) -> dict[str, Any]:
        provider = self._provider
        key = provider.keys.current.private.public_key()
        expected = Expected(provider.issuer, {provider.api_audience}, {"sub"})
        return verify(token, key, expected, provider.now())


def _unauthorized(challenge: str) -> Response:
    answer = private({"error": "unauthorized"})
    answer.status_code = 401
    answer.headers["WWW-Authenticate"] = challenge
    return answer
