"""What can go wrong, in four kinds, and the one place that tells them apart."""

from __future__ import annotations

import logging
import secrets
from collections.abc import Iterator
from typing import Any, TypeVar, cast

import httpx
import jwt
from auth0_server_python.error import (
    ApiError,
    Auth0Error,
    IssuerValidationError,
    MissingRequiredArgumentError,
    MissingTransactionError,
    OrganizationTokenValidationError,
    SessionExpiredError,
)
from authlib.integrations.base_client.errors import OAuthError
from flask import Response, has_request_context, jsonify, request
from markupsafe import escape
from werkzeug.exceptions import (
    BadGateway,
    BadRequest,
    Forbidden,
    HTTPException,
    InternalServerError,
)

from .settings import SetupError

logger = logging.getLogger(__name__)
E_ = TypeVar("E_", bound=BaseException)

#: Seconds after which a visitor may try again what is down.
RETRY_AFTER = 5

_AGAIN = "Please sign in again."
_OPERATOR = "Please tell whoever runs this site; they find the cause in its log."
_LATER = "Please try again in a moment. If you were signed in, you still are."

#: By code: a sentence for the visitor, and what to do next.
_TEXTS = {
    "setup_incomplete": ("Signing in is not set up on this site yet.", _OPERATOR),
    "client_refused": ("Auth0 does not accept this site's credentials.", _OPERATOR),
    "clocks_differ": ("Auth0's clock and this server's are too far apart.", _OPERATOR),
    "access_denied": (
        "Auth0 did not let you in, or you chose not to share your profile.",
        "You can try again, perhaps with another account.",
    ),
    "login_refused": ("Auth0 did not complete this sign-in.", "You can try again."),
    "missing_transaction": (
        "This sign-in is unknown here: it took longer than an hour, was already "
        "used, was begun in another browser, or its cookie was blocked.",
        _AGAIN,
    ),
    "incomplete_callback": ("The address you came back with is incomplete.", _AGAIN),
    "code_refused": ("This sign-in was used before, or took too long.", _AGAIN),
    "invalid_token": ("What Auth0 sent does not hold up to our checks.", _AGAIN),
    "wrong_organization": ("That is not the organization to sign in with.", _AGAIN),
    "not_fresh": ("Auth0 did not ask you again who you are.", _AGAIN),
    "login_refused_here": ("This site did not let you in.", _AGAIN),
    "session_over": ("Your session was over before it began.", _AGAIN),
    "provider_unreachable": ("Auth0 does not answer right now.", _LATER),
    "provider_unavailable": ("Auth0 cannot sign you in right now.", _LATER),
    "unexpected_answer": ("Auth0 sent an answer that makes no sense.", _LATER),
}


class ClocksDiffer(jwt.InvalidTokenError):
    """A genuine token is from the future, or has run out on its way here.

    Attributes:
        error: By how much the clocks differ, in words.
    """

    def __init__(self, ahead: int) -> None:
        where = "ahead of" if ahead > 0 else "behind"
        self.error = f"Auth0's clock is {abs(ahead)} seconds {where} this server's"
        super().__init__(self.error)


class ForBoth(HTTPException):
    """An error that answers programs and people, each in their way."""

    def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a program as RFC 9457 says, and anybody else with a page."""
        if has_request_context() and prefers_json():
            return problem(self)
        return super().get_response(*args, **kwargs)


class LoginError(ForBoth):
    """A login that cannot go on; `explain` makes one of everything else.

    Attributes:
        error: A stable code for programs.
        description: A sentence for the visitor.
        hint: What to do next.
        detail: The provider's own words, or None. Escape them.
        reference: Also in the log line, so that the two can be matched.
        app_state: What the login was started with, or None.
    """

    title = "That sign-in did not work"

    def __init__(self, error: str, *, detail: str | None = None) -> None:
        sentence, self.hint = _TEXTS[error]
        super().__init__(sentence)
        self.error = error
        self.detail = detail[:300] if detail else None
        self.reference = secrets.token_hex(4)
        self.app_state: Any = None
        self.is_logged = False

    def get_description(self, *args: Any, **kwargs: Any) -> str:
        """Return what Werkzeug's own page says, where the app has none of its own."""
        lines = [self.hint, self.detail and f"Auth0 said: {self.detail}"]
        lines.append(f"{self.error}, reference {self.reference}")
        more = "".join(f"<p>{escape(line)}</p>" for line in lines if line)
        return f"{super().get_description(*args, **kwargs)}\n{more}"


class WrongSetup(LoginError, InternalServerError):
    """The app or the tenant is set up wrongly; the log says where."""


class ProviderRefused(LoginError, Forbidden):
    """Auth0 said no."""


class LoginRefused(LoginError, Forbidden):
    """This app said no: for receivers of `user_logged_in` to raise.

    Args:
        message: A sentence for the visitor.
    """

    def __init__(self, message: str) -> None:
        super().__init__("login_refused_here")
        self.description = message


class CheckFailed(LoginError, BadRequest):
    """What came back does not hold up to our checks."""


class ProviderDown(LoginError, BadGateway):
    """Auth0 cannot be reached, or answers nonsense."""

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        """Say when to try again."""
        retry = ("Retry-After", str(RETRY_AFTER))
        return [*super().get_headers(*args, **kwargs), retry]


_OUR_CHECKS = {
    "jwks_key_not_found",
    "invalid_signature",
    "invalid_audience",
    "token_expired",
    "invalid_token",
    "missing_id_token",
}
_NONSENSE = {
    "metadata_error",
    "jwks_fetch_error",
    "missing_jwks_uri",
    "authorization_url_error",
    "invalid_response",
    "configuration_error",
}
_BY_TYPE: list[tuple[type[Exception], type[LoginError], str]] = [
    (SetupError, WrongSetup, "setup_incomplete"),
    (MissingTransactionError, CheckFailed, "missing_transaction"),
    (MissingRequiredArgumentError, CheckFailed, "incomplete_callback"),
    (IssuerValidationError, CheckFailed, "invalid_token"),
    (OrganizationTokenValidationError, CheckFailed, "wrong_organization"),
    (SessionExpiredError, CheckFailed, "session_over"),
]
#: What comes out of the SDK where an answer is not what it should be.
_NONSENSE_RAISES = (Auth0Error, KeyError, ValueError, TypeError, AttributeError)
_BAD_CREDENTIALS = {"invalid_client", "unauthorized_client", "access_denied"}


def explain(error: Exception, *, doing: str = "Login") -> HTTPException:
    """Turn whatever a login raises into one of the four kinds, and log it.

    Args:
        error: What the SDK, httpx or a check of ours raised. An HTTP exception is
            returned as it is.
        doing: What failed, for the log.

    Returns:
        What to raise. Its text and the log line have the same reference, and
        neither shows a token, a secret or, unescaped, the provider's words.

    Raises:
        Exception: The error itself, where it is none of a login but a bug.
    """
    if isinstance(error, HTTPException):
        if isinstance(error, LoginError):
            _log(error, error, doing)
        return error
    if (known := getattr(error, "explained", None)) is not None:
        return cast(HTTPException, known)
    explained = _kind(error)
    error.explained = explained  # type: ignore[attr-defined]  # to be logged once
    explained.app_state = getattr(error, "app_state", None)
    _log(explained, error, doing)
    return explained


def _log(explained: LoginError, cause: Exception, doing: str) -> None:
    """Log a failed login once, however often it is asked about."""
    if explained.is_logged:
        return
    explained.is_logged = True
    logger.log(
        logging.WARNING if (explained.code or 500) < 500 else logging.ERROR,
        "%s failed: %s, reference %s, caused by %s",
        doing,
        explained.error,
        explained.reference,
        " < ".join(_describe(link) for link in _chain(cause)),
    )


def prefers_json() -> bool:
    """Tell whether a program asks, rather than a browser going to a page."""
    if request.headers.get("Sec-Fetch-Mode", "navigate") != "navigate":
        return True
    if request.headers.get("X-Requested-With") == "XMLHttpRequest":
        return True
    if request.headers.get("Authorization", "").lower().startswith("bearer "):
        return True
    json = ("application/json", "application/problem+json")
    return request.accept_mimetypes.best_match(["text/html", *json]) in json


def problem(error: HTTPException) -> Response:
    """Answer as ``application/problem+json`` (RFC 9457)."""
    body = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code,
        "detail": error.description,
        "code": getattr(error, "error", None),
        "reference": getattr(error, "reference", None),
    }
    response = jsonify({key: value for key, value in body.items() if value})
    response.status_code = error.code or 500
    for key, value in error.get_headers():
        if key.lower() != "content-type":
            response.headers[key] = value
    response.mimetype = "application/problem+json"
    return response


def _kind(error: Exception) -> LoginError:
    for kind, make, code in _BY_TYPE:
        if isinstance(error, kind):
            return make(code)
    if _first(error, httpx.HTTPError):
        return ProviderDown("provider_unreachable")
    if refusal := _first(error, OAuthError):
        return _token_endpoint_refused(str(refusal.error))
    if clocks := _first(error, ClocksDiffer):
        explained = WrongSetup("clocks_differ")
        explained.description = f"{clocks.error}, which is most likely the wrong one."
        return explained
    if isinstance(error, ApiError):
        return _api_error(error)
    if isinstance(error, _NONSENSE_RAISES):
        return ProviderDown("unexpected_answer")
    raise error


def _token_endpoint_refused(error: str) -> LoginError:
    """RFC 6749 section 5.2; a wrong secret is ``access_denied`` to Auth0."""
    if error == "invalid_grant":
        return CheckFailed("code_refused")
    if error in _BAD_CREDENTIALS:
        return WrongSetup("client_refused")
    return ProviderDown("unexpected_answer")


def _api_error(error: ApiError) -> LoginError:
    """The SDK's own codes first; what is left came with the callback."""
    if error.code in _OUR_CHECKS:
        return CheckFailed("invalid_token")
    if error.code in _NONSENSE:
        return ProviderDown("unexpected_answer")
    if getattr(error, "asked_directly", False):
        return _token_endpoint_refused(error.code)
    if error.code in {"server_error", "temporarily_unavailable"}:
        return ProviderDown("provider_unavailable")
    code = "access_denied" if error.code == "access_denied" else "login_refused"
    return ProviderRefused(code, detail=str(error.message or ""))


def _chain(error: BaseException) -> Iterator[BaseException]:
    """Go from an exception to what caused it, whichever way that was noted."""
    cause: BaseException | None = error
    for _ in range(8):
        if not isinstance(cause, BaseException):
            return
        yield cause
        noted = getattr(cause, "cause", None)
        cause = noted or cause.__cause__ or cause.__context__


def _first(error: BaseException, kind: type[E_]) -> E_ | None:
    return next((cause for cause in _chain(error) if isinstance(cause, kind)), None)


def _describe(error: BaseException) -> str:
    """Name an exception and its place; not its text, which may hold a token."""
    code = getattr(error, "code" if isinstance(error, Auth0Error) else "error", None)
    frame = error.__traceback__
    while frame and frame.tb_next:
        frame = frame.tb_next
    place = f" at {frame.tb_frame.f_code.co_name}:{frame.tb_lineno}" if frame else ""
    return f"{type(error).__name__}{f'({code!r:.60})' if code else ''}{place}"
