"""The endpoints that an app's server calls, and an API that accepts access tokens."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import jwt
from flask import Blueprint
from werkzeug.wrappers import Response

from . import logins
from .authorization import RequestError
from .directory import Grant
from .errors import TokenError, as_json, bad_request, invalid_grant
from .factors import pkce_matches, safe_equal
from .messages import CREDENTIALS, bearer_token, client_form, required, verified_claims
from .provider import tenant
from .tokens import issue_tokens, token_response, user_claims

_REQUEST_URI_PREFIX = "urn:ietf:params:oauth:request_uri:"
_CACHEABLE = "public, max-age=15"
# The first prefix is from RFC 8693, section 3; the other types are Auth0's own.
_STANDARD_TYPE = "urn:ietf:params:oauth:token-type:"
_TRANSFER_TOKEN = "urn:auth0:params:oauth:token-type:session_transfer_token"  # noqa: S105  # a name
_CONNECTION_TOKEN = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105  # a name
)

routes = Blueprint("backchannel", __name__)


@routes.get("/.well-known/openid-configuration")
def _discovery() -> Response:
    document = describe(tenant.issuer, tenant.origin)
    must_push = tenant.require_pushed_authorization_requests
    document["require_pushed_authorization_requests"] = must_push
    return as_json(document, cache=_CACHEABLE)


@routes.get("/.well-known/jwks.json")
def jwks() -> Response:
    """Publish the signing key (RFC 7517, section 5)."""
    return as_json(tenant.keys.jwks(), cache=_CACHEABLE)


@routes.post("/oauth/token")
def token() -> Response:
    """Exchange a grant for tokens (RFC 6749, section 3.2)."""
    form = client_form()
    grant_type = required(form, "grant_type")
    if grant_type not in _GRANTS:
        raise TokenError(400, "unsupported_grant_type", f"Unsupported: {grant_type}")
    document = {**_GRANTS[grant_type](form), **tenant.token_response_extra}
    return as_json({name: v for name, v in document.items() if v is not None})


@routes.post("/oauth/par")
def push() -> Response:
    """Store an authorization request; return its request_uri (RFC 9126, 2.2)."""
    form = client_form()
    query = {name: form[name] for name in form.keys() - CREDENTIALS}
    if "request_uri" in query:
        raise bad_request("A pushed request cannot contain a request_uri")
    if query.get("client_id", tenant.client_id) != tenant.client_id:
        raise bad_request("The client_id belongs to another client")
    if not tenant.knows_callback(query.get("redirect_uri", "")):
        raise bad_request("The redirect_uri is not among the allowed callback URLs")
    try:
        tenant.check_request(query)
    except RequestError as error:
        raise TokenError(400, error.error, str(error)) from error
    pushed = tenant.directory.pushed_requests
    request_uri = _REQUEST_URI_PREFIX + pushed.put(query)
    document = {"request_uri": request_uri, "expires_in": int(pushed.lifetime)}
    return as_json(document, 201)


def pop_pushed_request(request_uri: str) -> Mapping[str, str] | None:
    """Return and delete the request, or return None if it is unknown."""
    is_pushed = request_uri.startswith(_REQUEST_URI_PREFIX)
    key = request_uri.removeprefix(_REQUEST_URI_PREFIX)
    return tenant.directory.pushed_requests.pop(key) if is_pushed else None


@routes.post("/oauth/revoke")
def revoke() -> Response:
    """Revoke a refresh token's family; ignore unknown tokens (RFC 7009, 2.2)."""
    form = client_form()
    tenant.directory.refresh_tokens.revoke(required(form, "token"))
    return Response(status=200)


@routes.route("/userinfo", methods=["GET", "POST"])
def userinfo() -> Response:
    """Return the claims of a token's user (OpenID Connect Core, section 5.3)."""
    grant = tenant.directory.access_tokens.get(bearer_token())
    if grant is None or "openid" not in grant.scope:
        return _unauthorized('Bearer error="invalid_token"')
    return as_json(user_claims(tenant.directory.current(grant.session.user), grant))


@routes.get("/api/things")
def things() -> Response:
    """Return the user and the scope of an access token, as an API (RFC 6750)."""
    if not bearer_token():
        return _unauthorized("Bearer")
    try:
        claims = verified_claims(bearer_token(), tenant.api_audience)
    except jwt.PyJWTError:
        return _unauthorized('Bearer error="invalid_token"')
    return as_json({"sub": claims["sub"], "scope": claims.get("scope", "")})


def _unauthorized(challenge: str) -> Response:
    response = as_json({"error": "unauthorized"}, 401)
    response.headers["WWW-Authenticate"] = challenge
    return response


def _redeem_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a code (RFC 6749, section 4.1.3)."""
    grant, authz = tenant.directory.codes.pop(required(form, "code")) or (None, None)
    if grant is None or authz is None:
        raise invalid_grant("Invalid authorization code")
    if not safe_equal(authz.redirect_uri, form.get("redirect_uri", "")):
        raise invalid_grant("redirect_uri differs from the authorization request")
    challenge = authz.code_challenge
    if challenge and not pkce_matches(form.get("code_verifier", ""), challenge):
        raise invalid_grant("Failed to verify code verifier")
    return issue_tokens(tenant, _with_current_user(grant))


def _refresh(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a refresh token (RFC 6749, section 6)."""
    old, families = required(form, "refresh_token"), tenant.directory.refresh_tokens
    grant = _with_current_user(families.grant(old) or _reject_refresh_token())
    # These checks come before rotation, so that the app can retry with its token.
    logins.check_audience(form)
    audience = form.get("audience") or grant.audience
    requested = form.get("scope", "").split() or grant.scope
    more = tenant.my_account_scopes if audience == tenant.my_account else set()
    # The SDK writes some scopes of the My Account API with hyphens.
    scope = tuple(s for s in requested if s.replace("-", "_") in {*grant.scope, *more})
    # Only the login's ID token has the nonce (OpenID Connect Core, 12.2).
    grant = replace(grant, scope=scope, audience=audience, nonce=None)
    logins.check_mfa(grant, old)
    # Two concurrent requests with one token both get here; one of them fails.
    rotate = tenant.rotate_refresh_tokens
    new = families.rotate(old) or _reject_refresh_token() if rotate else None
    return token_response(tenant, grant, new)


def _with_current_user(grant: Grant) -> Grant:
    user = tenant.directory.current(grant.session.user)
    return replace(grant, session=replace(grant.session, user=user))


def _connection_token(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a refresh token for a connection's token; do not rotate it."""
    subject = required(form, "subject_token")
    if required(form, "subject_token_type") != f"{_STANDARD_TYPE}refresh_token":
        raise bad_request("subject_token_type must be a refresh token")
    if required(form, "requested_token_type") != _CONNECTION_TOKEN:
        raise bad_request("Unsupported requested_token_type")
    connection = required(form, "connection")
    if connection not in tenant.connections:
        raise bad_request("the connection was not found")
    if tenant.directory.refresh_tokens.grant(subject) is None:
        _reject_refresh_token()
    return {
        "access_token": f"{connection}-token-{secrets.token_urlsafe(16)}",
        "issued_token_type": _CONNECTION_TOKEN,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "openid profile email",
    }


def _exchange_token(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a token that ``accept_token`` has registered (RFC 8693)."""
    accepted, transfers = tenant.directory.accepted_tokens, tenant.directory.transfers
    token_type, actor = required(form, "subject_token_type"), form.get("actor_token")
    user = accepted.get((token_type, required(form, "subject_token")))
    act: Mapping[str, Any] | None = None
    if user is None:
        raise invalid_grant("The subject token is unknown")
    if actor:
        known = accepted.get((form.get("actor_token_type", ""), actor))
        try:
            act = known.claims if known else verified_claims(actor, tenant.client_id)
        except jwt.PyJWTError as error:
            raise invalid_grant(f"The actor token is invalid: {error}") from error
        act = {"sub": act["sub"]}
    if form.get("audience") != f"urn:{tenant.domain}:session_transfer":
        issued = {"issued_token_type": f"{_STANDARD_TYPE}access_token"}
        return {**logins.log_in(form, user, act), **issued}
    issued = {"issued_token_type": _TRANSFER_TOKEN, "token_type": "N_A"}
    token, lifetime = transfers.put((user, act)), int(transfers.lifetime)
    return {**issued, "access_token": token, "expires_in": lifetime}


def _reject_refresh_token() -> NoReturn:
    raise invalid_grant("Unknown or invalid refresh token.")


# The functions that handle token requests, by grant type.
_GRANTS: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
    "authorization_code": _redeem_code,
    "refresh_token": _refresh,
    "urn:auth0:params:oauth:grant-type:token-exchange:"
    "federated-connection-access-token": _connection_token,
    "urn:ietf:params:oauth:grant-type:token-exchange": _exchange_token,
    "http://auth0.com/oauth/grant-type/mfa-otp": logins.otp,
    "http://auth0.com/oauth/grant-type/mfa-recovery-code": logins.recovery_code,
    "http://auth0.com/oauth/grant-type/passwordless/otp": logins.passwordless,
    "urn:okta:params:oauth:grant-type:webauthn": logins.passkey,
    "urn:openid:params:grant-type:ciba": logins.backchannel,
}


def describe(issuer: str, origin: str) -> dict[str, Any]:
    """Return the metadata document (OpenID Connect Discovery, section 3).

    The endpoints for browsers are at ``origin``, on the plain http port, since browsers
    do not trust the certificate of the TLS port.
    """
    methods = ["client_secret_basic", "client_secret_post", "private_key_jwt"]
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
        "response_types_supported": ["code"],
        "grant_types_supported": list(_GRANTS),
        "backchannel_token_delivery_modes_supported": ["poll"],
        "code_challenge_methods_supported": ["S256"],
        "subject_types_supported": ["public"],
        "id_token_signing_alg_values_supported": ["RS256"],
        "token_endpoint_auth_methods_supported": methods,
        "backchannel_logout_supported": True,
        "backchannel_logout_session_supported": True,
    }
