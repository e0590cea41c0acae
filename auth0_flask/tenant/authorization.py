"""Authorization requests and redirect URLs."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import parse_qsl, urlencode, urlsplit

from flask import redirect
from werkzeug.wrappers import Response

#: The scope of a request that names none.
DEFAULT_SCOPE = "openid profile email"

# RFC 7636, section 4.2: a SHA-256 digest of 32 bytes in base64url.
_CHALLENGE = re.compile(r"[A-Za-z0-9_-]{43}")
# Browsers read a backslash as a slash and drop tabs and newlines, so a URL with
# any of these may lead to another host than urlsplit() finds.
_UNSAFE_CHARACTERS = re.compile(r"[\x00-\x20\x7f\\]")


class RequestError(Exception):
    """An error that is reported to the app (RFC 6749, section 4.1.2.1)."""

    def __init__(self, error: str, description: str) -> None:
        super().__init__(description)
        self.error = error
        self.parameters = {"error": error, "error_description": description}


@dataclass(frozen=True)
class AuthorizationRequest:
    """A valid request (RFC 6749, section 4.1.1; OpenID Connect Core, 3.1.2.1).

    ``max_age`` is in seconds, ``organization`` an ID or a name. ``acr`` is the first
    of the ``acr_values``; a second factor satisfies every value.
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


def parse_request(query: Mapping[str, str]) -> AuthorizationRequest:
    """Parse a request whose redirect_uri is allowed, or raise a RequestError."""
    for name in ("response_type", "code_challenge"):
        if not query.get(name):
            raise invalid_request(f"Missing required parameter: {name}")
    if query["response_type"] != "code":
        description = f"Unsupported response type: {query['response_type']}"
        raise RequestError("unsupported_response_type", description)
    if query.get("response_mode", "query") != "query":
        raise invalid_request("Unsupported response mode: only query is supported")
    if query.get("code_challenge_method") != "S256":
        raise invalid_request("code_challenge_method must be S256")
    if not _CHALLENGE.fullmatch(query["code_challenge"]):
        raise invalid_request("code_challenge is not a SHA-256 digest in base64url")
    prompt, max_age = frozenset(query.get("prompt", "").split()), query.get("max_age")
    if "none" in prompt and len(prompt) > 1:
        raise invalid_request("prompt=none cannot be combined with other values")
    if max_age and not (max_age.isascii() and max_age.isdecimal()):
        raise invalid_request("max_age must be a number of seconds")
    optional = ("login_hint", "organization", "invitation", "connection")
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
        **{name: query.get(name, "") for name in optional},
    )


def invalid_request(description: str) -> RequestError:
    """Return the error for an invalid request."""
    return RequestError("invalid_request", description)


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return the URL with these query parameters added."""
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), *parameters.items()]
    return parts._replace(query=urlencode(query)).geturl()


def redirect_back(
    url: str, state: str | None, parameters: Mapping[str, str], status: int = 302
) -> Response:
    """Redirect to the app, with its ``state`` if it sent one."""
    all_parameters = {**parameters, **({} if state is None else {"state": state})}
    return redirect(with_query(url, all_parameters), status)


def csp_source(url: str) -> str:
    """Return the CSP source (``form-action``) that allows this URL."""
    parts = urlsplit(url)
    if parts.hostname is None or ":" in parts.hostname:
        # CSP has no syntax for IPv6 addresses, so allow the whole scheme.
        return f"{parts.scheme}:"
    port = f":{parts.port}" if parts.port else ""
    return f"{parts.scheme}://{parts.hostname}{port}"


def app_name(url: str) -> str:
    """Return the app's name on pages: the host and port of its URL."""
    return csp_source(url).partition("//")[2] or "the app"


def is_loopback(url: str) -> bool:
    """Return whether a URL surely leads to this machine."""
    if _UNSAFE_CHARACTERS.search(url):
        return False
    try:
        parts = urlsplit(url)
        _ = parts.port  # raises a ValueError if it is invalid
        has_extras = parts.username is not None or parts.fragment
        if parts.scheme not in {"http", "https"} or has_extras:
            return False
        host = parts.hostname or ""
        is_localhost = host == "localhost" or host.endswith(".localhost")
        return is_localhost or ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
