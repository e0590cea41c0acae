"""What the SDK writes wrongly about access tokens, put right on the way in."""

from __future__ import annotations

import time
from collections.abc import Mapping
from typing import Any

DEFAULT_AUDIENCE = "default"  # what the SDK calls a token without audience
#: Seconds before its end that a token is not used any more, or a tenth of its life.
_MARGIN = 30
#: A token that lives shorter is timed by parts of a second; the SDK's own models
#: take whole ones only.
_SHORT = 60
#: What of a login an ID token of a refresh may leave out.
_OF_THE_LOGIN = ("acr", "amr", "auth_time", "sid")


def fresh_until(begins: float, seconds: float) -> float:
    """Return until when a token is used: a little less than it is good for.

    Args:
        begins: When it was asked for.
        seconds: How long it is good for.
    """
    ends = begins + seconds - min(_MARGIN, seconds / 10)
    return int(ends) if seconds >= _SHORT else round(ends, 3)


def fill_in(data: dict[str, Any], fresh: Mapping[str, Any] | None) -> None:
    """Add to a state what the SDK leaves out of it after a refresh.

    Args:
        data: The state as the SDK makes it.
        fresh: The answer, the scope it was asked for with, until when it is used,
            and the claims of its verified ID token.
    """
    access_token = fresh["answer"]["access_token"] if fresh else None
    for tokens in data["token_sets"]:
        if fresh and tokens["access_token"] == access_token:
            tokens |= {"scope": fresh["scope"], "expires_at": fresh["fresh_until"]}
            _renew(data, fresh["claims"])


def shorten(data: dict[str, Any]) -> None:
    """Use the tokens of a login a little shorter, too."""
    now = time.time()
    for tokens in data["token_sets"]:
        tokens["expires_at"] = fresh_until(now, tokens["expires_at"] - now)


def merged(scope: str, granted: str | None) -> str:
    """Return two scopes as one (RFC 6749 section 3.3)."""
    return " ".join(dict.fromkeys([*scope.split(), *(granted or "").split()]))


def token_sets(found: list[dict[str, Any]], scope: str) -> list[dict[str, Any]]:
    """Put right what a refresh leaves behind, the newest of each kind last.

    The SDK files a token without audience under None, and one without scope (which
    means "as requested", RFC 6749 section 5.1) under nothing, and finds neither
    again.
    """
    now = time.time()
    good = [tokens for tokens in found[:-1] if tokens["expires_at"] > now]
    kinds: dict[tuple[str, str], dict[str, Any]] = {}
    for tokens in good + found[-1:]:
        audience = tokens.get("audience") or DEFAULT_AUDIENCE
        scopes = merged(scope, tokens.get("scope"))
        kind = (audience, " ".join(sorted(scopes.split())))
        kinds.pop(kind, None)
        kinds[kind] = {**tokens, "audience": audience, "scope": scopes}
    return list(kinds.values())


def _renew(data: dict[str, Any], claims: Mapping[str, Any] | None) -> None:
    """Take the claims of a refresh, so that a role taken away does not stay.

    OpenID Connect Core section 12.2: what is said of the login stays as it was.
    """
    if claims:
        known = {name: data["user"].get(name) for name in _OF_THE_LOGIN}
        login = {name: value for name, value in known.items() if value is not None}
        data["user"] = {**login, **claims}
