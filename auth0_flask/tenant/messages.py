"""Requests to the back channel and the answers to them, as JSON."""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any, TypeVar

from flask import jsonify, request
from werkzeug.wrappers import Response

T = TypeVar("T")


class TokenError(Exception):
    """A refusal in the form of RFC 6749, section 5.2."""

    def __init__(self, status: int, error: str, description: str, **more: Any) -> None:
        """Take the HTTP status, the error code, a sentence about it and the rest."""
        super().__init__(description)
        self.status = status
        self.document = {"error": error, "error_description": description, **more}


def parameters() -> dict[str, str]:
    """Return the parameters of the present request.

    Raises:
        TokenError: If its body is JSON, but not an object.
    """
    # Auth0 takes JSON as well as the form of RFC 6749.
    if not request.is_json:
        return request.form.to_dict()
    document = request.get_json(silent=True)
    if not isinstance(document, dict):
        raise bad_request("The body is not a JSON object")
    return {
        name: value if isinstance(value, str) else json.dumps(value)
        for name, value in document.items()
    }


def required(form: Mapping[str, str], name: str) -> str:
    """Return a parameter that has to be there.

    Raises:
        TokenError: If it is not.
    """
    if not form.get(name):
        raise bad_request(f"Missing required parameter: {name}")
    return form[name]


def structure(form: Mapping[str, str], name: str, kind: type[T]) -> T:
    """Return a parameter that is a JSON object or list, empty where it is not there.

    Raises:
        TokenError: If it is something else.
    """
    try:
        value = json.loads(form[name]) if form.get(name) else kind()
    except ValueError:
        value = None
    if not isinstance(value, kind):
        raise bad_request(f"{name} is not a JSON {kind.__name__}")
    return value


def bearer() -> str:
    """Return the token from where RFC 6750, sections 2.1 and 2.2, put it."""
    header = request.authorization
    if header is not None and header.type == "bearer":
        return header.token or ""
    return request.form.get("access_token", "")


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


def private(document: Mapping[str, Any] | list[Any], status: int = 200) -> Response:
    """Answer with what only the one who asked may keep."""
    answer = jsonify(document)
    answer.status_code = status
    answer.headers["Cache-Control"] = "no-store"
    return answer


def public(document: Mapping[str, Any]) -> Response:
    """Answer with what anybody may keep for a moment."""
    answer = jsonify(document)
    answer.headers["Cache-Control"] = "public, max-age=15"
    return answer
