"""Verifying JWTs, and that the back channel's client is the app."""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from flask import request

from .factors import same
from .messages import TokenError
from .provider import here

_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

#: Parameters that prove who sends a request and mean nothing else.
CREDENTIALS = frozenset({"client_secret", "client_assertion", "client_assertion_type"})


def authenticate(form: Mapping[str, str]) -> None:
    """Check the client's credentials in the present request.

    As at Auth0, an app has one way: the secret, or its own key once that is
    registered.

    Raises:
        TokenError: If they are not the app's.
    """
    if here.client_public_key is None:
        _check_secret(form)
    else:
        _check_assertion(here.client_public_key, form)


def _check_secret(form: Mapping[str, str]) -> None:
    """Check the client's secret (RFC 6749, section 2.3.1)."""
    basic = request.authorization
    shown = (form.get("client_id"), form.get("client_secret"))
    if basic is not None and basic.type == "basic":
        shown = (basic.username, basic.password)
    known = (here.client_id, here.client_secret)
    # Both are compared, so that the time taken tells nothing about either.
    matches = [
        same(ours, theirs or "") for ours, theirs in zip(known, shown, strict=True)
    ]
    if not all(matches):
        raise TokenError(401, "access_denied", "Unauthorized")


def _check_assertion(key: str, form: Mapping[str, str]) -> None:
    """Check a JWT that the client signed (RFC 7523, sections 2.2 and 3)."""
    if form.get("client_assertion_type") != _ASSERTION_TYPE:
        raise _refused("The client has to authenticate with private_key_jwt")
    client_id = here.client_id
    paths = ("", "oauth/token", request.path[1:])
    try:
        claims = _verify(
            form.get("client_assertion", ""),
            key,
            client_id,
            [here.issuer + path for path in paths],
            ("sub", "jti"),
        )
    except jwt.PyJWTError as error:
        raise _refused(f"The assertion is wrong: {error}") from error
    if not (claims["sub"] == form.get("client_id", client_id) == client_id):
        raise _refused("The assertion is about another client")
    lifetime = claims["exp"] - here.now()
    if not here.directory.assertions.add(claims["jti"], True, lifetime=lifetime):
        raise _refused("The assertion was used before: its jti is known")


def _refused(description: str) -> TokenError:
    return TokenError(401, "invalid_client", description)


def own_claims(token: str, audience: str) -> dict[str, Any]:
    """Return the claims of a token that the tenant itself signed.

    Raises:
        jwt.PyJWTError: If anything is wrong with it.
    """
    key = here.keys.current.private.public_key()
    return _verify(token, key, here.issuer, [audience], ("sub",))


def _verify(
    token: str,
    key: RSAPublicKey | str,
    issuer: str,
    audiences: list[str],
    claims: Collection[str],
) -> dict[str, Any]:
    """Return the claims of a token signed with RS256 (RFC 7519, section 7.2)."""
    found: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        issuer=issuer,
        audience=audiences,
        options={
            "require": ["iss", "aud", "exp", *claims],
            # The library knows only the machine's clock; ours may differ.
            "verify_exp": False,
            "verify_iat": False,
            "verify_nbf": False,
        },
    )
    if not isinstance(found["exp"], int | float):
        raise jwt.DecodeError("exp is not a number")
    if found["exp"] <= here.now():
        raise jwt.ExpiredSignatureError("The token has expired")
    return found
