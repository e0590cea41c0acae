"""The grants that the token endpoint takes."""

from __future__ import annotations

import secrets
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, NoReturn

import jwt

from . import logins
from .directory import Grant
from .factors import proves, same
from .messages import TokenError, bad_request, invalid_grant, own_claims, required
from .provider import here
from .tokens import issue, token_response

# RFC 8693, section 3, names these.
_TYPES = "urn:ietf:params:oauth:token-type:"
# Auth0's own, for tokens of the services that users signed in through.
_CONNECTION_TOKEN = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105  # a name
)
_TRANSFER_TOKEN = "urn:auth0:params:oauth:token-type:session_transfer_token"  # noqa: S105  # another


def exchange(form: Mapping[str, str]) -> dict[str, Any]:
    """Return the answer to a token request.

    Raises:
        TokenError: If it is refused.
    """
    grant_type = required(form, "grant_type")
    if grant_type not in GRANTS:
        raise TokenError(
            400, "unsupported_grant_type", f"Unsupported grant type: {grant_type}"
        )
    answer = {**GRANTS[grant_type](form), **here.token_response_extra}
    return {name: value for name, value in answer.items() if value is not None}


def _redeem_code(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a code (RFC 6749, section 4.1.3)."""
    pending = here.directory.codes.take(required(form, "code"))
    if pending is None:
        raise invalid_grant("Invalid authorization code")
    if not same(pending.redirect_uri, form.get("redirect_uri", "")):
        raise invalid_grant("The redirect_uri is not that of the authorization request")
    challenge = pending.code_challenge
    if challenge and not proves(form.get("code_verifier", ""), challenge):
        raise invalid_grant("Failed to verify code verifier")
    return issue(here, _present(pending.grant))


def _refresh(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a refresh token (RFC 6749, section 6)."""
    old = required(form, "refresh_token")
    grant = here.directory.refresh_tokens.grant(old) or _unknown()
    # What is refused below uses no token up: the app may well come again.
    logins.check_audience(form)
    # The nonce belongs to the login alone (OpenID Connect Core, 12.2).
    grant = _narrowed(replace(_present(grant), nonce=None), form)
    logins.demand_mfa(grant, old)
    successor = None
    if here.rotate_refresh_tokens:
        # Of two requests with one token, both got this far: only one goes on.
        successor = here.directory.refresh_tokens.rotate(old) or _unknown()
    return token_response(here, grant, successor)


def _present(grant: Grant) -> Grant:
    user = here.directory.present(grant.session.user)
    return replace(grant, session=replace(grant.session, user=user))


def _narrowed(grant: Grant, form: Mapping[str, str]) -> Grant:
    """Return the grant for the scope and audience asked for (RFC 6749, section 6)."""
    audience = form.get("audience") or grant.audience
    asked = form.get("scope", "").split() or grant.scope
    may = {*grant.scope}
    if audience == here.my_account:
        may |= here.my_account_scopes
    # The SDK writes some scopes of the My Account API with hyphens.
    scope = tuple(s for s in asked if s.replace("-", "_") in may)
    return replace(grant, scope=scope, audience=audience)


def _connection_token(form: Mapping[str, str]) -> dict[str, Any]:
    """Exchange a refresh token for a token of a connection; it stays good."""
    token = required(form, "subject_token")
    if required(form, "subject_token_type") != f"{_TYPES}refresh_token":
        raise bad_request("The subject token has to be a refresh token")
    if required(form, "requested_token_type") != _CONNECTION_TOKEN:
        raise bad_request("There are only access tokens of connections to ask for")
    connection = required(form, "connection")
    if connection not in here.connections:
        raise bad_request("the connection was not found")
    if here.directory.refresh_tokens.grant(token) is None:
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
    subject = (required(form, "subject_token_type"), required(form, "subject_token"))
    user = here.directory.accepted.get(subject)
    if user is None:
        raise invalid_grant("The subject token is not one that is accepted here")
    act = _actor(form) if form.get("actor_token") else None
    if form.get("audience") == f"urn:{here.domain}:session_transfer":
        return {
            "access_token": here.directory.transfers.put((user, act)),
            "issued_token_type": _TRANSFER_TOKEN,
            "token_type": "N_A",
            "expires_in": int(here.directory.transfers.lifetime),
        }
    issued = {"issued_token_type": f"{_TYPES}access_token"}
    return {**logins.log_in(form, user, act), **issued}


def _actor(form: Mapping[str, str]) -> dict[str, str]:
    """Return the claim ``act``: who acts for the user."""
    kind, token = form.get("actor_token_type", ""), form["actor_token"]
    user = here.directory.accepted.get((kind, token))
    try:
        return {"sub": user.sub if user else own_claims(token, here.client_id)["sub"]}
    except jwt.PyJWTError as error:
        raise invalid_grant(f"The actor token is wrong: {error}") from error


def _unknown() -> NoReturn:
    raise invalid_grant("Unknown or invalid refresh token.")


#: What becomes of a request, by its grant type.
GRANTS: dict[str, Callable[[Mapping[str, str]], dict[str, Any]]] = {
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
