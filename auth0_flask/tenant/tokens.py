"""Tokens, token responses and logout tokens."""

from __future__ import annotations

import json
import secrets
from collections.abc import Mapping
from http.client import HTTPException
from threading import Event, Thread
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import jwt

from .directory import Grant, Session, User
from .faults import Forgery, TokenDraft
from .provider import Provider

_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_opener = build_opener(ProxyHandler({}))  # without proxies
_TIMEOUT = 5.0  # for the app to respond to a logout token

# OpenID Connect Core, section 5.4: the standard claims of each scope.
_SCOPES = {
    "profile": "name family_name given_name middle_name nickname preferred_username "
    "profile picture website gender birthdate zoneinfo locale updated_at",
    "email": "email email_verified",
    "address": "address",
    "phone": "phone_number phone_number_verified",
}
_SCOPE_OF = {name: scope for scope, all_ in _SCOPES.items() for name in all_.split()}


def user_claims(user: User, grant: Grant) -> dict[str, Any]:
    """Return the claims that the grant's scopes allow, and those that need no scope."""
    scopes = {None, *grant.scope}
    allowed = {n: v for n, v in user.claims.items() if _SCOPE_OF.get(n) in scopes}
    return {**allowed, **grant.organization_claims}


def issue_tokens(provider: Provider, grant: Grant) -> dict[str, Any]:
    """Return the token response for a login, with a refresh token if requested."""
    is_offline = "offline_access" in grant.scope
    token = provider.directory.refresh_tokens.new_family(grant) if is_offline else None
    return token_response(provider, grant, token)


def token_response(
    provider: Provider, grant: Grant, refresh_token: str | None
) -> dict[str, Any]:
    """Return a token response (RFC 6749, section 5.1; OIDC Core, 3.1.3.3)."""
    lifetime, tokens = provider.access_token_lifetime, provider.directory.access_tokens
    token = _jwt_access_token(provider, grant) if grant.audience else ""
    response: dict[str, Any] = {
        "access_token": tokens.put(grant, key=token, lifetime=lifetime),
        "refresh_token": refresh_token,
        "id_token": _id_token(provider, grant) if "openid" in grant.scope else None,
        "scope": " ".join(grant.scope),
        "expires_in": lifetime,
        "token_type": "Bearer",
    }
    return _without_none(response)


def _without_none(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _common_claims(provider: Provider, lifetime: int, **more: Any) -> dict[str, Any]:
    """Return the claims that every token has, and more; None omits a claim."""
    now = int(provider.now())
    times = {"iat": now, "exp": now + lifetime}
    return _without_none({"iss": provider.issuer, **times, **more})


def _jwt_access_token(provider: Provider, grant: Grant) -> str:
    session, userinfo = grant.session, f"{provider.issuer}userinfo"
    openid = "openid" in grant.scope
    claims = _common_claims(
        provider,
        provider.access_token_lifetime,
        sub=session.user.sub,
        aud=[grant.audience, userinfo] if openid else grant.audience,
        scope=" ".join(grant.scope),
        azp=provider.client_id,
        act=session.act,
        # Without it, two tokens of the same second would be equal.
        jti=secrets.token_urlsafe(16),
        **grant.organization_claims,
    )
    return _sign(provider, claims)


def _id_token(provider: Provider, grant: Grant) -> str | None:
    """Return an ID token as Auth0 issues it (OpenID Connect Core, section 2)."""
    try:
        forgery = provider.forgeries.popleft()
    except IndexError:
        forgery = Forgery()
    session = grant.session
    own = _common_claims(
        provider,
        36000,
        aud=provider.client_id,
        auth_time=int(session.auth_time),
        sid=session.sid,
        nonce=grant.nonce,
        amr=session.amr or None,
        acr=session.acr,
        act=session.act,
    )
    if forgery.kind == "absent":
        return None
    return _sign(provider, {**user_claims(session.user, grant), **own}, forgery)


def _sign(
    provider: Provider,
    claims: dict[str, Any],
    forgery: Forgery | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Sign a token and return its compact form (RFC 7515, section 7.1)."""
    key = provider.keys.current
    draft = TokenDraft(claims, key.kid, key.private, provider.client_secret)
    if forgery is not None:
        forgery.apply(draft)
    parameters = {"kid": draft.kid, **(header or {})}
    # jwt.encode() would reject claims of a wrong type, which forgeries may contain.
    return jwt.PyJWS().encode(
        json.dumps(draft.claims).encode(),
        draft.key,
        draft.algorithm,
        # A typ of None makes PyJWT omit its default typ.
        headers={n: v for n, v in parameters.items() if v is not None or n == "typ"},
    )


def logout_token(
    provider: Provider,
    sub: str | None,
    sid: str | None,
    forgery: Forgery | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Return a logout token (OpenID Connect Back-Channel Logout, section 2.4)."""
    more: dict[str, Any] = {"aud": provider.client_id, "events": {_LOGOUT_EVENT: {}}}
    more["jti"] = secrets.token_urlsafe(16)
    claims = _common_claims(provider, 120, sub=sub, sid=sid, **more)
    return _sign(provider, claims, forgery, {"typ": "logout+jwt", **(header or {})})


def send_logout_token(provider: Provider, session: Session, after: Event) -> None:
    """Send the app a logout token for a session, in a thread, once ``after`` is set."""
    url = provider.backchannel_logout_uri
    if url is None:
        return
    token = logout_token(provider, session.user.sub, session.sid)
    statuses = provider.backchannel_answers

    def send() -> None:
        after.wait(_TIMEOUT)
        body = urlencode({"logout_token": token}).encode()
        try:
            with _opener.open(url, body, _TIMEOUT) as response:
                statuses.append(response.status)
        except HTTPError as error:
            with error:
                statuses.append(error.code)
        except (OSError, HTTPException):
            statuses.append(0)

    thread = Thread(target=send, daemon=True)
    thread.start()
    provider.logout_threads.append(thread)
