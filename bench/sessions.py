"""What a session holds that is measured: claims and tokens, made up."""

from __future__ import annotations

import base64
import json
import random
from typing import Any

_random = random.Random(0)  # noqa: S311 - the same sizes at every run

CLAIMS: dict[str, Any] = {
    "sub": "auth0|65f0c0ffee65f0c0ffee65f0",
    "name": "Alice Archer",
    "nickname": "alice",
    "given_name": "Alice",
    "family_name": "Archer",
    "picture": "https://s.gravatar.com/avatar/23463b99b62a72f26ed677cc556c44e8?s=480",
    "email": "alice@example.com",
    "email_verified": True,
    "updated_at": "2026-11-21T06:53:00.000Z",
    "iss": "https://tenant.eu.auth0.com/",
    "aud": "kXvT1bR7xW3dQ9mZ5nLcPf0sYhUjE2oA",
    "iat": 1795244000,
    "exp": 1795280000,
    "sid": "Qm7Yx2Lk9Vb4Nc8Zt1Rf6Hs3Wd5Jg0Pa",
}


def opaque(length: int) -> str:
    """Return a random token of that many characters."""
    return base64.urlsafe_b64encode(_random.randbytes(length)).decode()[:length]


def jwt(payload: dict[str, Any]) -> str:
    """Return what a JWT signed by RS256 looks like."""
    header = {"alg": "RS256", "typ": "JWT", "kid": opaque(21)}
    parts = [json.dumps(part, separators=(",", ":")) for part in (header, payload)]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), opaque(342)])


def api_token(length: int) -> str:
    """Return a JWT access token of about that length: permissions, and more."""
    payload = {**CLAIMS, "aud": "https://api.example.com", "permissions": []}
    while len(token := jwt(payload)) < length:
        payload["permissions"].append(f"{opaque(6)}:{opaque(8)}")
    return token


def state(claims: dict[str, Any], access_token: str) -> dict[str, Any]:
    """Return what the SDK keeps after a login."""
    return {
        "user": claims,
        "id_token": jwt(claims),
        "refresh_token": opaque(43),
        "token_sets": [
            {
                "audience": "default",
                "access_token": access_token,
                "scope": "openid profile email offline_access",
                "expires_at": 1795330400,
            }
        ],
        "domain": "tenant.eu.auth0.com",
        "internal": {"sid": claims["sid"], "created_at": 1795244000},
    }
