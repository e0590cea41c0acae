"""Authorization requests, and the addresses that browsers are sent to."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import redirect
from werkzeug.wrappers import Response

#: What an app gets that asks for no scope.
DEFAULT_SCOPE = "openid profile email"

# RFC 7636, section 4.2: the challenge is 32 bytes in base64url.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
# Browsers read a backslash as a slash, and drop tabs and line ends: an address
# with any of them may lead elsewhere than it says.
_DECEPTIVE = re.compile(r"[\x00-\x20\x7f\\]")


class RequestError(Exception):
    """A mistake that goes back to the app (RFC 6749, section 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.told = {"error": error, "error_description": description}


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


def read(query: Mapping[str, str]) -> AuthorizationRequest:
    """Read a request of a known redirect_uri; raises what the app has to be told."""
    for name in ("response_type", "code_challenge"):
        if not query.get(name):
            raise invalid(f"Missing required parameter: {name}")
    if query["response_type"] != "code":
        description = f"Unsupported response type: {query['response_type']}"
        raise RequestError("unsupported_response_type", description)
    if query.get("response_mode", "query") != "query":
        raise invalid("Unsupported response mode: only query is known here")
    if query.get("code_challenge_method") != "S256":
        raise invalid("code_challenge_method must be S256")
    if not _CHALLENGE.fullmatch(query["code_challenge"]):
        raise invalid("code_challenge is not a SHA-256 digest in base64url")
    prompt, max_age = frozenset(query.get("prompt", "").split()), query.get("max_age")
    if "none" in prompt and len(prompt) > 1:
        raise invalid("prompt=none cannot be combined with others")
    if max_age and not (max_age.isascii() and max_age.isdecimal()):
        raise invalid("max_age must be a number of seconds")
    text = ("login_hint", "organization", "invitation", "connection")
    return AuthorizationRequest(
        redirect_uri=query["redirect_uri"],
        code_challenge=query["code_challenge"],
        scope=tuple(dict.fromkeys(query.get("scope", DEFAULT_SCOPE).split())),
        state=query.get("state"),
        nonce=query.get("nonce"),
        audience=query.get("audience") or None,
        prompt=prompt,
        max_age=int(max_age) if max_age else None,
        signup=query.get("screen_hint") == "signup",
        acr=next(iter(query.get("acr_values", "").split()), None),
        **{name: query.get(name, "") for name in text},
    )


def invalid(description: str) -> RequestError:
    """Return the refusal of a request that is not in order."""
    return RequestError("invalid_request", description)


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return the address with these query parameters added."""
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), *parameters.items()]
    return parts._replace(query=urlencode(query)).geturl()


def send_back(
    url: str, state: str | None, told: Mapping[str, str], status: int = 302
) -> Response:
    """Send a browser back to the app, with its ``state`` where it gave one."""
    sent = {} if state is None else {"state": state}
    return redirect(with_query(url, {**told, **sent}), status)


def form_target(url: str) -> str:
    """Return the CSP source (``form-action``) that covers this address."""
    parts = urlsplit(url)
    if parts.hostname is None or ":" in parts.hostname:
        # CSP has no way to write an IPv6 address, so the scheme has to do.
        return f"{parts.scheme}:"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def site(url: str) -> str:
    """Return what to call the app at this address: its host and port."""
    return form_target(url).partition("//")[2] or "the app"


def is_loopback(url: str) -> bool:
    """Whether an address leads to this machine, without tricks."""
    if _DECEPTIVE.search(url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port
        plain = parts.username is None and not parts.fragment
        if parts.scheme not in {"http", "https"} or not plain:
            return False
        host = parts.hostname or ""
        named = host == "localhost" or host.endswith(".localhost")
        return named or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
