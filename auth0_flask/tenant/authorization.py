"""Authorization requests: what an app asks for when it sends a browser here."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass

#: What an app gets that asks for no scope.
DEFAULT_SCOPE = "openid profile email"

# RFC 7636, section 4.2: the challenge is 32 bytes in base64url.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")


class RequestError(Exception):
    """A mistake that goes back to the app (RFC 6749, section 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        """Take the error code and the sentence for the app's developer."""
        super().__init__(description)
        self.error = error
        self.description = description


@dataclass(frozen=True)
class AuthorizationRequest:
    """A request in order (RFC 6749, section 4.1.1; OpenID Connect Core, 3.1.2.1).

    ``max_age`` is in seconds, ``organization`` an identifier or a name; ``acr`` is
    the first of the ``acr_values``, all of which a second factor meets here.
    """

    redirect_uri: str
    code_challenge: str
    scope: tuple[str, ...]
    state: str | None = None
    nonce: str | None = None
    audience: str | None = None
    prompt: frozenset[str] = frozenset()
    max_age: int | None = None
    login_hint: str = ""
    signup: bool = False
    organization: str = ""
    invitation: str = ""
    connection: str = ""
    acr: str | None = None

    @property
    def wants_login_page(self) -> bool:
        """Whether the page has to be shown to somebody already signed in."""
        return not self.prompt.isdisjoint({"login", "select_account"})


def read(query: Mapping[str, str]) -> AuthorizationRequest:
    """Read a request whose client and redirect_uri are known to be right.

    Raises:
        RequestError: If the app has to be told of a mistake.
    """
    _check(query)
    return AuthorizationRequest(
        redirect_uri=query["redirect_uri"],
        code_challenge=query["code_challenge"],
        scope=tuple(dict.fromkeys(query.get("scope", DEFAULT_SCOPE).split())),
        state=query.get("state"),
        nonce=query.get("nonce"),
        audience=query.get("audience") or None,
        prompt=_prompt(query.get("prompt", "")),
        max_age=_max_age(query.get("max_age")),
        login_hint=query.get("login_hint", ""),
        signup=query.get("screen_hint") == "signup",
        organization=query.get("organization", ""),
        invitation=query.get("invitation", ""),
        connection=query.get("connection", ""),
        acr=next(iter(query.get("acr_values", "").split()), None),
    )


def _check(query: Mapping[str, str]) -> None:
    if not query.get("response_type"):
        raise invalid("Missing required parameter: response_type")
    if query["response_type"] != "code":
        raise RequestError(
            "unsupported_response_type",
            f"Unsupported response type: {query['response_type']}",
        )
    if query.get("response_mode", "query") != "query":
        raise invalid("Unsupported response mode: only query is known here")
    _check_challenge(query)


def _check_challenge(query: Mapping[str, str]) -> None:
    if not query.get("code_challenge"):
        raise invalid("Missing required parameter: code_challenge")
    if query.get("code_challenge_method") != "S256":
        raise invalid("code_challenge_method must be S256")
    if not _CHALLENGE.fullmatch(query["code_challenge"]):
        raise invalid("code_challenge is not a SHA-256 digest in base64url")


def _prompt(text: str) -> frozenset[str]:
    prompt = frozenset(text.split())
    if "none" in prompt and len(prompt) > 1:
        raise invalid("prompt=none cannot be combined with others")
    return prompt


def _max_age(text: str | None) -> int | None:
    if not text:
        return None
    if not (text.isascii() and text.isdecimal()):
        raise invalid("max_age must be a number of seconds")
    return int(text)


def invalid(description: str) -> RequestError:
    """Return the refusal of a request that is not in order."""
    return RequestError("invalid_request", description)
