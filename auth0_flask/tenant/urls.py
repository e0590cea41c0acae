"""Which addresses the tenant sends a browser to, and how they are put together."""

from __future__ import annotations

import ipaddress
import re
from collections.abc import Collection, Mapping
from urllib.parse import SplitResult, parse_qsl, urlencode, urlsplit

# Browsers read a backslash as a slash, and drop tabs and line ends: an address
# with any of them may lead elsewhere than it says.
_DECEPTIVE = re.compile(r"[\x00-\x20\x7f\\]")


def allowed(url: str, registered: Collection[str]) -> bool:
    """Whether a browser may be sent there: loopback, or registered as it is."""
    return url in registered or is_loopback(url)


def with_query(url: str, parameters: Mapping[str, str]) -> str:
    """Return the address with these query parameters added."""
    parts = urlsplit(url)
    query = [*parse_qsl(parts.query, keep_blank_values=True), *parameters.items()]
    return parts._replace(query=urlencode(query)).geturl()


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
    except ValueError:
        return False
    return _is_plain(parts) and _is_loopback_host(parts.hostname or "")


def _is_plain(parts: SplitResult) -> bool:
    web = parts.scheme in {"http", "https"}
    return web and parts.username is None and not parts.fragment


def _is_loopback_host(host: str) -> bool:
    if host == "localhost" or host.endswith(".localhost"):
        return True
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return False
