"""Tokens and the answers that carry them."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from typing import Any

import jwt

from auth0_flask.tenant.forgery import Draft, Forgery
from auth0_flask.tenant.provider import Provider
from auth0_flask.tenant.users import Grant, Session, User

_ID_TOKEN_LIFETIME = 36000
_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_LOGOUT_LIFETIME = 120

# OpenID Connect Core, section 5.4: which scope a standard claim belongs to.
_SCOPES = {
    "profile": (
        "name family_name given_name middle_name nickname preferred_username "
        "profile picture website gender birthdate zoneinfo locale updated_at"
    ),
    "email": "email email_verified",
    "address": "address",
    "phone": "phone_number phone_number_verified",
}
_SCOPE_OF = {claim: scope for scope, all_ in _SCOPES.items() for claim in all_.split()}


def user_claims(user: User, grant: Grant) -> dict[str, Any]:
    """Return the user's claims that the grant's scopes allow.

    Claims that no scope governs, such as those with a namespaced name, are
    always among them, and so are those of an organization signed in to.
    """
    granted = {None, *grant.scope}
    allowed = {
        name: value
        for name, value in user.claims.items()
        if _SCOPE_OF.get(name) in granted
    }
    return {**allowed, **organization_claims(grant)}


def organization_claims(grant: Grant) -> dict[str, str]:
    """Return the claims of the organization signed in to, if it was one."""
    return grant.organization.claims if grant.organization else {}


def token_response(
    provider: Provider, grant: Grant, refresh_token: str | None
) -> dict[str, Any]:
    """Return a token response (RFC 6749, section 5.1; OIDC Core, 3.1.3.3)."""
    answer: dict[str, Any] = {
        "access_token": _access_token(provider, grant),
        "refresh_token": refresh_token,
        "id_token": _id_token(provider, grant) if "openid" in grant.scope else None,
        "scope": None if provider.omit_scope else " ".join(grant.scope),
        "expires_in": provider.access_token_lifetime,
        "token_type": "Bearer",
    }
    return {name: value for name, value in answer.items() if value is not None}


def issue(provider: Provider, grant: Grant) -> dict[str, Any]:
    """Return the answer to a login, with a refresh token where it asked for one."""
    offline = "offline_access" in grant.scope
    token = provider.directory.refresh_tokens.begin(grant) if offline else None
    return token_response(provider, grant, token)


def _access_token(provider: Provider, grant: Grant) -> str:
    token = _jwt_access_token(provider, grant) if grant.audience else None
    return provider.directory.access_tokens.put(
        grant, key=token, lifetime=provider.access_token_lifetime
    )


def _jwt_access_token(provider: Provider, grant: Grant) -> str:
    now = int(provider.now())
    userinfo = f"{provider.issuer}userinfo"
    openid = "openid" in grant.scope
    claims = {
        "iss": provider.issuer,
        "sub": grant.session.user.sub,
        "aud": [grant.audience, userinfo] if openid else grant.audience,
        "iat": now,
        "exp": now + provider.access_token_lifetime,
        "scope": " ".join(grant.scope),
        "azp": provider.client_id,
        **organization_claims(grant),
        **({"act": grant.session.act} if grant.session.act else {}),
        # Two tokens of one second would be the same otherwise.
        "jti": secrets.token_urlsafe(16),
    }
    return sign(draft(provider, claims))


def _id_token(provider: Provider, grant: Grant) -> str | None:
    forgery: Forgery = provider.forgeries.take()
    if forgery.absent:
        return None
    unsigned = draft(provider, _id_claims(provider, grant))
    forgery.apply(unsigned)
    return sign(unsigned)


def _id_claims(provider: Provider, grant: Grant) -> dict[str, Any]:
    """Claims as OpenID Connect Core, section 2, and its Auth0 dialect have them."""
    now = int(provider.now())
    claims = {
        **user_claims(grant.session.user, grant),
        "iss": provider.issuer,
        "aud": provider.client_id,
        "iat": now,
        "exp": now + _ID_TOKEN_LIFETIME,
        "auth_time": int(grant.session.auth_time),
        "sid": grant.session.sid,
    }
    session = grant.session
    more = {
        "nonce": grant.nonce,
        "amr": session.amr,
        "acr": session.acr,
        "act": session.act,
    }
    return {**claims, **{name: value for name, value in more.items() if value}}


def draft(provider: Provider, claims: Mapping[str, Any]) -> Draft:
    """Return a token with these claims, yet to be signed by the provider."""
    key = provider.keys.current
    return Draft(dict(claims), key.kid, key.private, provider.client_secret)


def sign(draft: Draft) -> str:
    """Return the token in its compact form (RFC 7515, section 7.1)."""
    header = {"kid": draft.kid, **draft.header}
    # jwt.encode() would refuse claims of a wrong type, which a forgery may want.
    return jwt.PyJWS().encode(
        json.dumps(draft.claims).encode(),
        draft.key,
        draft.algorithm,
        # An empty type is how the library is told to leave its own one out.
        headers={n: v for n, v in header.items() if v is not None or n == "typ"},
    )


def logout_token(
    provider: Provider,
    *,
    sub: str | None,
    sid: str | None,
    forgery: Forgery | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Return a logout token (OpenID Connect Back-Channel Logout, section 2.4).

    Args:
        provider: Whose it is.
        sub: The user's identifier, if it is to be in the token.
        sid: The session's, likewise.
        forgery: What is to be wrong with it.
        header: Header parameters to set; None removes one.
    """
    unsigned = draft(provider, _logout_claims(provider, sub, sid))
    (forgery or Forgery()).apply(unsigned)
    unsigned.header = {"typ": "logout+jwt", **(header or {})}
    return sign(unsigned)


def announce_logout(provider: Provider, session: Session, due: threading.Event) -> None:
    """Tell the app that a session has ended, where it wants to be told.

    Args:
        provider: Whose session it was.
        session: The session.
        due: Set when it is time to.
    """
    url = provider.backchannel_logout_uri
    if url is not None:
        token = logout_token(provider, sub=session.user.sub, sid=session.sid)
        provider.notices.send(url, token, provider.backchannel_answers, due)


def _logout_claims(
    provider: Provider, sub: str | None, sid: str | None
) -> dict[str, Any]:
    now = int(provider.now())
    claims: dict[str, Any] = {
        "iss": provider.issuer,
        "aud": provider.client_id,
        "sub": sub,
        "sid": sid,
        "iat": now,
        "exp": now + _LOGOUT_LIFETIME,
        "jti": secrets.token_urlsafe(16),
        "events": {_LOGOUT_EVENT: {}},
    }
    return {name: value for name, value in claims.items() if value is not None}
