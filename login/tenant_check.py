"""What `flask auth0 check` asks the tenant: discovery, keys, clock."""

from __future__ import annotations

import socket
import ssl
import time
from collections.abc import Iterator
from email.utils import parsedate_to_datetime
from typing import Any

import httpx
import jwt

from .settings import Settings
from .verification import CLOCK_TOLERANCE

OK, WARNING, WRONG, SKIPPED = "ok", "warning", "wrong", "skipped"
#: One of these four, and what there is to say.
Finding = tuple[str, str]

_DISCOVERY = "/.well-known/openid-configuration"
_PATIENCE = 5  # seconds for an answer of the tenant
_CLOCK_WARNING = 10  # seconds
_MOST_LETTERS = 80
_NO_TENANT = "Is AUTH0_DOMAIN the domain of an Auth0 tenant? The dashboard shows it."

#: What is said of an exception, or of what caused it; the first that fits.
_SENTENCES: tuple[tuple[type[Exception] | tuple[type[Exception], ...], str], ...] = (
    (
        ssl.SSLCertVerificationError,
        "its TLS certificate is not trusted here. If a proxy inspects TLS, set "
        "SSL_CERT_FILE to a file with its certificate; else AUTH0_DOMAIN is mistaken.",
    ),
    (ssl.SSLError, "TLS failed. See AUTH0_DOMAIN, SSL_CERT_FILE and HTTPS_PROXY."),
    (
        (socket.gaierror, UnicodeError),
        "DNS does not know the host. Correct AUTH0_DOMAIN, HTTPS_PROXY, or DNS here.",
    ),
    (
        (httpx.TimeoutException, TimeoutError),
        f"no answer within {_PATIENCE} seconds. Does a firewall let this machine out "
        "to port 443, and is HTTPS_PROXY set where a proxy is needed?",
    ),
    (
        (httpx.InvalidURL, httpx.UnsupportedProtocol),
        "there is no https address to ask. See AUTH0_DOMAIN and HTTPS_PROXY.",
    ),
    (
        Exception,
        "the connection failed. See AUTH0_DOMAIN, HTTPS_PROXY, and the firewall.",
    ),
)


def ask_tenant(settings: Settings) -> Iterator[Finding]:
    """Ask the tenant what a login needs of it, without logging in."""
    url = f"https://{settings.domain}{_DISCOVERY}"
    try:
        answer, document = _fetch(url)
    except _NotFetched as error:
        yield WRONG, f"discovery at {url}: {error}"
        yield SKIPPED, "keys, clock, pushed requests: need discovery"
        return
    yield OK, f"discovery: {url} answers"
    yield _issuer(document, settings.domain)
    yield _endpoints(document)
    yield _pkce(document)
    yield _keys(document)
    yield _clock(answer)
    yield _pushed(document, settings.pushed_authorization_requests)


def _issuer(document: dict[str, Any], domain: str) -> Finding:
    given = str(document.get("issuer", ""))
    if given.lower().removeprefix("https://").rstrip("/") == domain:
        return OK, "issuer: that of AUTH0_DOMAIN"
    shown = repr(given[:_MOST_LETTERS])
    return WRONG, f"issuer: it is {shown}; set AUTH0_DOMAIN to the domain in that"


def _endpoints(document: dict[str, Any]) -> Finding:
    names = ("authorization_endpoint", "token_endpoint")
    missing = [name for name in names if not document.get(name)]
    if missing:
        return WRONG, f"discovery names no {' and no '.join(missing)}. {_NO_TENANT}"
    return OK, "endpoints: authorization and token are there"


def _pkce(document: dict[str, Any]) -> Finding:
    methods = document.get("code_challenge_methods_supported")
    if isinstance(methods, list) and "S256" in methods:
        return OK, "PKCE: S256 is supported"
    return WRONG, f"PKCE: discovery does not name S256, which logins use. {_NO_TENANT}"


def _keys(document: dict[str, Any]) -> Finding:
    try:
        keys = _fetch(document.get("jwks_uri"))[1].get("keys")
    except _NotFetched as error:
        return WRONG, f"keys at the jwks_uri of discovery: {error}"
    if isinstance(keys, list) and any(map(_verifies, keys)):
        return OK, "keys: there is one for RS256"
    return WRONG, (
        "keys: none is for RS256, which ID tokens must be signed with. In the "
        "dashboard: Applications, Settings, Advanced Settings, OAuth, and "
        "Settings, Signing Keys."
    )


def _verifies(key: Any) -> bool:
    if not isinstance(key, dict) or key.get("use", "sig") != "sig":
        return False
    try:
        jwt.PyJWK.from_dict(key, algorithm="RS256")
    except (jwt.PyJWTError, ValueError, TypeError):
        return False
    return bool(key.get("alg", "RS256") == "RS256")


def _clock(answer: httpx.Response) -> Finding:
    try:
        theirs = parsedate_to_datetime(answer.headers["Date"]).timestamp()
    except (KeyError, ValueError):
        return SKIPPED, "clock: the tenant's answer has no Date to compare with"
    apart = abs(time.time() - answer.elapsed.total_seconds() / 2 - theirs)
    if apart <= _CLOCK_WARNING:
        return OK, "clock: that of this machine agrees with the tenant's"
    told = f"clock: this machine and the tenant are {apart:.0f} seconds apart"
    cure = "Set this machine's clock by NTP (timedatectl set-ntp true)."
    if apart <= CLOCK_TOLERANCE:
        return WARNING, f"{told}. {cure}"
    return WRONG, f"{told}, so that logins are refused. {cure}"


def _pushed(document: dict[str, Any], wanted: bool) -> Finding:
    name = "AUTH0_PUSHED_AUTHORIZATION_REQUESTS"
    if wanted and not document.get("pushed_authorization_request_endpoint"):
        return WRONG, (
            f"{name} is true, but the tenant has no address for them. In the "
            "dashboard: Settings, Advanced; or set it to false."
        )
    if not wanted and document.get("require_pushed_authorization_requests") is True:
        return WRONG, f"{name} must be true: the tenant takes no other logins"
    return OK, f"pushed requests: {'on' if wanted else 'off'}, as the tenant allows"


class _NotFetched(Exception):
    """A document could not be had; the text says why, and the cure."""


def _fetch(url: Any) -> tuple[httpx.Response, dict[str, Any]]:
    try:
        answer = httpx.get(str(url), timeout=_PATIENCE)
    except (httpx.HTTPError, httpx.InvalidURL, OSError, ValueError) as error:
        raise _NotFetched(_sentence(error)) from error
    if answer.status_code != 200:
        raise _NotFetched(f"the answer is {answer.status_code}. {_NO_TENANT}")
    try:
        document = answer.json()
    except ValueError:
        document = None
    if not isinstance(document, dict):
        raise _NotFetched(f"the answer is no JSON object. {_NO_TENANT}")
    return answer, document


def _sentence(error: BaseException) -> str:
    chain = [error]
    while len(chain) < 8 and (cause := chain[-1].__cause__ or chain[-1].__context__):
        chain.append(cause)
    return next(
        sentence
        for kind, sentence in _SENTENCES
        if any(isinstance(link, kind) for link in chain)
    )
