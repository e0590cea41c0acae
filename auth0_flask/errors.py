"""What an app may catch.

``LoginError``
    ``ConfigurationError`` (500): this app or the tenant is set up wrongly.
    ``ProviderRefused`` and ``LoginRefused`` (403): Auth0, or this app, said no.
    ``CheckFailed`` (400): what came back could not be verified.
    ``ProviderDown`` (502): Auth0 cannot be reached, or its answer is invalid.
``StoreUnavailable`` (503): an outage of our own stores.
"""

from __future__ import annotations

import logging
import secrets
import time
from collections.abc import Iterator
from traceback import walk_tb
from typing import Any, ClassVar, TypeVar

import httpx
import jwt
from auth0_server_python import error as sdk
from authlib.integrations.base_client.errors import OAuthError
from flask import Response, current_app, has_request_context, request
from markupsafe import escape
from werkzeug.exceptions import (
    BadGateway,
    BadRequest,
    Forbidden,
    HTTPException,
    InternalServerError,
    ServiceUnavailable,
)

from .settings import SetupError

logger = logging.getLogger(__name__)
E_ = TypeVar("E_", bound=BaseException)

_RETRY_AFTER = 5  # seconds
_AGAIN = "Please sign in again."
_ANOTHER_ACCOUNT = "You can try again, perhaps with another account."
_OPERATOR = "Please tell the operator of this site; its log has the cause."
_LATER = "Please try again in a moment. If you were signed in, you still are."

_NOT_ALLOWED = ("Auth0 refused this request.", _AGAIN)
_NOT_ACCEPTED = ("The code or passkey was refused or expired.", "You can try again.")

#: By code: a sentence for the visitor, and what to do next.
_TEXTS = {
    "setup_incomplete": ("Signing in is not set up on this site yet.", _OPERATOR),
    "client_refused": ("Auth0 does not accept this site's credentials.", _OPERATOR),
    "clocks_differ": ("Auth0's clock and this server's are too far apart.", _OPERATOR),
    "access_denied": (
        "Auth0 did not let you in, or you chose not to share your profile.",
        _ANOTHER_ACCOUNT,
    ),
    "login_refused": ("Auth0 did not complete this sign-in.", "You can try again."),
    "login_required": ("You are not signed in at Auth0.", _AGAIN),
    "consent_required": ("Auth0 needs your consent first.", _AGAIN),
    "interaction_required": ("Auth0 needs to ask you something first.", _AGAIN),
    "account_selection_required": ("Auth0 needs you to choose an account.", _AGAIN),
    "missing_transaction": (
        "This sign-in is unknown here: it took longer than an hour, was already "
        "used, was started in another browser, or its cookie was blocked.",
        _AGAIN,
    ),
    "incomplete_callback": ("The link back from Auth0 is incomplete.", _AGAIN),
    "code_refused": ("This sign-in was used before, or took too long.", _AGAIN),
    "invalid_token": ("Auth0's response could not be verified.", _AGAIN),
    "wrong_organization": ("That is not the organization to sign in with.", _AGAIN),
    "not_fresh": ("Auth0 did not ask you to sign in again.", _AGAIN),
    "not_stepped_up": ("This page needs a stronger sign-in than this one.", _OPERATOR),
    "login_refused_here": ("This site did not let you in.", _ANOTHER_ACCOUNT),
    "session_too_large": (
        "Your account has more data than this site can store in cookies.",
        _OPERATOR,
    ),
    "logged_out_meanwhile": ("You signed out while this sign-in was running.", _AGAIN),
    "login_loop": (
        "You signed in three times within a minute, and were signed out each time.",
        "Your browser may block this site's cookies, or hold old ones of the same "
        "name: delete them. Or you opened this site under another host name than the "
        "one it signs in at, or a clock is wrong. Then wait a minute and try again.",
    ),
    "session_over": ("Your session had expired before it began.", _AGAIN),
    "no_refresh_token": ("This site cannot get an access token for you.", _OPERATOR),
    "another_user": ("This was started for another user.", _AGAIN),
    "signed_out": ("Sign in to see this.", _AGAIN),
    "mfa_required": ("Auth0 requires a second factor.", _AGAIN),
    **dict.fromkeys(("mfa_refused", "passkey_refused"), _NOT_ACCEPTED),
    "passwordless_refused": _NOT_ACCEPTED,
    **dict.fromkeys(("token_refused", "exchange_refused"), _NOT_ALLOWED),
    **dict.fromkeys(("my_account_refused", "request_refused"), _NOT_ALLOWED),
    "provider_unreachable": ("Auth0 cannot be reached right now.", _LATER),
    "provider_unavailable": ("Auth0 cannot sign you in right now.", _LATER),
    "invalid_response": ("Auth0 sent an invalid response.", _LATER),
}


class ClocksDiffer(jwt.InvalidTokenError):
    """A genuine token is from the future, or expired before it arrived."""

    def __init__(self, ahead: int) -> None:
        where = "ahead of" if ahead > 0 else "behind"
        self.error = f"Auth0's clock is {abs(ahead)} seconds {where} this server's"
        super().__init__(self.error)


class ProblemResponse(HTTPException):
    """An error that is a page for people and problem+json for programs."""

    def get_response(self, *args: Any, **kwargs: Any) -> Any:
        """Answer a program as RFC 9457 says, and anybody else with a page."""
        if has_request_context() and prefers_json():
            return problem(self)
        return super().get_response(*args, **kwargs)

    def get_description(self, *args: Any, **kwargs: Any) -> str:
        """Return what Werkzeug's own page says, where the app has none."""
        names = ("hint", "detail", "error", "reference", "login_url")
        hint, detail, error, reference, url = (getattr(self, n, None) for n in names)
        lines = [hint, detail and f"Auth0 said: {detail}"]
        lines.append(f"{error}, reference {reference}" if reference else error)
        more = "".join(f"<p>{escape(line)}</p>" for line in lines if line)
        more += f'<p><a href="{escape(url)}">Sign in</a></p>' if url else ""
        return f"{super().get_description(*args, **kwargs)}\n{more}"


class StoreUnavailable(ProblemResponse, ServiceUnavailable):
    """A store of this site cannot be used; this signs nobody out.

    Its ``__cause__`` is the error of the store, which is logged once a minute.

    Args:
        error: A stable code, such as ``sessions_unavailable``.
        cause: What the store raised.
    """

    title = "Temporarily unavailable"
    description = "This site cannot look up who is signed in right now."
    hint = _LATER
    _logged_at: ClassVar[dict[str, float]] = {}

    def __init__(self, error: str, cause: BaseException) -> None:
        super().__init__(retry_after=_RETRY_AFTER)
        self.error = error
        self.__cause__ = cause
        now = time.monotonic()
        if now - self._logged_at.get(error, -60.0) >= 60:
            self._logged_at[error] = now
            reason = f"{type(cause).__name__}: {cause}"
            logger.error("A store is unavailable (%s): %.300s", error, reason)


class LoginError(ProblemResponse):
    """A login that failed.

    Its ``__cause__`` is what the SDK, httpx or one of our checks raised.

    Attributes:
        error: A stable code for programs.
        description: A sentence for the user.
        hint: What to do next.
        detail: The provider's own words, or None. Escape them.
        reference: Also in the log line, so that the two can be matched.
        app_state: What the login was started with, or None.
        login_url: Where to try again, or None.
    """

    title = "Sign-in failed"
    code: int

    def __init__(self, error: str, *, detail: str | None = None) -> None:
        sentence, self.hint = _TEXTS[error]
        super().__init__(sentence)
        self.error = error
        self.detail = detail[:300] if detail else None
        self.reference = secrets.token_hex(4)
        self.app_state: Any = None
        self.login_url: str | None = None


class ConfigurationError(LoginError, InternalServerError):
    """The app or the tenant is set up wrongly; the log says where."""


class ProviderRefused(LoginError, Forbidden):
    """Auth0 said no."""


class LoginRefused(LoginError, Forbidden):
    """This app refused the login; for receivers of `user_logged_in` to raise.

    Args:
        message: A sentence for the user.
    """

    def __init__(self, message: str) -> None:
        super().__init__("login_refused_here")
        self.description = message


class CheckFailed(LoginError, BadRequest):
    """What came back could not be verified."""


class ProviderDown(LoginError, BadGateway):
    """Auth0 cannot be reached, or its answer is invalid."""

    retry_after = _RETRY_AFTER

    def get_headers(self, *args: Any, **kwargs: Any) -> list[tuple[str, str]]:
        """Say when to try again (RFC 9110 section 10.2.3)."""
        retry = ("Retry-After", str(self.retry_after))
        return [*super().get_headers(*args, **kwargs), retry]


def login_error(error: Exception, *, doing: str = "Login") -> LoginError | None:
    """Return the `LoginError` that stands for an error, logged with its causes.

    None where the error is an HTTPException of another kind, or a bug. No text shows
    a token, a secret or, unescaped, the provider's words.
    """
    links = list(error_chain(error))
    found = _first(links, LoginError) or _classified(links)
    if found is not None:
        logger.log(
            logging.WARNING if (found.code or 500) < 500 else logging.ERROR,
            "%s failed: %s, reference %s, caused by %s",
            *(doing, found.error, found.reference),
            " < ".join(map(_described, links)),
        )
    return found


def prefers_json() -> bool:
    """Tell whether to answer with JSON, rather than with a page."""
    headers, json = request.headers, ("application/json", "application/problem+json")
    return (
        headers.get("Sec-Fetch-Mode", "navigate") != "navigate"
        or headers.get("X-Requested-With") == "XMLHttpRequest"
        or headers.get("Authorization", "").lower().startswith("bearer ")
        or request.is_json
        or request.accept_mimetypes.best_match(["text/html", *json]) in json
    )


def problem(error: HTTPException) -> Response:
    """Return an error as ``application/problem+json`` (RFC 9457)."""
    body = {
        "type": "about:blank",
        "title": error.name,
        "status": error.code,
        "detail": error.description,
        "code": getattr(error, "error", None),
        "reference": getattr(error, "reference", None),
    }
    told = {key: value for key, value in body.items() if value}
    answer = told, error.code or 500, error.get_headers()
    response = current_app.make_response(answer)
    response.mimetype = "application/problem+json"
    return response


def error_chain(error: object) -> Iterator[BaseException]:
    """Go from an exception to its causes, however they are recorded."""
    for _ in range(8):
        if not isinstance(error, BaseException):
            return
        yield error
        error = getattr(error, "cause", None) or error.__cause__ or error.__context__


def _first(links: list[BaseException], *kinds: type[E_]) -> E_ | None:
    return next((link for link in links if isinstance(link, kinds)), None)


class CallbackError(sdk.ApiError):
    """Auth0 sent the browser back with ``error`` (RFC 6749 section 4.1.2.1)."""


#: By what was raised: what stands for it, the first that fits.
_BY_TYPE: dict[type[Exception], tuple[type[LoginError], str]] = {
    SetupError: (ConfigurationError, "setup_incomplete"),
    sdk.ConfigurationError: (ConfigurationError, "setup_incomplete"),
    sdk.MissingTransactionError: (CheckFailed, "missing_transaction"),
    sdk.MissingRequiredArgumentError: (CheckFailed, "incomplete_callback"),
    sdk.OrganizationTokenValidationError: (CheckFailed, "wrong_organization"),
    sdk.SessionExpiredError: (CheckFailed, "session_over"),
    jwt.PyJWTError: (CheckFailed, "invalid_token"),
}
#: By what Auth0 says at the callback: `ProviderRefused` with this code; the first are
#: answers to ``prompt=none`` (OpenID Connect Core section 3.1.2.6).
_AT_CALLBACK = {
    **{n: n for n in ("login_required", "consent_required", "interaction_required")},
    **{n: n for n in ("account_selection_required", "access_denied")},
    "server_error": "provider_unavailable",
    "temporarily_unavailable": "provider_unavailable",
}
#: Codes of the SDK where a check of ours failed.
_OUR_CHECKS = {
    *("jwks_key_not_found", "invalid_signature", "invalid_audience"),
    *("token_expired", "invalid_token", "missing_id_token"),
    *("invalid_issuer", "issuer_validation_error"),
}
#: What else the SDK raises where an answer is not what it should be.
_NONSENSE = AttributeError, KeyError, OverflowError, TypeError, ValueError
#: What the SDK raises where Auth0, or a person, says no; by code first, then by type.
_REFUSED_CODES = {
    "missing_refresh_token": "signed_out",
    "start_link_user_error": "signed_out",
    "mfa_token_expired": "mfa_refused",
    "mfa_token_invalid": "mfa_refused",
    "invalid_argument": "request_refused",
    "unknown_user_id": "login_refused",  # OpenID Connect CIBA section 13
    "invalid_binding_message": "login_refused",
    "timeout": "login_refused",
}
_REFUSED_TYPES: dict[type[Exception], str] = {
    sdk.MfaRequiredError: "mfa_required",
    sdk.MfaApiError: "mfa_refused",
    sdk.PasskeyError: "passkey_refused",
    sdk.PasswordlessStartError: "passwordless_refused",
    sdk.PasswordlessVerifyError: "passwordless_refused",
    sdk.PollingApiError: "login_refused",
    sdk.AccessTokenError: "token_refused",
    sdk.AccessTokenForConnectionError: "token_refused",
    sdk.CustomTokenExchangeError: "exchange_refused",
    sdk.MyAccountApiError: "my_account_refused",
    sdk.AnonymousSessionError: "request_refused",
}
#: Codes of the SDK for an answer that is none of OAuth's, and of OAuth for trouble.
OUTAGES = {
    *("refresh_token_error", "connection_token_error", "configuration_error"),
    *("metadata_error", "server_error", "temporarily_unavailable"),
}
_NO_REFUSALS = {*OUTAGES, "invalid_client", "unauthorized_client"}


def _classified(links: list[BaseException]) -> LoginError | None:
    error = links[0]
    if _first(links, HTTPException):
        return None
    if clocks := _first(links, ClocksDiffer):
        wrong = ConfigurationError("clocks_differ")
        wrong.description = f"{clocks.error}, which is most likely the wrong one."
        return wrong
    for kind, (make, code) in _BY_TYPE.items():
        if _first(links, kind):
            return make(code)
    if isinstance(error, CallbackError):  # anybody can make up its words
        code = _AT_CALLBACK.get(error.code, "login_refused")
        return ProviderRefused(code, detail=error.message)
    if lost := _first(links, httpx.HTTPError, TimeoutError):
        down = ProviderDown("provider_unreachable")
        answer = getattr(lost, "response", None) or httpx.Response(502)
        if (seconds := answer.headers.get("Retry-After", "")).isdecimal():
            down.retry_after = min(int(seconds), 3600)
        return down
    if refusal := _first(links, OAuthError):
        return _by_oauth(str(refusal.error))
    return _by_code(links)


def _by_code(links: list[BaseException]) -> LoginError | None:
    codes = [str(getattr(link, "code", "")) for link in links]
    if not _OUR_CHECKS.isdisjoint(codes):
        return CheckFailed("invalid_token")
    if not isinstance(links[0], (sdk.Auth0Error, *_NONSENSE)):
        return None
    refused = [_REFUSED_CODES[code] for code in codes if code in _REFUSED_CODES]
    # an error of another kind was raised where the SDK could not read an answer
    is_answer = all(isinstance(link, sdk.Auth0Error) for link in links)
    if is_answer and codes[-1] not in _NO_REFUSALS:
        refused += [c for kind, c in _REFUSED_TYPES.items() if _first(links, kind)]
    return ProviderRefused(refused[0]) if refused else _by_oauth(codes[-1])


def _by_oauth(code: str) -> LoginError:
    """Classify a code of the token endpoint (RFC 6749 section 5.2)."""
    if code == "invalid_grant":
        return CheckFailed("code_refused")
    if code in {"invalid_client", "unauthorized_client", "access_denied"}:
        return ConfigurationError("client_refused")  # Auth0 has the last for a secret
    return ProviderDown("invalid_response")


def _described(error: BaseException) -> str:
    """Name an exception and its place; not its text, which may hold a token."""
    name = "code" if isinstance(error, sdk.Auth0Error) else "error"
    code = getattr(error, name, None)
    place = ""
    for frame, line in walk_tb(error.__traceback__):
        place = f" at {frame.f_code.co_name}:{line}"
    return f"{type(error).__name__}{f'({code!r:.60})' if code else ''}{place}"
