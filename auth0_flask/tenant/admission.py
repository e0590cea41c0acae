"""Which authorization requests the tenant takes."""

from __future__ import annotations

from collections.abc import Mapping

from auth0_flask.tenant import urls
from auth0_flask.tenant.authorization import AuthorizationRequest, RequestError, read
from auth0_flask.tenant.provider import Provider


def admit(provider: Provider, query: Mapping[str, str]) -> AuthorizationRequest:
    """Read a request and hold it against what the tenant knows.

    Its client and redirect_uri are known to be right.

    Raises:
        RequestError: If the app has to be told of a mistake.
    """
    asked = read(query)
    if asked.organization and provider.organizations.find(asked.organization) is None:
        raise _invalid(f"the organization {asked.organization} was not found")
    if asked.connection and asked.connection not in provider.connections:
        raise _invalid("the connection was not found")
    if asked.audience and not knows_audience(provider, asked.audience):
        raise RequestError("access_denied", f"Service not found: {asked.audience}")
    return asked


def knows_callback(provider: Provider, url: str) -> bool:
    """Whether a browser may be sent back there."""
    return urls.allowed(url, provider.allowed_callback_urls)


def knows_audience(provider: Provider, audience: str) -> bool:
    """Whether there is such an API: any, unless some are registered."""
    return not provider.audiences or audience in provider.audiences


def _invalid(description: str) -> RequestError:
    return RequestError("invalid_request", description)
