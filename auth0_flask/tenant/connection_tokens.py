"""Access tokens of the services that users signed in through (Token Vault)."""

from __future__ import annotations

import secrets
from collections.abc import Collection, Mapping
from typing import Any

from auth0_flask.tenant.messages import invalid_request, required

GRANT_TYPE = (
    "urn:auth0:params:oauth:grant-type:token-exchange:federated-connection-access-token"
)

# RFC 8693, section 3, names the first; the second is Auth0's own.
_REFRESH_TOKEN = "urn:ietf:params:oauth:token-type:refresh_token"  # noqa: S105  # a name
_CONNECTION_TOKEN = (
    "http://auth0.com/oauth/token-type/federated-connection-access-token"  # noqa: S105  # another
)
_LIFETIME = 3600


def check(form: Mapping[str, str], connections: Collection[str]) -> None:
    """Check a request but for the refresh token that it shows.

    Raises:
        TokenError: If something is missing or wrong.
    """
    required(form, "subject_token")
    if required(form, "subject_token_type") != _REFRESH_TOKEN:
        raise invalid_request("The subject token has to be a refresh token")
    if required(form, "requested_token_type") != _CONNECTION_TOKEN:
        raise invalid_request("There are only access tokens of connections to ask for")
    if required(form, "connection") not in connections:
        raise invalid_request("the connection was not found")


def answer(connection: str) -> dict[str, Any]:
    """Return the answer, in the form of RFC 8693, section 2.2.1."""
    return {
        "access_token": f"{connection}-token-{secrets.token_urlsafe(16)}",
        "issued_token_type": _CONNECTION_TOKEN,
        "token_type": "Bearer",
        "expires_in": _LIFETIME,
        "scope": "openid profile email",
    }
