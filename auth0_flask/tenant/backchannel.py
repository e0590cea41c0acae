"""The endpoints an app's server talks to, and an API to try tokens on."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import jwt
from flask import Blueprint, request
from werkzeug.wrappers import Response

from .authorization import RequestError
from .grants import GRANTS, exchange
from .messages import (
    CREDENTIALS,
    TokenError,
    authenticate,
    bad_request,
    bearer,
    own_claims,
    parameters,
    private,
    required,
)
from .provider import here
from .tokens import user_claims

_PREFIX = "urn:ietf:params:oauth:request_uri:"  # of what was pushed
_PUBLIC = "public, max-age=15"

routes = Blueprint("backchannel", __name__)


@routes.get("/.well-known/openid-configuration")
def discovery() -> Response:
    """Describe the provider."""
    document = describe(here.issuer, here.origin)
    must_push = here.require_pushed_authorization_requests
    document["require_pushed_authorization_requests"] = must_push
    return private(document, keep=_PUBLIC)


@routes.get("/.well-known/jwks.json")
def jwks() -> Response:
    """Publish the signing key (RFC 7517, section 5)."""
    return private(here.keys.jwks(), keep=_PUBLIC)


@routes.post("/oauth/token")
def token() -> Response:
    """Exchange what the app shows for tokens (RFC 6749, section 3.2)."""
    form = parameters()
    authenticate(form)
    return private(exchange(form))


@routes.post("/oauth/par")
def push() -> Response:
    """Keep a request and return its name (RFC 9126, section 2.2)."""
    form = parameters()
    authenticate(form)
    query = {name: form[name] for name in form.keys() - CREDENTIALS}
    _check_pushed(query)
    pushed = here.directory.pushed
    name, lifetime = _PREFIX + pushed.put(query), int(pushed.lifetime)
    return private({"request_uri": name, "expires_in": lifetime}, 201)


@routes.post("/oauth/revoke")
def revoke() -> Response:
    """End a refresh token's family; unknown ones are fine (RFC 7009, 2.2)."""
    form = parameters()
    authenticate(form)
    here.directory.refresh_tokens.revoke(required(form, "token"))
    return Response(status=200)


@routes.route("/userinfo", methods=["GET", "POST"])
def userinfo() -> Response:
    """Tell the claims of a token's user (OpenID Connect Core, section 5.3)."""
    grant = here.directory.access_tokens.get(bearer())
    if grant is None or "openid" not in grant.scope:
        challenge = {"WWW-Authenticate": 'Bearer error="invalid_token"'}
        return Response("Unauthorized", 401, challenge)
    return private(user_claims(here.directory.present(grant.session.user), grant))


@routes.get("/api/things")
def things() -> Response:
    """Tell whose token an API was shown (RFC 6750), and what it is good for."""
    header = request.authorization
    if header is None or header.type != "bearer":
        return _unauthorized("Bearer")
    try:
        claims = own_claims(header.token or "", here.api_audience)
    except jwt.PyJWTError:
        return _unauthorized('Bearer error="invalid_token"')
    return private({"sub": claims["sub"], "scope": claims.get("scope", "")})


def take_pushed(request_uri: str) -> Mapping[str, str] | None:
    """Return the request of this name, which is good once, or None."""
    if not request_uri.startswith(_PREFIX):
        return None
    return here.directory.pushed.take(request_uri.removeprefix(_PREFIX))


def _check_pushed(query: Mapping[str, str]) -> None:
    """Check a request as if it came by a browser (RFC 9126, section 2.1)."""
    if "request_uri" in query:
        raise bad_request("A pushed request cannot name another")
    if query.get("client_id", here.client_id) != here.client_id:
        raise bad_request("The client_id is another client's")
    if not here.knows_callback(query.get("redirect_uri", "")):
        raise bad_request("The redirect_uri is not among the allowed callback URLs")
    try:
        here.admit(query)
    except RequestError as error:
        raise TokenError(400, error.error, str(error)) from error


def _unauthorized(challenge: str) -> Response:
    answer = private({"error": "unauthorized"}, 401)
    answer.headers["WWW-Authenticate"] = challenge
    return answer


def describe(issuer: str, origin: str) -> dict[str, Any]:
    """Return the metadata document (OpenID Connect Discovery, section 3).

    What a browser visits is at the plain http port's ``origin``, since browsers do
    not trust the other port's certificate.
    """
    return {
        "issuer": issuer,
        "authorization_endpoint": f"{origin}/authorize",
        "end_session_endpoint": f"{origin}/oidc/logout",
        "token_endpoint": f"{issuer}oauth/token",
        "pushed_authorization_request_endpoint": f"{issuer}oauth/par",
        "backchannel_authentication_endpoint": f"{issuer}bc-authorize",
        "userinfo_endpoint": f"{issuer}userinfo",
        "jwks_uri": f"{issuer}.well-known/jwks.json",
        "revocation_endpoint": f"{issuer}oauth/revoke",
        **_SUPPORTED,
    }


_SUPPORTED: dict[str, Any] = {
    "scopes_supported": [
        *("openid", "profile", "email", "address", "phone", "offline_access"),
    ],
    "response_types_supported": ["code"],
    "response_modes_supported": ["query"],
    "grant_types_supported": list(GRANTS),
    "backchannel_token_delivery_modes_supported": ["poll"],
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
        *("acr", "amr", "aud", "auth_time", "email", "email_verified", "exp"),
        *("family_name", "given_name", "iat", "iss", "name", "nickname", "org_id"),
        *("org_name", "picture", "sid", "sub"),
    ],
}
