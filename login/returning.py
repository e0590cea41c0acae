"""Where a visitor goes after login: to a page of this app, and nowhere else."""

from __future__ import annotations

import re
from posixpath import normpath
from urllib.parse import unquote, urlsplit, urlunsplit

from flask import request

from .extension import installed

#: Bytes of a ``return_to``; it travels in a cookie.
MOST_BYTES = 512
#: What browsers drop from an address or read as a slash, and what names a host.
_UNSAFE = re.compile(r"[\\\x00-\x20\x7f]|^//")


def safe_return_to(value: str | None) -> str:
    """Return a path of this app to go to after login, with query and fragment.

    Args:
        value: Whatever a visitor sent: a path, or a whole address of this app.

    Returns:
        The path, or the app's root for what is foreign, too long, or leads back to
        login, callback or logout.
    """
    root = home()
    if not value or len(value.encode("utf-8", "replace")) > MOST_BYTES:
        return root
    if _UNSAFE.search(value):
        return root
    try:
        parts = urlsplit(value)
    except ValueError:
        return root
    ours = ("", ""), tuple(installed().client.settings.callback[:2])
    path = urlunsplit(("", "", *parts[2:]))
    if parts[:2] not in ours or not path.startswith("/") or path.startswith("//"):
        return root
    return root if _loops(parts.path) else path


def home() -> str:
    """Return the path of the app's root."""
    return f"{request.script_root}/"


def here() -> str:
    """Return the path and query of this request; of a form, the page it was on."""
    if request.method in {"GET", "HEAD"}:
        return urlunsplit(("", "", *urlsplit(request.url)[2:]))
    return safe_return_to(request.referrer)


def _loops(path: str) -> bool:
    own, names = installed(), ("login", "callback", "logout")
    plain = normpath(unquote(path))
    return plain in [normpath(own.path(name)) for name in names]
