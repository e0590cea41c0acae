"""JSON responses of the back channel, and its errors."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import jsonify, request
from werkzeug.wrappers import Response


class TokenError(Exception):
    """An error response (RFC 6749, section 5.2) with its HTTP status."""

    def __init__(self, status: int, error: str, description: str, **more: Any) -> None:
        super().__init__(description)
        self.status = status
        self.document = {"error": error, "error_description": description, **more}


def bad_request(description: str) -> TokenError:
    """Return the error for an invalid request."""
    return TokenError(400, "invalid_request", description)


def invalid_grant(description: str) -> TokenError:
    """Return the error for an invalid code or refresh token; Auth0 sends a 403."""
    return TokenError(403, "invalid_grant", description)


def error_response(error: TokenError) -> Response:
    """Return the response for an error."""
    response = as_json(error.document, error.status)
    if error.status == 401 and request.authorization is not None:
        response.headers["WWW-Authenticate"] = 'Basic realm="tenant"'
    return response


def as_json(
    document: Mapping[str, Any] | list[Any], status: int = 200, cache: str = "no-store"
) -> Response:
    """Return a JSON response; ``cache`` is its Cache-Control header."""
    response = jsonify(document)
    response.status_code = status
    response.headers["Cache-Control"] = cache
    return response
