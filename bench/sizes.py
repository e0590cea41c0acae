"""What fits: claims and tokens in bytes against cookies; ``python -m bench.sizes``."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from flask import Flask

from . import subjects
from .processes import set_environment
from .subjects import CLAIMS, api_token, jwt, opaque


def main() -> None:
    """Print the table."""
    app = subjects.ours()
    print("| A session with | ID token | Access token | Cookies | Bytes of them |")
    print("|---|---|---|---|---|")
    for words, user, access_token in _cases():
        id_token, number, size = f"{len(jwt(user)):,}", "too large", ""
        if cookie := _cookie(app, user, access_token):
            pieces = cookie.split("; ")
            number, size = str(len(pieces)), f"{sum(map(len, pieces)):,}"
            id_token += "" if _keeps_id_token(app, cookie) else ", not kept"
        sizes = f"{id_token} | {len(access_token):,} | {number} | {size}"
        print(f"| {words} | {sizes} |")


def _cases() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield what a session holds: in words, the claims, the access token."""
    usual = "the usual: ID token, opaque access token, refresh token"
    yield usual, CLAIMS, opaque(43)
    yield "the same, with a JWT access token of 1 KB", CLAIMS, api_token(1000)
    yield "the same, with a JWT access token of 2 KB", CLAIMS, api_token(2000)
    for number in (25, 100, 200, 250, 300, 400, 450):
        groups = [f"team-{opaque(12)}" for _ in range(number)]
        user = {**CLAIMS, "https://example.com/groups": groups}
        yield f"the usual, and {number} groups of 17 characters", user, opaque(43)


def _cookie(app: Flask, user: dict[str, Any], access_token: str) -> str:
    from auth0_flask.stores import SessionTooLarge

    try:
        return subjects.cookie(app, user, access_token)
    except SessionTooLarge:
        return ""


def _keeps_id_token(app: Flask, cookie: str) -> bool:
    """Tell whether a session has the raw ID token, or the claims alone."""
    from auth import auth0

    with app.test_request_context(headers={"Cookie": cookie}):
        return "id_token" in (auth0.sessions.load_unchecked() or {})


if __name__ == "__main__":
    with set_environment():
        main()
