"""Pushed authorization requests (RFC 9126)."""

from __future__ import annotations

from collections.abc import Mapping

from flask import Blueprint
from werkzeug.wrappers import Response

from auth0_flask.tenant.admission import admit, knows_callback
from auth0_flask.tenant.authorization import RequestError
from auth0_flask.tenant.client_authentication import CREDENTIALS, authenticate
from auth0_flask.tenant.messages import (
    TokenError,
    invalid_request,
    parameters,
    private,
    refuse,
)
from auth0_flask.tenant.provider import Provider

_PREFIX = "urn:ietf:params:oauth:request_uri:"


class PushedRequests:
    """The endpoint that apps push their requests to."""

    def __init__(self, provider: Provider) -> None:
        """Take requests for this provider."""
        self._provider = provider

    def blueprint(self) -> Blueprint:
        """Return the route."""
        routes = Blueprint("pushed", __name__)
        routes.add_url_rule("/oauth/par", view_func=self.push, methods=["POST"])
        routes.register_error_handler(TokenError, refuse)
        return routes

    def push(self) -> Response:
        """Keep a request and return its name (RFC 9126, section 2.2)."""
        form = parameters()
        authenticate(self._provider, form)
        query = {name: form[name] for name in form.keys() - CREDENTIALS}
        _check(self._provider, query)
        pushed = self._provider.directory.pushed
        answer = private(
            {
                "request_uri": _PREFIX + pushed.put(query),
                "expires_in": int(pushed.lifetime),
            }
        )
        answer.status_code = 201
        return answer


def take(provider: Provider, request_uri: str) -> Mapping[str, str] | None:
    """Return the request of this name, which is good once, or None."""
    if not request_uri.startswith(_PREFIX):
        return None
    return provider.directory.pushed.take(request_uri.removeprefix(_PREFIX))


def _check(provider: Provider, query: Mapping[str, str]) -> None:
    """Check a request as if it came by a browser (RFC 9126, section 2.1)."""
    if "request_uri" in query:
        raise invalid_request("A pushed request cannot name another")
    if query.get("client_id", provider.client_id) != provider.client_id:
        raise invalid_request("The client_id is another client's")
    if not knows_callback(provider, query.get("redirect_uri", "")):
        raise invalid_request("The redirect_uri is not among the allowed callback URLs")
    try:
        admit(provider, query)
    except RequestError as error:
        raise TokenError(400, error.error, error.description) from error
