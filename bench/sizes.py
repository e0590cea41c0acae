"""What fits: claims and tokens in bytes against cookies; ``python -m bench.sizes``."""

from __future__ import annotations

import asyncio
import base64
import json
import random
from collections.abc import Iterator
from typing import Any

from flask import Flask, Response, session

from stores import FlaskSessionStateStore, Lifetime, SpanningSessionInterface
from stores.too_large import SessionTooLarge

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


def opaque(letters: int) -> str:
    """Return a random token of that many letters."""
    return base64.urlsafe_b64encode(_random.randbytes(letters)).decode()[:letters]


def jwt(payload: dict[str, Any]) -> str:
    """Return what a JWT signed by RS256 looks like."""
    header = {"alg": "RS256", "typ": "JWT", "kid": opaque(21)}
    parts = [json.dumps(part, separators=(",", ":")) for part in (header, payload)]
    encoded = [base64.urlsafe_b64encode(part.encode()).decode() for part in parts]
    return ".".join([*(part.rstrip("=") for part in encoded), opaque(342)])


def api_token(letters: int) -> str:
    """Return a JWT access token of about that many letters: permissions, and more."""
    payload = {**CLAIMS, "aud": "https://api.example.com", "permissions": []}
    while len(token := jwt(payload)) < letters:
        payload["permissions"].append(f"{opaque(6)}:{opaque(8)}")
    return token


def cases() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield what a session holds: in words, the claims, the access token."""
    yield "the usual: ID token, opaque access token, refresh token", {}, opaque(43)
    yield "the same, with a JWT access token of 1 KB", {}, api_token(1000)
    yield "the same, with a JWT access token of 2 KB", {}, api_token(2000)
    for number in (25, 100, 200, 250, 300):
        groups = [f"team-{opaque(12)}" for _ in range(number)]
        yield (
            f"the usual, and {number} groups of 17 letters",
            groups_of(groups),
            opaque(43),
        )


def groups_of(names: list[str]) -> dict[str, Any]:
    """Return a claim such as an Auth0 Action adds."""
    return {"https://example.com/groups": names}


def cookies_for(claims: dict[str, Any], access_token: str) -> list[str] | None:
    """Return the cookies of a session as they are sent, or None if it is too large."""
    app = Flask(__name__)
    app.secret_key = "k" * 32
    app.session_interface = SpanningSessionInterface()
    store = FlaskSessionStateStore(
        secrets=("s" * 32,),
        scope="openid profile email offline_access",
        lifetime=Lifetime(
            domain="tenant.eu.auth0.com", idle_seconds=86_400, max_seconds=604_800
        ),
    )
    with app.test_request_context():
        session.permanent = True
        try:
            asyncio.run(
                store.set("_a0_session", state({**CLAIMS, **claims}, access_token))
            )
        except SessionTooLarge:
            return None
        response = app.process_response(Response())
    return [
        cookie.partition(";")[0] for cookie in response.headers.getlist("Set-Cookie")
    ]


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


def main() -> None:
    """Print the table."""
    print("| A session with | ID token | Access token | Cookies | Bytes of them |")
    print("|---|---|---|---|---|")
    for words, claims, access_token in cases():
        id_token = len(jwt({**CLAIMS, **claims}))
        cookies = cookies_for(claims, access_token)
        number, size = "too large", ""
        if cookies is not None:
            number, size = str(len(cookies)), f"{sum(map(len, cookies)):,}"
        print(f"| {words} | {id_token:,} | {len(access_token):,} | {number} | {size} |")


if __name__ == "__main__":
    main()
