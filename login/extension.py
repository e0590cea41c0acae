"""What `init_app` leaves in an app, and where everything else finds it."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from flask import current_app, url_for
from werkzeug.routing import BuildError

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

    def path(self, name: str, **values: object) -> str:
        """Return where ``login``, ``callback`` or ``logout`` is.

        Raises:
            RuntimeError: There is no such endpoint.
        """
        endpoint = getattr(self, name)
        try:
            return url_for(endpoint, **values)  # type: ignore[arg-type]  # of a query
        except BuildError:
            if endpoint in current_app.view_functions:
                raise
            cure = f'auth.init_app(app, {name}="...")'
            what = f"The app has no endpoint {endpoint!r}. Name the one it has"
            raise RuntimeError(f"{what}: {cure}") from None


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
