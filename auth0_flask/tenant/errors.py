"""Answers of the back channel, as JSON, and its refusals."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from flask import jsonify, request
from werkzeug.wrappers import Response


class TokenError(Exception):
    """A refusal in the form of RFC 6749, section 5.2, with its HTTP status."""

    def __init__(self, status: int, error: str, description: str, **more: Any) -> None:
        super().__init__(description)
        self.status = status
        self.document = {"error": error, "error_description": description, **more}


def bad_request(description: str) -> TokenError:
    """Return the refusal of a request that is not in order."""
    return TokenError(400, "invalid_request", description)


def invalid_grant(description: str) -> TokenError:
    """Return the refusal of a code or refresh token; Auth0 makes it a 403."""
    return TokenError(403, "invalid_grant", description)


def refuse(error: TokenError) -> Response:
    """Answer with a refusal."""
    answer = private(error.document, error.status)
    if error.status == 401 and request.authorization is not None:
        answer.headers["WWW-Authenticate"] = 'Basic realm="tenant"'
    return answer


def private(
    document: Mapping[str, Any] | list[Any], status: int = 200, keep: str = "no-store"
) -> Response:
    """Answer with what only the one who asked may keep, unless ``keep`` says more."""
    answer = jsonify(document)
    answer.status_code = status
    answer.headers["Cache-Control"] = keep
    return answer
