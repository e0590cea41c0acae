"""Verifying JWTs by the tenant's own clock (RFC 7519, section 7.2)."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey


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
    """Return the claims of a token signed with RS256; a key may be PEM.

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
