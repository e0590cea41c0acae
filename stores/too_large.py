"""What is said when a session does not fit: its heaviest parts, and the way out."""

from __future__ import annotations

import json
import logging
from collections.abc import Mapping
from typing import Any

from werkzeug.exceptions import InternalServerError

logger = logging.getLogger(__name__)


class SessionTooLarge(InternalServerError):
    """What is to be kept about a user does not fit into cookies.

    Attributes:
        parts: The three heaviest parts, each as (claim or token, bytes).
    """

    error = "session_too_large"
    title = "Too much to keep"
    description = "Your account carries more data than this site can keep in cookies."

    def __init__(self, state: Mapping[str, Any]) -> None:
        super().__init__()
        self.parts = _heaviest(state)
        parts = ", ".join(f"{name} ({size} bytes)" for name, size in self.parts)
        parts = parts or "what this app keeps in the session itself"
        self.hint = (
            f"The heaviest parts are {parts}. Whoever runs this site can ask for "
            "fewer claims or a smaller token, or set AUTH0_REDIS_URL, which moves "
            "sessions out of cookies."
        )


def too_large(data: Mapping[str, Any], left: float) -> SessionTooLarge:
    """Log what does not fit, and return the error to raise.

    Args:
        data: A state or a transaction.
        left: How many bytes more would have fitted; negative.
    """
    error = SessionTooLarge(data)
    logger.error("A session was not kept: %.0f bytes too many. %s", -left, error.hint)
    return error


def _heaviest(state: Mapping[str, Any]) -> list[tuple[str, int]]:
    sizes = {
        f"claim {claim}": value for claim, value in (state.get("user") or {}).items()
    }
    for tokens in state.get("token_sets", []):
        sizes[f"access token for {tokens['audience']}"] = tokens.get("access_token")
    for name in ("id_token", "refresh_token", "app_state"):
        sizes[name] = state.get(name)
    weighed = [(name, len(json.dumps(value))) for name, value in sizes.items() if value]
    return sorted(weighed, key=lambda part: -part[1])[:3]
