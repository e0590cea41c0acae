"""Requests to the back channel, and who may send them."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from flask import request

from .errors import TokenError, bad_request
from .factors import same
from .provider import here

T = TypeVar("T")
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

#: Parameters that prove who sends a request and mean nothing else.
CREDENTIALS = frozenset({"client_secret", "client_assertion", "client_assertion_type"})


def parameters() -> dict[str, str]:
    """Return the parameters of the present request, as a form or, as at Auth0, JSON."""
    if not request.is_json:
        return request.form.to_dict()
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise bad_request("The body is not a JSON object")
    return {n: v if isinstance(v, str) else json.dumps(v) for n, v in document.items()}


def required(form: Mapping[str, str], name: str) -> str:
    """Return a parameter, or refuse the request where it is not there."""
    if not form.get(name):
        raise bad_request(f"Missing required parameter: {name}")
    return form[name]


def structure(form: Mapping[str, str], name: str, kind: type[T]) -> T:
    """Return a parameter that is a JSON object or list, empty where it is not there."""
    try:
        value = json.loads(form[name]) if form.get(name) else kind()
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise bad_request(f"{name} is not a JSON {kind.__name__}")
    return value


def bearer() -> str:
    """Return the access token that a request shows (RFC 6750, section 2.1)."""
    header = request.authorization
    return (header and header.type == "bearer" and header.token) or ""


def app_form() -> dict[str, str]:
    """Return the parameters of a request that proves to be the app's.

    As at Auth0, an app has one way to show that: the secret, or its own key once that
    is registered.
    """
    form = parameters()
    basic = request.authorization
    name, secret = form.get("client_id"), form.get("client_secret")
    if basic is not None and basic.type == "basic":
        name, secret = basic.username, basic.password
    # Both are compared, so that the time taken tells nothing about either.
    named = same(here.client_id, name or "")
    if here.client_public_key is not None:
        _check_assertion(here.client_public_key, form)
    elif not (same(here.client_secret, secret or "") and named):
        raise TokenError(401, "access_denied", "Unauthorized")
    return form


def _check_assertion(key: str, form: Mapping[str, str]) -> None:
    """Check a JWT that the client signed (RFC 7523, sections 2.2 and 3)."""
    client_id, token = here.client_id, form.get("client_assertion", "")
    audiences = [here.issuer + path for path in ("", "oauth/token", request.path[1:])]
    if form.get("client_assertion_type") != _ASSERTION_TYPE:
        _refuse_client("The client has to authenticate with private_key_jwt")
    try:
        claims = _verify(token, key, client_id, audiences, {"sub", "jti"})
    except jwt.PyJWTError as error:
        _refuse_client(f"The assertion is wrong: {error}")
    if not (claims["sub"] == form.get("client_id", client_id) == client_id):
        _refuse_client("The assertion is about another client")
    assertions, jti = here.directory.assertions, claims["jti"]
    if assertions.get(jti):
        _refuse_client("The assertion was used before: its jti is known")
    assertions.put(True, key=jti, lifetime=claims["exp"] - here.now())


def _refuse_client(description: str) -> NoReturn:
    raise TokenError(401, "invalid_client", description)


def own_claims(token: str, audience: str) -> dict[str, Any]:
    """Return the claims of a token of the tenant's own, or raise a PyJWTError."""
    key = here.keys.current.private.public_key()
    return _verify(token, key, here.issuer, [audience], {"sub"})


def _verify(
    token: str, key: RSAPublicKey | str, iss: str, aud: list[str], also: Collection[str]
) -> dict[str, Any]:
    """Return the claims of a token signed with RS256 (RFC 7519, section 7.2)."""
    # The library knows only the machine's clock; ours may differ.
    options: Any = dict.fromkeys(("verify_exp", "verify_iat", "verify_nbf"), False)
    options["require"] = ["iss", "aud", "exp", *also]
    claims: dict[str, Any] = jwt.decode(
        token,
        key,
        algorithms=["RS256"],
        issuer=iss,
        audience=aud,
        options=options,
    )
    if not isinstance(claims["exp"], int | float):
        raise jwt.DecodeError("exp is not a number")
    if claims["exp"] <= here.now():
        raise jwt.ExpiredSignatureError("The token has expired")
    return claims
