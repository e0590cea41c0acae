"""What the stores are built on: a request's state, outages, encryption, claims."""

from __future__ import annotations

import json
import logging
import time
from asyncio import Timeout
from base64 import urlsafe_b64decode
from collections.abc import Mapping, Sequence
from contextlib import suppress
from itertools import chain, islice
from traceback import walk_stack, walk_tb
from types import MappingProxyType, TracebackType
from typing import Any

from auth0_server_python.store.abstract import AbstractDataStore
from flask import Flask, Response, request, session
from pydantic import BaseModel

from auth0_flask.errors import ConfigurationError, StoreUnavailable

from .cookies import is_ours
from .encryption import DecryptionError, Json, decrypt, encrypt, read_json

logger = logging.getLogger(__name__)

#: Seconds after which a request counts as slow.
_SLOW_SECONDS = 1.0
_NESTED = (list, dict)
_OF_A_PAGE = "Location Cache-Control Expires ETag Content-Encoding Content-Disposition"


class RequestState:
    """What one request knows of its session; gone when the request is."""

    began_at = 0.0  # on the monotonic clock
    # the session that was decrypted and checked
    encrypted: object = None  # the value of ``flask.session`` that it stands in
    session: Json | None = None
    copy: Json | None = None  # for views, made once
    passive = False  # the request does not count as use of it
    outage: StoreUnavailable | None = None  # it could not be looked up
    # when it was ended, by the names in Redis of what may have ended it
    ended: Json | None = None
    # a login that is being completed
    began: float | None = None  # in seconds since 1970
    timeout: Timeout | None = None  # for what Auth0 has to answer
    transaction: str | None = None  # its identifier
    nonce: str | None = None  # what the next ID token has to carry
    wanted: Mapping[str, Any] = MappingProxyType({})  # what it was started with
    verified: Mapping[str, Json] = MappingProxyType({})  # claims, by ID token
    links = False  # it is an account that is linked, and the session stays
    receiver_error: Exception | None = None  # of a receiver of `user_logged_in`
    # a refresh
    refresh: Mapping[str, Any] | None = None  # what the newest one brought
    renewing: float | None = None  # it has to be new: when it began, at the earliest
    refreshed = False  # this request asked Auth0 for it
    seen: frozenset[str] = frozenset()  # the tokens of sessions that it replaced
    brought: frozenset[str] = frozenset()  # the tokens that this request obtained
    has_ended = False  # this request has ended sessions, perhaps its own
    # a response
    logout_incomplete = False  # a session was ended in this browser only
    never_redirect = False  # a browser gets 401, too
    forgot_rounds = False  # the cookie that counts logins, if it came
    responded = False  # it is made, so that no cookie can be added
    is_outage_page = False  # it could not be kept, and says so instead


def request_state() -> RequestState:
    """Return the state of the current request.

    It is kept on the request object, not in ``flask.g``, which outlives a request
    where an app context is held open.
    """
    state: RequestState | None = getattr(request, "_auth0_state", None)
    if state is None:
        state = RequestState()
        state.began_at = time.monotonic()
        request._auth0_state = state  # type: ignore[attr-defined]  # ours
    return state


def is_slow(known: RequestState) -> bool:
    """Tell whether other requests may have changed the session since this one came."""
    return time.monotonic() - known.began_at >= _SLOW_SECONDS


def is_answering(handled: TracebackType | None) -> bool:
    """Tell whether Flask answers an error, or has the response already.

    An outage is not to be raised there: it would become a 500.

    Args:
        handled: Of the error that was being handled where this began.
    """
    if request_state().is_outage_page:
        return True
    frames = islice(walk_tb(handled), 2)  # perhaps of an async handler
    names = (str(frame.f_globals.get("__name__")) for frame, _ in frames)
    if next((n for n in names if not n.startswith("asgiref.")), "") == "flask.app":
        return True
    after = Flask.process_response.__code__
    return any(frame.f_code is after for frame, _ in walk_stack(None))


def answer_instead(app: Flask, response: Response, error: StoreUnavailable) -> None:
    """Answer with the page for an outage: the session could not be stored."""
    request_state().is_outage_page = True
    page = app.make_response(app.handle_user_exception(error))
    response.status_code, response.data = page.status_code, page.data
    for name in _OF_A_PAGE.split():
        response.headers.remove(name)
    kept = {n: v for n, v in page.headers if n in {"Content-Type", "Retry-After"}}
    response.headers.update(kept)


class EncryptedStore(AbstractDataStore[Any]):
    """Encrypts with our JWE instead of the SDK's; the newest secret comes first."""

    def __init__(self, *, secrets: Sequence[str]) -> None:
        super().__init__({"secret": secrets[0]})
        self._secrets = tuple(secrets)

    def encrypt(self, identifier: str, state_data: Mapping[str, Any]) -> str:
        """Encrypt under the newest secret."""
        return encrypt(identifier, state_data, self._secrets)

    def decrypt(self, identifier: str, encrypted_data: object) -> Json:
        """Decrypt what was encrypted for this identifier, or raise DecryptionError."""
        return decrypt(identifier, encrypted_data, self._secrets)

    def read(self, key: str) -> Json | None:
        """Decrypt an entry of ``flask.session``, or return None."""
        with suppress(DecryptionError):
            return self.decrypt(key, session.get(key))
        return None


class SessionTooLarge(ConfigurationError):
    """A session or a transaction does not fit into cookies.

    Attributes:
        parts: The three heaviest parts, each as (name, bytes).
    """

    title = "Session too large"

    def __init__(self, state: Mapping[str, Any], excess: float) -> None:
        super().__init__("session_too_large")
        parts = {f"claim {n}": v for n, v in (state.get("user") or {}).items()}
        sets = state.get("token_sets", []), state.get("connection_token_sets", [])
        for tokens in chain(*sets):
            name = tokens.get("connection") or tokens["audience"]
            parts[f"access token for {name}"] = tokens.get("access_token")
        parts |= {n: state.get(n) for n in ("id_token", "refresh_token", "app_state")}
        parts |= {f"session[{k!r}]": v for k, v in session.items() if not is_ours(k)}
        sizes = [(n, len(json.dumps(v, default=str))) for n, v in parts.items() if v]
        self.parts = sorted(sizes, key=lambda part: -part[1])[:3]
        named = ", ".join(f"{name} ({size} bytes)" for name, size in self.parts)
        self.hint = (
            f"The largest parts are {named}. The operator of this site can ask for "
            "fewer claims or a smaller token, or set AUTH0_REDIS_URL, which moves "
            "sessions out of cookies."
        )
        logger.error("A session is %.0f bytes too large. %s", excess, self.hint)


def as_dict(state: Mapping[str, Any] | BaseModel) -> Json:
    """Return what the SDK hands over as a dict of its own."""
    if isinstance(state, BaseModel):
        return state.model_dump(exclude_none=True)
    return dict(state)


def copy_json(value: Any) -> Any:
    """Copy what JSON can hold, several times as fast as `copy.deepcopy`."""
    if isinstance(value, dict):
        pairs = value.items()  # most are no containers, and a call costs more
        return {k: copy_json(v) if isinstance(v, _NESTED) else v for k, v in pairs}
    if isinstance(value, list):
        return [copy_json(v) if isinstance(v, _NESTED) else v for v in value]
    return value


def drop_duplicate_claims(data: Json) -> Json:
    """Return a state without ``user`` where its ID token says exactly the same."""
    user = data.get("user")
    if user is None or user != _claims(data.get("id_token")):
        return data
    with suppress(UnicodeEncodeError):  # encryption would replace a lone surrogate
        json.dumps(user, ensure_ascii=False).encode()
        return {name: value for name, value in data.items() if name != "user"}
    return data


def restore_claims(data: Json) -> Json:
    """Return a state with ``user``; the ID token was verified before it was kept."""
    if "user" not in data and "id_token" in data:
        data["user"] = _claims(data["id_token"])
    return data


def _claims(id_token: Any) -> Any:
    """Return the claims of an ID token, or None (RFC 7519 section 7.2)."""
    try:
        claims = read_json(urlsafe_b64decode(id_token.split(".")[1] + "=="))
        claims.pop("nonce", None)  # it is no claim of the user's
        return claims
    except (AttributeError, IndexError, TypeError, ValueError):
        return None
