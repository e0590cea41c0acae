"""The endpoints an app's server talks to, and an API to try tokens on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from flask import Blueprint, request
from werkzeug.wrappers import Response

from auth0_flask.tenant.authorization import RequestError
from auth0_flask.tenant.grants import CONNECTION_GRANT, Grants
from auth0_flask.tenant.messages import (
    TokenError,
    bearer,
    invalid_request,
    parameters,
    private,
    public,
    required,
)
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.tokens import user_claims
from auth0_flask.tenant.verification import CREDENTIALS, Expected, authenticate, verify

_PREFIX = "urn:ietf:params:oauth:request_uri:"  # of what was pushed


class BackChannel:
    """The back channel's endpoints, and an API, for one provider."""

    def __init__(self, provider: Provider) -> None:
        """Answer for this provider."""
        self._provider = provider
        self._grants = Grants(provider)

    def blueprint(self) -> Blueprint:
        """Return the routes."""
        routes = Blueprint("backchannel", __name__)
        well_known = "/.well-known"
        routes.add_url_rule(
            f"{well_known}/openid-configuration", view_func=self.discovery
        )
        routes.add_url_rule(f"{well_known}/jwks.json", view_func=self.jwks)
        routes.add_url_rule("/oauth/par", view_func=self.push, methods=["POST"])
        routes.add_url_rule("/oauth/token", view_func=self.token, methods=["POST"])
        routes.add_url_rule("/oauth/revoke", view_func=self.revoke, methods=["POST"])
        routes.add_url_rule(
            "/userinfo", view_func=self.userinfo, methods=["GET", "POST"]
        )
        routes.add_url_rule("/api/things", view_func=self.things)
        return routes

    def discovery(self) -> Response:
        """Describe the provider (OpenID Connect Discovery, section 3)."""
        provider = self._provider
        must_push = provider.require_pushed_authorization_requests
        return public(describe(provider.issuer, provider.origin, must_push=must_push))

    def jwks(self) -> Response:
        """Publish the signing key (RFC 7517, section 5)."""
        return public(self._provider.keys.jwks())

    def token(self) -> Response:
        """Exchange what the app shows for tokens (RFC 6749, section 3.2)."""
        form = parameters()
        authenticate(self._provider, form)
        return private(self._grants.exchange(form))

    def push(self) -> Response:
        """Keep a request and return its name (RFC 9126, section 2.2)."""
        form = parameters()
        authenticate(self._provider, form)
        query = {name: form[name] for name in form.keys() - CREDENTIALS}
        _check_pushed(self._provider, query)
        pushed = self._provider.directory.pushed
        answer = private(
            {
                "request_uri": _PREFIX + pushed.put(query),
                "expires_in": int(pushed.lifetime),
            }
        )
        answer.status_code = 201
        return answer

    def revoke(self) -> Response:
        """End a refresh token's family; unknown ones are fine (RFC 7009, 2.2)."""
        form = parameters()
        authenticate(self._provider, form)
        self._provider.directory.refresh_tokens.revoke(required(form, "token"))
        return Response(status=200)

    def userinfo(self) -> Response:
        """Tell the claims of a token's user (OpenID Connect Core, section 5.3)."""
        token = bearer()
        grant = self._provider.directory.access_tokens.get(token) if token else None
        if grant is None or "openid" not in grant.scope:
            return Response(
                "Unauthorized",
                status=401,
                headers={"WWW-Authenticate": 'Bearer error="invalid_token"'},
            )
        user = self._provider.directory.present(grant.session.user)
        return private(user_claims(user, grant))

    def things(self) -> Response:
        """Tell whose token an API was shown (RFC 6750), and what it is good for."""
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


def take_pushed(provider: Provider, request_uri: str) -> Mapping[str, str] | None:
    """Return the request of this name, which is good once, or None."""
    if not request_uri.startswith(_PREFIX):
        return None
    return provider.directory.pushed.take(request_uri.removeprefix(_PREFIX))


def _check_pushed(provider: Provider, query: Mapping[str, str]) -> None:
    """Check a request as if it came by a browser (RFC 9126, section 2.1)."""
    if "request_uri" in query:
        raise invalid_request("A pushed request cannot name another")
    if query.get("client_id", provider.client_id) != provider.client_id:
        raise invalid_request("The client_id is another client's")
    if not provider.knows_callback(query.get("redirect_uri", "")):
        raise invalid_request("The redirect_uri is not among the allowed callback URLs")
    try:
        provider.admit(query)
    except RequestError as error:
        raise TokenError(400, error.error, error.description) from error


def _unauthorized(challenge: str) -> Response:
    answer = private({"error": "unauthorized"})
    answer.status_code = 401
    answer.headers["WWW-Authenticate"] = challenge
    return answer


def describe(issuer: str, origin: str, *, must_push: bool = False) -> dict[str, Any]:
    """Return the metadata document (OpenID Connect Discovery, section 3).

    Args:
        issuer: The TLS port's address, with a final slash.
        origin: The plain http port's, without: whatever a browser visits is
            there, since browsers do not trust the other port's certificate.
        must_push: Whether authorization requests have to be pushed.
    """
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{origin}/authorize",
        "end_session_endpoint": f"{origin}/oidc/logout",
        "token_endpoint": f"{issuer}oauth/token",
        "pushed_authorization_request_endpoint": f"{issuer}oauth/par",
        "require_pushed_authorization_requests": must_push,
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        **_SUPPORTED,
    }


_SUPPORTED = {
    "scopes_supported": [
        *("openid", "profile", "email", "address", "phone", "offline_access"),
    ],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": [
        *("authorization_code", "refresh_token", CONNECTION_GRANT),
    ],
    "code_challenge_methods_supported": ["S256"],
    "subject_types_supported": ["public"],
    "id_token_signing_alg_values_supported": ["RS256"],
    "token_endpoint_auth_methods_supported": [
        *("client_secret_basic", "client_secret_post", "private_key_jwt"),
    ],
    "token_endpoint_auth_signing_alg_values_supported": ["RS256"],
    "backchannel_logout_supported": True,
    "backchannel_logout_session_supported": True,
    "claims_supported": [
        *("aud", "auth_time", "email", "email_verified", "exp", "family_name"),
        *("given_name", "iat", "iss", "name", "nickname", "org_id", "org_name"),
        *("picture", "sid", "sub"),
    ],
}
