"""What fits: claims and tokens in bytes against cookies; ``python -m bench.sizes``."""

from __future__ import annotations

import os
import tempfile
from collections.abc import Iterator
from typing import Any

from flask import Flask

from auth0_flask.stores import SessionTooLarge

from . import subjects
from .processes import environment
from .sessions import CLAIMS, api_token, jwt, opaque


def cases() -> Iterator[tuple[str, dict[str, Any], str]]:
    """Yield what a session holds: in words, the claims, the access token."""
    yield "the usual: ID token, opaque access token, refresh token", {}, opaque(43)
    yield "the same, with a JWT access token of 1 KB", {}, api_token(1000)
    yield "the same, with a JWT access token of 2 KB", {}, api_token(2000)
    for number in (25, 100, 200, 250, 300, 400, 450):
        groups = [f"team-{opaque(12)}" for _ in range(number)]
        yield (
            f"the usual, and {number} groups of 17 characters",
            groups_of(groups),
            opaque(43),
        )


def groups_of(names: list[str]) -> dict[str, Any]:
    """Return a claim such as an Auth0 Action adds."""
    return {"https://example.com/groups": names}


def keeps_id_token(app: Flask, cookie: str) -> bool:
    """Tell whether a session has the raw ID token, or the claims alone."""
    from auth import auth0

    with app.test_request_context(headers={"Cookie": cookie}):
        return "id_token" in (auth0.sessions.load_unchecked() or {})


def main() -> None:
    """Print the table."""
    with tempfile.TemporaryDirectory() as folder:
        os.environ.update(environment(folder))
        app = subjects.ours()
        print("| A session with | ID token | Access token | Cookies | Bytes of them |")
        print("|---|---|---|---|---|")
        for words, claims, access_token in cases():
            claims = {**CLAIMS, **claims}
            id_token = f"{len(jwt(claims)):,}"
            try:
                cookie = subjects.cookie(app, access_token, claims)
                pieces = cookie.split("; ")
                number, size = str(len(pieces)), f"{sum(map(len, pieces)):,}"
                if not keeps_id_token(app, cookie):
                    id_token = f"{id_token}, not kept"
            except SessionTooLarge:
                number, size = "too large", ""
            sizes = f"{id_token} | {len(access_token):,} | {number} | {size}"
            print(f"| {words} | {sizes} |")


if __name__ == "__main__":
    main()
