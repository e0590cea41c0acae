"""The endpoints an app's server talks to, and an API to try tokens on."""

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
from .errors import TokenError, bad_request, invalid_grant, private
from .factors import proves, same
from .messages import CREDENTIALS, app_form, bearer, own_claims, required
from .provider import here
from .tokens import issue, token_response, user_claims

_PREFIX = "urn:ietf:params:oauth:request_uri:"  # of what was pushed
_PUBLIC = "public, max-age=15"
# RFC 8693, section 3, names the first; the others are Auth0's own.
_TYPES = "urn:ietf:params:oauth:token-type:"
_TRANSFER_TOKEN = "urn:auth0:params:oauth:token-type:session_transfer_token"  # noqa: S105  # a name
_CONNECTION_TOKEN = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105  # a name
)

routes = Blueprint("backchannel", __name__)


@routes.get("/.well-known/openid-configuration")
def _discovery() -> Response:
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
    form = app_form()
    kind = required(form, "grant_type")
    if kind not in _GRANTS:
        raise TokenError(400, "unsupported_grant_type", f"Unsupported: {kind}")
    answer = {**_GRANTS[kind](form), **here.token_response_extra}
    return private({name: v for name, v in answer.items() if v is not None})


@routes.post("/oauth/par")
def push() -> Response:
    """Keep a request and return its name (RFC 9126, section 2.2)."""
    form = app_form()
    query = {name: form[name] for name in form.keys() - CREDENTIALS}
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
    pushed = here.directory.pushed
    name, lifetime = _PREFIX + pushed.put(query), int(pushed.lifetime)
    return private({"request_uri": name, "expires_in": lifetime}, 201)


def take_pushed(request_uri: str) -> Mapping[str, str] | None:
    """Return the request of this name, which is good once, or None."""
    known = request_uri.startswith(_PREFIX)
    name = request_uri.removeprefix(_PREFIX)
    return here.directory.pushed.take(name) if known else None


@routes.post("/oauth/revoke")
def revoke() -> Response:
    """End a refresh token's family; unknown ones are fine (RFC 7009, 2.2)."""
    form = app_form()
    here.directory.refresh_tokens.revoke(required(form, "token"))
    return Response(status=200)


@routes.route("/userinfo", methods=["GET", "POST"])
def userinfo() -> Response:
    """Tell the claims of a token's user (OpenID Connect Core, section 5.3)."""
    grant = here.directory.access_tokens.get(bearer())
    if grant is None or "openid" not in grant.scope:
        return _unauthorized('Bearer error="invalid_token"')
    return private(user_claims(here.directory.present(grant.session.user), grant))


@routes.get("/api/things")
def things() -> Response:
    """Tell whose token an API was shown (RFC 6750), and what it is good for."""
    if not bearer():
        return _unauthorized("Bearer")
    try:
        claims = own_claims(bearer(), here.api_audience)
    except jwt.PyJWTError:
        return _unauthorized('Bearer error="invalid_token"')
    return private({"sub": claims["sub"], "scope": claims.get("scope", "")})


def _unauthorized(challenge: str) -> Response:
    answer = private({"error": "unauthorized"}, 401)
    answer.headers["WWW-Authenticate"] = challenge
    return answer


def _redeem_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a code (RFC 6749, section 4.1.3)."""
    grant, asked = here.directory.codes.take(required(form, "code")) or (None, None)
    if grant is None or asked is None:
        raise invalid_grant("Invalid authorization code")
    if not same(asked.redirect_uri, form.get("redirect_uri", "")):
        raise invalid_grant("The redirect_uri is not that of the authorization request")
    challenge = asked.code_challenge
    if challenge and not proves(form.get("code_verifier", ""), challenge):
        raise invalid_grant("Failed to verify code verifier")
    return issue(here, _present(grant))


def _refresh(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a refresh token (RFC 6749, section 6)."""
    old, families = required(form, "refresh_token"), here.directory.refresh_tokens
    grant = _present(families.grant(old) or _unknown())
    # What is refused below uses no token up: the app may well come again.
    logins.check_audience(form)
    audience = form.get("audience") or grant.audience
    asked = form.get("scope", "").split() or grant.scope
    more = here.my_account_scopes if audience == here.my_account else set()
    # The SDK writes some scopes of the My Account API with hyphens.
    scope = tuple(s for s in asked if s.replace("-", "_") in {*grant.scope, *more})
    # The nonce belongs to the login alone (OpenID Connect Core, 12.2).
    grant = replace(grant, scope=scope, audience=audience, nonce=None)
    logins.demand_mfa(grant, old)
    # Of two requests with one token, both got this far: only one goes on.
    rotate = here.rotate_refresh_tokens
    successor = families.rotate(old) or _unknown() if rotate else None
    return token_response(here, grant, successor)


def _present(grant: Grant) -> Grant:
    user = here.directory.present(grant.session.user)
    return replace(grant, session=replace(grant.session, user=user))


def _connection_token(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a refresh token for a token of a connection; it stays good."""
    subject = required(form, "subject_token")
    if required(form, "subject_token_type") != f"{_TYPES}refresh_token":
        raise bad_request("The subject token has to be a refresh token")
    if required(form, "requested_token_type") != _CONNECTION_TOKEN:
        raise bad_request("There are only access tokens of connections to ask for")
    connection = required(form, "connection")
    if connection not in here.connections:
        raise bad_request("the connection was not found")
    if here.directory.refresh_tokens.grant(subject) is None:
        _unknown()
    return {
        "access_token": f"{connection}-token-{secrets.token_urlsafe(16)}",
        "issued_token_type": _CONNECTION_TOKEN,
        "token_type": "Bearer",
        "expires_in": 3600,
        "scope": "openid profile email",
    }


def _exchange_token(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a token of somebody else's (RFC 8693), which tests have accepted."""
    accepted, transfers = here.directory.accepted, here.directory.transfers
    kind, actor = required(form, "subject_token_type"), form.get("actor_token")
    user = accepted.get((kind, required(form, "subject_token")))
    act: Mapping[str, Any] | None = None
    if user is None:
        raise invalid_grant("The subject token is not one that is accepted here")
    if actor:
        known = accepted.get((form.get("actor_token_type", ""), actor))
        try:
            act = known.claims if known else own_claims(actor, here.client_id)
        except jwt.PyJWTError as error:
            raise invalid_grant(f"The actor token is wrong: {error}") from error
        act = {"sub": act["sub"]}
    if form.get("audience") != f"urn:{here.domain}:session_transfer":
        issued = {"issued_token_type": f"{_TYPES}access_token"}
        return {**logins.log_in(form, user, act), **issued}
    answer = {"access_token": transfers.put((user, act)), "token_type": "N_A"}
    lifetime = {"expires_in": int(transfers.lifetime)}
    return {**answer, **lifetime, "issued_token_type": _TRANSFER_TOKEN}


def _unknown() -> NoReturn:
    raise invalid_grant("Unknown or invalid refresh token.")


# What becomes of a request, by its grant type.
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

    What a browser visits is at the plain http port's ``origin``, since browsers do
    not trust the other port's certificate.
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
