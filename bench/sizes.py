"""What fits: claims and tokens in bytes against cookies; ``python -m bench.sizes``."""

from __future__ import annotations

from contextlib import suppress
from functools import partial

from . import subjects
from .processes import set_environment
from .subjects import CLAIMS, opaque, state


def main() -> None:
    """Print the table."""
    from auth import auth0
    from auth0_flask.stores import SessionTooLarge

    app, usual = subjects.ours(), "the usual"
    rows = {
        f"{usual}: ID token, opaque access token, refresh token": state(CLAIMS),
        "the same, with a JWT access token of 1 KB": state(CLAIMS, 1_000),
        "the same, with a JWT access token of 2 KB": state(CLAIMS, 2_000),
    }
    for number in (25, 100, 200, 250, 300, 400, 450):
        groups = [f"team-{opaque(12)}" for _ in range(number)]
        user = {**CLAIMS, "https://example.com/groups": groups}
        rows[f"{usual}, and {number} groups of 17 characters"] = state(user)
    print("| A session with | ID token | Access token | Cookies | Bytes of them |")
    print("|---|---|---|---|---|")
    for words, kept in rows.items():
        access_token = len(kept["token_sets"][0]["access_token"])
        cells = [f"{len(kept['id_token']):,}", f"{access_token:,}", "too large", ""]
        with suppress(SessionTooLarge):
            pieces = subjects.cookie(app, partial(subjects.sign_in, kept)).split("; ")
            cells[2:] = str(len(pieces)), f"{sum(map(len, pieces)):,}"
            headers = {"Cookie": "; ".join(pieces)}
            with app.test_request_context(headers=headers):
                has_it = "id_token" in (auth0.sessions.load_unchecked() or {})
            cells[0] += "" if has_it else ", not kept"
        print(f"| {words} |", " | ".join(cells), "|")


if __name__ == "__main__":
    with set_environment():
        main()
