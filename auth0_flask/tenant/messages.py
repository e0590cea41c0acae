"""Parameters and client authentication of back channel requests."""

from __future__ import annotations

import json
from collections.abc import Collection, Mapping
from typing import Any, NoReturn, TypeVar

import jwt
from cryptography.hazmat.primitives.asymmetric.rsa import RSAPublicKey
from flask import request

from .errors import TokenError, bad_request
from .factors import safe_equal
from .provider import tenant

T = TypeVar("T")
_ASSERTION_TYPE = "urn:ietf:params:oauth:client-assertion-type:jwt-bearer"

#: The parameters for client authentication.
CREDENTIALS = frozenset({"client_secret", "client_assertion", "client_assertion_type"})


def parameters() -> dict[str, str]:
    """Return the request's parameters, from a form or, as Auth0 accepts, JSON."""
    if not request.is_json:
        return request.form.to_dict()
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise bad_request("The body is not a JSON object")
    return {n: v if isinstance(v, str) else json.dumps(v) for n, v in document.items()}


def required(form: Mapping[str, str], name: str) -> str:
    """Return a parameter, or reject the request if it is missing."""
    if not form.get(name):
        raise bad_request(f"Missing required parameter: {name}")
    return form[name]


def json_parameter(form: Mapping[str, str], name: str, kind: type[T]) -> T:
    """Parse a parameter that is a JSON object or list; empty if it is missing."""
    try:
        value = json.loads(form[name]) if form.get(name) else kind()
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise bad_request(f"{name} is not a JSON {kind.__name__}")
    return value


def bearer_token() -> str:
    """Return the request's access token, or "" (RFC 6750, section 2.1)."""
    header = request.authorization
    return (header and header.type == "bearer" and header.token) or ""


def client_form() -> dict[str, str]:
    """Authenticate the client and return the request's parameters.

    As at Auth0, an app has one way to authenticate: its secret, or private_key_jwt
    once its key is registered.
    """
    form = parameters()
    basic = request.authorization
    client_id, secret = form.get("client_id"), form.get("client_secret")
    if basic is not None and basic.type == "basic":
        client_id, secret = basic.username, basic.password
    # Both are compared before the check, so that its time does not depend on either.
    is_known = safe_equal(tenant.client_id, client_id or "")
    if tenant.client_public_key is not None:
        _check_assertion(tenant.client_public_key, form)
    elif not (safe_equal(tenant.client_secret, secret or "") and is_known):
        raise TokenError(401, "access_denied", "Unauthorized")
    return form


def _check_assertion(key: str, form: Mapping[str, str]) -> None:
    """Check a JWT that the client signed (RFC 7523, sections 2.2 and 3)."""
    client_id, token = tenant.client_id, form.get("client_assertion", "")
    audiences = [tenant.issuer + path for path in ("", "oauth/token", request.path[1:])]
    if form.get("client_assertion_type") != _ASSERTION_TYPE:
        _refuse_client("The client must authenticate with private_key_jwt")
    try:
        claims = _verify(token, key, client_id, audiences, {"sub", "jti"})
    except jwt.PyJWTError as error:
        _refuse_client(f"The assertion is invalid: {error}")
    if not (claims["sub"] == form.get("client_id", client_id) == client_id):
        _refuse_client("The assertion is for another client")
    assertions, jti = tenant.directory.used_assertions, claims["jti"]
    if assertions.get(jti):
        _refuse_client("The assertion was used before")
    assertions.put(True, key=jti, lifetime=claims["exp"] - tenant.now())


def _refuse_client(description: str) -> NoReturn:
    raise TokenError(401, "invalid_client", description)


def verified_claims(token: str, audience: str) -> dict[str, Any]:
    """Return the claims of a token that the tenant issued, or raise a PyJWTError."""
    key = tenant.keys.current.private.public_key()
    return _verify(token, key, tenant.issuer, [audience], {"sub"})


def _verify(
    token: str, key: RSAPublicKey | str, iss: str, aud: list[str], also: Collection[str]
) -> dict[str, Any]:
    """Return the claims of a token signed with RS256 (RFC 7519, section 7.2)."""
    # PyJWT checks times by the machine's clock, so they are checked below.
    options: Any = dict.fromkeys(("verify_exp", "verify_iat", "verify_nbf"), False)
    options["require"] = ["iss", "aud", "exp", *also]
    claims: dict[str, Any] = jwt.decode(
        token, key, algorithms=["RS256"], issuer=iss, audience=aud, options=options
    )
    if not isinstance(claims["exp"], int | float):
        raise jwt.DecodeError("exp is not a number")
    if claims["exp"] <= tenant.now():
        raise jwt.ExpiredSignatureError("The token has expired")
    return claims
