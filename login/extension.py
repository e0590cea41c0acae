"""What `init_app` leaves in an app, and where everything else finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app

if TYPE_CHECKING:
    from .client import Auth0Client

KEY = "auth0"


@dataclass(frozen=True, kw_only=True)
class Installed:
    """The client of an app, and the names of its three endpoints."""

    client: Auth0Client
    login: str
    callback: str
    logout: str


def installed() -> Installed:
    """Return what `init_app` left in the current app.

    Raises:
        RuntimeError: ``init_app(app)`` was not called.
    """
    try:
        extension: Installed = current_app.extensions[KEY]
    except KeyError:
        raise RuntimeError("Call auth.init_app(app) where the app is made.") from None
    return extension
