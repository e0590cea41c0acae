"""Tokens and the answers that carry them."""

from __future__ import annotations

import json
import secrets
import threading
from collections.abc import Mapping
from http.client import HTTPException
from typing import Any
from urllib.error import HTTPError
from urllib.parse import urlencode
from urllib.request import ProxyHandler, build_opener

import jwt

from .directory import Grant, Session, User
from .faults import Draft, Forgery
from .provider import Provider

_LOGOUT_EVENT = "http://schemas.openid.net/event/backchannel-logout"
_direct = build_opener(ProxyHandler({}))
_PATIENCE = 5.0  # with an app that is told of a logout

# OpenID Connect Core, section 5.4: which scope a standard claim belongs to.
_SCOPES = {
    "profile": "name family_name given_name middle_name nickname preferred_username "
    "profile picture website gender birthdate zoneinfo locale updated_at",
    "email": "email email_verified",
    "address": "address",
    "phone": "phone_number phone_number_verified",
}
_SCOPE_OF = {claim: scope for scope, all_ in _SCOPES.items() for claim in all_.split()}


def user_claims(user: User, grant: Grant) -> dict[str, Any]:
    """Return the claims that the grant's scopes allow, or that no scope governs."""
    granted = {None, *grant.scope}
    allowed = {n: v for n, v in user.claims.items() if _SCOPE_OF.get(n) in granted}
    return {**allowed, **grant.organization_claims}


def issue(provider: Provider, grant: Grant) -> dict[str, Any]:
    """Return the answer to a login, with a refresh token where it asked for one."""
    offline = "offline_access" in grant.scope
    token = provider.directory.refresh_tokens.begin(grant) if offline else None
    return token_response(provider, grant, token)


def token_response(
    provider: Provider, grant: Grant, refresh_token: str | None
) -> dict[str, Any]:
    """Return a token response (RFC 6749, section 5.1; OIDC Core, 3.1.3.3)."""
    lifetime, tokens = provider.access_token_lifetime, provider.directory.access_tokens
    token = _jwt_access_token(provider, grant) if grant.audience else ""
    answer: dict[str, Any] = {
        "access_token": tokens.put(grant, key=token, lifetime=lifetime),
        "refresh_token": refresh_token,
        "id_token": _id_token(provider, grant) if "openid" in grant.scope else None,
        "scope": " ".join(grant.scope),
        "expires_in": lifetime,
        "token_type": "Bearer",
    }
    return _present(answer)


def _present(members: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in members.items() if value is not None}


def _claims(provider: Provider, lifetime: int, **more: Any) -> dict[str, Any]:
    """Return claims that every token has; what is None among the rest is left out."""
    now = int(provider.now())
    times = {"iat": now, "exp": now + lifetime}
    return _present({"iss": provider.issuer, **times, **more})


def _jwt_access_token(provider: Provider, grant: Grant) -> str:
    session, userinfo = grant.session, f"{provider.issuer}userinfo"
    openid = "openid" in grant.scope
    claims = _claims(
        provider,
        provider.access_token_lifetime,
        sub=session.user.sub,
        aud=[grant.audience, userinfo] if openid else grant.audience,
        scope=" ".join(grant.scope),
        azp=provider.client_id,
        act=session.act,
        # Two tokens of one second would be the same otherwise.
        jti=secrets.token_urlsafe(16),
        **grant.organization_claims,
    )
    return _signed(provider, claims)


def _id_token(provider: Provider, grant: Grant) -> str | None:
    """Return an ID token (OpenID Connect Core, section 2, and its Auth0 dialect)."""
    try:
        forgery = provider.forgeries.popleft()
    except IndexError:
        forgery = Forgery()
    session = grant.session
    own = _claims(
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
    return _signed(provider, {**user_claims(session.user, grant), **own}, forgery)


def _signed(
    provider: Provider,
    claims: dict[str, Any],
    forgery: Forgery | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Return a token in its compact form (RFC 7515, section 7.1)."""
    key = provider.keys.current
    draft = Draft(claims, key.kid, key.private, provider.client_secret)
    if forgery is not None:
        forgery.apply(draft)
    shown = {"kid": draft.kid, **(header or {})}
    # jwt.encode() would refuse claims of a wrong type, which a forgery may want.
    return jwt.PyJWS().encode(
        json.dumps(draft.claims).encode(),
        draft.key,
        draft.algorithm,
        # An empty type is how the library is told to leave its own one out.
        headers={n: v for n, v in shown.items() if v is not None or n == "typ"},
    )


def logout_token(
    provider: Provider,
    sub: str | None,
    sid: str | None,
    forgery: Forgery | None = None,
    header: Mapping[str, Any] | None = None,
) -> str:
    """Return a logout token (OpenID Connect Back-Channel Logout, section 2.4)."""
    events: dict[str, Any] = {_LOGOUT_EVENT: {}}
    aud, jti = provider.client_id, secrets.token_urlsafe(16)
    claims = _claims(provider, 120, aud=aud, sub=sub, sid=sid, jti=jti, events=events)
    return _signed(provider, claims, forgery, {"typ": "logout+jwt", **(header or {})})


def announce_logout(provider: Provider, session: Session, due: threading.Event) -> None:
    """Tell the app, where it wants to be told, that a session has ended; once due."""
    url = provider.backchannel_logout_uri
    if url is None:
        return
    token = logout_token(provider, session.user.sub, session.sid)
    answers = provider.backchannel_answers

    def tell() -> None:
        due.wait(_PATIENCE)
        body = urlencode({"logout_token": token}).encode()
        try:
            with _direct.open(url, body, _PATIENCE) as answer:
                answers.append(answer.status)
        except HTTPError as error:
            with error:
                answers.append(error.code)
        except (OSError, HTTPException):
            answers.append(0)

    thread = threading.Thread(target=tell, daemon=True)
    thread.start()
    provider.notices.append(thread)
