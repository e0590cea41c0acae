"""Verifying JWTs, and that the back channel's client is the app."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from flask import request

from auth0_flask.tenant.factors import same
from auth0_flask.tenant.messages import TokenError
from auth0_flask.tenant.provider import Provider

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

#: Parameters that prove who sends a request and mean nothing else.
CREDENTIALS = frozenset({"client_secret", "client_assertion", "client_assertion_type"})


def authenticate(provider: Provider, form: Mapping[str, str]) -> None:
    """Check the client's credentials in the present request.

    As at Auth0, an app has one way: the secret, or its own key once that is
    registered.

    Raises:
        TokenError: If they are not the app's.
    """
    if provider.client_public_key is None:
        _check_secret(provider, form)
    else:
        _check_assertion(provider, provider.client_public_key, form)


def _check_secret(provider: Provider, form: Mapping[str, str]) -> None:
    """Check the client's secret (RFC 6749, section 2.3.1)."""
    basic = request.authorization
    shown = (form.get("client_id"), form.get("client_secret"))
    if basic is not None and basic.type == "basic":
        shown = (basic.username, basic.password)
    known = (provider.client_id, provider.client_secret)
    # Both are compared, so that the time taken tells nothing about either.
    matches = [
        same(ours, theirs or "") for ours, theirs in zip(known, shown, strict=True)
    ]
    if not all(matches):
        raise TokenError(401, "access_denied", "Unauthorized")


def _check_assertion(provider: Provider, key: str, form: Mapping[str, str]) -> None:
    """Check a JWT that the client signed (RFC 7523, sections 2.2 and 3)."""
    if form.get("client_assertion_type") != _ASSERTION_TYPE:
        raise _refused("The client has to authenticate with private_key_jwt")
    claims = _claims(provider, key, form.get("client_assertion", ""))
    client_id = provider.client_id
    if not (claims["sub"] == form.get("client_id", client_id) == client_id):
        raise _refused("The assertion is about another client")
    lifetime = claims["exp"] - provider.now()
    if not provider.directory.assertions.add(claims["jti"], True, lifetime=lifetime):
        raise _refused("The assertion was used before: its jti is known")


def _claims(provider: Provider, key: str, assertion: str) -> dict[str, Any]:
    audience = {
        provider.issuer,
        f"{provider.issuer}oauth/token",
        f"{provider.issuer}{request.path[1:]}",
    }
    expected = Expected(provider.client_id, audience, {"sub", "jti"})
    try:
        return verify(assertion, key, expected, provider.now())
    except jwt.PyJWTError as error:
        raise _refused(f"The assertion is wrong: {error}") from error


def _refused(description: str) -> TokenError:
    return TokenError(401, "invalid_client", description)


@dataclass(frozen=True)
class Expected:
    """What a token has to say.

    Attributes:
        issuer: What ``iss`` has to be.
        audience: Of which ``aud`` has to name one.
        claims: What has to be there besides ``iss``, ``aud`` and ``exp``.
    """

    issuer: str
    audience: Collection[str]
    claims: Collection[str]


def verify(
    token: str, key: RSAPublicKey | str, expected: Expected, now: float
) -> dict[str, Any]:
    """Return the claims of a token signed with RS256 (RFC 7519, section 7.2).

    A key may be PEM. The time is the tenant's, which may differ from the machine's.

    Raises:
        jwt.PyJWTError: If anything is wrong with it.
    """
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        issuer=expected.issuer,
        audience=list(expected.audience),
        options={
            "require": ["iss", "aud", "exp", *expected.claims],
            # The library knows only the machine's clock; ours may differ.
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },
    )
    _check_time(claims, now)
    return claims


def _check_time(claims: dict[str, Any], now: float) -> None:
    expires = claims["exp"]
    if not isinstance(expires, int | float):
        raise jwt.DecodeError("exp is not a number")
    if expires <= now:
        raise jwt.ExpiredSignatureError("The token has expired")
